"""Record → replay is the identity; a run that is cut after any of its events comes to the same when it is taken up.

Over scripts of every shape: depth, parallel calls, errors, code that fails, steps that are used up, planning intervals.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smolagents import CodeAgent, LogLevel, MultiStepAgent

from dionysus import Runtime
from dionysus.stores.contract import RunRecord
from transcripts import ByTranscript, Note, act, add, agent_of, answer, call, code, read

plain_calls = st.one_of(
    st.builds(lambda page: call("read", page=page), st.integers(-1, 3)),
    st.builds(lambda a, b: call("add", a=a, b=b), st.integers(0, 2), st.integers(0, 2)),
    st.builds(lambda text: call("note", text=text), st.sampled_from("abc")),
    st.just(call("nobody", x=1)),
)
calls = st.one_of(plain_calls, st.builds(lambda task: call("helper", task=task), st.sampled_from(("one", "two"))))
turns = st.one_of(
    st.builds(lambda made: act(*made), st.lists(calls, min_size=1, max_size=3)), st.just("no call at all")
)
lines = st.sampled_from(
    (
        "x = add(1, 2)",
        "print(lambda: 0, x)",
        "y = helper('one')",
        "print(helper('two'))",
        "x = x + 1",
        "note('n')",
        "print(1 / 0)",
        "import random\nprint(random.random())",
        "for i in range(2):\n    read(i)",
        "try:\n    read(-1)\nexcept ValueError as e:\n    print(e)",
        "final_answer(x)",
    )
)
codes = st.builds(lambda found: code("\n".join(found)), st.lists(lines, min_size=1, max_size=3))
intervals = st.sampled_from((None, 1, 2, 3))
steps = st.integers(1, 4)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """What an agent is made from; plain, so that it can be made twice."""
    kind = draw(st.sampled_from(("calling", "coding")))
    return {
        "kind": kind,
        "turns": [*draw(st.lists(turns if kind == "calling" else codes, max_size=4)), answer("end")],
        "interval": draw(intervals),
        "steps": draw(steps),
        "helper": draw(st.lists(st.builds(lambda made: act(made), plain_calls), max_size=2)),
        "helper_fails": draw(st.booleans()),
        "helper_interval": draw(intervals),
    }


def made(shape: dict[str, Any]) -> MultiStepAgent:
    """An agent of that shape, with models and tools of its own."""
    last = {"error": "the helper's model is down"} if shape["helper_fails"] else answer("helped")
    helper = agent_of(
        [*shape["helper"], last],
        [add, read, Note([])],
        name="helper",
        description="Helps.",
        planning_interval=shape["helper_interval"],
        max_steps=3,
    )
    options: dict[str, Any] = {
        "managed_agents": [helper],
        "planning_interval": shape["interval"],
        "max_steps": shape["steps"],
    }
    tools = [add, read, Note([])]
    if shape["kind"] == "calling":
        return agent_of(shape["turns"], tools, **options)
    return CodeAgent(
        tools,
        ByTranscript([turn if turn != answer("end") else code("final_answer('end')") for turn in shape["turns"]]),
        additional_authorized_imports=["random"],
        verbosity_level=LogLevel.OFF,
        **options,
    )


def outcome(runtime: Runtime, shape: dict[str, Any], run_id: str = "r") -> tuple[str, Any]:
    """How a run, new or taken up, ends."""
    try:
        result = runtime.attach(made(shape)).run("the task", run_id=run_id)
    except Exception as error:  # noqa: BLE001 – whatever it is, it must be the same again
        return type(error).__name__, str(error)
    return result.status, json.dumps(result.output, default=str)


@pytest.mark.not_replayed("it is replayed here")
@settings(max_examples=60)
@given(shapes())
def test_replay_is_the_identity(shape: dict[str, Any]) -> None:
    with Runtime(store="sqlite://") as runtime:
        ended = outcome(runtime, shape)
        again = made(shape)
        result = runtime.replay("r", again)
        if ended[0] in ("success", "max_steps"):
            assert (result.status, json.dumps(result.output, default=str)) == ended
        else:
            assert result.status == "error"
        assert again.model.prompts == []
        assert runtime.runs.found("r").status == result.status


@pytest.mark.not_replayed("it is replayed here")
@settings(max_examples=40)
@given(shapes(), st.floats(0, 1))
def test_a_run_cut_after_any_event_comes_to_the_same(shape: dict[str, Any], where: float) -> None:
    with Runtime(store="sqlite://") as runtime:
        ended = outcome(runtime, shape)
        events = list(runtime._store.records.events("r"))
        kept = events[: max(1, round(where * (len(events) - 1)))]
        started = {event.position for event in kept if event.kind == "tool_started" and event.body["tool"] != "helper"}
        finished = {event.position for event in kept if event.kind == "tool_finished"}
        runtime._store.records.save_run(
            RunRecord(run_id="cut", agent_name="x", status="interrupted", started_at=kept[0].at)
        )
        for event in kept:
            names = {name: "cut" + event.body[name][1:] for name in ("trace", "parent") if event.body.get(name)}
            runtime._store.records.append(replace(event, run_id="cut", body={**event.body, **names}))
        top = kept[0].position
        runtime._store.records.save_run(
            RunRecord(run_id="cut", agent_name=top, status="interrupted", started_at=kept[0].at)
        )
        again = outcome(runtime, shape, "cut")
        if not started - finished:  # else the agent was told that a call is uncertain, and may have gone another way
            assert again == ended
        assert runtime.replay("cut", made(shape)).status == runtime.runs.found("cut").status
        seen = [event.seq for event in runtime._store.records.events("cut")]
        assert seen == list(range(1, len(seen) + 1))
