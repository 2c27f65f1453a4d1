"""Each callback fires for its step type, and its effect is seen where it matters."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from smolagents import ActionStep, PlanningStep, Tool, ToolCallingAgent
from smolagents.memory import FinalAnswerStep, ToolCall
from smolagents.monitoring import LogLevel

from conftest import Clock
from dionysus.callbacks import CallbackRegistry
from dionysus.callbacks.audit import Audit
from dionysus.callbacks.basins import basin_activation_callback
from dionysus.callbacks.iwmt import iwmt_coherence_callback
from dionysus.callbacks.pruning import MemoryPruning
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.errors import BadInput, RunAborted
from dionysus.journal import Frame, ToolEvent, recorded_model, recorded_tool
from dionysus.memory.basins import Basins
from dionysus.memory.semantic import SemanticMemory
from dionysus.models.scripted import ScriptedModel
from dionysus.stores import Store
from dionysus.traces import ExecutionTraceService

TEXT = "\n".join(f"line {i} of a long observation about identifier_{i % 7}" for i in range(60))


class Fetch(Tool):
    name = "fetch"
    description = "Fetches."
    inputs = {"page": {"type": "integer", "description": "Which."}}  # noqa: RUF012
    output_type = "string"

    def forward(self, page: int) -> str:
        return f"page {page}\n{TEXT}\n" + "\n".join(f"only page {page} says so {page * 1000 + i}" for i in range(60))


class Recall(Tool):
    name = "semantic_recall"
    description = "Recalls."
    inputs = {"query": {"type": "string", "description": "What."}}  # noqa: RUF012
    output_type = "string"

    def forward(self, query: str) -> str:
        return f"- [memory] something about {query}"


def fetch(page: int) -> dict[str, Any]:
    return {"thought": f"fetch {page}", "calls": [{"name": "fetch", "arguments": {"page": page}}]}


DONE = {"thought": "enough", "calls": [{"name": "final_answer", "arguments": {"answer": "done"}}]}


def run(
    frame: Frame,
    registry: CallbackRegistry,
    actions: list[Any],
    *,
    interval: int | None = 3,
    pruning: MemoryPruning | None = None,
) -> ScriptedModel:
    """Runs a real agent over a script; returns the model, which has the prompts."""
    model = ScriptedModel(actions)
    registry.register(PlanningStep, execution_trace_callback)
    registry.register(ActionStep, execution_trace_callback)
    if pruning is not None:
        registry.register(ActionStep, pruning.memory_pruning_callback)
    agent = ToolCallingAgent(
        tools=[recorded_tool(Fetch(), frame), recorded_tool(Recall(), frame)],
        model=recorded_model(model, frame),
        step_callbacks=registry.get_registry("tester", frame),
        planning_interval=interval,
        max_steps=10,
        verbosity_level=LogLevel.OFF,
    )
    frame.bind(agent)
    frame.on_tool = registry.tool_called
    frame.start("find the pages", "scripted")
    agent.run("find the pages")
    return model


def shown(prompt: Any) -> str:
    return "\n".join(part["text"] for message in prompt for part in message.content)


def only(step_type: type, callback: Any) -> CallbackRegistry:
    registry = CallbackRegistry()
    registry.register(step_type, callback)
    return registry


# -- the registry -------------------------------------------------------------------------------------


def test_callbacks_fire_in_order_and_for_their_type(frame: Frame) -> None:
    fired: list[str] = []
    registry = CallbackRegistry()
    registry.register(ActionStep, lambda step: fired.append(f"a{step.step_number}"))
    registry.register(ActionStep, lambda step, agent: fired.append(f"b{step.step_number}"))
    registry.register(PlanningStep, lambda step, agent, frame: fired.append(f"plan by {frame.agent_name}"))
    run(frame, registry, [fetch(1), DONE])
    assert fired == ["plan by tester", "a1", "b1", "a2", "b2"]
    assert [c.__name__ for c in registry.get_callbacks(ActionStep)][:2] == ["<lambda>", "<lambda>"]


def test_tool_callbacks_are_told_before_and_after(frame: Frame) -> None:
    told: list[tuple[str, str, Any]] = []
    run(frame, only(ToolCall, lambda event: told.append((event.phase, event.name, event.result))), [fetch(1), DONE])
    assert [(phase, name) for phase, name, _ in told] == [("before", "fetch"), ("after", "fetch")]
    assert told[1][2].startswith("page 1\n")


def test_a_failing_callback_is_recorded_and_the_run_goes_on(frame: Frame, traces: ExecutionTraceService) -> None:
    def broken(step: ActionStep) -> None:
        raise ZeroDivisionError("in my callback")

    run(frame, only(ActionStep, broken), [fetch(1), DONE])
    failures = [f for step in traces.get_trace("run-1").steps for f in step.callback_failures]
    assert len(failures) == 2
    assert "broken" in failures[0].callback
    assert "ZeroDivisionError: in my callback" in failures[0].traceback
    assert "test_callbacks.py" in failures[0].traceback


def test_a_required_callback_that_fails_ends_the_run(frame: Frame) -> None:
    def broken(step: ActionStep) -> None:
        raise ZeroDivisionError("in my callback")

    registry = CallbackRegistry()
    registry.register(ActionStep, broken, required=True)
    with pytest.raises(RunAborted, match="in my callback"):
        run(frame, registry, [fetch(1), DONE])


def test_only_the_three_step_types_and_callables_are_taken() -> None:
    registry = CallbackRegistry()
    with pytest.raises(BadInput, match="PlanningStep, ActionStep, ToolCall"):
        registry.register(FinalAnswerStep, print)
    with pytest.raises(BadInput, match="takes"):
        registry.register(ActionStep, lambda: None)
    assert registry.get_registry("nobody") == {}


# -- coherence ----------------------------------------------------------------------------------------


def test_coherence_is_in_the_model_input_after_every_plan(
    frame: Frame, traces: ExecutionTraceService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dionysus")
    model = run(frame, only(PlanningStep, iwmt_coherence_callback), [*map(fetch, range(6)), DONE])
    after_plans = [prompt for i, prompt in enumerate(model.prompts) if i in (1, 5, 9)]
    assert "nothing to measure before the first action" in shown(after_plans[0])
    for prompt, step in zip(after_plans[1:], [s for s in frame.finished if s.step_type == "planning"][1:], strict=True):
        line = next(line for line in str(step.plan).splitlines() if line.startswith("[IWMT] Coherence: "))
        assert line in shown(prompt)
    planned = [s for s in traces.get_trace("run-1").steps if s.step_type == "planning"]
    assert planned[0].coherence is None
    assert all(s.coherence is not None and 0 <= s.coherence <= 1 for s in planned[1:])
    lines = [r.message for r in caplog.records if r.message.startswith("[IWMT] Coherence: ")]
    assert len(lines) == 3
    assert lines[1].endswith("%")


def test_a_loop_brings_a_warning_into_the_plan(frame: Frame) -> None:
    model = run(frame, only(PlanningStep, iwmt_coherence_callback), [*[fetch(1)] * 6, DONE])
    last = shown(model.prompts[9])
    assert "WARNING: coherence is below 50%" in last
    assert "steps 1–6 call fetch 1, the same each time" in last


# -- pruning ------------------------------------------------------------------------------------------


def see_once(frame: Frame, actions: list[Any], *, interval: int | None = 3) -> ScriptedModel:
    return run(frame, CallbackRegistry(), actions, interval=interval, pruning=MemoryPruning("see-once"))


def observation(prompt: Any, page: int) -> str:
    texts = [str(part["text"]) for message in prompt for part in message.content]
    seen = [text for text in texts if text.startswith("Observation:\n")]
    return next(text for text in seen if f"page {page}\n" in text or f"({page})]" in text)


def test_an_observation_is_whole_once_and_then_a_stub(frame: Frame, traces: ExecutionTraceService) -> None:
    model = see_once(frame, [fetch(1), fetch(2), fetch(3), DONE], interval=None)
    full = f"Observation:\n{Fetch().forward(1)}".rstrip()
    assert observation(model.prompts[1], 1) == full
    stub = observation(model.prompts[2], 1)
    assert stub.startswith(f"Observation:\n[cut {len(full) - 13} chars; recall_observation(1)]")
    assert len(stub) < len(full) / 2
    assert "identifier_3" in stub
    assert observation(model.prompts[3], 1) == stub
    assert observation(model.prompts[2], 2).startswith("Observation:\npage 2")
    step = traces.get_trace("run-1").steps[0]
    assert step.observation == full.removeprefix("Observation:\n")
    assert step.pruned is not None
    assert step.pruned.before_step == 3
    assert step.pruned.chars_saved == len(full) - len(stub)


def test_what_is_fetched_again_stays(frame: Frame) -> None:
    model = see_once(frame, [fetch(1), fetch(2), fetch(1), fetch(3), fetch(4), DONE], interval=None)
    assert Fetch().forward(1) not in shown(model.prompts[2])
    assert shown(model.prompts[-1]).count(Fetch().forward(1)) == 1


def test_short_observations_stay(frame: Frame) -> None:
    calls = [{"calls": [{"name": "semantic_recall", "arguments": {"query": f"q{i}"}}]} for i in range(4)]
    model = see_once(frame, [*calls, DONE])
    assert "[cut" not in shown(model.prompts[-1])


def test_the_window_rule_keeps_the_newest_steps(frame: Frame) -> None:
    pruning = MemoryPruning("window", window=3)
    model = run(frame, CallbackRegistry(), [*map(fetch, range(1, 7)), DONE], interval=None, pruning=pruning)
    last = shown(model.prompts[-1])
    assert [f"recall_observation({n})" in last for n in range(1, 7)] == [True, True, True, False, False, False]


def test_999_turns_pruning_off(frame: Frame) -> None:
    pruning = MemoryPruning("window", window=999)
    model = run(frame, CallbackRegistry(), [*map(fetch, range(1, 7)), DONE], pruning=pruning)
    assert "[cut" not in shown(model.prompts[-1])


def test_what_pruning_saved_is_counted_against_the_prompts(frame: Frame) -> None:
    see_once(frame, [fetch(1), fetch(2), fetch(3), DONE], interval=None)
    cuts = [cut for cuts in frame.effects["pruned"] for cut in cuts]
    # step 1 is a stub in the prompts of actions 3 and 4, step 2 in that of action 4
    assert [c["step"] for c in cuts] == [1, 2]
    assert frame.spent.chars_saved == 2 * cuts[0]["chars_saved"] + cuts[1]["chars_saved"]


# -- basins -------------------------------------------------------------------------------------------


def test_recall_activates_basins_and_links_the_trace(
    frame: Frame, store: Store, clock: Clock, traces: ExecutionTraceService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dionysus")
    basins = Basins(store.mind, store.memories, clock=clock)
    memory = SemanticMemory(store.memories, basins, clock=clock, hide=str)
    tides = basins.opened("", "talk about tides")
    memory.remember("the tides follow the moon", basin_id=tides)
    memory.remember("bread needs salt", basin_id=basins.opened("", "kitchen"))
    recall = {"calls": [{"name": "semantic_recall", "arguments": {"query": "moon tides"}}]}
    model = run(
        frame,
        only(ActionStep, partial(basin_activation_callback, memory=memory, basins=basins)),
        [fetch(1), recall, DONE],
        interval=None,
    )
    links = traces.get_trace("run-1").basins
    assert [(link.basin_id, link.at_step) for link in links] == [(tides, 2)]
    assert 0 < links[0].strength < 1
    assert "`talk about tides` (follow, moon, tides) is active" in shown(model.prompts[-1])
    assert "basin 'talk about tides' activated" in caplog.text


# -- audit --------------------------------------------------------------------------------------------


def test_the_audit_log_has_a_line_each(frame: Frame, clock: Clock, tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", clock=clock)
    registry = only(PlanningStep, audit.step_callback)
    registry.register(ActionStep, audit.step_callback)
    registry.register(ToolCall, audit.tool_callback)
    run(frame, registry, [fetch(1), DONE])
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["PlanningStep", "ToolCall.before", "ToolCall.after", "ActionStep", "ActionStep"]
    assert {line["trace"] for line in lines} == {"run-1"}


def test_an_audit_log_that_cannot_be_written_says_so(clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write the audit log"):
        Audit(tmp_path / "no" / "audit.jsonl", clock=clock)


def test_tool_events_say_what_failed(frame: Frame) -> None:
    told: list[ToolEvent] = []
    wrong = {"calls": [{"name": "fetch", "arguments": {"page": "x"}}]}
    run(frame, only(ToolCall, lambda event: told.append(event)), [wrong, fetch(1), DONE])
    assert [e.name for e in told] == ["fetch", "fetch"]  # the wrong call never reached the tool
