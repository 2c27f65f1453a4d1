"""What every store of traces must do, over each: the contract, verb by verb, and a machine that drives all at once."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from backends import Backend, Embedded, Graphed
from ci.bolt import BoltServer
from conftest import START, graph_on
from dionysus.stores import open_store
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    CallbackFailure,
    ModelCall,
    Pruned,
    ToolUse,
    Usage,
)

LONG = "a long text " * 10_000


def trace(name: str = "t", **changes: Any) -> AgentExecutionTrace:
    made = AgentExecutionTrace(id=name, agent_name="a", run_id="r", status="running", started_at=START)
    return replace(made, **changes)


def step(trace_id: str = "t", order: int = 1, **changes: Any) -> AgentExecutionStep:
    made = AgentExecutionStep(
        id=f"{trace_id}:{order}",
        trace_id=trace_id,
        order=order,
        step_number=order,
        step_type="action",
        started_at=START,
    )
    return replace(made, **changes)


FULL_STEP = step(
    completed_at=START + timedelta(microseconds=1),
    plan="first this",
    thought=LONG,
    tool_calls=(
        ToolUse(
            position="p", name="n", arguments={"$text": LONG, "b": [1, None, 2**80]}, started_at=START, result=[1.5]
        ),
    ),
    observation="\ud800 lone, \0 NUL, \U0001f600 far, \r\n",
    error="no",
    model_calls=(
        ModelCall(
            position="m",
            model="x",
            started_at=START,
            completed_at=START + timedelta(days=400, microseconds=999_999),
            usage=Usage(input_tokens=7, cost_usd=None, estimated=True),
        ),
    ),
    input_tokens=2**40,
    coherence=0.1 + 0.2,
    pruned=Pruned(before_step=2, stub="…", chars_saved=3),
    callback_failures=(CallbackFailure(callback="c", traceback="Traceback …"),),
)
FULL_TRACE = trace(
    task=LONG,
    summary="\udcff and more",
    model="m",
    success=False,
    status="max_steps",
    completed_at=START + timedelta(microseconds=1),
    error_message="",
    step_count=3,
    cost_usd=1e-9,
    usage_estimated=True,
    coherence_min=0.0,
    forked_from="other",
)


def test_records_come_back_as_they_were(backend: Backend) -> None:
    store = backend.traces
    for full in (trace(), FULL_TRACE, replace(FULL_TRACE, cost_usd=None, task=None, success=None)):
        store.save_trace(full)
        assert store.trace("t") == full
        assert store.traces() == [full]
    for one in (step(), FULL_STEP, step(observation="", coherence=None)):
        store.save_step(one)
        assert store.step("t:1") == one
        assert store.steps("t") == [one]
    assert store.trace("T") is None
    assert store.step("t:2") is None
    assert store.steps("T") == []


def test_a_trace_is_added_once(backend: Backend) -> None:
    assert backend.traces.add_trace(FULL_TRACE)
    assert not backend.traces.add_trace(trace())
    assert backend.traces.trace("t") == FULL_TRACE


def test_work_that_fails_leaves_nothing(backend: Backend) -> None:
    backend.traces.save_trace(trace())

    def fail() -> None:
        backend.traces.save_trace(trace(task="changed"))
        backend.traces.save_step(step())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backend.traces.atomically(fail)
    assert backend.traces.trace("t") == trace()
    assert backend.traces.steps("t") == []


def test_work_sees_what_it_wrote(backend: Backend) -> None:
    backend.traces.save_trace(trace())

    def work() -> tuple[int, int]:
        first = backend.traces.next_order("t")
        backend.traces.save_step(step(order=first))
        return first, backend.traces.next_order("t")

    assert backend.traces.atomically(work) == (1, 2)


def test_lists_are_in_order_of_time_then_id(backend: Backend) -> None:
    store = backend.traces
    for number, name in enumerate(("b", "a", "c")):
        store.save_trace(trace(name, agent_name=f"agent {number % 2}", success=number == 1, run_id=name))
    store.save_trace(trace("z", started_at=START - timedelta(microseconds=1), status="error"))
    store.save_trace(trace("A", started_at=START + timedelta(microseconds=1)))

    def ids(**asked: Any) -> list[str]:
        return [found.id for found in store.traces(**asked)]

    assert ids() == ["A", "c", "b", "a", "z"]
    assert ids(limit=2) == ["A", "c"]
    assert ids(limit=-1) == ids()
    assert ids(agent_name="agent 0") == ["c", "b"]
    assert ids(agent_name="agent 0", success=True) == []
    assert ids(status="error") == ["z"]
    assert ids(success=True) == ["a"]
    assert ids(run_id="c") == ["c"]
    assert ids(since=START) == ["A", "c", "b", "a"]
    assert ids(until=START) == ["z"]
    assert ids(before=(START, "b")) == ["a", "z"]
    assert ids(after=(START, "b")) == ["A", "c"]
    assert ids(after=(START, "a"), limit=1) == ["b"]
    assert store.trace_ids("") == ["A", *sorted("abc", key=store.trace_ids("").index), "z"]
    assert store.trace_ids("A") == ["A"]
    assert store.trace_ids("%") == []


def test_steps_come_in_pages(backend: Backend) -> None:
    backend.traces.save_trace(trace())
    for order in (3, 1, 2, 11):
        backend.traces.save_step(step(order=order))
    assert [s.order for s in backend.traces.steps("t")] == [1, 2, 3, 11]
    assert [s.order for s in backend.traces.steps("t", after=1, limit=2)] == [2, 3]
    assert backend.traces.next_order("t") == 12
    assert backend.traces.next_order("nope") == 1


def test_links_are_there_once_for_each_step(backend: Backend) -> None:
    store = backend.traces
    store.save_trace(trace())
    tides, winds = backend.add_basin("tides"), backend.add_basin("winds")
    for strength in (0.25, 0.5):
        for at_step in (2, 1, None):
            store.save_basin_link("t", tides, strength, at_step)
    store.save_basin_link("t", winds, 0.75, 2)
    store.save_basin_link("t", 999, 0.5, 2)
    assert [(link.name, link.strength, link.at_step) for link in store.basin_links("t")] == [
        ("tides", 0.5, None),
        ("tides", 0.5, 1),
        ("winds", 0.75, 2),
        ("tides", 0.5, 2),
        ("(forgotten)", 0.5, 2),
    ]


def test_recalls_and_memories(backend: Backend) -> None:
    store = backend.traces
    store.save_trace(trace())
    first = backend.add_memory("first", run_id="r", step=2)
    second = backend.add_memory("second", run_id="r", step=None)
    backend.add_memory("other", run_id="other", step=1)
    for score in (1.0, 3.5):
        store.save_recall("t", first, score, 1)
    store.save_recall("t", second, 4.5, 1)
    store.save_recall("t", 999, 1.5, 1)
    assert [(m.source, m.score) for m in store.recalled_memories("t")] == [
        ("second", 4.5),
        ("first", 3.5),
        ("(forgotten)", 1.5),
    ]
    assert [(m.source, m.at_step) for m in store.created_memories("r")] == [("second", None), ("first", 2)]
    assert store.created_memories("nope") == []


def test_sums_of_tokens(backend: Backend) -> None:
    store = backend.traces
    store.save_trace(trace("1", status="success", input_tokens=5, cost_usd=0.5, model_calls=1, tokens_saved=2))
    store.save_trace(trace("2", status="error", input_tokens=7, cost_usd=0.25, usage_estimated=True))
    store.save_trace(trace("3", status="running", input_tokens=100))
    store.save_trace(trace("4", agent_name="b", status="success", cost_usd=None, output_tokens=3))
    both = store.token_usage()
    assert [(u.agent_name, u.traces, u.input_tokens, u.cost_usd, u.estimated, u.unpriced) for u in both] == [
        ("a", 2, 12, 0.75, 1, 0),
        ("b", 1, 0, None, 0, 1),
    ]
    assert store.token_usage(agent_name="b") == both[1:]
    assert store.token_usage(since=START) == both
    assert store.token_usage(until=START) == []
    later = START + timedelta(days=1)
    store.save_trace(
        trace(
            "5", run_id="r5", started_at=later, status="success", input_tokens=9, cache_write_tokens=4, cached_tokens=2
        )
    )
    runs = store.token_usage(by="run")
    assert [(u.run_id, u.agent_name, u.traces, u.input_tokens, u.cost_usd) for u in runs] == [
        ("r5", None, 1, 9, 0.0),
        ("r", None, 3, 12, None),
    ]
    days = store.token_usage(by="day")
    assert [(u.day, u.traces) for u in days] == [(f"{later:%Y-%m-%d}", 1), (f"{START:%Y-%m-%d}", 3)]
    assert (days[0].cache_write_tokens, days[0].cached_tokens) == (4, 2)
    assert store.token_usage(by="day", limit=1) == days[:1]
    assert store.token_usage(by="run", agent_name="b")[0].traces == 1


NAMES = st.sampled_from(["r", "r/a", "r/b", "q", "Q", "q/ä", "ß"])
AGENTS = st.sampled_from(["heartbeat", "perception", "wahrnehmung ü"])
TEXTS = st.one_of(st.none(), st.text(st.characters(codec=None), max_size=20))
TIMES = st.builds(lambda us: START + timedelta(microseconds=us), st.integers(0, 3))
COUNTS = st.integers(0, 2**40)
SHARES = st.one_of(st.none(), st.floats(0, 1))
LIMITS = st.integers(-1, 4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
TRACES = st.builds(
    AgentExecutionTrace,
    id=NAMES,
    agent_name=AGENTS,
    run_id=st.sampled_from(["r", "q"]),
    status=st.sampled_from(["running", "success", "error", "interrupted"]),
    started_at=TIMES,
    completed_at=st.none() | TIMES,
    task=TEXTS,
    summary=TEXTS,
    success=st.none() | st.booleans(),
    model_calls=COUNTS,
    input_tokens=COUNTS,
    cost_usd=st.none() | st.sampled_from([0.0, 0.25, 1.5]),
    usage_estimated=st.booleans(),
    coherence_min=SHARES,
)
STEPS = st.builds(
    AgentExecutionStep,
    id=st.just(""),
    trace_id=st.just(""),
    order=st.integers(1, 5),
    step_number=st.integers(1, 5),
    step_type=st.sampled_from(["planning", "action", "final"]),
    started_at=TIMES,
    observation=TEXTS,
    coherence=SHARES,
    tool_calls=st.lists(
        st.builds(ToolUse, position=st.just("p"), name=st.just("n"), arguments=ANYTHING, started_at=TIMES), max_size=1
    ).map(tuple),
)


class SideBySide(RuleBasedStateMachine):
    """The same operations on all backends; all must say the same."""

    server: BoltServer
    saved = Bundle("saved")
    basins = Bundle("basins")
    memories = Bundle("memories")

    @initialize()
    def begin(self) -> None:
        self.server.empty()
        self.graph = graph_on(self.server)
        self.graph.initialise()
        self.store = open_store("sqlite://")
        self.sides: list[Backend] = [Embedded(self.store), Graphed(self.graph)]

    def both(self, ask: Any) -> Any:
        first, second = (ask(side) for side in self.sides)
        assert first == second
        return first

    @rule(target=saved, made=TRACES)
    def save_trace(self, made: AgentExecutionTrace) -> str:
        self.both(lambda side: side.traces.save_trace(made))
        return made.id

    @rule(made=TRACES)
    def add_trace(self, made: AgentExecutionTrace) -> None:
        self.both(lambda side: side.traces.add_trace(made))

    @rule(name=saved, made=STEPS)
    def save_step(self, name: str, made: AgentExecutionStep) -> None:
        whole = replace(made, id=f"{name}:{made.order}", trace_id=name)
        self.both(lambda side: side.traces.save_step(whole))
        assert self.both(lambda side: side.traces.step(whole.id)) == whole

    @rule(target=basins, name=st.text(max_size=5))
    def add_basin(self, name: str) -> int:
        return int(self.both(lambda side: side.add_basin(name)))

    @rule(
        target=memories,
        source=st.text(max_size=2),
        run=st.none() | st.sampled_from(["r", "q"]),
        at=st.none() | st.integers(1, 3),
    )
    def add_memory(self, source: str, run: str | None, at: int | None) -> Any:
        if source in {m.source for m in self.store.memories.newest(limit=1000)}:
            return multiple()
        return self.both(lambda side: side.add_memory(source, run_id=run, step=at))

    @rule(name=saved, basin=basins, strength=st.floats(0, 1), at=st.none() | st.integers(1, 2))
    def link(self, name: str, basin: int, strength: float, at: int | None) -> None:
        self.both(lambda side: side.traces.save_basin_link(name, basin, strength, at))

    @rule(name=saved, memory=memories, score=st.floats(0, 100), at=st.integers(1, 2))
    def recall(self, name: str, memory: int, score: float, at: int) -> None:
        self.both(lambda side: side.traces.save_recall(name, memory, score, at))

    @rule(
        agent_name=st.none() | AGENTS,
        status=st.none() | st.sampled_from(["running", "success"]),
        success=st.none() | st.booleans(),
        run_id=st.none() | st.just("r"),
        since=st.none() | TIMES,
        until=st.none() | TIMES,
        before=st.none() | st.tuples(TIMES, NAMES),
        after=st.none() | st.tuples(TIMES, NAMES),
        limit=LIMITS,
    )
    def list_traces(self, **asked: Any) -> None:
        if asked["before"] and asked["after"]:
            asked["after"] = None
        self.both(lambda side: side.traces.traces(**asked))

    @rule(agent_name=st.none() | AGENTS, since=st.none() | TIMES, until=st.none() | TIMES)
    def count(self, agent_name: str | None, since: datetime | None, until: datetime | None) -> None:
        self.both(lambda side: side.traces.token_usage(agent_name=agent_name, since=since, until=until))

    @rule(name=NAMES, after=st.integers(0, 3), limit=LIMITS)
    def look(self, name: str, after: int, limit: int) -> None:
        self.both(lambda side: side.traces.trace(name))
        self.both(lambda side: side.traces.steps(name, after=after, limit=limit))
        self.both(lambda side: side.traces.next_order(name))
        self.both(lambda side: side.traces.basin_links(name))
        self.both(lambda side: side.traces.recalled_memories(name))
        self.both(lambda side: side.traces.created_memories(name))
        self.both(lambda side: sorted(side.traces.trace_ids(name[:1])))

    @invariant()
    def same_lists(self) -> None:
        if hasattr(self, "sides"):
            self.both(lambda side: [found.id for found in side.traces.traces(limit=-1)])

    def teardown(self) -> None:
        if hasattr(self, "graph"):
            self.graph.close()
            self.store.close()


def test_the_backends_are_the_same_to_who_uses_them(bolt: BoltServer) -> None:
    machine = type("OnThisServer", (SideBySide,), {"server": bolt})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
