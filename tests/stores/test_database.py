"""Opening, migrating, transactions, texts."""

import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import START, Clock
from dionysus.errors import BadInput, StoreError, StoreTooNew
from dionysus.stores import Store, open_store
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    ModelCall,
    NewMemory,
    Pruned,
    ToolUse,
    Usage,
)
from dionysus.stores.database import Database
from dionysus.traces import ExecutionTraceService

LONG = "a long text " * 100


def trace(**changes: object) -> AgentExecutionTrace:
    made = AgentExecutionTrace(id="t", agent_name="a", run_id="r", status="running", started_at=START)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_records_come_back_as_they_were(store: Store) -> None:
    step = AgentExecutionStep(
        id="t:1",
        trace_id="t",
        order=1,
        step_number=1,
        step_type="action",
        started_at=START,
        completed_at=START,
        thought=LONG,
        tool_calls=(
            ToolUse(position="p", name="n", arguments={"$text": LONG, "b": [1, None]}, started_at=START, result=LONG),
        ),
        model_calls=(
            ModelCall(position="m", model="x", started_at=START, completed_at=START, usage=Usage(cost_usd=None)),
        ),
        pruned=Pruned(before_step=2, stub="…", chars_saved=3),
    )
    full = trace(task=LONG, summary="\ud800 lone, \0 NUL", cost_usd=None)
    store.records.save_trace(full)
    store.records.save_step(step)
    assert store.records.trace("t") == full
    assert store.records.steps("t") == [step]


def test_equal_texts_are_kept_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    for number in range(20):
        store.records.save_trace(trace(id=f"t{number}", task=LONG))
    store.close()
    with sqlite3.connect(tmp_path / "s.db") as raw:
        assert raw.execute("SELECT count(*) FROM texts").fetchone() == (1,)
    raw.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.text(min_size=520, max_size=530),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$text", "$dict", "a", "b"]) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_pack_and_unpack_are_inverse(value: object) -> None:
    database = Database(None)
    with database.transaction():
        text = database.pack(value)
    assert database.unpack(text) == value
    database.close()


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def half() -> None:
        with store.records.transaction():
            store.records.save_trace(trace())
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        half()
    assert store.records.trace("t") is None


def test_the_file_is_private_and_its_folder_ignored(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/.dionysus/mind.db").close()
    mode = (tmp_path / ".dionysus/mind.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert (tmp_path / ".dionysus/.gitignore").read_text() == "*\n"


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version=99")
    raw.close()
    with pytest.raises(StoreTooNew, match=r"schema 99.*update dionysus-agents"):
        open_store(f"sqlite:///{path}")
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (99,)
    raw.close()


@pytest.mark.parametrize("url", ["", "mind.db", "postgres://x", "sqlite:///"])
def test_an_unknown_store_says_how_to_write_one(url: str) -> None:
    with pytest.raises(BadInput, match="sqlite:///PATH"):
        open_store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("this is not a database, " * 100)
    with pytest.raises(StoreError, match="not a Dionysus store"):
        open_store(f"sqlite:///{tmp_path}/s.db")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as raw:
        raw.execute("CREATE TABLE notes (mine)")
    raw.close()
    before = (tmp_path / "s.db").read_bytes()
    with pytest.raises(StoreError, match="another program"):
        open_store(f"sqlite:///{tmp_path}/s.db")
    with sqlite3.connect(tmp_path / "s.db") as raw:
        assert [row[0] for row in raw.execute("SELECT name FROM sqlite_master")] == ["notes"]
    raw.close()
    assert len(before) == (tmp_path / "s.db").stat().st_size


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_folder_or_file_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    open_store(f"sqlite:///{tmp_path}/s.db").close()
    (tmp_path / "s.db").chmod(0o444)
    for folder in [tmp_path, *tmp_path.parents][:-1]:
        if os.geteuid() == 0 and folder.owner() == "root":
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        for url in (f"sqlite:///{tmp_path}/closed/mind.db", f"sqlite:///{tmp_path}/closed/a/mind.db"):
            with pytest.raises(StoreError, match=r"Permission denied; name a writable place with --store"):
                open_store(url)
        with pytest.raises(StoreError, match=r"readonly|unable to open"):
            open_store(f"sqlite:///{tmp_path}/s.db").records.set_run_status("x", "error")
    finally:
        os.seteuid(user)


WRITER = """
import sys
from datetime import UTC, datetime
from dionysus.stores import open_store
from dionysus.stores.contract import Event
store = open_store(sys.argv[1])
for i in range(50):
    with store.transaction():
        seq = store.records.last_seq("shared") + 1
        position = f"{sys.argv[2]}.{i}"
        store.records.append(
            Event(run_id="shared", seq=seq, kind="effect", position=position, at=datetime.now(UTC), body={})
        )
store.close()
"""


def test_several_processes_write_at_once_from_the_first_moment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(n)]) for n in range(4)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0, 0, 0]
    store = open_store(url)
    events = list(store.records.events("shared"))
    store.close()
    assert [e.seq for e in events] == list(range(1, 201))
    assert {e.position for e in events} == {f"{n}.{i}" for n in range(4) for i in range(50)}


def older_store(path: Path, version: int) -> sqlite3.Connection:
    """A store as an older Dionysus left it."""
    raw = sqlite3.connect(path)
    schema = files("dionysus.stores").joinpath("schema")
    scripts = sorted((f for f in schema.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    for script in scripts[:version]:
        raw.executescript(script.read_text("utf-8"))
    raw.execute(f"PRAGMA user_version={version}")
    raw.execute(f"PRAGMA application_id={0x44494F4E}")
    return raw


def test_one_damaged_trace_leaves_the_others_readable(tmp_path: Path) -> None:
    """Also where an older store with such a trace is migrated."""
    path = tmp_path / "mind.db"
    good = '{"id":"good/mine","agent_name":"mine","run_id":"good","status":"error","started_at":1}'
    with older_store(path, 2) as raw:
        for run, body in (("good", good), ("bad", "{broken")):
            raw.execute(
                "INSERT INTO traces (id, agent_name, run_id, status, started_at, body) VALUES (?,?,?,?,?,?)",
                (f"{run}/mine", "mine", run, "error", 1, body),
            )
    raw.close()
    store = open_store(f"sqlite:///{path}")
    try:
        traces = ExecutionTraceService(store.records, clock=Clock())
        assert traces.get_trace("good/mine", exact=True).trace.agent_name == "mine"
        (usage,) = traces.token_usage()
        assert usage.traces == 2
        with pytest.raises(StoreError, match="is damaged"):
            traces.list_traces()
    finally:
        store.close()


def test_what_an_older_store_has_waits_for_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    with older_store(path, 3) as raw:
        raw.execute(
            "INSERT INTO traces (id, agent_name, run_id, status, started_at, body) VALUES ('t','a','t','error',1,?)",
            ('{"id":"t","agent_name":"a","run_id":"t","status":"error","started_at":1}',),
        )
        for at_step in (None, None, 2):  # without a step they were kept twice
            raw.execute("INSERT INTO basin_links VALUES ('t', 1, 0.5, ?)", (at_step,))
    raw.close()
    store = open_store(f"sqlite:///{path}")
    try:
        assert store.outbox.backlog("anywhere").waiting == {"activation": 2, "trace": 1}
        assert [(link.basin_id, link.at_step) for link in store.records.basin_links("t")] == [(1, None), (1, 2)]
    finally:
        store.close()


def test_every_change_moves_to_the_end_of_the_backlog(store: Store) -> None:
    for name in ("a", "b"):
        store.records.save_trace(trace(id=name))
    basin = store.mind.add_basin(name="tides", place="", opened_at=START)
    changes, upto = store.outbox.next_changes("g", at_most=10)
    assert changes == [("trace", "a"), ("trace", "b"), ("basin", str(basin))]
    store.outbox.met("g", "x", START)
    store.outbox.arrived("g", upto, START)
    assert store.outbox.next_changes("g", at_most=10)[0] == []
    store.mind.update_basin(basin, name="winds")
    store.records.save_trace(trace(id="a", task="changed"))
    store.records.save_basin_link("a", basin, 0.5, None)
    store.records.save_basin_link("a", basin, 0.75, None)
    store.records.save_recall("a", 7, 1.5, 1)
    memory = NewMemory(kind="fact", text="x", at=START, source="s")
    assert store.memories.add([memory]) == store.memories.add([memory])
    assert store.outbox.next_changes("g", at_most=10)[0] == [
        ("basin", str(basin)),
        ("trace", "a"),
        ("activation", f'["a",{basin},null]'),
        ("recall", '["a",7,1]'),
        ("memory", "1"),
    ]
    assert store.outbox.next_changes("other", at_most=2)[0] == [("trace", "b"), ("basin", str(basin))]
