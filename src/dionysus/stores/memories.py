"""Memories in SQLite, and the index that finds them by their words.

The index is ours, not FTS5's, because recall wants to know which word hit where. For each word and each block of 4,096
memory ids it has one row of fixed-size entries, so that a memory is added by appending, a word is read with one query
of few rows, and what is read needs no parsing. It is written in the transaction of the memory itself: another process
sees both or neither, and so does who comes after a `kill -9`.
"""

import hashlib
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dionysus.errors import BadInput, StoreError
from dionysus.stores.codec import to_us
from dionysus.stores.contract import Filter, Memory, NewMemory
from dionysus.stores.database import Database
from dionysus.words import stems

BLOCK = 4096
"""Ids that one row of postings covers."""
ENTRY = struct.Struct("<HBH")
"""An entry: the memory's id within its block, times of the word (255 at most), words of the memory (65,535 at most)."""
_FORM = 1
"""Another number has every index built again: change it with `terms_of`, `dionysus.words` or the entries."""
_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Candidate:
    """What scoring needs to know of a memory."""

    id: int
    basin_id: int | None
    turn: int | None
    at: int
    """Microseconds since 1970, UTC."""
    actor: str
    text: str
    """Its beginning."""
    vectors: bytes | None
    """As the embedder made them; None: it has not yet."""


def terms_of(memory: NewMemory | Memory) -> list[str]:
    """The words that a memory is found by: those of its text and of its actor's name, stemmed."""
    return [*stems(memory.actor), *stems(memory.text)]


class Memories:
    """Verbs on what is remembered. Raises `StoreError` throughout."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._checked = False

    def transaction(self) -> AbstractContextManager[None]:
        """Several verbs, all or nothing."""
        return self._db.transaction()

    @property
    def in_transaction(self) -> bool:
        """Whether what is written now may still be rolled back, and others wait for it."""
        return self._db.in_transaction

    # -- writing ---------------------------------------------------------------------------------------

    def add(self, new: Sequence[NewMemory]) -> list[int]:
        """Keeps memories, all or none; one of the same place and source as a known one takes its place and id.

        Returns:
            Their ids, in the order given.
        """
        self.check_index()
        with self._db.transaction():
            turns: dict[int, int] = {}
            ids, entries = [], _Entries()
            for memory in new:
                known = self._db.rows(
                    "SELECT id FROM memories WHERE place = ? AND source = ?", (memory.place, memory.source)
                )
                if known:
                    self._index(entries)
                    entries = _Entries()
                    self._remove([known[0]["id"]])
                number = self._insert(memory, known[0]["id"] if known else None, turns)
                entries.add(number, terms_of(memory))
                if not memory.in_turn:
                    self._db.write("INSERT INTO sayings VALUES (?, ?)", (_saying(memory), number))
                ids.append(number)
            self._index(entries)
        return ids

    def _insert(self, memory: NewMemory, number: int | None, turns: dict[int, int]) -> int:
        turn = None
        if memory.basin_id is not None and memory.in_turn:
            if memory.basin_id not in turns:
                rows = self._db.rows("SELECT max(turn) FROM memories WHERE basin_id = ?", (memory.basin_id,))
                turns[memory.basin_id] = -1 if rows[0][0] is None else rows[0][0]
            turn = turns[memory.basin_id] = turns[memory.basin_id] + 1
        values = (
            number, memory.kind, memory.text, to_us(memory.at), memory.source, memory.place, memory.basin_id,
            memory.run_id, memory.step, memory.actor, json.dumps(list(memory.tags)), turn,
        )  # fmt: skip
        if memory.actor:
            self._db.write("INSERT OR IGNORE INTO actors VALUES (?, ?)", (memory.actor.casefold(), memory.actor))
        return self._db.write(
            "INSERT INTO memories (id, kind, text, at, source, place, basin_id, run_id, step, actor, tags, turn) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            values,
        )

    def remove(self, ids: Iterable[int]) -> int:
        """Takes memories out, with their words and vectors; returns how many there were."""
        self.check_index()
        with self._db.transaction():
            return self._remove(list(ids))

    def _remove(self, ids: Sequence[int]) -> int:
        found = self.get(list(dict.fromkeys(ids)))
        leaving: dict[tuple[str, int], set[int]] = defaultdict(set)
        words = 0
        for memory in found:
            terms = terms_of(memory)
            words += len(terms)
            for term in set(terms):
                leaving[term, memory.id // BLOCK].add(memory.id % BLOCK)
        for (term, block), offsets in leaving.items():
            rows = self._db.rows("SELECT entries FROM postings WHERE term = ? AND block = ?", (term, block))
            kept = (
                b"".join(ENTRY.pack(*e) for e in _unpacked(rows[0]["entries"]) if e[0] not in offsets) if rows else b""
            )
            if kept:
                self._db.write("UPDATE postings SET entries = ? WHERE term = ? AND block = ?", (kept, term, block))
            else:
                self._db.write("DELETE FROM postings WHERE term = ? AND block = ?", (term, block))
        for memory in found:
            self._db.write("DELETE FROM memories WHERE id = ?", (memory.id,))
        for actor in {memory.actor for memory in found} - {""}:
            self._db.write(
                "DELETE FROM actors WHERE actor = ?1 AND NOT EXISTS (SELECT 1 FROM memories WHERE actor = ?1)", (actor,)
            )
        self._counted(-len(found), -sum(memory.id for memory in found), -words)
        return len(found)

    # -- the index -------------------------------------------------------------------------------------

    def _index(self, new: "_Entries") -> None:
        for (term, block), entries in new.by_row.items():
            self._db.write(
                "INSERT INTO postings (term, block, entries) VALUES (?, ?, ?) ON CONFLICT (term, block) "
                "DO UPDATE SET entries = CAST(entries || excluded.entries AS BLOB)",
                (term, block, b"".join(entries)),
            )
        self._counted(new.memories, new.ids, new.words)

    def _counted(self, memories: int, ids: int, words: int) -> None:
        self._db.write(
            "UPDATE index_state SET memories = memories + ?, ids = ids + ?, words = words + ?", (memories, ids, words)
        )

    def check_index(self) -> bool:
        """Builds the index again where it does not cover what is kept; once for each opened store. True: it had to."""
        if self._checked:
            return False
        missing = self._is_off()
        if missing:
            with self._db.transaction():
                if missing := self._is_off():  # another process may have been faster
                    self.rebuild_index()
        self._checked = not self._db.in_transaction  # what is rolled back has to be built again
        return missing

    def _is_off(self) -> bool:
        rows = self._db.rows(
            "SELECT s.form, s.memories, s.ids, s.words > 0, count(m.id), coalesce(sum(m.id), 0), "
            "EXISTS (SELECT 1 FROM postings) FROM index_state s LEFT JOIN memories m ON 1"
        )
        form, memories, ids, has_words, count, total, has_postings = rows[0]
        return bool((form, memories, ids, has_words) != (_FORM, count, total, has_postings))

    def rebuild_index(self) -> None:
        """Makes all postings again, from the memories."""
        with self._db.transaction():
            self._db.write("DELETE FROM postings")
            self._db.write("DELETE FROM sayings")
            self._db.write("UPDATE index_state SET form = ?, memories = 0, ids = 0, words = 0", (_FORM,))
            last = -1
            while rows := self._db.rows("SELECT * FROM memories WHERE id > ? ORDER BY id LIMIT ?", (last, _AT_ONCE)):
                entries = _Entries()
                for row in rows:
                    memory = self._db.record(Memory, row)
                    entries.add(memory.id, terms_of(memory))
                    if memory.turn is None:
                        self._db.write("INSERT INTO sayings VALUES (?, ?)", (_saying(memory), memory.id))
                self._index(entries)
                last = rows[-1]["id"]

    def postings(self, terms: Sequence[str]) -> dict[str, list[tuple[int, bytes]]]:
        """Where words occur: (first id of a block, its entries), in order of ids; words that no memory has are left
        out.

        Raises:
            StoreError: The index is damaged.
        """
        self.check_index()
        found: dict[str, list[tuple[int, bytes]]] = {}
        for term in terms:
            rows = self._db.rows("SELECT block, entries FROM postings WHERE term = ? ORDER BY block", (term,))
            if any(len(row["entries"]) % ENTRY.size for row in rows):
                raise StoreError("the index of memories is damaged; build it again: dionysus memory rebuild")
            if rows:
                found[term] = [(row["block"] * BLOCK, row["entries"]) for row in rows]
        return found

    def totals(self) -> tuple[int, int]:
        """How many memories there are, and how many words they have together."""
        self.check_index()
        row = self._db.rows("SELECT memories, words FROM index_state")[0]
        return row[0], row[1]

    # -- reading ---------------------------------------------------------------------------------------

    def get(self, ids: Sequence[int]) -> list[Memory]:
        """Memories of these ids, in this order; those that are not there are left out."""
        rows = self._db.rows("SELECT * FROM memories WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))
        found = {row["id"]: self._db.record(Memory, row) for row in rows}
        return [found[number] for number in ids if number in found]

    def newest(self, wanted: Filter | None = None, *, limit: int = 20) -> list[Memory]:
        """Memories that pass a filter, newest first."""
        where, values = _where(wanted or Filter())
        rows = self._db.rows(
            f"SELECT m.* FROM memories m WHERE {where} ORDER BY at DESC, id DESC LIMIT ?", (*values, limit)
        )
        return [self._db.record(Memory, row) for row in rows]

    def sources(self, *, kind: str, place: str) -> set[str]:
        """The sources of all memories of a kind in a place."""
        rows = self._db.rows("SELECT source FROM memories WHERE kind = ? AND place = ?", (kind, place))
        return {row["source"] for row in rows}

    def ids(self, wanted: Filter, *, limit: int) -> list[int]:
        """Ids that pass a filter, newest first."""
        where, values = _where(wanted)
        rows = self._db.rows(f"SELECT id FROM memories m WHERE {where} ORDER BY at DESC LIMIT ?", (*values, limit))
        return [row[0] for row in rows]

    def passing(self, ids: Sequence[int], wanted: Filter) -> set[int]:
        """Those of some ids that pass a filter."""
        where, values = _where(wanted)
        rows = self._db.rows(
            f"SELECT id FROM memories m WHERE id IN (SELECT value FROM json_each(?)) AND {where}",
            (json.dumps(ids), *values),
        )
        return {row[0] for row in rows}

    def around(self, ids: Sequence[int], *, reach: int, embedder: str | None) -> list[Candidate]:
        """Memories and what lies within `reach` turns of them in their basins, ordered by basin and turn.

        Args:
            embedder: Whose vectors are wanted.
        """
        rows = self._db.rows(
            "WITH seed(id, basin_id, turn) AS MATERIALIZED (SELECT id, basin_id, turn FROM memories WHERE id IN "
            "(SELECT value FROM json_each(?1))), "
            "near(id) AS MATERIALIZED (SELECT id FROM seed UNION SELECT m.id FROM seed s "
            "CROSS JOIN memories m ON m.basin_id = s.basin_id AND m.turn BETWEEN s.turn - ?2 AND s.turn + ?2) "
            "SELECT m.id, m.basin_id, m.turn, m.at, m.actor, substr(m.text, 1, 2000), v.body "
            "FROM near n CROSS JOIN memories m ON m.id = n.id "
            "LEFT JOIN vectors v ON v.memory_id = m.id AND v.embedder = (SELECT id FROM embedders WHERE name = ?3) "
            "ORDER BY m.basin_id, m.turn, m.id",
            (json.dumps(ids), reach, embedder),
        )
        return [Candidate(*row) for row in rows]

    def actors_among(self, names: Sequence[str]) -> list[str]:
        """Those of some names, in any case, that are actors of memories; as they are given."""
        rows = self._db.rows(
            "SELECT folded FROM actors WHERE folded IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted({name.casefold() for name in names})),),
        )
        found = {row[0] for row in rows}
        return [name for name in names if name.casefold() in found]

    def of_basin(self, basin_id: int, *, limit: int = 200) -> list[Memory]:
        """Memories of a basin, newest first."""
        rows = self._db.rows("SELECT * FROM memories WHERE basin_id = ? ORDER BY id DESC LIMIT ?", (basin_id, limit))
        return [self._db.record(Memory, row) for row in rows]

    def found_in(self, terms: Sequence[str]) -> dict[str, int]:
        """How many memories have each of some words."""
        self.check_index()
        rows = self._db.rows(
            "SELECT term, sum(length(entries)) FROM postings WHERE term IN (SELECT value FROM json_each(?)) "
            "GROUP BY term",
            (json.dumps(list(terms)),),
        )
        return {row[0]: row[1] // ENTRY.size for row in rows}

    def move(self, ids: Sequence[int], basin_id: int) -> None:
        """Puts memories into another basin, those that follow each other behind what lies there, in this order."""
        with self._db.transaction():
            last = self._db.rows("SELECT max(turn) FROM memories WHERE basin_id = ?", (basin_id,))[0][0]
            turn = -1 if last is None else last
            for memory in self.get(ids):
                turn += memory.turn is not None
                self._db.write(
                    "UPDATE memories SET basin_id = ?, turn = ? WHERE id = ?",
                    (basin_id, None if memory.turn is None else turn, memory.id),
                )

    # -- consolidation -----------------------------------------------------------------------------------

    def unconsolidated(self, *, limit: int) -> list[Memory]:
        """Memories that came since consolidation last looked, oldest first."""
        rows = self._db.rows(
            "SELECT * FROM memories WHERE id > (SELECT memory_id FROM consolidated) ORDER BY id LIMIT ?", (limit,)
        )
        return [self._db.record(Memory, row) for row in rows]

    def consolidated(self, memory_id: int) -> None:
        """Consolidation has looked at all up to this one."""
        self._db.write("UPDATE consolidated SET memory_id = ?", (memory_id,))

    def told_before(self, memory: Memory) -> Memory | None:
        """The first one of the same kind, place, actor and text, white space and case aside; None: it is the first."""
        rows = self._db.rows(
            "SELECT m.* FROM sayings s JOIN memories m ON m.id = s.memory_id WHERE s.digest = ? AND m.id < ? "
            "ORDER BY m.id LIMIT 1",
            (_saying(memory), memory.id),
        )
        return self._db.record(Memory, rows[0]) if rows else None

    def join(self, again: Memory, first: Memory) -> None:
        """Makes one memory of two: where the second came from is kept with the first, and so is who recalled it."""
        with self._db.transaction():
            self._db.write(
                "INSERT OR IGNORE INTO retellings (memory_id, source, at, basin_id, run_id, step) VALUES (?,?,?,?,?,?)",
                (first.id, again.source, to_us(again.at), again.basin_id, again.run_id, again.step),
            )
            self._db.write("UPDATE OR IGNORE retellings SET memory_id = ? WHERE memory_id = ?", (first.id, again.id))
            self._db.write("UPDATE OR IGNORE evidence SET memory_id = ? WHERE memory_id = ?", (first.id, again.id))
            self._db.write("UPDATE OR IGNORE recalls SET memory_id = ? WHERE memory_id = ?", (first.id, again.id))
            self._remove([again.id])

    def retold(self, ids: Sequence[int]) -> dict[int, list[tuple[str, int]]]:
        """Where memories were told again in the same words: (source, microseconds since 1970) of each, oldest first."""
        rows = self._db.rows(
            "SELECT memory_id, source, at FROM retellings WHERE memory_id IN (SELECT value FROM json_each(?)) "
            "ORDER BY at",
            (json.dumps(ids),),
        )
        found: dict[int, list[tuple[str, int]]] = {}
        for row in rows:
            found.setdefault(row[0], []).append((row[1], row[2]))
        return found

    def add_evidence(self, pattern_id: int, ids: Sequence[int]) -> None:
        """These memories show a pattern."""
        with self._db.transaction():
            for memory_id in ids:
                self._db.write("INSERT OR IGNORE INTO evidence VALUES (?, ?)", (pattern_id, memory_id))

    def evidence_of(self, pattern_id: int) -> list[int]:
        """The memories that a pattern was seen in."""
        rows = self._db.rows("SELECT memory_id FROM evidence WHERE pattern_id = ? ORDER BY memory_id", (pattern_id,))
        return [row[0] for row in rows]

    def patterns_of(self, ids: Sequence[int]) -> list[int]:
        """The patterns that some memories show."""
        rows = self._db.rows(
            "SELECT DISTINCT pattern_id FROM evidence WHERE memory_id IN (SELECT value FROM json_each(?)) ORDER BY 1",
            (json.dumps(ids),),
        )
        return [row[0] for row in rows]

    def drop_notes(self, numbers: Sequence[int]) -> None:
        """Forgets what a person told, where a memory was made of it."""
        self._db.write("DELETE FROM notes WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(numbers),))

    # -- vectors ---------------------------------------------------------------------------------------

    def save_vectors(self, embedder: str, bodies: Sequence[tuple[int, bytes]]) -> None:
        """Keeps what an embedder made of memories; of one that is gone meanwhile nothing is kept."""
        with self._db.transaction():
            self._db.write("INSERT OR IGNORE INTO embedders (name) VALUES (?)", (embedder,))
            number = self._db.rows("SELECT id FROM embedders WHERE name = ?", (embedder,))[0][0]
            for memory_id, body in bodies:
                self._db.write(
                    "INSERT OR REPLACE INTO vectors (memory_id, embedder, body) "
                    "SELECT id, ?2, ?3 FROM memories WHERE id = ?1",
                    (memory_id, number, body),
                )

    def without_vectors(self, embedder: str, *, limit: int) -> list[Memory]:
        """Memories that an embedder has still to look at, newest first."""
        if self.vector_counts().get(embedder, 0) == self.totals()[0]:
            return []
        rows = self._db.rows(
            "SELECT m.* FROM memories m LEFT JOIN vectors v ON v.memory_id = m.id AND v.embedder = "
            "(SELECT id FROM embedders WHERE name = ?1) WHERE v.memory_id IS NULL ORDER BY m.id DESC LIMIT ?2",
            (embedder, limit),
        )
        return [self._db.record(Memory, row) for row in rows]

    def vector_counts(self) -> dict[str, int]:
        """How many memories each embedder has seen."""
        rows = self._db.rows("SELECT e.name, (SELECT count(*) FROM vectors v WHERE v.embedder = e.id) FROM embedders e")
        return {row[0]: row[1] for row in rows}

    def drop_vectors(self) -> None:
        """Takes all vectors out; they are made again as they are needed."""
        self._db.write("DELETE FROM vectors")

    def vector_sizes(self) -> dict[str, tuple[int, int]]:
        """For each embedder: (memories, bytes of their vectors)."""
        rows = self._db.rows(
            "SELECT e.name, count(*), sum(length(v.body)) "
            "FROM vectors v JOIN embedders e ON e.id = v.embedder GROUP BY e.id"
        )
        return {row[0]: (row[1], row[2]) for row in rows}


def _saying(memory: NewMemory | Memory) -> bytes:
    said = json.dumps([memory.kind, memory.place, memory.actor, memory.text.casefold().split()])
    return hashlib.blake2b(said.encode(), digest_size=12).digest()


class _Entries:
    """Postings to be written, by row."""

    def __init__(self) -> None:
        self.by_row: dict[tuple[str, int], list[bytes]] = {}
        self.memories = self.ids = self.words = 0

    def add(self, number: int, terms: Sequence[str]) -> None:
        for term, times in Counter(terms).items():
            entry = ENTRY.pack(number % BLOCK, min(times, 255), min(len(terms), 65535))
            self.by_row.setdefault((term, number // BLOCK), []).append(entry)
        self.memories += 1
        self.ids += number
        self.words += len(terms)


def _unpacked(entries: bytes) -> Iterator[tuple[int, int, int]]:
    return ENTRY.iter_unpack(entries)


def _where(wanted: Filter) -> tuple[str, list[Any]]:
    """A condition on `memories m`."""
    parts, values = ["1"], list[Any]()

    def among(column: str, allowed: Sequence[str], *, none_of: bool = False) -> None:
        if allowed:
            parts.append(f"{column} {'NOT IN' if none_of else 'IN'} ({','.join('?' * len(allowed))})")
            values.extend(allowed)

    among("m.kind", wanted.kinds)
    if wanted.actors:
        parts.append("m.actor IN (SELECT actor FROM actors WHERE folded IN (SELECT value FROM json_each(?)))")
        values.append(json.dumps([actor.casefold() for actor in wanted.actors]))
    among("m.source", tuple(wanted.without), none_of=True)
    if wanted.place is not None:
        parts.append("m.place IN (?, '')")
        values.append(wanted.place)
    if wanted.run_id is not None:
        parts.append("m.run_id = ?")
        values.append(wanted.run_id)
    for tag in wanted.tags:
        parts.append("EXISTS (SELECT 1 FROM json_each(m.tags) WHERE value = ?)")
        values.append(tag)
    for instant, sign in ((wanted.since, ">="), (wanted.until, "<")):
        if instant is not None:
            if instant.tzinfo is None:
                raise BadInput(f"{instant.isoformat()} has no time zone; give one, such as {instant.isoformat()}+00:00")
            parts.append(f"m.at {sign} ?")
            values.append(to_us(instant))
    return " AND ".join(parts), values
