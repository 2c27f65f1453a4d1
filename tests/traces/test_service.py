"""The mission's verbs on traces, by hand, on every backend; and the texts made of them."""

from datetime import timedelta, timezone
from threading import Thread

import pytest
from smolagents.agent_types import AgentText

from backends import Backend
from ci.bolt import ArcadeDB
from conftest import START, Clock
from dionysus.errors import BadInput, NotFound
from dionysus.stores.contract import ToolUse
from dionysus.traces import ExecutionTraceService, retold
from dionysus.traces.render import overview, replay


@pytest.fixture
def traces(backend: Backend, clock: Clock) -> ExecutionTraceService:
    return ExecutionTraceService(backend.traces, clock=clock)


def test_a_trace_by_hand(traces: ExecutionTraceService, backend: Backend) -> None:
    basin = backend.add_basin("tides")
    trace_id = traces.create_trace("mine", "run-7", task="count")
    traces.add_step(trace_id, {"step_number": 1, "step_type": "planning", "plan": "look", "coherence": 0.8})
    step_id = traces.add_step(
        trace_id, {"step_number": 1, "step_type": "action", "observation": "seen", "input_tokens": 10}
    )
    traces.link_basin(trace_id, basin, 0.5, at_step=1)
    traces.complete_trace(trace_id, True, "all counted")
    full = traces.get_trace("run-7")  # a beginning is enough
    assert full.trace.status == "success"
    assert (full.trace.step_count, full.trace.planning_count, full.trace.input_tokens) == (1, 1, 10)
    assert full.trace.coherence_min == 0.8
    assert [s.order for s in full.steps] == [1, 2]
    assert full.steps[1].id == step_id
    assert [(b.name, b.strength) for b in full.basins] == [("tides", 0.5)]
    story = replay(retold(traces, trace_id))
    for text in (overview(full), story):
        assert "all counted" in text
        assert "tides" in text
    assert "seen" in story


def test_wrong_verbs_are_refused(traces: ExecutionTraceService) -> None:
    trace_id = traces.create_trace("mine", "run-7")
    with pytest.raises(BadInput, match="exists"):
        traces.create_trace("mine", "run-7")
    with pytest.raises(BadInput, match=r"unknown \['colour'\]"):
        traces.add_step(trace_id, {"step_number": 1, "step_type": "action", "colour": "red"})
    with pytest.raises(BadInput, match=r"missing \['step_type'\]"):
        traces.add_step(trace_id, {"step_number": 1})
    with pytest.raises(NotFound):
        traces.add_step("nope", {"step_number": 1, "step_type": "action"})
    with pytest.raises(BadInput, match=r"not in \[0, 1\]"):
        traces.link_basin(trace_id, 1, 1.5)
    with pytest.raises(NotFound, match="traces list"):
        traces.get_trace("nope")
    with pytest.raises(BadInput, match=r"coherence nan is not in \[0, 1\]"):
        traces.add_step(trace_id, {"step_number": 1, "step_type": "action", "coherence": float("nan")})
    for wrong in (
        {"step_type": "thinking"},
        {"step_number": "one"},
        {"step_number": 2**63},
        {"input_tokens": "7"},
        {"input_tokens": float("inf")},
        {"tool_calls": [{"name": "x"}]},
        {"model_calls": 5},
        {"started_at": "yesterday"},
        {"coherence": "0.5"},
        {"tool_calls": [ToolUse(position="p", name="n", arguments={1, 2}, started_at=START)]},
    ):
        with pytest.raises(BadInput, match=f"step_data: {next(iter(wrong))}=.* cannot be kept"):
            traces.add_step(trace_id, {"step_number": 1, "step_type": "action", **wrong})
    with pytest.raises(BadInput, match="cannot be kept"):
        traces.link_basin(trace_id, 2**63, 0.5)
    with pytest.raises(BadInput, match="status='failed' cannot be kept"):
        traces.complete_trace(trace_id, False, status="failed")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="success='no' cannot be kept"):
        traces.complete_trace(trace_id, "no")  # type: ignore[arg-type]
    assert traces.get_trace(trace_id).steps == ()
    with pytest.raises(NotFound):
        traces.create_trace("mine", "run-9", trace_id="run-9", parent_trace_id="run-9")
    traces.create_trace("other", "run-7")
    with pytest.raises(BadInput, match="2 traces begin"):
        traces.get_trace("run-")
    with pytest.raises(NotFound):
        traces.get_trace("")


def test_pages_go_on_while_new_traces_are_written(traces: ExecutionTraceService) -> None:
    ids = [traces.create_trace("mine", f"run-{i:02}") for i in range(25)]
    seen: list[str] = []
    before = None
    while page := traces.list_traces(limit=7, before=before):
        traces.create_trace("late", f"late-{len(seen)}")
        seen += [t.id for t in page]
        before = (page[-1].started_at, page[-1].id)
    assert seen == ids[::-1]
    assert {t.agent_name for t in traces.list_traces(agent_name="late")} == {"late"}


def test_token_sums_per_agent(traces: ExecutionTraceService) -> None:
    for run in ("a", "b"):
        trace = traces.create_trace("mine", run)
        traces.add_step(trace, {"step_number": 1, "step_type": "action", "input_tokens": 10, "output_tokens": 2})
    (usage,) = traces.token_usage()
    assert (usage.traces, usage.input_tokens, usage.output_tokens, usage.cost_usd) == (2, 20, 4, 0)


def test_steps_that_are_added_at_once_follow_each_other(
    traces: ExecutionTraceService, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["backend"] == "bolt" and isinstance(request.getfixturevalue("bolt"), ArcadeDB):
        pytest.skip("ArcadeDB locks nothing: who writes to one trace at once gives up in the end")
    trace = traces.create_trace("mine", "run")

    def add() -> None:
        for _ in range(5):
            traces.add_step(trace, {"step_number": 1, "step_type": "action", "input_tokens": 1})

    threads = [Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full = traces.get_trace(trace)
    assert [step.order for step in full.steps] == list(range(1, 21))
    assert (full.trace.step_count, full.trace.input_tokens) == (20, 20)


def test_one_of_those_who_create_a_trace_at_once_does(
    traces: ExecutionTraceService, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["backend"] == "bolt" and isinstance(request.getfixturevalue("bolt"), ArcadeDB):
        pytest.skip("ArcadeDB locks nothing: several may make one node")
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.append(traces.create_trace("mine", "run"))
        except BadInput as error:
            outcomes.append(str(error))

    threads = [Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome == "run/mine" for outcome in outcomes) == [False] * 5 + [True]
    assert len(traces.list_traces()) == 1


def test_values_of_many_kinds_are_kept(traces: ExecutionTraceService) -> None:
    """What comes back is what JSON has of it."""
    trace = traces.create_trace("mine", "run")
    arguments = {"a": (1, 2), "b": float("inf"), "c": 2**70, "d": {"e": [None, True]}}
    step = {
        "step_number": 1,
        "step_type": "action",
        "observation": AgentText("seen"),
        "coherence": 1,
        "started_at": START.astimezone(timezone(timedelta(hours=9))),
        "tool_calls": [ToolUse(position="p", name="n", arguments=arguments, started_at=START)],
    }
    traces.add_step(trace, step)
    (kept,) = traces.get_trace(trace).steps
    assert (kept.observation, kept.coherence, kept.started_at) == ("seen", 1.0, START)
    assert kept.tool_calls[0].arguments == {**arguments, "a": [1, 2]}
