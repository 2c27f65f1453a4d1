"""Agents that this project did not build, attached: the same answer or error as bare, plus a complete trace."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image
from smolagents import (
    ActionStep,
    CodeAgent,
    LocalPythonExecutor,
    LogLevel,
    Model,
    MultiStepAgent,
    PlanningStep,
    Tool,
    ToolCallingAgent,
)
from smolagents.agents import ActionOutput
from smolagents.local_python_executor import PythonExecutor
from smolagents.memory import ToolCall
from smolagents.models import (
    ChatMessage,
    ChatMessageStreamDelta,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    TokenUsage,
)

from conftest import Clock
from dionysus import Runtime
from dionysus.errors import BadInput, CallbackFailed, RunInterrupted, ToolRefused
from dionysus.journal import ToolEvent
from dionysus.models import open_model
from dionysus.models.scripted import ScriptedModel
from dionysus.traces.service import FullTrace
from openai_server import openai_server
from transcripts import act, add, answer, call, code, read

KEY = "sk-proj-" + "a1B2" * 8
_IWMT = re.compile(r"\\n\\n\[IWMT\] Coherence: [^'\"]*?(?=['\"]\})")


@pytest.fixture
def runtime(tmp_path: Path, clock: Clock) -> Iterator[Runtime]:
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db", clock=clock) as opened:
        yield opened


def calling(*turns: Any, tools: Any = (add, read), **options: Any) -> ToolCallingAgent:
    return ToolCallingAgent(list(tools), ScriptedModel(turns), verbosity_level=LogLevel.OFF, **options)


def coding(*turns: Any, tools: Any = (add, read), **options: Any) -> CodeAgent:
    return CodeAgent(list(tools), ScriptedModel(turns), verbosity_level=LogLevel.OFF, **options)


class Streaming(ScriptedModel):
    """A script that streams its answers in small pieces."""

    def generate_stream(self, messages: Any, **options: Any) -> Iterator[ChatMessageStreamDelta]:
        message = self.generate(messages, **options)
        for piece in re.findall(r".{1,4}", message.content or "", re.S):
            yield ChatMessageStreamDelta(content=piece)
        for i, made in enumerate(message.tool_calls or ()):
            function = ChatMessageToolCallFunction(
                name=made.function.name, arguments=json.dumps(made.function.arguments)
            )
            yield ChatMessageStreamDelta(
                tool_calls=[ChatMessageToolCallStreamDelta(index=i, id=made.id, type="function", function=function)]
            )
        if message.token_usage:
            yield ChatMessageStreamDelta(content="", token_usage=message.token_usage)


def parallel() -> MultiStepAgent:
    two = act(call("add", a=1, b=2), call("read", page=7))
    return calling(two, act(call("add", a=3, b=4)), answer("seven"), planning_interval=2)


def coder() -> MultiStepAgent:
    return coding(code("x = add(1, b=5)\nprint(x)"), code("y = add(x, x)\nread(2)"), code("final_answer(y)"))


def nested() -> MultiStepAgent:
    helper = calling(
        act(call("read", page=1)), answer("page one"), planning_interval=2, name="helper", description="Reads."
    )
    return coding(
        code("found = helper('read page one')\nprint(found)"), code("final_answer(found)"), managed_agents=[helper]
    )


def used_up() -> MultiStepAgent:
    return calling(act(call("add", a=1, b=1)), act(call("add", a=1, b=2)), max_steps=2)


def model_fails() -> MultiStepAgent:
    return calling(act(call("add", a=1, b=1)), {"error": "the server is gone"})


def planning_fails() -> MultiStepAgent:
    return ToolCallingAgent(
        [add],
        ScriptedModel([answer()], plans=[{"error": "no plan"}]),
        planning_interval=2,
        verbosity_level=LogLevel.OFF,
    )


def tool_fails() -> MultiStepAgent:
    return calling(act(call("read", page=-1)), answer("no such page"))


def unknown_tool() -> MultiStepAgent:
    return calling(act(call("fly", to="moon")), answer("cannot fly"))


def bad_code() -> MultiStepAgent:
    return coding(code("x = = 1"), code("import os"), code("print(add(1))"), code("final_answer('gave up')"))


def streams() -> MultiStepAgent:
    agent = ToolCallingAgent(
        [add],
        Streaming([act(call("add", a=1, b=2)), answer("three")]),
        planning_interval=2,
        stream_outputs=True,
        verbosity_level=LogLevel.OFF,
    )
    return agent


def streams_code() -> MultiStepAgent:
    model = Streaming([code("x = add(2, 3)"), code("final_answer(x)")])
    return CodeAgent([add], model, stream_outputs=True, verbosity_level=LogLevel.OFF)


KINDS: list[Callable[[], MultiStepAgent]] = [
    parallel, coder, nested, used_up, model_fails, planning_fails, tool_fails, unknown_tool, bad_code, streams,
    streams_code,
]  # fmt: skip


def outcome(run: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "answer", run()
    except Exception as error:  # noqa: BLE001 – compared with the bare run's
        return type(error).__name__, str(error)


def prompts_of(agent: MultiStepAgent) -> list[list[str]]:
    return [[_IWMT.sub("", str(m.content)) for m in prompt] for prompt in agent.model.prompts]


def assert_complete(full: FullTrace) -> None:
    trace = full.trace
    assert trace.completed_at is not None
    assert [s.order for s in full.steps] == list(range(1, len(full.steps) + 1))
    assert trace.step_count == sum(s.step_type != "planning" for s in full.steps)
    assert trace.model_calls == sum(len(s.model_calls) for s in full.steps)
    assert trace.input_tokens == sum(s.input_tokens for s in full.steps)
    if trace.status in ("success", "max_steps"):
        assert all(s.completed_at for s in full.steps)
        assert all(use.completed_at for s in full.steps for use in s.tool_calls)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_the_same_answer_or_error_as_bare(runtime: Runtime, make: Callable[[], MultiStepAgent]) -> None:
    bare, given = make(), make()
    expected = outcome(lambda: bare.run("the task"))
    attached = runtime.attach(given)
    got = outcome(lambda: attached.run("the task", run_id="r1").output)
    assert got == expected
    assert prompts_of(given) == prompts_of(bare)
    for trace in runtime.traces.list_traces(run_id="r1"):
        assert_complete(runtime.traces.get_trace(trace.id))
    status = runtime.traces.get_trace("r1").trace.status
    wanted = {"used_up": "max_steps", "model_fails": "error", "planning_fails": "error"}
    assert status == wanted.get(make.__name__, "success")
    assert given.memory.steps == []
    assert given.step_number == 0


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_streams_yield_what_bare_ones_do(runtime: Runtime, make: Callable[[], MultiStepAgent]) -> None:
    bare, given = make(), make()
    expected = outcome(lambda: [type(x).__name__ for x in bare.run("the task", stream=True)])
    attached = runtime.attach(given)
    stream = None

    def read_all() -> list[str]:
        nonlocal stream
        stream = attached.run("the task", run_id="r1", stream=True)
        return [type(x).__name__ for x in stream]

    assert outcome(read_all) == expected
    assert_complete(runtime.traces.get_trace("r1"))
    if expected[0] == "answer":
        assert stream is not None
        assert stream.result.output == make().run("the task")


def test_the_trace_of_parallel_calls_holds_each(runtime: Runtime) -> None:
    result = runtime.attach(parallel()).run("the task")
    full = runtime.traces.get_trace(result.trace_id)
    plans = [s.step_number for s in full.steps if s.step_type == "planning"]
    assert plans == [1, 3]
    first = next(s for s in full.steps if s.step_type == "action")
    assert sorted(use.name for use in first.tool_calls) == ["add", "read"]
    assert [use.result for use in first.tool_calls if use.name == "add"] == [3]
    assert "word_7_119" in str(first.observation)
    assert "[IWMT] Coherence: " in str(full.steps[0].plan)


def test_a_nested_pair_leaves_two_linked_traces_and_one_sum(runtime: Runtime) -> None:
    result = runtime.attach(nested()).run("the task", run_id="pair")
    child, parent = sorted(runtime.traces.list_traces(run_id="pair"), key=lambda t: t.parent_trace_id is None)
    assert (child.agent_name, child.parent_trace_id, child.parent_step) == ("helper", "pair", 1)
    assert child.id.startswith("pair/helper.1.")
    assert result.usage.input_tokens == parent.input_tokens + child.input_tokens == 400
    assert result.model_calls == parent.model_calls + child.model_calls == 5
    use = runtime.traces.get_trace("pair").steps[0].tool_calls[0]
    assert (use.name, use.arguments) == ("helper", {"task": "read page one"})
    assert "page one" in use.result


def test_steps_used_up_by_a_member_are_said(runtime: Runtime) -> None:
    helper = calling(act(call("add", a=1, b=1)), max_steps=1, name="helper", description="Adds.")
    manager = calling(act(call("helper", task="add")), answer(), tools=[], managed_agents=[helper])
    runtime.attach(manager).run("the task", run_id="r1")
    assert "no final answer within 1 actions" in str(manager.model.prompts[1][-1].content)


def test_the_same_member_called_in_parallel_keeps_its_runs_apart(runtime: Runtime) -> None:
    """One shared memory would mix them (smolagents#1781)."""

    class Echo(Model):
        def __init__(self) -> None:
            super().__init__(model_id="echo")

        def generate(self, messages: Any, **options: Any) -> ChatMessage:
            said = str(messages[-1].content)
            asked = re.findall(r"number (\d)", str(messages))
            time.sleep(0.02)
            turn = act(call("add", a=int(asked[0]), b=0)) if "Observation" not in said else answer(asked[0])
            return ScriptedModel([turn]).generate(messages, tools_to_call_from=[add])

    helper = ToolCallingAgent([add], Echo(), name="helper", description="Adds.", verbosity_level=LogLevel.OFF)
    many = act(*(call("helper", task=f"number {i}") for i in range(6)))
    manager = calling(many, answer(), tools=[], managed_agents=[helper])
    runtime.attach(manager).run("the task", run_id="r1")
    children = [t for t in runtime.traces.list_traces(run_id="r1") if t.parent_trace_id]
    assert len({t.id for t in children}) == 6
    for trace in children:
        full = runtime.traces.get_trace(trace.id)
        asked = re.findall(r"number (\d)", str(trace.task))[0]
        assert trace.summary == asked
        assert [use.result for s in full.steps for use in s.tool_calls] == [int(asked), asked]


def test_two_threads_may_run_one_attached_agent(runtime: Runtime) -> None:
    class Twice(Model):
        def generate(self, messages: Any, **options: Any) -> ChatMessage:
            time.sleep(0.01)
            done = "Observation" in str(messages[-1].content)
            turn = answer(re.findall(r"task (\d)", str(messages))[0]) if done else act(call("add", a=1, b=1))
            return ScriptedModel([turn]).generate(messages, tools_to_call_from=[add])

    attached = runtime.attach(ToolCallingAgent([add], Twice(), verbosity_level=LogLevel.OFF))
    results: dict[int, Any] = {}

    def run(i: int) -> None:
        results[i] = attached.run(f"task {i}", run_id=f"r{i}")

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: r.output for i, r in results.items()} == {i: str(i) for i in range(6)}
    for i in range(6):
        full = runtime.traces.get_trace(f"r{i}")
        assert_complete(full)
        assert [s.step_number for s in full.steps] == [1, 2]


@pytest.mark.not_replayed("the agents' own callbacks are counted")
def test_callbacks_fire_for_every_agent_and_the_agents_own_stay(runtime: Runtime) -> None:
    fired: list[tuple[str, str]] = []
    runtime.callbacks.register(ActionStep, lambda step, agent, frame: fired.append(("ours", frame.agent_name)))
    runtime.callbacks.register(PlanningStep, lambda step, agent, frame: fired.append(("plan", frame.agent_name)))
    agent = nested()
    agent.step_callbacks.register(ActionStep, lambda step, agent: fired.append(("theirs", type(agent).__name__)))
    runtime.attach(agent).run("the task")
    assert fired == [
        ("plan", "helper"),
        ("ours", "helper"),
        ("ours", "helper"),
        ("theirs", "CodeAgent"),
        ("ours", "CodeAgent"),
        ("theirs", "CodeAgent"),
        ("ours", "CodeAgent"),
    ]
    assert agent.monitor.step_durations == []


@pytest.mark.parametrize("make", [calling, coding])
def test_a_refused_call_is_not_made_and_becomes_an_observation(runtime: Runtime, make: Any) -> None:
    made: list[int] = []

    class Delete(Tool):
        name = "delete"
        description = "Deletes."
        inputs = {"number": {"type": "integer", "description": "Which."}}  # noqa: RUF012
        output_type = "string"

        def forward(self, number: int) -> str:
            made.append(number)
            return f"deleted {number}"

    def policy(event: ToolEvent) -> None:
        if event.phase == "before" and event.name == "delete" and event.arguments["number"] > 1:
            raise ToolRefused("only number 1 may be deleted")

    events: list[tuple[str, str, str | None]] = []
    runtime.callbacks.register(ToolCall, policy)
    runtime.callbacks.register(ToolCall, lambda e: events.append((e.phase, e.name, e.error)))
    turns = (
        [act(call("delete", number=1), call("delete", number=2)), answer()]
        if make is calling
        else [code("delete(1)"), code("delete(number=2)\nprint('on')"), code("final_answer('done')")]
    )
    agent = make(*turns, tools=[Delete()])
    result = runtime.attach(agent).run("the task", run_id="r1")
    assert result.output == "done"
    assert made == [1]
    shown = str(agent.model.prompts[-1][-1].content)
    assert "only number 1 may be deleted" in shown
    uses = [use for s in runtime.traces.get_trace("r1").steps for use in s.tool_calls if use.name == "delete"]
    assert {use.arguments["number"]: bool(use.error) for use in uses} == {1: False, 2: True}
    assert ("after", "delete", "ToolRefused: only number 1 may be deleted") in events
    assert {use.result for use in uses} == {"deleted 1", None}


def test_a_refused_final_answer_is_no_answer(runtime: Runtime) -> None:
    def policy(event: ToolEvent) -> None:
        if event.phase == "before" and event.arguments == {"answer": "rash"}:
            raise ToolRefused("think again")

    runtime.callbacks.register(ToolCall, policy)
    agent = calling(answer("rash"), answer("wise"))
    assert runtime.attach(agent).run("the task").output == "wise"
    assert "think again" in str(agent.model.prompts[1])


def test_a_refused_member_is_not_called(runtime: Runtime) -> None:
    def policy(event: ToolEvent) -> None:
        if event.phase == "before" and event.name == "helper":
            raise ToolRefused("not today")

    runtime.callbacks.register(ToolCall, policy)
    agent = coding(
        code("helper('x')"), code("final_answer(1)"), managed_agents=[calling(name="helper", description="Helps.")]
    )
    assert runtime.attach(agent).run("the task", run_id="r1").output == 1
    assert "not today" in str(agent.model.prompts[1][-1].content)
    assert len(runtime.traces.list_traces(run_id="r1")) == 1


@pytest.mark.parametrize("step_type", [ActionStep, ToolCall, PlanningStep])
def test_a_required_callback_that_fails_in_a_member_ends_the_whole_run(runtime: Runtime, step_type: Any) -> None:
    def broken(step: Any, agent: Any, frame: Any) -> None:
        if frame.agent_name == "helper":
            raise ZeroDivisionError("in my policy")

    runtime.callbacks.register(step_type, broken, required=True)
    agent = nested()
    with pytest.raises(CallbackFailed, match="in my policy"):
        runtime.attach(agent).run("the task", run_id="r1")
    assert {t.status for t in runtime.traces.list_traces(run_id="r1")} == {"error"}
    assert len(agent.model.prompts) == 1


def test_a_run_that_is_asked_to_stop_stops_within_its_member(runtime: Runtime) -> None:
    runtime.callbacks.register(PlanningStep, lambda step, agent, frame: runtime.stop("enough"))
    with pytest.raises(RunInterrupted, match="enough"):
        runtime.attach(nested()).run("the task", run_id="r1")
    assert {t.status for t in runtime.traces.list_traces(run_id="r1")} == {"interrupted"}
    assert not runtime.stop("again")


def test_a_stream_that_is_closed_is_interrupted(runtime: Runtime) -> None:
    stream = runtime.attach(parallel()).run("the task", run_id="r1", stream=True)
    next(stream)
    stream.close()
    trace = runtime.traces.get_trace("r1").trace
    assert (trace.status, trace.error_message) == ("interrupted", "the stream was closed")
    with pytest.raises(BadInput, match="not read to its end"):
        _ = stream.result


def test_a_streamed_call_whose_reader_goes_is_on_record(runtime: Runtime) -> None:
    stream = runtime.attach(streams_code()).run("the task", run_id="r1", stream=True)
    next(stream)
    del stream
    full = runtime.traces.get_trace("r1")
    assert full.trace.status == "interrupted"
    assert full.steps[0].model_calls[0].error == "GeneratorExit: the stream was closed before its end"


def test_pruning_is_off_unless_asked_for_and_says_what_it_would_save(runtime: Runtime) -> None:
    def reader() -> ToolCallingAgent:
        return calling(*(act(call("read", page=i)) for i in range(4)), answer())

    whole = reader()
    off = runtime.attach(whole).run("the task", run_id="off")
    short = reader()
    on = runtime.attach(short, pruning="see-once").run("the task", run_id="on")
    assert (off.tokens_saved, on.tokens_prunable) == (0, 0)
    assert off.tokens_prunable > 50
    assert on.tokens_saved > 50
    assert "[cut" not in str(whole.model.prompts)
    last = str(short.model.prompts[-1])
    assert last.count("[cut ") == 3 + 1  # three stubs, and the line of the system prompt that explains them
    assert "word_3_119" in last
    assert "recall_observation" not in str(prompts_of(whole))


def test_what_was_cut_can_be_fetched_back(runtime: Runtime) -> None:
    turns = [act(call("read", page=i)) for i in range(3)]
    agent = calling(*turns, act(call("recall_observation", step=1, query="word_0_117")), answer())
    runtime.attach(agent, pruning="see-once").run("the task")
    assert "word_0_117" in str(agent.model.prompts[-1][-1].content)


def test_a_conversation_goes_on(runtime: Runtime) -> None:
    agent = coding(code("x = add(1, 2)\nfinal_answer(x)"), code("final_answer(add(x, 4))"))
    attached = runtime.attach(agent, pruning="see-once")
    assert attached.run("first", run_id="r1").output == 3
    second = attached.run("second", run_id="r2", reset=False)
    assert second.output == 7
    assert "first" in str(agent.model.prompts[-1])
    assert agent.memory.steps == []
    assert [s.step_number for s in runtime.traces.get_trace("r2").steps] == [1]


class Odd:
    """Something that nobody can write down."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _circle() -> list[Any]:
    circle: list[Any] = [1]
    circle += [circle, {"again": circle}]
    return circle


ODD: dict[str, Callable[[], Any]] = {
    "image": lambda: Image.new("CMYK", (4, 4)),
    "bytes": lambda: b"\x00\xff" * 50,
    "unprintable": Odd,
    "circle": _circle,
    "nan": lambda: float("nan"),
    "surrogate": lambda: "half \ud800 a pair",
    "nothing": lambda: None,
    "set": lambda: {1, 2},
    "deep": lambda: __import__("functools").reduce(lambda inner, _: [inner], range(200), 1),
}


@pytest.mark.parametrize("what", ODD)
def test_whatever_a_tool_returns(runtime: Runtime, what: str) -> None:
    class Give(Tool):
        name = "give"
        description = "Gives."
        inputs: ClassVar[dict[str, Any]] = {}
        output_type = "any"

        def forward(self) -> Any:
            return ODD[what]()

    def make() -> CodeAgent:
        return coding(code("x = give()\nprint(type(x).__name__)"), code("final_answer('kept')"), tools=[Give()])

    assert runtime.attach(make()).run("the task", run_id="r1").output == make().run("the task") == "kept"
    full = runtime.traces.get_trace("r1")
    assert_complete(full)
    assert full.steps[0].tool_calls[0].error is None


def test_secrets_reach_tools_but_neither_prompts_nor_store(runtime: Runtime, tmp_path: Path) -> None:
    given: list[str] = []

    class Login(Tool):
        name = "login"
        description = "Logs in."
        inputs = {"key": {"type": "string", "description": "The key."}}  # noqa: RUF012
        output_type = "object"

        def forward(self, key: str) -> Any:
            given.append(key)
            return {"session": ["open", {"key": key}]}

    def use(messages: Any) -> Any:
        placeholder = re.findall(r"<secret:openai-key:[\w-]+>", str(messages[-1].content))[0]
        return code(f"s = login({placeholder!r})\nprint(s)")

    agent = coding(use, code("final_answer(s)"), tools=[Login()])
    result = runtime.attach(agent).run(f"log in with {KEY}", run_id="r1")
    assert given == [KEY]
    assert KEY not in str(prompts_of(agent))
    assert KEY not in str(result.output)
    runtime.close()
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("mind.db*") if path.is_file())


def test_a_model_without_usage_is_counted_as_estimated(runtime: Runtime) -> None:
    class Silent(ScriptedModel):
        free = False

        def generate(self, messages: Any, **options: Any) -> ChatMessage:  # type: ignore[override]
            message = super().generate(messages, **options)
            message.token_usage = None
            return message

    agent = ToolCallingAgent([add], Silent([act(call("add", a=1, b=1)), answer()]), verbosity_level=LogLevel.OFF)
    usage = runtime.attach(agent).run("the task").usage
    assert usage.estimated
    assert usage.input_tokens > 100
    assert usage.cost_usd is None


def test_a_forced_answer_that_fails_is_said(runtime: Runtime) -> None:
    def make() -> ToolCallingAgent:
        model = ScriptedModel([act(call("add", a=1, b=1))], final={"error": "no more"})
        return ToolCallingAgent([add], model, max_steps=1, verbosity_level=LogLevel.OFF)

    result = runtime.attach(make()).run("the task")
    assert result.output == make().run("the task")
    assert result.status == "max_steps"
    assert str(result.error) == "no final answer within 1 actions; the forced one failed: ModelError: no more"


@pytest.mark.parametrize(
    ("task", "run_id", "message"),
    [("", None, "empty"), (" \n", None, "empty"), (7, None, "empty"), ("t", "a b", "run_id"), ("t", "", "run_id")],
)
def test_bad_input_is_refused_before_anything_runs(runtime: Runtime, task: Any, run_id: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        runtime.attach(calling(answer())).run(task, run_id=run_id)
    assert runtime.traces.list_traces() == []


def test_what_cannot_be_attached_is_said(runtime: Runtime) -> None:
    with pytest.raises(BadInput, match="no smolagents MultiStepAgent"):
        runtime.attach("agent")
    with pytest.raises(BadInput, match="not one of"):
        runtime.attach(calling(), pruning="some")  # type: ignore[arg-type]
    clash = calling(answer(), tools=[_named("recall_observation")])
    with pytest.raises(BadInput, match="rename yours"):
        runtime.attach(clash, pruning="see-once").run("the task")
    assert runtime.attach(clash).run("the task").output == "done"


def _named(name: str) -> Tool:
    class Named(Tool):
        description = "Does."
        inputs: ClassVar[dict[str, Any]] = {}
        output_type = "string"

        def forward(self) -> str:
            return "did"

    Named.name = name
    return Named()


def test_a_finished_run_gives_its_answer_at_once(runtime: Runtime) -> None:
    attached = runtime.attach(calling(answer()))
    first = attached.run("the task", run_id="r1")
    again = attached.run("the task", run_id="r1")
    assert (again.output, again.status, again.usage) == (first.output, "success", first.usage)
    with pytest.raises(BadInput, match="answered another task"):
        attached.run("another task", run_id="r1")
    assert_complete(runtime.traces.get_trace("r1"))


def test_a_task_of_a_megabyte(runtime: Runtime) -> None:
    task = "a long task " * 90_000
    result = runtime.attach(calling(answer())).run(task)
    assert runtime.traces.get_trace(result.trace_id).trace.task == task


def test_an_agent_attached_twice_and_one_run_bare_do_not_meet(runtime: Runtime) -> None:
    agent = calling(answer("one"), answer("two"), answer("three"))
    first, second = runtime.attach(agent), runtime.attach(agent)
    assert [first.run("t").output, second.run("t").output] == ["one", "two"]
    assert agent.run("t") == "three"
    assert len(runtime.traces.list_traces()) == 2
    assert len(agent.memory.steps) == 2


def test_usage_of_a_stream_is_the_models(runtime: Runtime) -> None:
    class Cached(TokenUsage):
        cached_tokens = 40

    class Reporting(Streaming):
        def generate_stream(self, messages: Any, **options: Any) -> Iterator[ChatMessageStreamDelta]:
            for delta in super().generate_stream(messages, **options):
                if delta.token_usage:
                    delta.token_usage = Cached(input_tokens=100, output_tokens=10)
                yield delta

    model = Reporting([code("x = 1"), code("final_answer(x)")])
    agent = CodeAgent([], model, stream_outputs=True, verbosity_level=LogLevel.OFF)
    usage = runtime.attach(agent).run("the task").usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (200, 80, 20)


def test_a_plain_run_is_untouched(runtime: Runtime) -> None:
    agent = parallel()
    before = dict(vars(agent))
    runtime.attach(agent).run("the task")
    assert {k: v for k, v in vars(agent).items() if v is not before[k]} == {}


def test_streams_over_http_count_what_the_server_reported(runtime: Runtime) -> None:
    turns = [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "final_answer", "arguments": {"answer": "three"}}]
    with openai_server(turns) as server:
        model = open_model("openai:test", api_base=server.url)
        agent = ToolCallingAgent([add], model, stream_outputs=True, planning_interval=2, verbosity_level=LogLevel.OFF)
        result = runtime.attach(agent).run("the task")
        assert result.output == "three"
        assert all(request["stream"] for request in server.requests)
        assert result.usage.input_tokens == sum(u["prompt_tokens"] for u in server.reported)
        cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in server.reported)
        assert result.usage.cached_tokens == cached > 0
        assert not result.usage.estimated


def test_a_stream_that_breaks_off_is_an_error_that_says_so(runtime: Runtime) -> None:
    with openai_server([{"text": "Thought: a long one, and never an end to it"}]) as server:
        server.breaks_off = True
        model = open_model("openai:test", api_base=server.url)
        agent = CodeAgent([add], model, stream_outputs=True, verbosity_level=LogLevel.OFF)
        with pytest.raises(Exception, match=r"peer closed connection|broke off in the middle"):
            runtime.attach(agent).run("the task", run_id="r1")
    full = runtime.traces.get_trace("r1")
    assert full.trace.status == "error"
    assert "ModelError" in str(full.steps[0].model_calls[0].error)


def test_a_run_that_never_began_does_not_stay_open(runtime: Runtime) -> None:
    clash = calling(answer(), tools=[_named("recall_observation")])
    with pytest.raises(BadInput, match="rename yours"):
        runtime.attach(clash, pruning="see-once").run("the task", run_id="r1")
    unread = runtime.attach(calling(answer())).run("the task", run_id="r2", stream=True)
    del unread
    assert runtime._store.records.runs("running") == []
    assert runtime.attach(calling(answer())).run("the task", run_id="r2").output == "done"


def made(name: str, inputs: dict[str, Any], forward: Callable[..., Any], **more: Any) -> Tool:
    """A tool of this name over a function of self and its inputs."""
    body = {"name": name, "description": "Does.", "inputs": inputs, "output_type": "any", "forward": forward, **more}
    kind = type(name.title(), (Tool,), {"skip_forward_signature_validation": True, **body})
    return kind()


ANY = {"type": "any", "description": "Something."}


class Upper(Tool):
    """Like smolagents' PipelineTool: set up late, with a `__call__` of its own."""

    name = "upper"
    description = "Speaks up."
    inputs: ClassVar[dict[str, Any]] = {"text": {"type": "string", "description": "What."}}
    output_type = "string"
    skip_forward_signature_validation = True

    def setup(self) -> None:
        self.encode = str.upper
        super().setup()

    def forward(self, encoded: str) -> str:
        return encoded + "!"

    def __call__(self, *args: Any, sanitize_inputs_outputs: bool = False, **kwargs: Any) -> str:
        if not self.is_initialized:
            self.setup()
        return self.forward(self.encode(kwargs["text"]))


class Duck:
    """smolagents takes anything with a name, a description and a call for a member."""

    name, description = "helper", "Quacks."

    def __call__(self, task: str, **more: Any) -> str:
        return f"quack {task}"


class OwnExecutor(PythonExecutor):
    """Neither smolagents' local nor a remote one."""

    def __init__(self) -> None:
        self.inner = LocalPythonExecutor([])

    def send_tools(self, tools: dict[str, Any]) -> None:
        self.inner.send_tools(tools)

    def send_variables(self, variables: dict[str, Any]) -> None:
        self.inner.send_variables(variables)

    def __call__(self, code_action: str) -> Any:
        return self.inner(code_action)


class Polite(ToolCallingAgent):
    """Its run() takes a task and nothing else."""

    def run(self, task: str) -> Any:
        return super().run("please " + task)


class Judge(ToolCallingAgent):
    """Its step asks the model without stop sequences, positionally."""

    def _step_stream(self, memory_step: ActionStep) -> Iterator[Any]:
        memory_step.model_output = self.model.generate(self.write_memory_to_messages(), ["Observation:"]).content
        memory_step.observations = str(self.execute_tool_call("add", {"a": 1, "b": 2}))
        yield ActionOutput(output="end", is_final_answer=self.step_number == 2)


class Retrying(ToolCallingAgent):
    """Runs twice for each call."""

    def __call__(self, task: str, **more: Any) -> str:
        return f"{self.run(task)} {self.run(task)}"


def keeping() -> ToolCallingAgent | CodeAgent:
    member = coding(
        code("x = 41\nfinal_answer(x)"), code("final_answer(x + 1)"), tools=[], name="helper", description="Keeps."
    )
    return coding(code("helper('one')\nb = helper('two')"), code("final_answer(b)"), tools=[], managed_agents=[member])


UNUSUAL: dict[str, Callable[[], MultiStepAgent]] = {
    "in place": lambda: coding(
        code("x = [3, 1, 2]\nsort(x)\nfinal_answer(x)"), tools=[made("sort", {"xs": ANY}, lambda self, xs: xs.sort())]
    ),
    "argument called frame": lambda: coding(
        code("final_answer(show(frame=3))"), tools=[made("show", {"frame": ANY}, lambda self, frame: frame)]
    ),
    "any arguments": lambda: coding(
        code("final_answer(gather(1, 2, c=3))"),
        tools=[made("gather", {"c": ANY}, lambda self, *args, **more: [args, more])],
    ),
    "own call": lambda: coding(code("final_answer(upper(text='x'))"), tools=[Upper()]),
    "own call by json": lambda: calling(act(call("upper", text="x")), answer(), tools=[Upper()]),
    "member that is no agent": lambda: coding(
        code("final_answer(helper('x'))"), tools=[], managed_agents=[Duck()]
    ),
    "member that goes on": keeping,
    "own executor": lambda: coding(code("x = add(1, 2)"), code("final_answer(x)"), executor=OwnExecutor()),
    "own run": lambda: Polite([add], ScriptedModel([answer()]), verbosity_level=LogLevel.OFF),
    "own step": lambda: Judge([add], ScriptedModel(["I think", "I know"]), verbosity_level=LogLevel.OFF),
    "huge number": lambda: coding(
        code("final_answer(huge() % 7)"), tools=[made("huge", {}, lambda self: 10**5000)]
    ),
    "object beside a url": lambda: coding(
        code("x = both()\nfinal_answer(x['o'].numerator)"),
        tools=[made("both", {}, lambda self: {"url": "https://ada:hunter22@example.org", "o": Fraction(5, 7)})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_agents_answer_as_bare_ones(runtime: Runtime, kind: str) -> None:
    bare, given = UNUSUAL[kind](), UNUSUAL[kind]()
    expected = outcome(lambda: bare.run("the task"))
    assert expected[0] == "answer"
    assert outcome(lambda: runtime.attach(given).run("the task", run_id="r1").output) == expected
    full = runtime.traces.get_trace("r1")
    assert_complete(full)
    assert all(use.error is None for s in full.steps for use in s.tool_calls)
    assert given.memory.steps == []


def test_an_executor_of_its_own_is_left_as_it_was(runtime: Runtime) -> None:
    agent = UNUSUAL["own executor"]()
    runtime.attach(agent).run("the task")
    assert "x" not in agent.python_executor.inner.state


def test_a_conversation_goes_on_with_an_executor_of_its_own(runtime: Runtime) -> None:
    """It has an attribute `inner`, as our own wrapper has."""
    agent = coding(code("x = add(1, 2)\nfinal_answer(x)"), code("final_answer(add(x, 4))"), executor=OwnExecutor())
    attached = runtime.attach(agent)
    assert [attached.run("first").output, attached.run("second", reset=False).output] == [3, 7]
    assert type(attached._conversation.python_executor) is OwnExecutor


def test_a_refused_tool_with_its_own_call_is_not_called(runtime: Runtime) -> None:
    def refuse(event: ToolEvent) -> None:
        if event.phase == "before" and event.name == "upper":
            raise ToolRefused("be quiet")

    runtime.callbacks.register(ToolCall, refuse)
    agent = UNUSUAL["own call by json"]()
    runtime.attach(agent).run("the task")
    assert "be quiet" in str(agent.model.prompts[-1][-1].content)


def test_many_calls_of_one_member_in_one_step_have_a_trace_each(runtime: Runtime) -> None:
    """`check 29` and `check 352` share four digits of their digest."""
    member = calling(*[answer(str(i)) for i in range(2)], name="helper", description="Checks.")
    agent = coding(code("final_answer([helper(f'check {i}') for i in (29, 352)])"), tools=[], managed_agents=[member])
    result = runtime.attach(agent).run("the task", run_id="r1")
    traces = runtime.traces.list_traces(run_id="r1")
    assert len(traces) == 3
    assert sum(t.model_calls for t in traces) == result.model_calls


def test_a_member_that_runs_twice_has_two_traces(runtime: Runtime) -> None:
    member = Retrying(
        [add], ScriptedModel([answer("A"), answer("B")]), name="helper", description="h", verbosity_level=LogLevel.OFF
    )
    agent = coding(code("final_answer(helper('x'))"), tools=[], managed_agents=[member])
    result = runtime.attach(agent).run("the task", run_id="r1")
    assert result.output == "A B"
    assert sum(t.model_calls for t in runtime.traces.list_traces(run_id="r1")) == result.model_calls == 3


def test_flow_does_not_shorten_the_members_of_others(runtime: Runtime) -> None:
    member = calling(
        *[act(call("add", a=i, b=1)) for i in range(5)], answer("five"), name="helper", description="h", max_steps=10
    )
    agent = coding(
        code("1/0"), code("1/0"), code("final_answer(helper('x'))"), tools=[], managed_agents=[member],
        planning_interval=2,
    )  # fmt: skip
    assert str(runtime.attach(agent).run("the task").output).endswith("five")


def test_additional_args_reach_code_but_their_secrets_no_prompt(runtime: Runtime) -> None:
    agent = coding(code("final_answer(len(key))"))
    result = runtime.attach(agent).run("the task", additional_args={"key": KEY})
    assert result.output == len(KEY)
    assert KEY not in str(prompts_of(agent))
    assert "<secret:openai-key:" in str(prompts_of(agent))


def test_a_conversation_that_was_pruned_goes_on_whole(runtime: Runtime) -> None:
    agent = calling(act(call("read", page=1)), act(call("add", a=1, b=2)), answer("one"), answer("two"))
    attached = runtime.attach(agent, pruning="see-once")
    attached.run("first")
    attached.run("second", reset=False)
    assert "word_1_119" in str(agent.model.prompts[-1])


def test_an_own_callback_that_raises_leaves_its_step_on_record(runtime: Runtime) -> None:
    def broken(step: Any, agent: Any) -> None:
        raise ZeroDivisionError("mine")

    agent = calling(act(call("add", a=1, b=1)), step_callbacks={ActionStep: broken})
    with pytest.raises(ZeroDivisionError):
        runtime.attach(agent).run("the task", run_id="r1")
    assert runtime.traces.get_trace("r1").steps[0].observation == "2"


def test_the_working_directory_is_no_secret(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    with Runtime(store="sqlite://", clock=clock) as runtime:
        assert runtime.attach(calling(answer(str(tmp_path)))).run("the task").output == str(tmp_path)


def test_ids_that_are_taken_are_drawn_again(tmp_path: Path, clock: Clock) -> None:
    drawn = iter(["a"] * 5 + ["b"] * 5)
    with Runtime(store="sqlite://", clock=clock, new_suffix=lambda: next(drawn)) as runtime:
        attached = runtime.attach(calling(answer(), answer()))
        ids = [attached.run("t").run_id for _ in range(2)]
    assert ids == ["ToolCallingAgent-a", "ToolCallingAgent-b"]
