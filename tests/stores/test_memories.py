"""Memories in SQLite: their index, filters, other processes, and what a kill leaves."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import START
from dionysus import Runtime
from dionysus.errors import BadInput, StoreError
from dionysus.memory.semantic import Told
from dionysus.settings import load_settings
from dionysus.stores import Store, open_store
from dionysus.stores.contract import Filter, NewMemory
from dionysus.stores.memories import BLOCK, ENTRY

Index = dict[str, set[tuple[int, int, int]]]


def new(text: str, source: str = "", **changes: Any) -> NewMemory:
    made = NewMemory(kind="fact", text=text, at=START, source=source or f"s {text}")
    return replace(made, **changes)


def index_of(store: Store) -> tuple[Index, Any]:
    """What the index says – word → (id, times, words of the memory) – and its totals."""
    found: Index = {}
    for row in store._database.rows("SELECT term, block, entries FROM postings"):
        entries = list(ENTRY.iter_unpack(row["entries"]))
        here = {(row["block"] * BLOCK + offset, times, size) for offset, times, size in entries}
        assert len(here) == len(entries), f"{row['term']!r} has an entry twice"
        assert entries, f"{row['term']!r} has an empty row"
        assert not here & found.setdefault(row["term"], set())
        found[row["term"]] |= here
    return found, tuple(store._database.rows("SELECT * FROM index_state")[0])


def check(store: Store) -> None:
    """The index is what it would be if it were built now."""
    store.memories.totals()  # the first use builds it where it is off
    before = index_of(store)
    store.memories.rebuild_index()
    assert before == index_of(store)
    (count,) = store._database.rows("SELECT count(*) FROM memories")[0]
    assert before[1][1] == count


def has(store: Store, word: str) -> list[int]:
    """Ids of the memories that have a word, by the index."""
    found = store.memories.postings([word]).get(word, [])
    return sorted(first + offset for first, part in found for offset, _, _ in ENTRY.iter_unpack(part))


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{path}")
    try:
        yield store
    finally:
        store.close()


def on_the_file(path: Path, *statements: str) -> None:
    raw = sqlite3.connect(path)
    with raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


# -- the index ----------------------------------------------------------------------------------------

_TEXTS = st.one_of(
    st.lists(
        st.sampled_from("moon tides tidal MoonTide 2023 the \ud800 \0 İstanbul 日本 über".split(" ")), max_size=8
    ).map(" ".join),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.just("moon " * 300),
)
_STEPS = st.one_of(
    st.lists(
        st.tuples(_TEXTS, st.sampled_from("abcd"), st.sampled_from(["", "/p"]), st.sampled_from(["", "Ada", "Moon"])),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple),
)


@settings(max_examples=60)
@given(st.lists(_STEPS, max_size=6))
def test_after_any_changes_the_index_is_as_if_built_anew(steps: list[Any]) -> None:
    store = open_store("sqlite://")
    try:
        for step in steps:
            if isinstance(step, tuple):
                store.memories.remove(step)
            else:
                added = [new(text, source, place=place, actor=actor) for text, source, place, actor in step]
                ids = store.memories.add(added)
                for number, one in zip(reversed(ids), reversed(added), strict=True):
                    if ids.count(number) == 1:
                        assert [m.source for m in store.memories.get([number])] == [one.source]
            memories = store.memories.newest(limit=100)
            assert len({(m.place, m.source) for m in memories}) == len(memories) == store.memories.totals()[0]
        check(store)
    finally:
        store.close()


def test_a_memory_takes_the_place_of_the_one_of_its_source(store: Store) -> None:
    first, other = store.memories.add([new("moon tides", "a"), new("moon tides", "a", place="/p")])
    assert store.memories.add([new("sun", "a")]) == [first]
    assert has(store, "moon") == [other]
    assert has(store, "sun") == [first]
    assert store.memories.totals() == (2, 3)
    check(store)


def test_of_the_same_source_twice_in_one_batch_the_last_one_stays(store: Store) -> None:
    ids = store.memories.add([new("moon", "a"), new("sea", "b"), new("sun", "a"), new("star", "a")])
    assert ids == [1, 2, 1, 1]
    assert [m.text for m in store.memories.get([1, 2])] == ["star", "sea"]
    check(store)


def test_what_is_removed_is_found_no_more(store: Store) -> None:
    one, two, three = store.memories.add([new("moon tides"), new("moon rise"), new("tides")])
    store.memories.save_vectors("e", [(one, b"1"), (two, b"2")])
    assert store.memories.remove([one, three, 99]) == 2
    assert has(store, "moon") == [two]
    assert has(store, "tide") == []
    assert store.memories.totals() == (1, 2)
    assert store.memories.vector_sizes() == {"e": (1, 1)}
    assert store.memories.remove([]) == 0
    check(store)


def test_what_is_removed_twice_at_once_counts_once(store: Store) -> None:
    one, _ = store.memories.add([new("moon tides"), new("moon rise")])
    assert store.memories.remove([one, one]) == 1
    assert store.memories.totals() == (1, 2)


def test_words_of_the_actor_are_words_of_the_memory(store: Store) -> None:
    (one,) = store.memories.add([new("tides", actor="Ada Lovelace")])
    assert has(store, "lovelac") == [one]


def test_counts_beyond_what_an_entry_holds_are_cut(store: Store) -> None:
    store.memories.add([new("moon " * 300 + "tide " * 70_000)])
    found, _ = index_of(store)
    assert found == {"moon": {(1, 255, 65_535)}, "tide": {(1, 255, 65_535)}}
    assert store.memories.totals() == (1, 70_300)
    check(store)


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    store.memories.add([new("moon", "a")])
    before = index_of(store)
    with pytest.raises((StoreError, BadInput, OverflowError)):
        store.memories.add([new("sun", "a"), new("star", "b"), new("sea", "c", step=2**70)])
    assert index_of(store) == before
    assert [m.text for m in store.memories.newest()] == ["moon"]
    check(store)


def test_ids_far_apart_lie_in_several_blocks(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new(f"moon {name}", name) for name in ("alpha", "beta", "gamma", "delta")])
    far = [1, BLOCK - 1, BLOCK, 9 * BLOCK + 5]
    on_the_file(path, *(f"UPDATE memories SET id = {to} WHERE id = {n}" for n, to in reversed([*enumerate(far, 1)])))
    with opened(path) as store:
        assert has(store, "moon") == far
        assert [first for first, _ in store.memories.postings(["moon"])["moon"]] == [0, BLOCK, 9 * BLOCK]
        assert has(store, "gamma") == [BLOCK]
        store.memories.add([new("moon epsilon", "epsilon"), new("sun", "beta")])
        assert has(store, "moon") == [1, BLOCK, 9 * BLOCK + 5, 9 * BLOCK + 6]
        store.memories.remove([9 * BLOCK + 5])
        check(store)
    with Runtime(f"sqlite:///{path}", settings=load_settings(embedder="lexical")) as runtime:
        assert [hit.memory.id for hit in runtime.memory.recall("epsilon moon")] == [9 * BLOCK + 6, 1, BLOCK]


# -- an index that is off -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM postings",
        "UPDATE index_state SET form = 0",
        "UPDATE index_state SET memories = 7",
        "UPDATE index_state SET ids = 0",
        "UPDATE index_state SET memories = 0, ids = 0, words = 0",
        "DELETE FROM memories WHERE id = 2",
        "INSERT INTO memories (kind, text, at, source, place) VALUES ('fact', 'moon shine', 1, 'by hand', '')",
        "UPDATE memories SET id = 5000 WHERE id = 2",
    ],
)
def test_an_index_that_does_not_cover_what_is_kept_is_built_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("moon tides"), new("moon rise"), new("bread")])
    on_the_file(path, damage)
    with opened(path) as store:
        ids = [m.id for m in store.memories.newest() if "moon" in m.text]
        assert len(ids) >= 1
        assert has(store, "moon") == sorted(ids)
        assert store.memories.totals()[0] == len(store.memories.newest())
        check(store)


@pytest.mark.parametrize("verb", ["add", "remove", "totals", "postings"])
def test_whatever_is_done_first_builds_the_index_again(tmp_path: Path, verb: str) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("moon tides"), new("moon rise")])
    on_the_file(path, "DELETE FROM postings", "UPDATE index_state SET form = 0, memories = 0, ids = 0, words = 0")
    with opened(path) as store:
        memories = store.memories
        first: dict[str, Callable[[], object]] = {
            "add": lambda: memories.add([new("sun")]),
            "remove": lambda: memories.remove([1]),
            "totals": memories.totals,
            "postings": lambda: memories.postings(["moon"]),
        }
        first[verb]()
        check(store)


def interrupted(store: Store) -> None:
    with store.memories.transaction():
        store.memories.add([new("sun")])
        raise KeyboardInterrupt


def test_an_index_is_built_again_even_after_a_first_write_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("moon tides")])
    on_the_file(path, "DELETE FROM postings", "UPDATE index_state SET form = 0, memories = 0, ids = 0, words = 0")
    with opened(path) as store:
        with pytest.raises(KeyboardInterrupt):
            interrupted(store)
        assert has(store, "moon") == [1]
        assert store.memories.totals() == (1, 2)


def test_check_index_says_whether_it_had_to(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("moon tides")])
    with opened(path) as store:
        assert not store.memories.check_index()
    on_the_file(path, "UPDATE index_state SET words = 0, ids = 0")
    with opened(path) as store:
        assert store.memories.check_index()
        assert not store.memories.check_index()
        assert store.memories.totals() == (1, 2)


def test_entries_that_are_cut_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("moon tides")])
    on_the_file(path, "UPDATE postings SET entries = x'0102'")
    with opened(path) as store, pytest.raises(StoreError, match=r"index of memories is damaged.*memory rebuild"):
        store.memories.postings(["moon"])


def test_a_store_of_schema_5_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    raw = sqlite3.connect(path)
    scripts = sorted(files("dionysus.stores").joinpath("schema").iterdir(), key=lambda script: script.name)
    for script in [script for script in scripts if script.name.endswith(".sql")][:5]:
        raw.executescript(script.read_text("utf-8"))
    with raw:
        raw.execute("PRAGMA user_version=5")
        raw.execute(f"PRAGMA application_id={0x44494F4E}")
        raw.execute("INSERT INTO basins (id, name, place, opened_at, activation, habituation) VALUES (4,'b','',1,0,1)")
        for number, text in ((3, "moon tides"), (7, "old bread"), (9000, "the moon again")):
            raw.execute(
                "INSERT INTO memories (id, kind, text, at, source, place, basin_id, run_id, step) "
                "VALUES (?, 'fact', ?, 1700000000000000, ?, '', 4, 'run-1', 2)",
                (number, text, f"s{number}"),
            )
    raw.close()
    with opened(path) as store:
        assert has(store, "moon") == [3, 9000]
        (memory,) = store.memories.get([3])
        assert (memory.actor, memory.tags, memory.turn, memory.basin_id) == ("", (), None, 4)
        assert (memory.run_id, memory.step) == ("run-1", 2)
        store.memories.add([new("moon tides, told anew", "s3")])
        check(store)
    with Runtime(f"sqlite:///{path}") as runtime:
        assert [hit.memory.text for hit in runtime.memory.recall("bread")] == ["old bread"]
        assert runtime.memory.make_up() <= 3
        assert runtime.memory.make_up() == 0


# -- filters ------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(store: Store) -> Store:
    """Six memories, a day apart."""
    day = timedelta(days=1)
    store.memories.add(
        [
            new("one", "1", actor="Ada", tags=("x", "y"), run_id="r1"),
            new("two", "2", actor="ADA", tags=("x",), at=START + day, place="/p"),
            new("three", "3", actor="Bob", kind="note", at=START + 2 * day, run_id="r2"),
            new("four", "4", actor="Élodie", at=START + 3 * day, place="/q"),
            new("five", "5", tags=("xy", 'a"b'), at=START + 4 * day),
            new("six", "6", kind="beat", at=START + 5 * day, run_id="r1", tags=("y",)),
        ]
    )
    return store


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), [1, 2, 3, 4, 5, 6]),
        (Filter(kinds=("note",)), [3]),
        (Filter(kinds=("note", "beat")), [3, 6]),
        (Filter(kinds=("no such",)), []),
        (Filter(actors=("ada",)), [1, 2]),
        (Filter(actors=("aDa", "BOB")), [1, 2, 3]),
        (Filter(actors=("élodie",)), [4]),
        (Filter(actors=("ÉLODIE",)), [4]),
        (Filter(actors=("a%",)), []),
        (Filter(run_id="r1"), [1, 6]),
        (Filter(run_id="r"), []),
        (Filter(tags=("x",)), [1, 2]),
        (Filter(tags=("x", "y")), [1]),
        (Filter(tags=('a"b',)), [5]),
        (Filter(tags=("X",)), []),
        (Filter(since=START + timedelta(days=4)), [5, 6]),
        (Filter(until=START + timedelta(days=1)), [1]),
        (Filter(since=START + timedelta(days=1), until=START + timedelta(days=3)), [2, 3]),
        (Filter(since=START + timedelta(days=2), until=START), []),
        (Filter(since=(START + timedelta(days=5)).astimezone(timezone(timedelta(hours=-9)))), [6]),
        (Filter(place="/p"), [1, 2, 3, 5, 6]),
        (Filter(place=""), [1, 3, 5, 6]),
        (Filter(without=frozenset({"1", "6", "no such"})), [2, 3, 4, 5]),
        (Filter(kinds=("fact",), actors=("ada",), place="/p", tags=("x",), without=frozenset("1")), [2]),
    ],
)
def test_a_filter_lets_pass_what_it_says(mixed: Store, wanted: Filter, ids: list[int]) -> None:
    assert [m.id for m in reversed(mixed.memories.newest(wanted))] == ids
    assert mixed.memories.ids(wanted, limit=100) == ids[::-1]
    assert mixed.memories.passing([1, 2, 3, 4, 5, 6, 99], wanted) == set(ids)
    assert mixed.memories.passing([ids[0]] if ids else [], wanted) == set(ids[:1])
    assert wanted.lets_all_pass is (wanted == Filter())


def test_of_those_that_pass_the_newest_come_first(mixed: Store) -> None:
    assert mixed.memories.ids(Filter(actors=("ada", "bob")), limit=2) == [3, 2]


@pytest.mark.parametrize("name", ["since", "until"])
def test_an_instant_without_its_zone_is_no_filter(mixed: Store, name: str) -> None:
    naive = Filter(**{name: datetime(2026, 11, 21)})  # type: ignore[arg-type]
    for verb in (
        lambda: mixed.memories.newest(naive),
        lambda: mixed.memories.ids(naive, limit=5),
        lambda: mixed.memories.passing([1], naive),
    ):
        with pytest.raises(BadInput, match="2026-11-21T00:00:00 has no time zone"):
            verb()


def test_a_filter_takes_very_many_sources_to_leave_out(mixed: Store) -> None:
    without = frozenset({"2", *(f"source {n}" for n in range(40_000))})
    assert mixed.memories.ids(Filter(without=without), limit=9) == [6, 5, 4, 3, 1]


def test_actors_are_found_in_any_case(mixed: Store) -> None:
    assert mixed.memories.actors_among(["what", "aDA", "Bo", "", "BOB", "\ud800", "x\0"]) == ["aDA", "BOB"]
    assert mixed.memories.actors_among(["éLODIE"]) == ["éLODIE"]


def test_neighbours_come_with_what_is_found(store: Store) -> None:
    basins = [store.mind.add_basin(name=name, place="", opened_at=START) for name in "ab"]
    turns = [new(f"turn {n}", in_turn=True, basin_id=basins[0]) for n in range(6)]
    others = [new("alone", basin_id=basins[0]), new("elsewhere", in_turn=True, basin_id=basins[1]), new("nowhere")]
    ids = store.memories.add([*turns, *others])
    store.memories.save_vectors("e", [(ids[0], b"v")])
    found = store.memories.around([ids[1], ids[6], ids[8]], reach=2, embedder="e")
    assert [(c.id, c.turn) for c in found] == [(9, None), (7, None), (1, 0), (2, 1), (3, 2), (4, 3)]
    assert [c.vectors for c in found if c.id <= 2] == [b"v", None]
    assert {c.vectors for c in store.memories.around(ids, reach=2, embedder=None)} == {None}
    assert {c.vectors for c in store.memories.around(ids, reach=2, embedder="other")} == {None}


# -- other processes ----------------------------------------------------------------------------------

TELLER = """
import sys
from dionysus import Runtime
from dionysus.settings import load_settings
with Runtime(sys.argv[1], settings=load_settings(embedder="static")) as runtime:
    print("open", flush=True)
    for line in sys.stdin:
        verb, _, text = line.strip().partition(" ")
        if verb == "tell":
            print(runtime.remember(text), flush=True)
        else:
            print("|".join(hit.memory.text for hit in runtime.memory.recall(text)), flush=True)
"""


class Other:
    """Another process with the same store open."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TELLER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.said() == "open"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def asked(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.said()

    def end(self) -> None:
        self.process.communicate(timeout=60)


def test_what_one_process_is_told_another_recalls_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mind.db"
    with Runtime(url) as runtime:
        runtime.remember("The first one is here.")
        assert runtime.memory.recall("moon") == []
        other = Other(url)
        try:
            assert other.asked("recall moon") == ""
            number = int(other.asked("tell The moon pulls the tides."))
            (hit,) = runtime.memory.recall("moon")
            assert (hit.memory.id, hit.memory.text) == (number, "The moon pulls the tides.")
            runtime.remember("A comet came by.", source="c")
            assert other.asked("recall comet") == "A comet came by."
            runtime.remember("An asteroid came by.", source="c")
            assert other.asked("recall comet") == ""
            assert other.asked("recall asteroid") == "An asteroid came by."
        finally:
            other.end()
        check(runtime._store)


# -- kill -9 ------------------------------------------------------------------------------------------

TELL_ON = """
import sys
from dionysus import Runtime
from dionysus.memory.semantic import Told
from dionysus.settings import load_settings
with Runtime(sys.argv[1], settings=load_settings(embedder="static")) as runtime:
    n = 0
    while True:
        batch = [Told(text=f"Word{n} memory of moon tides {n + i}", source=f"{sys.argv[2]} {n + i}", session="s")
                 for i in range(n % 7 + 1)]
        batch.append(Told(text=f"the shared one {sys.argv[2]} {n}", source="shared"))
        runtime.remember_all(batch)
        n += len(batch) - 1
        print(n, flush=True)
"""

MAKE_UP = """
import sys
from dionysus import Runtime
from dionysus.settings import load_settings
with Runtime(sys.argv[1], settings=load_settings(embedder="static")) as runtime:
    while made := runtime.memory.make_up(limit=16):
        print(made, flush=True)
    print("all", flush=True)
"""


def killed_after(lines: int, moment: float, script: str, *arguments: str) -> list[str]:
    """What a process said that was killed a moment after so many lines."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    assert all(said), "it ended by itself"
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    return [line.strip() for line in said]


def test_kill_9_while_it_is_told_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    url = f"sqlite:///{path}"
    expected: set[str] = set()
    for round_, (lines, moment) in enumerate([(1, 0.0), (3, 0.004), (8, 0.011), (20, 0.002), (5, 0.05)]):
        said = killed_after(lines, moment, TELL_ON, url, f"round{round_}")
        expected |= {f"round{round_} {n}" for n in range(int(said[-1]))}
        with opened(path) as store:
            assert store.damage() == ""
            found = {m.source for m in store.memories.newest(limit=100_000)}
            assert expected <= found
            counts = [int(source.split()[1]) for source in found if source.startswith(f"round{round_} ")]
            assert sorted(counts) == list(range(len(counts)))
            end = 0
            while end < len(counts):
                end += end % 7 + 1
            assert end == len(counts), "a batch was kept in part"
            check(store)
            turns = [row[0] for row in store._database.rows("SELECT turn FROM memories WHERE turn IS NOT NULL")]
            assert sorted(turns) == list(range(len(turns)))
    with Runtime(url) as runtime:
        memories = runtime._store.memories.newest(limit=100_000)
        missing = runtime._store.memories.without_vectors("wordllama-l2-256", limit=100_000)
        assert runtime.memory.make_up(limit=100_000) == len(missing)
        assert runtime._store.memories.vector_sizes()["wordllama-l2-256"][0] == len(memories)


def test_kill_9_while_vectors_are_made_up_keeps_those_that_were_made(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    url = f"sqlite:///{path}"
    total = 3_000
    with Runtime(url, settings=load_settings(embedder="lexical")) as runtime:
        runtime.remember_all([Told(text=f"Memory {n} of moon tides", source=str(n)) for n in range(total)])
    made = 0
    for lines, moment in [(1, 0.0), (2, 0.003), (6, 0.008), (11, 0.001)]:
        said = killed_after(lines, moment, MAKE_UP, url)
        assert "all" not in said
        made += sum(map(int, said))
        with opened(path) as store:
            assert store.damage() == ""
            count = store.memories.vector_sizes()["wordllama-l2-256"][0]
            assert made <= count < total
            made = count
            check(store)
    with Runtime(url) as runtime:
        assert runtime.memory.make_up(limit=total) == total - made
        assert runtime.memory.make_up() == 0
        ((count, size),) = runtime._store.memories.vector_sizes().values()
        bodies = [body for (body,) in runtime._store._database.rows("SELECT body FROM vectors")]
        assert (count, size) == (total, sum(map(len, bodies)))
        assert all(bodies)


KILLED_WITHIN = """
import os, signal, sys
from datetime import UTC, datetime
from dionysus.stores import open_store
from dionysus.stores.contract import NewMemory
store = open_store(sys.argv[1])
now = datetime.now(UTC)
with store.transaction():
    store.memories.add([NewMemory(kind="fact", text="moon rise", at=now, source="a")])
    store.memories.remove([2])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_within_a_transaction_leaves_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with opened(path) as store:
        store.memories.add([new("sun tides", "a"), new("bread", "b")])
        before = index_of(store)
    done = subprocess.run([sys.executable, "-c", KILLED_WITHIN, f"sqlite:///{path}"], check=False)
    assert done.returncode == -signal.SIGKILL
    with opened(path) as store:
        assert index_of(store) == before
        assert [m.text for m in store.memories.get([1, 2])] == ["sun tides", "bread"]
        check(store)


def test_several_processes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    script = TELL_ON.replace("while True", "while n < 60")
    tellers = [subprocess.Popen([sys.executable, "-c", script, f"sqlite:///{path}", f"p{n}"]) for n in range(2)]
    assert [teller.wait(timeout=120) for teller in tellers] == [0, 0]
    with opened(path) as store:
        found: Sequence[str] = [m.source for m in store.memories.newest(limit=1_000)]
        assert {f"p{n} {i}" for n in range(2) for i in range(60)} <= set(found)
        assert found.count("shared") == 1
        turns = [row[0] for row in store._database.rows("SELECT turn FROM memories WHERE turn IS NOT NULL")]
        assert sorted(turns) == list(range(len(turns)))
        check(store)


# -- instants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at",
    [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime.max.replace(tzinfo=UTC)],
)
def test_an_instant_comes_back_as_it_was(store: Store, at: datetime) -> None:
    (number,) = store.memories.add([new("moon", at=at)])
    assert [m.at for m in store.memories.get([number])] == [at]
    (found,) = store.memories.around([number], reach=2, embedder=None)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found.at) == at
