"""What a graph lacks of a SQLite store: the backlog, and how far each graph has come.

Triggers keep the order of changes (schema/0004_graph.sql), so nothing that is written can be forgotten, and nothing
waits in memory. A graph is known by the id that it got when it was set up: one that was emptied is a new one, and gets
everything again.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from dionysus.stores.codec import from_us, to_us
from dionysus.stores.contract import (
    CHANGE_KINDS,
    AgentExecutionStep,
    AgentExecutionTrace,
    Backlog,
    Basin,
    ChangeKind,
    Edge,
    Memory,
    Parcel,
    Refusal,
)
from dionysus.stores.database import Database

_CHARS_AT_ONCE = 2_000_000
_SHOWN_REFUSALS = 1000

Change = tuple[ChangeKind, str]
_NEXT = """
WITH next AS (
  SELECT c.seq, c.kind, c.key, coalesce(s.body, t.body) AS body, coalesce(length(m.text), 0) AS more FROM changes c
  LEFT JOIN steps s ON c.kind = 'step' AND s.id = c.key
  LEFT JOIN traces t ON c.kind = 'trace' AND t.id = c.key
  LEFT JOIN memories m ON c.kind = 'memory' AND m.id = CAST(c.key AS INTEGER)
  WHERE c.seq > ? ORDER BY c.seq LIMIT ?
)
SELECT seq, kind, key, more + coalesce(length(body), 0) + coalesce((
  SELECT sum(length(x.body)) FROM json_tree(CASE WHEN json_valid(next.body) THEN next.body ELSE '{}' END) j
  JOIN texts x ON x.digest = j.value WHERE j.key = '$text' AND j.type = 'text'
), 0) AS chars FROM next ORDER BY seq
"""
"""Changes with their sizes, long texts included."""


class Outbox:
    """The changes of one store on their way to graphs. Raises `StoreError` throughout."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def store_id(self) -> str:
        """Sets this store apart from others that ship to the same graph."""
        return str(self._db.rows("SELECT store_id FROM identity")[0][0])

    def transaction(self) -> AbstractContextManager[None]:
        """Several verbs, all or nothing; survives a killed process, and a power cut repeats what came last."""
        return self._db.transaction(durable=False)

    # -- what waits ------------------------------------------------------------------------------------

    def is_behind(self, graph_id: str) -> bool:
        """Whether a graph lacks anything."""
        rows = self._db.rows("SELECT 1 FROM changes WHERE seq > ? LIMIT 1", (self.position(graph_id),))
        return bool(rows)

    def position(self, graph_id: str) -> int:
        """The change up to which a graph has everything."""
        rows = self._db.rows("SELECT position FROM shipments WHERE graph_id = ?", (graph_id,))
        return int(rows[0][0]) if rows else 0

    def next_changes(self, graph_id: str, *, at_most: int) -> tuple[list[Change], int]:
        """The oldest changes that a graph lacks, and the place of the last one of them; none: it has everything."""
        rows = self._db.rows(_NEXT, (self.position(graph_id), at_most))
        changes, upto, chars = list[Change](), 0, 0
        for row in rows:
            chars += row["chars"]
            if changes and chars > _CHARS_AT_ONCE:
                break
            changes.append((row["kind"], row["key"]))
            upto = row["seq"]
        return changes, upto

    def packed(self, changes: Sequence[Change]) -> Parcel:
        """Some changes with all that they hang on, as they now are.

        Raises:
            EntryDamaged: One of them cannot be read.
        """
        keys: dict[str, list[str]] = {kind: [key for k, key in changes if k == kind] for kind in CHANGE_KINDS}
        steps = self._bodies("steps", keys["step"], AgentExecutionStep)
        edges = {kind: [json.loads(key) for key in keys[kind]] for kind in ("activation", "recall")}
        activations = [self._activation(*edge) for edge in edges["activation"]]
        recalls = [self._recall(*edge) for edge in edges["recall"]]
        numbers = [*map(int, keys["memory"]), *(recall.number for recall in recalls if recall)]
        memories = self._numbered("memories", numbers, Memory)
        basins = [*map(int, keys["basin"]), *(a.number for a in activations if a)]
        basins += [memory.basin_id for memory in memories if memory.basin_id is not None]
        traces = {
            *keys["trace"],
            *(step.trace_id for step in steps),
            *(edge.trace_id for edge in (*activations, *recalls) if edge),
            *self._tops(memory.run_id for memory in memories if memory.run_id is not None),
        }
        kept = self._numbered("basins", basins, Basin)
        return Parcel(
            traces=tuple(self._with_parents(traces)),
            steps=tuple(steps),
            basins=tuple(kept),
            memories=tuple(memories),
            activations=tuple(edge for edge in activations if edge),
            recalls=tuple(edge for edge in recalls if edge),
            forgotten=tuple(sorted({*map(int, keys["memory"])} - {memory.id for memory in memories})),
            dissolved=tuple(sorted({*map(int, keys["basin"])} - {basin.id for basin in kept})),
        )

    def backlog(self, target: str, graph_id: str | None = None) -> Backlog:
        """How far what is written has come on its way to a target.

        Args:
            target: URI and database.
            graph_id: The graph that is there; None: the one that was met there last.
        """
        rows = self._db.rows(
            "SELECT graph_id, position, shipped_at FROM shipments WHERE coalesce(graph_id = ?2, target = ?1) "
            "ORDER BY met_at DESC, rowid DESC LIMIT 1",
            (target, graph_id),
        )
        graph_id, position, shipped_at = tuple(rows[0]) if rows else ("", 0, None)
        counts = self._db.rows(
            "SELECT kind, sum(seq > ?1) AS waiting, sum(seq <= ?1) AS done FROM changes GROUP BY kind", (position,)
        )
        (numbers,) = self._db.rows(
            "SELECT count(*) AS all_, coalesce(sum(c.seq <= ?2), 0) AS passed FROM refusals r "
            "LEFT JOIN changes c ON c.kind = r.kind AND c.key = r.key WHERE r.graph_id = ?1",
            (graph_id, position),
        )
        refused = self._db.rows(
            "SELECT kind, key, reason, refused_at FROM refusals WHERE graph_id = ? ORDER BY refused_at LIMIT ?",
            (graph_id, _SHOWN_REFUSALS),
        )
        failed = self._db.rows("SELECT reason, failed_at, retry_at FROM shipping_failures WHERE target = ?", (target,))
        return Backlog(
            target=target,
            waiting={row["kind"]: row["waiting"] for row in counts if row["waiting"]},
            shipped=sum(row["done"] for row in counts) - numbers["passed"],
            refusals=numbers["all_"],
            refused=tuple(self._db.record(Refusal, row) for row in refused),
            shipped_at=from_us(shipped_at) if shipped_at is not None else None,
            failure=failed[0]["reason"] if failed else None,
            failed_at=from_us(failed[0]["failed_at"]) if failed else None,
            retry_at=from_us(failed[0]["retry_at"]) if failed else None,
        )

    # -- what became of it -----------------------------------------------------------------------------

    def met(self, graph_id: str, target: str, at: datetime) -> None:
        """A graph was found at a target, and can take traces in."""
        with self.transaction():
            self._db.write(
                "INSERT INTO shipments (graph_id, target, position, met_at) VALUES (?,?,0,?) "
                "ON CONFLICT (graph_id) DO UPDATE SET target = excluded.target, met_at = excluded.met_at",
                (graph_id, target, to_us(at)),
            )
            self._db.write("DELETE FROM shipping_failures WHERE target = ?", (target,))

    def arrived(self, graph_id: str, upto: int, at: datetime) -> None:
        """A graph that was met has all changes up to this one."""
        with self.transaction():
            self._db.write(
                "UPDATE shipments SET position = ?, shipped_at = ? WHERE graph_id = ?", (upto, to_us(at), graph_id)
            )

    def failed(self, target: str, reason: str, at: datetime, retry_at: datetime) -> None:
        """An attempt at a target failed: everything waits on."""
        with self.transaction():
            self._db.write(
                "INSERT OR REPLACE INTO shipping_failures (target, reason, failed_at, retry_at) VALUES (?,?,?,?)",
                (target, reason, to_us(at), to_us(retry_at)),
            )

    def taken(self, graph_id: str, changes: Iterable[Change]) -> None:
        """A graph took these after all."""
        with self.transaction():
            for kind, key in changes:
                self._db.write(
                    "DELETE FROM refusals WHERE graph_id = ? AND kind = ? AND key = ?", (graph_id, kind, key)
                )

    def refuse(self, graph_id: str, change: Change, reason: str, at: datetime) -> None:
        """A graph does not take a change; it is kept, and tried again when it changes or when it is asked for."""
        with self.transaction():
            self._db.write(
                "INSERT OR REPLACE INTO refusals (graph_id, kind, key, reason, refused_at) VALUES (?,?,?,?,?)",
                (graph_id, *change, reason, to_us(at)),
            )

    def has_refusals(self, graph_id: str) -> bool:
        """Whether a graph did not take something."""
        return bool(self._db.rows("SELECT 1 FROM refusals WHERE graph_id = ? LIMIT 1", (graph_id,)))

    def try_refused_again(self, graph_id: str) -> None:
        """What a graph did not take goes to the end of its backlog."""
        with self.transaction():
            for row in self._db.rows("SELECT kind, key FROM refusals WHERE graph_id = ?", (graph_id,)):
                self._db.write("DELETE FROM changes WHERE kind = ? AND key = ?", (row["kind"], row["key"]))
                self._db.write("INSERT INTO changes (kind, key) VALUES (?, ?)", (row["kind"], row["key"]))

    def start_over(self, graph_id: str) -> None:
        """A graph is to get everything again."""
        with self.transaction():
            self._db.write("UPDATE shipments SET position = 0 WHERE graph_id = ?", (graph_id,))

    # -- within ----------------------------------------------------------------------------------------

    def _bodies(self, table: str, ids: Iterable[str], kind: type[Any]) -> list[Any]:
        found = []
        for wanted in dict.fromkeys(ids):
            for row in self._db.rows(f"SELECT body FROM {table} WHERE id = ?", (wanted,)):
                found.append(self._db.unpack_as(kind, row["body"]))
        return found

    def _numbered(self, table: str, ids: Iterable[int], kind: type[Any]) -> list[Any]:
        found = []
        for number in sorted(set(ids)):
            for row in self._db.rows(f"SELECT * FROM {table} WHERE id = ?", (number,)):
                found.append(self._db.record(kind, row))
        return found

    def _activation(self, trace_id: str, basin_id: int, at_step: int | None) -> Edge | None:
        rows = self._db.rows(
            "SELECT strength FROM basin_links WHERE trace_id = ? AND basin_id = ? AND at_step IS ?",
            (trace_id, basin_id, at_step),
        )
        return Edge(trace_id=trace_id, number=basin_id, weight=rows[0][0], at_step=at_step) if rows else None

    def _recall(self, trace_id: str, memory_id: int, at_step: int) -> Edge | None:
        rows = self._db.rows(
            "SELECT score FROM recalls WHERE trace_id = ? AND memory_id = ? AND at_step = ?",
            (trace_id, memory_id, at_step),
        )
        return Edge(trace_id=trace_id, number=memory_id, weight=rows[0][0], at_step=at_step) if rows else None

    def _tops(self, run_ids: Iterable[str]) -> list[str]:
        """The traces of runs: a memory is linked to that of the agent that was run."""
        found = []
        for run_id in dict.fromkeys(run_ids):
            found += [row["id"] for row in self._db.rows("SELECT id FROM traces WHERE run_id = ?", (run_id,))]
        return found

    def _with_parents(self, ids: Iterable[str]) -> list[AgentExecutionTrace]:
        """Traces, each behind the one that it was called by."""
        known: dict[str, AgentExecutionTrace] = {}
        wanted = list(dict.fromkeys(ids))
        while wanted:
            found = self._bodies("traces", wanted, AgentExecutionTrace)
            known |= {trace.id: trace for trace in found}
            wanted = [t.parent_trace_id for t in found if t.parent_trace_id and t.parent_trace_id not in known]
        return list(known.values())
