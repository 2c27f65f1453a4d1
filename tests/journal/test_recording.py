"""The wrapped model and tools: what is written, when, and what reaches the agent."""

import re
import threading
from typing import Any

import pytest
from smolagents import ChatMessage, Model, Tool, ToolCallingAgent
from smolagents.models import MessageRole
from smolagents.monitoring import LogLevel

from dionysus.callbacks import CallbackRegistry
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.errors import RunAborted, RunInterrupted
from dionysus.journal import Frame, recorded_model, recorded_tool
from dionysus.journal.secrets import Secrets
from dionysus.models.scripted import ScriptedModel
from dionysus.stores import Store
from dionysus.traces import ExecutionTraceService

KEY = "sk-proj-" + "a1B2" * 8


class Look(Tool):
    name = "look"
    description = "Looks."
    inputs = {"what": {"type": "string", "description": "What."}}  # noqa: RUF012
    output_type = "string"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def forward(self, what: str) -> str:
        self.asked.append(what)
        if what == "nothing":
            raise ValueError("there is nothing")
        return f"saw {what}"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def agent_of(frame: Frame, model: Model, *tools: Tool, **options: Any) -> ToolCallingAgent:
    registry = CallbackRegistry()
    from smolagents import ActionStep, PlanningStep

    registry.register(PlanningStep, execution_trace_callback)
    registry.register(ActionStep, execution_trace_callback)
    agent = ToolCallingAgent(
        tools=[recorded_tool(tool, frame) for tool in tools],
        model=recorded_model(model, frame),
        step_callbacks=registry.get_registry("tester", frame),
        verbosity_level=LogLevel.OFF,
        **options,
    )
    agent.tools["final_answer"] = recorded_tool(agent.tools["final_answer"], frame)
    frame.bind(agent)
    frame.start("the task", "scripted")
    return agent


def done(answer: str = "done", **more: Any) -> dict[str, Any]:
    return {"thought": "enough", "calls": [call("final_answer", answer=answer)], **more}


def test_every_call_is_written_in_order(frame: Frame, store: Store) -> None:
    model = ScriptedModel(
        [
            {
                "thought": "two at once",
                "calls": [call("look", what="a"), call("look", what="b")],
                "usage": {"input_tokens": 10, "output_tokens": 5},
            },
            done(),
        ]
    )
    assert agent_of(frame, model, Look(), planning_interval=3).run("the task") == "done"
    frame.finish("success", output="done")
    kinds = [e.kind for e in store.records.events("run-1")]
    assert kinds[:3] == ["run_started", "model_started", "model_called"]
    assert kinds.count("tool_started") == kinds.count("tool_finished") == 3
    assert kinds[-2:] == ["step_finished", "run_finished"]
    for event in store.records.events("run-1"):
        if event.kind == "tool_finished":
            started = [e for e in store.records.events("run-1") if e.position == event.position and e.seq < event.seq]
            assert [e.kind for e in started] == ["tool_started"]


def test_prompts_are_kept_as_what_is_new(frame: Frame, store: Store) -> None:
    model = ScriptedModel([{"thought": str(i), "calls": [call("look", what=str(i))]} for i in range(5)] + [done()])
    agent_of(frame, model, Look()).run("the task")
    calls = [e for e in store.records.events("run-1") if e.kind == "model_started"]
    rebuilt: dict[int, list[Any]] = {}
    for event in calls:
        delta = event.body["prompt"]
        before = rebuilt[delta["like"]][: delta["keep"]] if delta["like"] else []
        rebuilt[event.seq] = before + delta["add"]
        assert len(delta["add"]) <= 3
    sent = [[m.content[0]["text"] for m in prompt] for prompt in model.prompts]
    assert [[m["content"][0]["text"] for m in prompt] for prompt in rebuilt.values()] == sent


def test_positions_do_not_depend_on_time_or_chance(frame: Frame, store: Store, clock: Any) -> None:
    from dataclasses import replace

    def positions(run: str) -> list[tuple[str, str | None]]:
        again = replace(frame, trace_id=run, finished=[], effects={})
        again.run = type(frame.run)(run, frame.run.journal, secrets=Secrets(), meter=frame.run.meter)
        text = 'Action:\n{"name": "look", "arguments": {"what": "x"}}'
        agent_of(again, ScriptedModel([text, text, done()]), Look()).run("the task")
        return [(e.position, e.digest) for e in store.records.events(run)]

    assert positions("one") == positions("two")


def test_a_failing_tool_is_written_and_the_agent_told(frame: Frame, traces: ExecutionTraceService) -> None:
    model = ScriptedModel([{"thought": "try", "calls": [call("look", what="nothing")]}, done()])
    agent_of(frame, model, Look()).run("the task")
    step = traces.get_trace("run-1").steps[0]
    assert step.tool_calls[0].error == "ValueError: there is nothing"
    assert step.error is not None
    assert "there is nothing" in step.error


def test_a_failing_model_is_written(frame: Frame, traces: ExecutionTraceService) -> None:
    agent = agent_of(frame, ScriptedModel([{"error": "no answer"}]), Look())
    with pytest.raises(Exception, match="no answer"):
        agent.run("the task")
    step = traces.get_trace("run-1").steps[0]
    assert step.model_calls[0].error == "ModelError: no answer"


def test_the_tool_itself_is_left_as_it_was(frame: Frame) -> None:
    tool = Look()
    agent_of(frame, ScriptedModel([{"calls": [call("look", what="a")]}, done()]), tool).run("the task")
    assert tool.asked == ["a"]
    assert "forward" not in vars(tool)


def test_secrets_reach_tools_but_neither_transcript_nor_store(frame: Frame, store: Store) -> None:
    class Reveal(Look):
        name = "reveal"

        def forward(self, what: str) -> str:
            self.asked.append(what)
            return f"the key is {KEY}, password in https://ada:hunter22@example.org/x"

    tool = Reveal()

    def use(messages: Any) -> dict[str, Any]:
        (placeholder,) = re.findall(r"<secret:openai-key:\w+>", messages[-1].content[0]["text"])
        assert KEY not in str(messages)
        return {"calls": [call("reveal", what=f"use {placeholder}")]}

    model = ScriptedModel([{"calls": [call("reveal", what="x")]}, use, done()])
    agent_of(frame, model, tool).run("the task")
    assert tool.asked == ["x", f"use {KEY}"]
    dump = "\n".join(store._database._connection.iterdump())
    texts = b"".join(row[0] for row in store._database.rows("SELECT body FROM texts")).decode()
    assert KEY not in dump + texts
    assert "hunter22" not in dump + texts


def test_a_run_asked_to_stop_stops_before_its_next_call(frame: Frame, store: Store) -> None:
    class Stopping(Look):
        name = "look"

        def forward(self, what: str) -> str:
            frame.run.stop("enough")
            return "finished"

    agent = agent_of(frame, ScriptedModel([{"calls": [call("look", what="a")]}, done()]), Stopping())
    with pytest.raises(RunInterrupted, match="enough"):
        agent.run("the task")
    assert [e.kind for e in store.records.events("run-1")].count("tool_finished") == 1


def test_a_result_that_cannot_be_recorded_stops_the_run(frame: Frame, store: Store) -> None:
    class Breaking(Look):
        name = "look"

        def forward(self, what: str) -> str:
            store._database._connection.execute("PRAGMA query_only=ON")
            return "this must not be used"

    model = ScriptedModel([{"calls": [call("look", what="a")]}, done()])
    with pytest.raises(RunAborted, match="readonly"):
        agent_of(frame, model, Breaking()).run("the task")
    assert len(model.prompts) == 1


def test_ids_of_parsed_calls_are_the_same_in_every_run(frame: Frame) -> None:
    model = recorded_model(ScriptedModel([]), frame)
    message = ChatMessage(role=MessageRole.ASSISTANT, content='{"name": "look", "arguments": {"what": "x"}}')
    assert [model.parse_tool_calls(message).tool_calls[0].id for _ in range(2)] == ["call_1", "call_2"]


def test_effects_are_journaled_and_threads_do_not_lose_calls(frame: Frame, store: Store) -> None:
    frame.start("t", "m")
    threads = [threading.Thread(target=lambda n=n: frame.effect(f"e{n}", lambda: n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(v for values in frame.effects.values() for v in values) == list(range(8))
    assert len([e for e in store.records.events("run-1") if e.kind == "effect"]) == 8


def test_a_call_that_outlives_its_run_writes_nothing_more(frame: Frame, store: Store) -> None:
    """As in a thread that a tool left behind: another process may have taken the run up by then."""

    def slow(position: str) -> str:
        frame.run.is_closed = True
        return "too late"

    frame.start("the task", "m")
    frame._enter("action")
    with pytest.raises(RunInterrupted, match="is over"):
        frame.tool_call("look", {}, slow, idempotent=True)
    assert [e.kind for e in store.records.events("run-1")] == ["run_started", "tool_started"]
