"""The journal's powers: resume, replay, fork, cassettes – and budgets, deadlines, holders."""

import gzip
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from smolagents import ActionStep, CodeAgent, LogLevel, MultiStepAgent, PlanningStep, Tool, ToolCallingAgent
from smolagents.memory import ToolCall

from conftest import Clock
from dionysus import Budget, Runtime
from dionysus.errors import (
    BadInput,
    CallUncertain,
    Damaged,
    NotFound,
    ReplayDiverged,
    RunChanged,
    RunHeld,
    RunInterrupted,
    StoreError,
    ToolRefused,
)
from transcripts import ByTranscript, Cut, Note, act, add, agent_of, answer, call, calls_made, code, read

READS = (act(call("read", page=1)), act(call("read", page=2)), act(call("read", page=3)), answer("three pages"))


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Runtime]]:
    """Opens runtimes over one store, each as a process of its own would."""
    open_now: list[Runtime] = []

    def one(**options: Any) -> Runtime:
        runtime = Runtime(store=f"sqlite:///{tmp_path}/mind.db", clock=clock, **options)
        open_now.append(runtime)
        return runtime

    yield one
    for runtime in open_now:
        runtime.close()


@pytest.fixture
def runtime(opened: Callable[..., Runtime]) -> Runtime:
    return opened()


def killed(runtime: Runtime, agent: MultiStepAgent, run_id: str = "r1", task: str = "the task", **options: Any) -> None:
    """Runs an agent to where its process dies; the store is left as a killed process leaves it."""
    with pytest.raises(Cut):
        runtime.attach(agent, **options).run(task, run_id=run_id)
    for event in reversed(list(runtime._store.records.events(run_id))):  # what a killed process does not get to write
        if event.kind != "run_finished" and not event.body.get("cut"):
            break
        runtime._store._database.write("DELETE FROM events WHERE run_id = ? AND seq = ?", (run_id, event.seq))
    runtime.close()


def helper(turns: Any = None, **options: Any) -> ToolCallingAgent:
    turns = turns or (act(call("read", page=1)), answer("page one"))
    return agent_of(turns, [read], name="helper", description="Reads.", planning_interval=2, **options)


def manager(codes: Any, *, tools: Any = (add,), dies_at: int | None = None, **options: Any) -> CodeAgent:
    turns = [code(text) for text in codes]
    return CodeAgent(list(tools), ByTranscript(turns, dies_at=dies_at), verbosity_level=LogLevel.OFF, **options)


# -- resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5, 6])
def test_a_run_goes_on_where_it_stopped(opened: Callable[..., Runtime], dies_at: int) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=dies_at, planning_interval=2))
    again = agent_of(READS, [read], planning_interval=2)
    runtime = opened()
    assert runtime.runs.listed()[0].run.status == "interrupted"
    result = runtime.attach(again).run("the task", run_id="r1")
    assert (result.output, result.status) == ("three pages", "success")
    assert calls_made(again) == 6 - (dies_at - 1)
    assert result.model_calls == 7  # the one that was cut off is counted too
    full = runtime.traces.get_trace("r1")
    assert (full.trace.status, full.trace.model_calls, full.trace.input_tokens) == ("success", 7, 400)
    assert [use.name for step in full.steps for use in step.tool_calls] == ["read"] * 3 + ["final_answer"]
    assert result.usage.input_tokens == 400


def test_the_prompts_of_a_resumed_run_are_those_of_one_that_was_not_cut(opened: Callable[..., Runtime]) -> None:
    whole = agent_of(READS, [read], planning_interval=2)
    opened().attach(whole).run("the task", run_id="whole")
    killed(opened(), agent_of(READS, [read], dies_at=4, planning_interval=2))
    again = agent_of(READS, [read], planning_interval=2)
    opened().attach(again).run("the task", run_id="r1")
    shown = [str(prompt) for prompt in again.model.prompts]
    assert shown == [str(prompt) for prompt in whole.model.prompts][-len(shown) :]


@pytest.mark.parametrize("pruning", ["off", "see-once", "window"])
def test_pruning_goes_on_as_it_was(opened: Callable[..., Runtime], pruning: Any) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=4), pruning=pruning)
    again = agent_of(READS, [read])
    assert opened().attach(again, pruning=pruning).run("the task", run_id="r1").output == "three pages"
    assert ("[cut " in str(again.model.prompts)) is (pruning != "off")


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_member_goes_on_where_it_stopped(opened: Callable[..., Runtime], dies_at: int) -> None:
    codes = ["found = helper('read page one')\nprint(found)", "final_answer(found + '!')"]
    killed(opened(), manager(codes, managed_agents=[helper(dies_at=dies_at)]))
    member = helper()
    agent = manager(codes, managed_agents=[member])
    runtime = opened()
    result = runtime.attach(agent).run("the task", run_id="r1")
    assert "page one" in result.output
    assert (len(member.model.prompts), len(agent.model.prompts)) == (4 - dies_at, 1)
    traces = {trace.agent_name: trace for trace in runtime.traces.list_traces(run_id="r1")}
    assert {trace.status for trace in traces.values()} == {"success"}
    assert traces["helper"].model_calls == 4


def test_variables_of_code_come_back(opened: Callable[..., Runtime]) -> None:
    codes = ["x = add(1, 2)\ny = [x, {'z': (1, 2)}]", "x = x + 1", "final_answer(x + y[0] + y[1]['z'][1])"]
    killed(opened(), manager(codes, dies_at=3))
    agent = manager(codes)
    assert opened().attach(agent).run("the task", run_id="r1").output == 9
    assert len(agent.model.prompts) == 1


def test_what_is_not_the_same_each_time_is_put_back(opened: Callable[..., Runtime]) -> None:
    codes = ["import random, time\nprint(lambda: 0, random.random(), time.time())", "x = add(1, 1)", "final_answer(x)"]
    options: dict[str, Any] = {"additional_authorized_imports": ["random", "time"]}
    killed(opened(), manager(codes, dies_at=3, **options))
    agent = manager(codes, **options)
    result = opened().attach(agent).run("the task", run_id="r1")
    assert result.output == 2
    seen = opened().traces.get_trace("r1").steps[0].observation
    assert seen is not None
    assert re.findall(r"0\.\d{6,}", seen)[0] in str(agent.model.prompts[0])


def test_results_of_tools_come_back_as_they_were(opened: Callable[..., Runtime]) -> None:
    class Things(Tool):
        name = "things"
        description = "Many kinds."
        inputs: dict[str, Any] = {}  # noqa: RUF012
        output_type = "any"

        def forward(self) -> Any:
            return {
                1: (1, {2}, b"\xff"),
                "at": datetime(2026, 1, 2, tzinfo=UTC),
                "cost": Decimal("1.10"),
                "n": 10**2000,
            }

    codes = [
        "t = things()",
        "final_answer([type(t[1]) == tuple, {2} == t[1][1], t['at'].year, str(t['cost']), t['n'] > 5])",
    ]
    killed(opened(), manager(codes, tools=[Things()], dies_at=2))
    output = opened().attach(manager(codes, tools=[Things()])).run("the task", run_id="r1").output
    assert output == [True, True, 2026, "1.10", True]


def test_a_finished_run_gives_its_answer_and_another_task_is_refused(opened: Callable[..., Runtime]) -> None:
    opened().attach(agent_of(READS, [read])).run("the task", run_id="r1")
    again = agent_of(READS, [read])
    attached = opened().attach(again)
    result = attached.run("the task", run_id="r1")
    assert (result.output, result.status, result.model_calls) == ("three pages", "success", 4)
    assert again.model.prompts == []
    stream = attached.run("the task", run_id="r1", stream=True)
    assert [step.output for step in stream] == ["three pages"]
    assert stream.result.output == "three pages"
    with pytest.raises(BadInput, match="answered another task"):
        attached.run("another", run_id="r1")


def test_a_failed_run_goes_on_with_the_call_that_failed(opened: Callable[..., Runtime]) -> None:
    broken = agent_of([*READS[:2], {"error": "the endpoint is down"}], [read])
    with pytest.raises(Exception, match="endpoint is down"):
        opened().attach(broken).run("the task", run_id="r1")
    again = agent_of(READS, [read])
    runtime = opened()
    assert runtime.attach(again).run("the task", run_id="r1").output == "three pages"
    assert len(again.model.prompts) == 2
    full = runtime.traces.get_trace("r1")
    assert [call.error is not None for step in full.steps for call in step.model_calls] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert full.steps[2].error is None


def test_a_member_that_had_failed_for_good_is_not_asked_again(opened: Callable[..., Runtime]) -> None:
    """Its failure is on record, and the manager went on with it."""
    codes = [
        "try:\n    helper('x')\nexcept Exception as e:\n    print('it failed', e)",
        "x = add(1, 2)",
        "final_answer(x)",
    ]
    failing = helper([{"error": "down"}])
    killed(opened(), manager(codes, managed_agents=[failing], dies_at=3))
    member = helper()
    agent = manager(codes, managed_agents=[member])
    runtime = opened()
    assert runtime.attach(agent).run("the task", run_id="r1").output == 3
    assert (member.model.prompts, len(agent.model.prompts)) == ([], 1)
    assert {t.agent_name: t.status for t in runtime.traces.list_traces()} == {"helper": "error", "CodeAgent": "success"}


def test_an_interrupted_run_goes_on(opened: Callable[..., Runtime]) -> None:
    runtime = opened()

    def stop(step: Any) -> None:
        if step.step_number == 2:
            runtime.stop("enough for today")

    runtime.callbacks.register(ActionStep, stop)
    with pytest.raises(RunInterrupted, match="enough"):
        runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
    again = agent_of(READS, [read])
    assert opened().attach(again).run("the task", run_id="r1").output == "three pages"
    assert len(again.model.prompts) == 2


def test_resume_needs_only_the_agent(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3), pruning="see-once")
    runtime = opened()
    with pytest.raises(BadInput, match="an agent of yours"):
        runtime.resume("r1")
    assert runtime.resume("r1", agent_of(READS, [read])).output == "three pages"
    recorded: Any = runtime.resume("r1")
    assert recorded.output == "three pages"
    with pytest.raises(NotFound, match="no run 'r2'"):
        runtime.resume("r2")


def test_streams_go_on_too(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3))
    again = agent_of(READS, [read])
    stream = opened().attach(again).run("the task", run_id="r1", stream=True)
    numbers = [step.step_number for step in stream if isinstance(step, ActionStep)]
    assert numbers == [1, 2, 3, 4]
    assert (stream.result.output, len(again.model.prompts)) == ("three pages", 2)


def test_a_conversation_goes_on_after_the_run_before_it(opened: Callable[..., Runtime]) -> None:
    turns = (answer("first"), act(call("read", page=1)), answer("second"))
    first = opened()
    attached = first.attach(agent_of(turns, [read], dies_at=3))
    attached.run("one", run_id="r0")
    with pytest.raises(Cut):
        attached.run("two", run_id="r1", reset=False)
    first.close()
    again = agent_of(turns, [read])
    assert opened().attach(again).run("two", run_id="r1", reset=False).output == "second"
    assert "first" in str(again.model.prompts[0])
    assert len(again.model.prompts) == 1


def test_step_callbacks_fire_again_and_tool_callbacks_do_not(opened: Callable[..., Runtime], tmp_path: Path) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3, planning_interval=2))
    runtime = opened()
    steps, calls = [], []
    runtime.callbacks.register(ActionStep, lambda step, agent, frame: steps.append(frame.recalls(step)))
    runtime.callbacks.register(ToolCall, lambda event: calls.append((event.phase, event.name)))
    runtime.attach(agent_of(READS, [read], planning_interval=2)).run("the task", run_id="r1")
    assert steps == [True, False, False, False]
    assert calls == [(phase, name) for name in ("read", "read", "final_answer") for phase in ("before", "after")]


def test_what_a_callback_takes_from_outside_comes_from_the_journal(opened: Callable[..., Runtime]) -> None:
    given = iter(range(100))

    def told(step: Any, agent: Any, frame: Any) -> None:
        step.observations = f"{step.observations} number {frame.effect('number', lambda: next(given))}"

    first = opened()
    first.callbacks.register(ActionStep, told)
    killed(first, agent_of(READS, [read], dies_at=3))
    second = opened()
    second.callbacks.register(ActionStep, told)
    again = agent_of(READS, [read])
    assert second.attach(again).run("the task", run_id="r1").output == "three pages"
    assert re.findall(r"number (\d)", str(again.model.prompts[-1])) == ["0", "1", "2"]


def test_a_refused_call_stays_refused(opened: Callable[..., Runtime]) -> None:
    def refuse(event: Any) -> None:
        if event.phase == "before" and event.arguments.get("page") == 1:
            raise ToolRefused("not that page")

    first = opened()
    first.callbacks.register(ToolCall, refuse)
    killed(first, agent_of(READS, [read], dies_at=3))
    again = agent_of(READS, [read])
    assert opened().attach(again).run("the task", run_id="r1").output == "three pages"
    assert "not that page" in str(again.model.prompts[0])


# -- calls that were cut off ------------------------------------------------------------------------------

NOTES = (act(call("note", text="a")), act(call("note", text="b")), answer("noted"))


@pytest.mark.parametrize(("in_flight", "made"), [("report", ["a", "b"]), ("retry", ["a", "b", "b"])])
def test_a_call_with_effects_that_was_cut_off(opened: Callable[..., Runtime], in_flight: Any, made: list[str]) -> None:
    notes: list[str] = []
    agent = agent_of(NOTES, [Note(notes)])
    agent.tools["note"].before = lambda: setattr(agent.tools["note"], "dies", len(notes) == 1)
    killed(opened(), agent)
    again = agent_of(NOTES, [Note(notes)])
    runtime = opened()
    assert runtime.attach(again, in_flight=in_flight).run("the task", run_id="r1").output == "noted"
    assert notes == made
    reported = "may or may not have happened" in str(again.model.prompts[-1])
    assert reported is (in_flight == "report")
    if reported:
        assert "CallUncertain" in str(runtime.traces.get_trace("r1").steps[1].tool_calls[0].error)


def test_a_cut_off_call_may_stop_the_run(opened: Callable[..., Runtime]) -> None:
    notes: list[str] = []
    killed(opened(), agent_of(NOTES, [Note(notes, dies=True)]))
    runtime = opened()
    with pytest.raises(CallUncertain, match=r"action.1/tool:note.*retry"):
        runtime.attach(agent_of(NOTES, [Note(notes)]), in_flight="fail").run("the task", run_id="r1")
    assert notes == ["a"]
    assert runtime.attach(agent_of(NOTES, [Note(notes)])).run("the task", run_id="r1").output == "noted"
    assert notes == ["a", "b"]


def test_a_tool_that_is_idempotent_is_called_again(opened: Callable[..., Runtime]) -> None:
    notes: list[str] = []
    dying, fine = Note(notes, dies=True), Note(notes)
    dying.idempotent = fine.idempotent = True
    killed(opened(), agent_of(NOTES, [dying]))
    again = agent_of(NOTES, [fine])
    assert opened().attach(again).run("the task", run_id="r1").output == "noted"
    assert notes == ["a", "a", "b"]
    assert "may or may not" not in str(again.model.prompts)


def test_code_is_told_by_an_exception(opened: Callable[..., Runtime]) -> None:
    notes: list[str] = []
    codes = ["print('before')\nx = note('a')\nprint('after')", "final_answer('ended')"]
    killed(opened(), manager(codes, tools=[Note(notes, dies=True)]))
    agent = manager(codes, tools=[Note(notes)])
    assert opened().attach(agent).run("the task", run_id="r1").output == "ended"
    assert notes == ["a"]
    assert "may or may not have happened" in str(agent.model.prompts[-1])


# -- what must not go on ----------------------------------------------------------------------------------


def test_what_differs_is_said(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3))
    changes: list[tuple[Callable[[], Any], str]] = [
        (lambda: agent_of(READS, [read, add]), "tools.add is new"),
        (lambda: agent_of(READS, [read], planning_interval=5), "planning_interval was None and is 5"),
        (lambda: agent_of(READS, [read], instructions="Be brief."), "prompts changed"),
        (
            lambda: ToolCallingAgent([read], ByTranscript(READS, model_id="other")),
            "model was 'by transcript' and is 'other'",
        ),
    ]
    for make, said in changes:
        with pytest.raises(RunChanged, match=said) as raised:
            opened().attach(make()).run("the task", run_id="r1")
        assert "accept_changes=True" in str(raised.value)
    with pytest.raises(RunChanged, match="task is another"):
        opened().attach(agent_of(READS, [read])).run("another task", run_id="r1")
    with pytest.raises(RunChanged, match="inputs"):
        opened().attach(agent_of(READS, [read])).run("the task", run_id="r1", max_steps=7)
    runtime = opened()
    assert runtime.runs.found("r1").status == "interrupted"  # nothing changed by any of that
    other = ToolCallingAgent([read], ByTranscript(READS, model_id="other"), verbosity_level=LogLevel.OFF)
    assert runtime.attach(other).run("the task", run_id="r1", accept_changes=True).output == "three pages"
    assert len(other.model.prompts) == 2


def test_a_tool_with_other_code_is_a_change(opened: Callable[..., Runtime]) -> None:
    class Other(Note):
        def forward(self, text: str) -> str:
            return "something else"

    killed(opened(), agent_of(NOTES, [Note([])], dies_at=2))
    with pytest.raises(RunChanged, match=r"code\.note changed"):
        opened().attach(agent_of(NOTES, [Other([])])).run("the task", run_id="r1")
    assert opened().attach(agent_of(NOTES, [Note([])])).run("the task", run_id="r1").output == "noted"


def test_a_prompt_that_is_not_the_one_on_record_stops_with_the_difference(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3))
    changed = agent_of(READS, [read], instructions="Be brief.")
    with pytest.raises(ReplayDiverged, match=r"ToolCallingAgent/action.1/model#1: the prompt") as raised:
        opened().attach(changed).run("the task", run_id="r1", accept_changes=True)
    assert "+Be brief." in raised.value.difference
    assert changed.model.prompts == []
    assert opened().attach(agent_of(READS, [read])).run("the task", run_id="r1").output == "three pages"


def test_code_that_does_something_else_stops_with_the_step_named(opened: Callable[..., Runtime]) -> None:
    codes = ["import random\nx = add(int(random.random() * 10**9), 1)", "y = add(1, 1)", "final_answer(y)"]
    options: dict[str, Any] = {"additional_authorized_imports": ["random"]}
    killed(opened(), manager(codes, dies_at=2, **options))
    with pytest.raises(ReplayDiverged, match=r"action.1/tool:add:.*on record is|action.1.*though the whole step is"):
        opened().attach(manager(codes, **options)).run("the task", run_id="r1")


def test_code_that_goes_another_way_within_a_step_makes_no_other_call(opened: Callable[..., Runtime]) -> None:
    notes: list[str] = []
    codes = ["import random\nnote(str(random.random()))\nadd(1, 1)\nnote('last')", "final_answer(1)"]
    options: dict[str, Any] = {"additional_authorized_imports": ["random"]}
    dying = Note(notes)
    dying.before = lambda: setattr(dying, "dies", len(notes) == 1)
    killed(opened(), manager(codes, tools=[add, dying], **options))
    with pytest.raises(ReplayDiverged, match=r"action.1/tool:note.*on record is the call of note with"):
        opened().attach(manager(codes, tools=[add, Note(notes)], **options)).run("the task", run_id="r1")
    assert len(notes) == 2  # the first one, and the one in which the process died


def test_a_value_that_no_journal_holds_is_named_where_it_matters(opened: Callable[..., Runtime]) -> None:
    class Opaque:
        number = 3

    class Odd(Tool):
        name = "odd"
        description = "An object."
        inputs: dict[str, Any] = {}  # noqa: RUF012
        output_type = "any"

        def forward(self) -> Any:
            return Opaque()

    codes = ["o = odd()\nx = add(o.number, 1)", "final_answer(x)"]
    killed(opened(), manager(codes, tools=[Odd(), add], dies_at=2))
    with pytest.raises(ReplayDiverged, match=r"Opaque that odd returned; let tools return plain data"):
        opened().attach(manager(codes, tools=[Odd(), add])).run("the task", run_id="r1")


def test_imports_that_reach_outside_are_warned_about(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    runtime.attach(manager([], additional_authorized_imports=["yaml", "urllib.request", "math"]))
    assert "may import urllib.request, yaml," in caplog.text
    caplog.clear()
    runtime.attach(manager([], additional_authorized_imports=["math", "datetime"]))
    assert caplog.text == ""


def test_two_runtimes_do_not_work_on_one_run(opened: Callable[..., Runtime]) -> None:
    waiting, go = threading.Event(), threading.Event()

    def hold() -> None:
        waiting.set()
        assert go.wait(30)

    first, second = opened(), opened()
    agent = agent_of(NOTES, [Note([], before=hold)])
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(first.attach(agent).run("the task", run_id="r1")))
    thread.start()
    assert waiting.wait(30)
    for runtime, who in ((second, r"process \d+ on \S+ works on it"), (first, "this process works on it")):
        with pytest.raises(RunHeld, match=who):
            runtime.attach(agent_of(NOTES, [Note([])])).run("the task", run_id="r1")
    go.set()
    thread.join()
    assert ended[0].output == "noted"


def test_a_damaged_journal_says_how_far_it_goes(opened: Callable[..., Runtime], tmp_path: Path) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=4))
    before = tmp_path / "mind.db"
    with sqlite3.connect(before) as db:
        seq = db.execute("SELECT max(seq) FROM events WHERE kind = 'tool_finished'").fetchone()[0]
        db.execute("UPDATE events SET body = 'gar' || 'bage' WHERE seq = ?", (seq,))
    db.close()
    runtime = Runtime(store=f"sqlite:///{before}", settings=None)
    try:
        with pytest.raises(Damaged, match=r"after event \d+ \(whole steps before that: 2\).*runs fork r1 --at 2"):
            runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
        again = agent_of(READS, [read])
        result = runtime.attach(again).fork("r1", at_step=2)
        assert (result.output, len(again.model.prompts)) == ("three pages", 2)
    finally:
        runtime.close()


def test_a_missing_event_is_damage(opened: Callable[..., Runtime], tmp_path: Path) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=4))
    with sqlite3.connect(tmp_path / "mind.db") as db:
        db.execute("DELETE FROM events WHERE seq = 9")
    db.close()
    with pytest.raises(Damaged, match="event 9 is missing"):
        opened().replay("r1", agent_of(READS, [read]))


# -- secrets ------------------------------------------------------------------------------------------------

KEY = "sk-proj-" + "a1B2" * 8


class Login(Tool):
    name = "login"
    description = "Logs in."
    inputs = {"key": {"type": "string", "description": "The key."}}  # noqa: RUF012
    output_type = "string"

    def __init__(self, got: list[str]) -> None:
        super().__init__()
        self.got = got

    def forward(self, key: str) -> str:
        self.got.append(key)
        return f"logged in with {key}"


def with_key(messages: Any) -> Any:
    return act(call("login", key=re.findall(r"<secret:openai-key:\w+>", str(messages))[0]))


def test_tools_get_the_secret_back_after_a_crash_from_the_task_or_the_environment(
    opened: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns = (with_key, with_key, answer("in"))
    killed(opened(), agent_of(turns, [Login([])], dies_at=2), task=f"use {KEY}")
    got: list[str] = []
    with pytest.raises(BadInput, match=r"needs <secret:openai-key:.*which the process that began the run knew"):
        opened().resume("r1", agent_of(turns, [Login(got)]))
    assert got == []
    with monkeypatch.context() as environment:
        environment.setenv("MY_API_KEY", KEY)
        assert opened().resume("r1", agent_of(turns, [Login(got)])).output == "in"
    assert got == [KEY]
    killed(opened(), agent_of(turns, [Login([])], dies_at=2), task=f"use {KEY}", run_id="r2")
    opened().attach(agent_of(turns, [Login(got)])).run(f"use {KEY}", run_id="r2")
    assert got == [KEY, KEY]
    for file in tmp_path.iterdir():
        assert file.is_dir() or KEY.encode() not in file.read_bytes()


# -- replay -------------------------------------------------------------------------------------------------


def test_a_replay_calls_nothing_and_writes_nothing(opened: Callable[..., Runtime], tmp_path: Path) -> None:
    notes: list[str] = []
    opened().attach(agent_of(NOTES, [Note(notes)], planning_interval=2)).run("the task", run_id="r1")
    runtime = opened()
    events = list(runtime._store.records.events("r1"))
    again = agent_of(NOTES, [Note(notes)], planning_interval=2)
    result = runtime.replay("r1", again)
    assert (result.output, result.status, result.model_calls) == ("noted", "success", 5)
    assert (again.model.prompts, notes) == ([], ["a", "b"])
    assert list(runtime._store.records.events("r1")) == events
    assert runtime.runs.found("r1").status == "success"


def test_a_changed_prompt_is_found_by_replay(runtime: Runtime) -> None:
    runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
    with pytest.raises(ReplayDiverged) as raised:
        runtime.replay("r1", agent_of(READS, [read], instructions="Be brief."))
    assert raised.value.position == "ToolCallingAgent/action.1/model#1"
    assert "+Be brief." in raised.value.difference
    assert runtime.runs.found("r1").status == "success"


def test_a_callback_that_changes_what_is_shown_is_found_by_replay(runtime: Runtime) -> None:
    runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1", additional_args={"size": 3})
    changed = agent_of(READS, [read])
    changed.prompt_templates["system_prompt"] += "\nMore."
    with pytest.raises(ReplayDiverged, match="prompt is not the one on record"):
        runtime.replay("r1", changed)


def test_replay_of_a_run_that_did_not_finish_goes_as_far_as_its_record(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3))
    result = opened().replay("r1", agent_of(READS, [read]))
    assert (result.status, result.output) == ("interrupted", None)
    assert "the record ends before a call of the model at ToolCallingAgent/action.3/model#1" in str(result.error)


def test_replay_of_a_failed_run_fails_in_the_same_way(opened: Callable[..., Runtime]) -> None:
    with pytest.raises(Exception, match="down"):
        opened().attach(agent_of([READS[0], {"error": "down"}], [read])).run("the task", run_id="r1")
    result = opened().replay("r1", agent_of(READS, [read]))
    assert (result.status, result.error) == ("error", "down")


def test_replay_needs_no_model_and_no_folder_for_beats_and_questions(
    opened: Callable[..., Runtime], tmp_path: Path
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    runtime = opened()
    beat, asked = runtime.beat(folder), runtime.ask("what is there?", folder)
    (folder / "a.txt").unlink()
    folder.rmdir()
    assert opened().replay(str(beat.run_id)).output == beat.text
    assert opened().replay(asked.run_id).output == asked.text


# -- fork ---------------------------------------------------------------------------------------------------


def test_a_fork_with_an_edited_observation_shares_what_came_before(runtime: Runtime) -> None:
    runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
    before = list(runtime._store.records.events("r1"))
    again = agent_of(READS, [read])
    result = runtime.fork("r1", again, at_step=2, edit={"observation": "the page is missing"}, new_id="r1~a")
    assert (result.output, result.run_id, len(again.model.prompts)) == ("three pages", "r1~a", 2)
    assert "the page is missing" in str(again.model.prompts[0])
    assert "word_2_0" not in str(again.model.prompts[0])
    assert list(runtime._store.records.events("r1")) == before
    fork, parent = runtime.traces.get_trace("r1~a"), runtime.traces.get_trace("r1")
    assert [s.observation == t.observation for s, t in zip(fork.steps, parent.steps, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    assert (fork.trace.forked_from, fork.trace.status, fork.trace.model_calls) == (
        "r1",
        "success",
        2,
    )  # what it shares, the other run paid for
    one, other = (runtime.runs.summary(runtime.runs.found(run)) for run in ("r1", "r1~a"))
    assert other.own_bytes < 0.8 * one.own_bytes
    own = runtime._store._database.rows("SELECT count(*) FROM events WHERE run_id = 'r1~a'")[0][0]
    assert own < len(before)
    assert runtime.replay("r1~a", agent_of(READS, [read])).output == "three pages"
    parting = runtime.runs.diff("r1", "r1~a")
    assert (parting.same_steps, parting.step, parting.what) == (1, "action 2", "observation")
    assert "+the page is missing" in parting.difference


def test_a_fork_with_another_plan_or_model(runtime: Runtime) -> None:
    turns = (act(call("read", page=1)), act(call("read", page=2)), act(call("read", page=3)), answer("done"))
    runtime.attach(agent_of(turns, [read], planning_interval=2)).run("the task", run_id="r1")
    again = agent_of(turns, [read], planning_interval=2)
    result = runtime.fork("r1", again, at_step=2, edit={"plan": "1. Read no more."})
    assert "1. Read no more." in str(again.model.prompts[0])
    assert (result.output, len(again.model.prompts)) == ("done", 2)
    other = ByTranscript((*turns[:2], answer("early")), model_id="other")
    result = runtime.fork("r1", agent_of(turns, [read], planning_interval=2), at_step=2, model=other)
    assert (result.output, len(other.prompts)) == ("early", 2)  # a plan, then the answer
    assert runtime.replay(result.run_id, agent_of(turns, [read], planning_interval=2)).output == "early"
    assert runtime.runs.diff("r1", result.run_id).step == "action 3"


def test_a_fork_of_a_fork_with_members(opened: Callable[..., Runtime]) -> None:
    codes = ["found = helper('read page one')\nprint(found)", "x = add(1, 2)\nprint(x)", "final_answer(found)"]
    runtime = opened()
    runtime.attach(manager(codes, managed_agents=[helper()])).run("the task", run_id="r1")
    agent = manager(codes, managed_agents=[helper()])
    assert "page one" in str(runtime.fork("r1", agent, at_step=2, new_id="r2").output)
    assert calls_made(agent) == 1
    third = manager(codes, managed_agents=[helper()])
    assert "page one" in str(runtime.fork("r2", third, at_step=1, new_id="r3").output)
    assert calls_made(third) == 2
    names = {t.id: t.status for t in runtime.traces.list_traces(run_id="r3")}
    assert set(names.values()) == {"success"}
    assert len(names) == 2
    assert all(name.partition("/")[0] == "r3" for name in names)
    assert {t.id for t in runtime.traces.get_trace("r3").delegated} == set(names) - {"r3"}
    assert runtime.replay("r3", manager(codes, managed_agents=[helper()])).status == "success"


def test_a_fork_of_a_beat_goes_on_too(opened: Callable[..., Runtime], tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    runtime = opened()
    beat = runtime.beat(folder)
    stopped = runtime.fork(str(beat.run_id), at_step=3, budget=Budget(calls=8), new_id="other")
    assert stopped.status == "budget_exhausted"
    done = opened().resume("other", budget=Budget(calls=30))
    assert (done.status, done.run_id, done.model_calls) == ("success", "other", 10)
    assert opened().replay("other").status == "success"
    assert opened().beat(folder).status == "idle"


def test_forks_that_cannot_be(runtime: Runtime) -> None:
    runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
    agent = agent_of(READS, [read])
    for options, said in (
        ({"at_step": 9}, "no step 9 to share; its last whole one is 4"),
        ({"at_step": 4}, "step 4 of run 'r1' has the answer"),
        ({"at_step": -1}, "not a whole number"),
        ({"at_step": 2, "edit": {"thought": "x"}}, "takes texts for `observation` and `plan`"),
        ({"at_step": 0, "edit": {"observation": "x"}}, "no observation to edit"),
        ({"at_step": 2, "edit": {"plan": "x"}}, "no plan"),
        ({"at_step": 2, "new_id": "r1"}, "'r1' exists"),
    ):
        with pytest.raises(BadInput, match=re.escape(said)):
            runtime.fork("r1", agent, **options)
    assert len(runtime.runs.listed()) == 1
    assert runtime.fork("r1", agent, at_step=0).output == "three pages"
    assert len(agent.model.prompts) == 4


# -- cassettes ------------------------------------------------------------------------------------------------


def test_a_run_travels_in_a_file(runtime: Runtime, tmp_path: Path) -> None:
    codes = ["found = helper('read page one')\nprint(found)", "final_answer(found)"]
    runtime.attach(manager(codes, managed_agents=[helper()])).run("the task", run_id="r1")
    file = tmp_path / "run.cassette"
    assert runtime.runs.export("r1", file) == len(list(runtime._store.records.events("r1")))
    with pytest.raises(BadInput, match="exists and is left as it is"):
        runtime.runs.export("r1", file)
    first = file.read_bytes()
    runtime.runs.export("r1", file, overwrite=True)
    assert file.read_bytes() == first
    with Runtime(store="sqlite://") as other:
        assert other.import_run(file) == "r1"
        assert other.replay("r1", manager(codes, managed_agents=[helper()])).status == "success"
        there, here = other.traces.get_trace("r1"), runtime.traces.get_trace("r1")
        assert (there.trace, there.steps) == (here.trace, here.steps)
        with pytest.raises(BadInput, match="exists; take it in under another id"):
            other.import_run(file)
        other.import_run(file, as_id="r2")
        assert {t.id.partition("/")[0] for t in other.traces.list_traces()} == {"r1", "r2"}
        assert other.runs.diff("r1", "r2").step is None


def test_a_damaged_cassette_says_how_much_is_whole(runtime: Runtime, tmp_path: Path) -> None:
    runtime.attach(agent_of(READS, [read])).run("the task", run_id="r1")
    file = tmp_path / "run.cassette"
    count = runtime.runs.export("r1", file)
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    damages = {
        "torn": whole[: len(whole) * 3 // 4],
        "short": gzip.compress(b"".join(lines[:-3])),
        "changed": gzip.compress(b"".join(lines).replace(b"word_2_7", b"word_2_8")),
        "garbled": gzip.compress(b"".join([*lines[:9], b"{]\n", *lines[9:]])),
        "holes": gzip.compress(b"".join([*lines[:9], *lines[10:]])),
    }
    for name, damaged in damages.items():
        file.write_bytes(damaged)
        with Runtime(store="sqlite://") as other:
            with pytest.raises(Damaged, match="--partial") as raised:
                other.import_run(file)
            assert 0 < raised.value.usable <= count
            assert other.runs.listed() == []
            other.import_run(file, partial=True)
            assert other.runs.found("r1").status == "interrupted", name
            if name in ("torn", "short", "garbled", "holes"):
                assert other.resume("r1", agent_of(READS, [read])).output == "three pages"
    for nothing in (
        b"hello",
        gzip.compress(b"{}\n"),
        gzip.compress(b""),
        gzip.compress(b'{"dionysus-cassette": 99}\n'),
    ):
        file.write_bytes(nothing)
        with pytest.raises(BadInput, match=r"no cassette|has format 99"):
            runtime.import_run(file)
    with pytest.raises(BadInput, match="cannot read the cassette"):
        runtime.import_run(tmp_path / "none")
    with pytest.raises(StoreError, match="cannot write the cassette"):
        runtime.runs.export("r1", tmp_path / "no" / "folder")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith("part")) == []


def test_cassettes_hold_no_secrets(runtime: Runtime, tmp_path: Path) -> None:
    runtime.attach(agent_of((with_key, answer("in")), [Login([])])).run(f"use {KEY}", run_id="r1")
    file = tmp_path / "run.cassette"
    runtime.runs.export("r1", file)
    assert KEY.encode() not in gzip.decompress(file.read_bytes())


# -- budgets ------------------------------------------------------------------------------------------------


def test_a_budget_of_calls_lets_not_one_more_begin(opened: Callable[..., Runtime]) -> None:
    runtime = opened()
    agent = agent_of(READS, [read], planning_interval=2)
    result = runtime.attach(agent, budget=Budget(calls=3)).run("the task", run_id="r1")
    assert (result.status, result.output, result.model_calls) == ("budget_exhausted", None, 3)
    assert "3 of 3 model calls" in str(result.error)
    assert len(agent.model.prompts) == 3
    assert runtime.traces.get_trace("r1").trace.status == "budget_exhausted"
    again = agent_of(READS, [read], planning_interval=2)
    assert runtime.resume("r1", again).status == "budget_exhausted"
    assert again.model.prompts == []  # its own budget stays
    result = runtime.attach(again).run("the task", run_id="r1", budget=Budget(calls=10))
    assert (result.status, result.output, result.model_calls) == ("success", "three pages", 6)
    assert len(again.model.prompts) == 3


def test_a_budget_goes_for_parallel_members_too(runtime: Runtime) -> None:
    """Five members in five threads: no more calls are made than were allowed, whoever is first."""

    class Slow(ByTranscript):
        def generate(self, messages: Any, *args: Any, **options: Any) -> Any:
            time.sleep(0.005)
            return super().generate(messages, *args, **options)

    members = []
    for i in range(5):
        member = agent_of((act(call("read", page=1)), act(call("read", page=2)), answer("x")), [read])
        member.name, member.description, member.model = f"m{i}", "Reads.", Slow(member.model.turns)
        members.append(member)
    turns = (act(*[call(f"m{i}", task=f"task {i}") for i in range(5)]), answer("all"))
    for calls in (2, 4, 7, 11):
        for member in members:
            member.model.prompts.clear()
        top = agent_of(turns, [], managed_agents=members)
        result = runtime.attach(top).run("the task", budget=Budget(calls=calls))
        assert result.status == "budget_exhausted"
        assert result.model_calls == calls_made(top) == calls
        assert {t.status for t in runtime.traces.list_traces(run_id=result.run_id)} <= {"budget_exhausted", "success"}


def test_tokens_money_and_time_stop_the_next_call(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def priced() -> Any:
        agent = agent_of(READS, [read])
        agent.model.model_id = "gpt-4o"
        return agent

    result = runtime.attach(priced()).run("the task", budget=Budget(tokens=150))
    assert (result.model_calls, result.status) == (2, "budget_exhausted")  # 110 tokens a call
    result = runtime.attach(priced()).run("the task", budget=Budget(usd=0.0004))
    assert (result.model_calls, result.status) == (2, "budget_exhausted")
    assert result.usage.cost_usd == pytest.approx(2 * (100 * 2.5 + 10 * 10) / 1e6)
    result = runtime.attach(priced()).run("the task", budget=Budget(seconds=0))
    assert (result.model_calls, result.status) == (0, "budget_exhausted")


def test_a_price_that_is_not_known_is_said_to_be(runtime: Runtime) -> None:
    agent = agent_of(READS, [read])
    with pytest.raises(BadInput, match="price of 'by transcript' is not known"):
        runtime.attach(agent).run("the task", budget=Budget(usd=1))
    assert agent.model.prompts == []
    assert runtime.attach(agent).run("the task").usage.cost_usd is None


def test_a_daily_budget_goes_for_all_runs_and_processes(
    opened: Callable[..., Runtime], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIONYSUS_DAILY_BUDGET", "calls=6")
    assert opened().attach(agent_of(READS, [read])).run("the task", run_id="r1").status == "success"
    agent = agent_of(READS, [read])
    result = opened().attach(agent).run("the task", run_id="r2")
    assert (result.status, len(agent.model.prompts)) == ("budget_exhausted", 2)
    assert "today's budget (UTC) is used up: 6 of 6 model calls" in str(result.error)
    clock.now = clock.now.replace(day=clock.now.day + 1)
    assert opened().resume("r2", agent_of(READS, [read])).status == "success"


def test_what_a_crash_cut_off_is_counted(opened: Callable[..., Runtime]) -> None:
    killed(opened(), agent_of(READS, [read], dies_at=3))
    agent = agent_of(READS, [read])
    result = opened().attach(agent).run("the task", run_id="r1", budget=Budget(calls=4))
    assert (result.status, len(agent.model.prompts)) == ("budget_exhausted", 1)


@pytest.mark.parametrize(
    "text", ["", "calls", "calls=x", "calls=-1", "calls=1.5", "pence=3", "calls=1,calls=2", "usd=nan", "usd=inf"]
)
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="budget"):
        Budget.parse(text)


def test_a_budget_as_text() -> None:
    budget = Budget.parse("calls=20, usd=0.50")
    assert budget == Budget(calls=20, usd=0.5)
    assert Budget.parse(str(budget)) == budget


# -- time -----------------------------------------------------------------------------------------------------


class Hanging(ByTranscript):
    """Its n-th call hangs until the test is over."""

    def __init__(self, turns: Any, at: int, released: threading.Event) -> None:
        super().__init__(turns)
        self.at, self.released = at, released

    def generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        if len(self.prompts) + 1 == self.at:
            self.prompts.append(messages)
            self.released.wait(60)
        return super().generate(messages, *args, **options)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def hanging(released: threading.Event, at: int = 2) -> ToolCallingAgent:
    return ToolCallingAgent([read], Hanging(READS, at, released), verbosity_level=LogLevel.OFF)


def test_a_model_call_that_hangs_is_left_behind(runtime: Runtime, released: threading.Event) -> None:
    with pytest.raises(Exception, match=r"did not answer within 0\.2 s"):
        runtime.attach(hanging(released), model_timeout_s=0.2).run("the task", run_id="r1")
    assert runtime.runs.found("r1").status == "error"
    again = agent_of(READS, [read])
    assert runtime.attach(again).run("the task", run_id="r1").output == "three pages"
    assert len(again.model.prompts) == 3


def test_a_deadline_reaches_a_call_that_hangs_in_a_member(runtime: Runtime, released: threading.Event) -> None:
    member = hanging(released)
    member.name, member.description = "helper", "Reads."
    agent = manager(["final_answer(helper('x'))"], managed_agents=[member])
    result = runtime.attach(agent).run("the task", run_id="r1", deadline_s=0.3)
    assert (result.status, result.output) == ("interrupted", None)
    assert "the deadline of 0.3 s passed" in str(result.error)
    assert {t.status for t in runtime.traces.list_traces(run_id="r1")} == {"interrupted"}
    whole = agent_of(READS, [read], name="helper", description="Reads.")
    again = manager(["final_answer(helper('x'))"], managed_agents=[whole])
    assert "three pages" in str(runtime.attach(again).run("the task", run_id="r1", accept_changes=True).output)


def test_an_interrupt_reaches_members_and_calls_that_hang(runtime: Runtime, released: threading.Event) -> None:
    member = hanging(released)
    member.name, member.description = "helper", "Reads."
    attached = runtime.attach(manager(["final_answer(helper('x'))"], managed_agents=[member]), model_timeout_s=60)
    assert attached.interrupt() is False

    def soon() -> None:
        while len(member.model.prompts) < 2:
            time.sleep(0.01)
        assert attached.interrupt("the user left")

    thread = threading.Thread(target=soon)
    thread.start()
    with pytest.raises(RunInterrupted, match="the user left"):
        attached.run("the task", run_id="r1")
    thread.join()
    assert {t.status for t in runtime.traces.list_traces(run_id="r1")} == {"interrupted"}


def test_what_was_left_behind_writes_nothing_more(runtime: Runtime, released: threading.Event) -> None:
    result = runtime.attach(hanging(released)).run("the task", run_id="r1", deadline_s=0.2)
    assert result._frame.run.is_closed
    before = len(list(runtime._store.records.events("r1")))
    released.set()
    time.sleep(0.2)
    assert len(list(runtime._store.records.events("r1"))) == before


def test_limits_that_are_none(runtime: Runtime) -> None:
    for seconds in (0, -1):
        with pytest.raises(BadInput, match="deadline_s"):
            runtime.attach(agent_of(READS, [read])).run("the task", deadline_s=seconds)
    with pytest.raises(BadInput, match="model_timeout_s"):
        runtime.attach(agent_of(READS, [read]), model_timeout_s=0)
    with pytest.raises(BadInput, match="in_flight"):
        runtime.attach(agent_of(READS, [read]), in_flight="perhaps")  # type: ignore[arg-type]


# -- beats and questions ------------------------------------------------------------------------------------


def test_a_beat_and_a_question_go_on(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    url = f"sqlite:///{tmp_path}/mind.db"
    with Runtime(store=url, clock=clock, settings=None) as runtime:
        runtime.callbacks.register(ActionStep, lambda step: runtime.stop("for now") if step.step_number == 4 else None)
        with pytest.raises(RunInterrupted):
            runtime.beat(folder)
    (folder / "b.txt").write_text("it came later")
    with Runtime(store=url, clock=clock) as runtime:
        (run,) = runtime.runs.listed()
        assert run.run.status == "interrupted"
        report: Any = runtime.resume(run.run.run_id[:6])
        assert (report.status, report.number) == ("success", 1)
        assert "b.txt" not in report.text
        assert runtime.traces.get_trace(report.trace_id).trace.model_calls == 14
        later = runtime.beat(folder)
        assert "b.txt" in later.text  # the resumed beat kept what it had seen, not what came later
        limited = runtime.ask("what is there?", folder)
        assert limited.status == "success"
    with Runtime(store=url, clock=clock) as runtime:
        runtime.callbacks.register(
            PlanningStep, lambda step, agent, frame: runtime.stop("now") if frame.depth else None
        )
        with pytest.raises(RunInterrupted):
            runtime.ask("what is there?", folder)
    with Runtime(store=url, clock=clock) as runtime:
        answered: Any = runtime.resume(runtime.runs.listed()[0].run.run_id)
        assert answered.status == "success"
        assert len(answered.sources) == 4
        assert answered.text
