"""Pruning in real agents: what prompts show, what comes back, what is counted – killed, resumed and replayed, too."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from smolagents import ActionStep, CodeAgent, LocalPythonExecutor, LogLevel, Tool, ToolCallingAgent
from smolagents.local_python_executor import PythonExecutor
from smolagents.models import ChatMessage, TokenUsage

from conftest import Clock
from dionysus import Runtime
from dionysus.counting import count
from dionysus.errors import BadInput
from dionysus.models import open_model
from dionysus.models.marks import MARK, marked
from dionysus.models.scripted import ScriptedModel
from dionysus.settings import Settings, load_settings
from openai_server import openai_server
from transcripts import Cut, act, add, agent_of, answer, call, code, read

THOUGHT = "I wonder. " + "Perhaps it is so, perhaps not. " * 120 + "Whatever: read on."


@pytest.fixture
def runtime(tmp_path: Path, clock: Clock) -> Iterator[Runtime]:
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db", clock=clock) as opened:
        yield opened


def opened(tmp_path: Path, **more: Any) -> Runtime:
    return Runtime(settings=Settings(store=f"sqlite:///{tmp_path}/mind.db", **more))


def calling(*turns: Any, tools: Any = (add, read), **options: Any) -> ToolCallingAgent:
    return ToolCallingAgent(list(tools), ScriptedModel(turns), verbosity_level=LogLevel.OFF, **options)


def shown(prompt: Any) -> str:
    return "\n".join(str(part.get("text")) for message in prompt for part in message.content)


class Huge(Tool):
    name = "huge"
    description = "Says a lot."
    inputs = {"size": {"type": "integer", "description": "How much."}}  # noqa: RUF012 – as smolagents has it
    output_type = "string"

    def forward(self, size: int) -> str:
        text = "and so on " * (size // 10)
        return f"the beginning\n{text[: size // 2]}\nthe hidden_treasure is under 8841\n{text[size // 2 :]}\nthe end"


# -- what prompts show --------------------------------------------------------------------------------


def test_thoughts_observations_and_errors_are_cut_and_come_back(runtime: Runtime) -> None:
    class Fails(Tool):
        name = "fails"
        description = "Fails."
        inputs: dict[str, Any] = {}  # noqa: RUF012 – as smolagents has it
        output_type = "string"

        def forward(self) -> str:
            raise ValueError("it broke: " + "on and on " * 100 + "because of broken_hinge")

    agent = calling(
        act(call("read", page=1), call("read", page=2), thought=THOUGHT),
        act(call("fails")),
        act(call("read", page=3)),
        act(call("recall_observation", step=2)),
        act(call("recall_observation", step=1, query="word_2_77")),
        act(call("recall_observation", query="broken hinge")),
        act(call("recall_observation", step=77)),
        act(call("recall_observation")),
        act(call("recall_observation", step=1)),
        answer(),
        tools=[read, Fails()],
        planning_interval=4,
    )
    result = runtime.attach(agent, pruning="see-once").run("the task", run_id="r1")
    full = runtime.traces.get_trace(result.trace_id)
    steps = {s.step_number: s for s in full.steps if s.step_type == "action"}
    assert steps[1].thought == THOUGHT.strip()
    assert steps[1].pruned is not None
    assert set(steps[1].pruned.stubs) == {"observation", "thought"}
    assert steps[2].pruned is not None
    assert set(steps[2].pruned.stubs) == {"error"}
    last = shown(agent.model.prompts[-2])  # before the thought is fetched again
    assert "Whatever: read on." in last
    assert "Perhaps it is so, perhaps not. " * 50 not in last
    assert "Calling tools" in last
    assert "broken_hinge" in last
    assert str(steps[4].observation) == str(steps[2].error)
    assert "word_2_77" in str(steps[5].observation)
    assert "step 2:\n" in str(steps[6].observation)
    assert "because of broken_hinge" in str(steps[6].observation)
    assert "step 77 has no text; steps with one: 1, 2, 3, 4, 5, 6" in str(steps[7].error)
    assert "say which step, or what to look for" in str(steps[8].error)
    assert str(steps[9].observation).startswith(THOUGHT.strip())
    assert str(steps[9].observation).endswith(str(steps[1].observation))
    assert steps[4].pruned is None  # fetched again: it stays
    going_on = runtime.attach(agent)  # nothing of it is left in the agent itself
    assert going_on.agent.memory.steps == []


def test_a_conversation_that_goes_on_has_whole_texts_again(runtime: Runtime) -> None:
    agent = calling(act(call("read", page=1), thought=THOUGHT), act(call("read", page=2)), answer(), answer())
    attached = runtime.attach(agent, pruning="see-once")
    attached.run("the task", run_id="r1")
    attached.run("more of it", run_id="r2", reset=False)
    assert THOUGHT.strip() in shown(agent.model.prompts[-1])
    assert "word_1_117" in shown(agent.model.prompts[-1])


def test_plans_see_the_newest_observation_whole(runtime: Runtime) -> None:
    agent = calling(*(act(call("read", page=n)) for n in range(1, 7)), answer(), planning_interval=3)
    runtime.attach(agent, pruning="see-once").run("the task")
    plans = [p for p in map(shown, agent.model.prompts) if "update_plan" in p or "word_3_3 " in p][:1]
    assert plans
    replanning = shown(agent.model.prompts[4])  # plan, 1, 2, 3, plan
    assert "word_3_117" in replanning
    assert "word_2_60 word_2_61" not in replanning
    assert "recall_observation(2)]" in replanning


def test_plans_do_not_repeat_a_long_task(runtime: Runtime) -> None:
    task = "Find out why the harbour clock is late, and say so. " * 8

    def planning() -> ToolCallingAgent:
        return calling(*(act(call("add", a=n, b=1)) for n in range(6)), answer(), planning_interval=3)

    pruned, bare = planning(), planning()
    result = runtime.attach(pruned, pruning="see-once").run(task, run_id="r1")
    runtime.attach(bare).run(task)
    assert [shown(a.model.prompts[-1]).count(task) for a in (pruned, bare)] == [1, 3]
    assert shown(pruned.model.prompts[-1]).count("I was given:\n(the task above)") == 2
    replanning = [shown(a.model.prompts[4]) for a in (pruned, bare)]
    assert replanning[0].count(task) == replanning[1].count(task) > 0  # a prompt for a plan needs it
    assert result.tokens_saved > 0
    plans = [s.plan for s in runtime.traces.get_trace("r1").steps if s.step_type == "planning"]
    assert task in str(plans[1])  # on record it is as it was


def test_what_a_plan_says_needs_no_place_in_a_stub(runtime: Runtime) -> None:
    turns = [act(call("read", page=1)), act(call("add", a=1, b=2)), answer()]
    model = ScriptedModel(turns, plans=["1. Mind word_1_3 and word_1_4."])
    agent = ToolCallingAgent([add, read], model, verbosity_level=LogLevel.OFF, planning_interval=5)
    result = runtime.attach(agent, pruning="see-once").run("the task")
    pruned = next(s.pruned for s in runtime.traces.get_trace(result.trace_id).steps if s.pruned)
    assert "word_1_2 word_1_5" in pruned.stub


def test_what_code_calls_may_be_kept_whole_for_longer(tmp_path: Path) -> None:
    def agent() -> CodeAgent:
        turns = [code(f"print(read({n}))") for n in range(1, 6)]
        return CodeAgent([read], ScriptedModel([*turns, code("final_answer(1)")]), verbosity_level=LogLevel.OFF)

    def whole_in(agent_: CodeAgent, page: int) -> list[int]:
        return [
            n for n, prompt in enumerate(agent_.model.prompts) if f"word_{page}_100 word_{page}_101" in shown(prompt)
        ]

    longer, usual = agent(), agent()
    with opened(tmp_path, keep_whole="read=3") as runtime:
        runtime.attach(longer, pruning="see-once").run("the task")
    with opened(tmp_path) as runtime:
        runtime.attach(usual, pruning="see-once").run("the task")
    assert (whole_in(usual, 1), whole_in(longer, 1)) == ([1], [1, 2, 3])


def test_reports_of_members_are_cut_like_any_observation(runtime: Runtime) -> None:
    report = "\n".join(f"page_{n} says nothing new at all" for n in range(200))
    helper = calling(answer(report), answer(report[::-1]), name="helper", description="Reads.", tools=[read])
    turns = [code("print(helper('one'))"), code("print(1)"), code("print(2)"), code("final_answer('x')")]
    manager = CodeAgent([], ScriptedModel(turns), managed_agents=[helper], verbosity_level=LogLevel.OFF)
    runtime.attach(manager, pruning="see-once").run("the task")
    assert "page_150 says nothing" in shown(manager.model.prompts[1])
    assert "page_150 says nothing" not in shown(manager.model.prompts[2])
    assert "recall_observation(1)]" in shown(manager.model.prompts[2])


def test_images_of_the_task_are_sent_once(runtime: Runtime) -> None:
    def images_in(prompt: Any) -> int:
        return sum(part["type"] == "image" for message in prompt for part in message.content)

    images = [Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")]
    turns = [*(act(call("add", a=n, b=1)) for n in range(3)), answer()]
    pruned, bare = calling(*turns), calling(*turns)
    runtime.attach(pruned, pruning="see-once").run("the task", images=images)
    runtime.attach(bare).run("the task", images=images)
    assert [images_in(p) for p in pruned.model.prompts] == [2, 2, 2, 2]
    assert [images_in(p) for p in bare.model.prompts] == [2, 4, 6, 8]  # as smolagents has it


def test_images_that_a_step_saw_stay(runtime: Runtime) -> None:
    def look(step: ActionStep, agent: Any = None) -> None:
        step.observations_images = [Image.new("RGB", (4, 4), "green")]

    agent = calling(act(call("add", a=1, b=1)), act(call("add", a=1, b=2)), answer(), step_callbacks=[look])
    runtime.attach(agent, pruning="see-once").run("the task", images=[Image.new("RGB", (4, 4), "red")])
    parts = [part for message in agent.model.prompts[-1] for part in message.content if part["type"] == "image"]
    assert len(parts) == 3


def test_fifty_megabytes(tmp_path: Path) -> None:
    size = 50_000_000
    turns = [
        act(call("huge", size=size)),
        act(call("recall_observation", step=1, query="hidden treasure")),
        act(call("recall_observation", query="hidden treasure")),
        answer(),
    ]
    agent = calling(*turns, tools=[Huge()])
    with opened(tmp_path) as runtime:
        result = runtime.attach(agent, pruning="see-once").run("the task")
        steps = [s for s in runtime.traces.get_trace(result.trace_id).steps if s.step_type == "action"]
    assert len(str(steps[0].observation)) > size
    prompts = [shown(prompt) for prompt in agent.model.prompts]
    assert all(len(prompt) < 60_000 for prompt in prompts)
    assert "the beginning" in prompts[1]
    assert "the end" in prompts[1]
    assert "hidden_treasure" not in prompts[1]
    assert "the hidden_treasure is under 8841" in str(steps[1].observation)
    assert "the hidden_treasure is under 8841" in str(steps[2].observation)


def test_what_a_callback_makes_of_an_observation_is_what_counts(runtime: Runtime) -> None:
    def redact(step: ActionStep) -> None:
        step.observations = (step.observations or "").replace("word_1_7", "[name]")

    runtime.callbacks.register(ActionStep, redact)
    agent = calling(act(call("read", page=1)), act(call("add", a=1, b=2)), answer())
    runtime.attach(agent, pruning="see-once").run("the task")
    assert all("word_1_7 " not in shown(prompt) for prompt in agent.model.prompts)
    assert "recall_observation(1)]" in shown(agent.model.prompts[-1])


def test_an_executor_out_of_reach_is_refused(runtime: Runtime) -> None:
    class Mine(PythonExecutor):
        def __init__(self) -> None:
            self.inner, self.lock = LocalPythonExecutor([]), threading.Lock()

        def send_tools(self, tools: dict[str, Any]) -> None:
            self.inner.send_tools(tools)

        def send_variables(self, variables: dict[str, Any]) -> None:
            self.inner.send_variables(variables)

        def __call__(self, code_action: str) -> Any:
            return self.inner(code_action)

    agent = CodeAgent([read], ScriptedModel([code("final_answer(1)")]), verbosity_level=LogLevel.OFF)
    agent.python_executor = Mine()
    with pytest.raises(BadInput, match="out of reach of pruning"):
        runtime.attach(agent, pruning="see-once").run("the task")
    assert runtime.attach(agent).run("the task").output == 1


# -- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AGENT_MEMORY_WINDOW", "0", "greater than or equal to 1"),
        ("AGENT_MEMORY_WINDOW", "-3", "greater than or equal to 1"),
        ("AGENT_MEMORY_WINDOW", "three", "valid integer"),
        ("AGENT_MEMORY_WINDOW", "nan", "valid integer"),
        ("DIONYSUS_KEEP_WHOLE", "read_file", "is not TOOL=N, such as read_file=5"),
        ("DIONYSUS_KEEP_WHOLE", "read_file=0", "is not TOOL=N"),
        ("DIONYSUS_PRUNE_LEAST", "0", "greater than or equal to 1"),
        ("DIONYSUS_PRUNE_NAMES", "2", "less than or equal to 1"),
    ],
)
def test_settings_that_are_none(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInput, match=said) as refused:
        load_settings()
    assert variable in str(refused.value)


def test_a_run_is_not_taken_up_under_other_limits_unawares(tmp_path: Path) -> None:
    agent = calling(act(call("read", page=1)), {"error": "the server is gone"})
    with opened(tmp_path) as runtime, pytest.raises(Exception, match="server is gone"):
        runtime.attach(agent, pruning="see-once").run("the task", run_id="r1")
    with opened(tmp_path, prune_thought=500) as runtime, pytest.raises(Exception, match="pruning_limits is new"):
        runtime.attach(calling(answer()), pruning="see-once").run("the task", run_id="r1")


# -- killed, resumed, replayed ------------------------------------------------------------------------

KILLED = """
import hashlib, os, signal, sys
sys.path.insert(0, {tests!r})
from dionysus import Runtime
from dionysus.settings import Settings
from transcripts import act, agent_of, answer, call, read

read.idempotent = True
turns = (
    act(call("read", page=1), call("read", page=2), thought="I wonder. " * 300),
    act(call("read", page=3)), act(call("recall_observation", step=1)), act(call("read", page=4)),
    act(call("recall_observation", query="word_3_77")), answer("done"),
)
store, log, dies_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
agent = agent_of(turns, [read], planning_interval=3)
asked = agent.model.generate
def generate(messages, *args, **options):
    if len(agent.model.prompts) + 1 == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    text = repr([(m.role.value, m.content) for m in messages])
    with open(log, "a") as out:
        out.write(hashlib.sha256(text.encode()).hexdigest() + "\\n")
    return asked(messages, *args, **options)
agent.model.generate = generate
with Runtime(settings=Settings(store=store, prune_arriving=1200)) as runtime:
    print(runtime.attach(agent, pruning="see-once").run("the task", run_id="r1").output)
    if not dies_at:
        runtime.attach(agent, pruning="see-once").replay("r1")
"""


@pytest.mark.parametrize("dies_at", [4, 6])
def test_killed_and_resumed_it_sends_the_same_prompts(tmp_path: Path, dies_at: int) -> None:
    tests = str(Path(__file__).parents[1])

    def process(folder: str, at: int) -> int:
        (tmp_path / folder).mkdir(exist_ok=True)
        store, log = f"sqlite:///{tmp_path}/{folder}/mind.db", str(tmp_path / folder / "log")
        command = [sys.executable, "-c", KILLED.format(tests=tests), store, log, str(at)]
        return subprocess.run(command, capture_output=True, timeout=120, env=os.environ).returncode

    assert process("whole", 0) == 0  # and its replay, which fails where a prompt differs
    assert process("killed", dies_at) == -signal.SIGKILL
    assert process("killed", 0) == 0
    whole, killed = ((tmp_path / name / "log").read_text().splitlines() for name in ("whole", "killed"))
    assert len(whole) == 8  # six actions, two plans
    assert killed == whole  # none was sent twice, none differs


TURNS = (
    act(call("read", page=1), thought=THOUGHT),
    act(call("huge", size=9_000)),
    act(call("read", page=2)),
    act(call("recall_observation", query="hidden treasure")),
    answer(),
)


def by_transcript(**options: Any) -> Any:
    return agent_of(TURNS, [read, Huge()], planning_interval=3, **options)


@pytest.mark.parametrize("fails_at", range(2, 8))
def test_a_call_that_failed_decides_nothing(tmp_path: Path, fails_at: int) -> None:
    """smolagents calls back for the step that was cut off, too; it is made again."""
    whole, failing, going_on = by_transcript(), by_transcript(dies_at=fails_at), by_transcript()
    with opened(tmp_path, prune_arriving=1_500) as runtime:
        expected = runtime.attach(whole, pruning="see-once").run("the task", run_id="whole")
        with pytest.raises(Cut):
            runtime.attach(failing, pruning="see-once").run("the task", run_id="r1")
    with opened(tmp_path, prune_arriving=1_500) as runtime:
        result = runtime.attach(going_on, pruning="see-once").run("the task", run_id="r1")
        pruned = [[s.pruned for s in runtime.traces.get_trace(run).steps] for run in ("whole", "r1")]
    sent = [shown(p) for p in [*failing.model.prompts[: fails_at - 1], *going_on.model.prompts]]
    assert sent == [shown(prompt) for prompt in whole.model.prompts]
    assert result.tokens_saved == expected.tokens_saved
    assert pruned[0] == pruned[1]


@pytest.mark.parametrize("edit", ["nothing found", "an edit " * 2_000])
def test_a_fork_is_cut_as_what_it_was_edited_to(tmp_path: Path, edit: str) -> None:
    with opened(tmp_path, prune_arriving=1_500) as runtime:
        runtime.attach(by_transcript(), pruning="see-once").run("the task", run_id="r1")
        fork = by_transcript()
        runtime.fork("r1", fork, at_step=2, edit={"observation": edit})
    first, last = shown(fork.model.prompts[0]), shown(fork.model.prompts[-1])
    assert "the beginning" not in first + last
    assert edit[:20] in first
    assert len(first) < 12_000
    assert (edit in last) == (len(edit) < 200)


def test_code_that_never_prints_the_same_is_replayed(runtime: Runtime) -> None:
    chance = "import random\nprint('a_long_word ' * random.choice([2, 60, 90]))"
    for number in range(6):
        turns = [code(chance), code("print(1)"), code("final_answer(1)")]
        agent = CodeAgent([], ScriptedModel(turns), verbosity_level=LogLevel.OFF)
        runtime.attach(agent, pruning="see-once").run("the task", run_id=f"r{number}")
        runtime.attach(agent, pruning="see-once").replay(f"r{number}")


# -- what is counted ----------------------------------------------------------------------------------


class Counting(ScriptedModel):
    """Reports what the prompts are long, as a provider would."""

    def generate(self, messages: list[ChatMessage], *args: Any, **options: Any) -> ChatMessage:
        made = super().generate(messages, *args, **options)
        of_tools = 700 if options.get("tools_to_call_from") else 0  # what a provider counts for schemas
        texts = [part["text"] for message in messages for part in message.content]
        made.token_usage = TokenUsage(round(1.15 * sum(count(t) + 4 for t in texts)) + of_tools, 5)
        return made


@pytest.mark.parametrize("planning_interval", [None, 3])
def test_what_was_saved_is_what_the_whole_prompts_would_have_cost(
    runtime: Runtime, planning_interval: int | None
) -> None:
    def agent() -> ToolCallingAgent:
        turns = [*(act(call("read", page=n), thought=THOUGHT if n == 2 else "so") for n in range(1, 9)), answer()]
        return ToolCallingAgent(
            [read], Counting(turns), verbosity_level=LogLevel.OFF, planning_interval=planning_interval
        )

    whole = runtime.attach(agent()).run("the task")
    pruned = runtime.attach(agent(), pruning="see-once").run("the task")
    saved = whole.usage.input_tokens - pruned.usage.input_tokens
    recall = 9 * count("recall_observation: Brings back")  # what the tool adds to the prompts is no saving
    assert pruned.tokens_saved == pytest.approx(saved + recall, rel=0.1)
    assert runtime.traces.get_trace(pruned.trace_id).trace.tokens_saved == pruned.tokens_saved
    (usage,) = runtime.traces.token_usage()
    assert usage.tokens_saved == pruned.tokens_saved
    calls = [c for s in runtime.traces.get_trace(pruned.trace_id).steps for c in s.model_calls]
    assert {c.counted_by for c in calls} == {"tekken"}
    assert calls[-1].counted_pruned > 4_000
    assert all(c.counted_by == "" for s in runtime.traces.get_trace(whole.trace_id).steps for c in s.model_calls)


def test_sums_per_run_and_per_day(runtime: Runtime, clock: Clock) -> None:
    helper = calling(answer("read"), answer("read"), name="helper", description="Reads.", tools=[read])
    turns = [code("print(helper('one'))"), code("final_answer('x')")] * 2
    manager = CodeAgent([], ScriptedModel(turns), managed_agents=[helper], verbosity_level=LogLevel.OFF)
    attached = runtime.attach(manager)
    attached.run("the task", run_id="r1")
    clock.now += timedelta(days=1)
    attached.run("the task", run_id="r2")
    agents, runs, days = (runtime.traces.token_usage(by=by) for by in ("agent", "run", "day"))
    assert [u.agent_name for u in agents] == ["CodeAgent", "helper"]
    assert [(u.run_id, u.traces) for u in runs] == [("r2", 2), ("r1", 2)]
    assert [(str(u.day), u.traces) for u in days] == sorted([(str(u.day), 2) for u in days], reverse=True)
    assert len(days) == 2
    assert len({sum(u.input_tokens for u in sums) for sums in (agents, runs, days)}) == 1
    assert runtime.traces.token_usage(by="run", limit=1) == runs[:1]


def test_sums_while_a_run_is_under_way(runtime: Runtime, clock: Clock) -> None:
    seen: list[Any] = []

    def look(step: ActionStep) -> None:
        if step.step_number == 2:
            runtime.attach(calling(answer())).run("another", run_id="r2")
        seen.append([runtime.traces.token_usage(by="run", limit=limit) for limit in (-1, 1)])

    helper = calling(answer("read"), name="helper", description="Reads.")
    turns = [act(call("helper", task="read")), act(call("add", a=1, b=2)), answer()]
    runtime.attach(calling(answer())).run("the first", run_id="r0")
    clock.now += timedelta(hours=1)
    runtime.attach(calling(*turns, managed_agents=[helper], step_callbacks=[look])).run("the task", run_id="r1")
    for (whole, newest), runs in zip(seen, (["r1", "r0"], ["r2", "r1", "r0"]), strict=False):
        assert [u.run_id for u in whole] == runs
        assert newest == whole[:1]
    assert (seen[0][1][0].traces, seen[0][1][0].model_calls) == (2, 2)  # the member, too, which has ended


# -- marks for caches ---------------------------------------------------------------------------------


def marks_in(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (message["role"], part["text"])
        for message in request["messages"]
        for part in (message["content"] if isinstance(message["content"], list) else [])
        if "cache_control" in part
    ]


@pytest.mark.parametrize(
    ("model", "settings", "marked"),
    [
        ("anthropic/claude-sonnet-4.5", {}, True),
        ("anthropic/claude-sonnet-4.5", {"cache_marks": False}, False),
        ("anthropic/claude-sonnet-4.5", {"tool_calls": "schema"}, True),
        ("gpt-4o", {}, False),
    ],
)
def test_marks_end_the_cache_before_the_newest_observation(
    tmp_path: Path, model: str, settings: dict[str, Any], marked: bool
) -> None:
    turns = [{"name": "read", "arguments": {"page": n}} for n in (1, 2, 3)]
    with openai_server([*turns, {"name": "final_answer", "arguments": {"answer": "x"}}]) as server:
        with opened(tmp_path, **settings) as runtime:
            thinks = open_model(f"openai:{model}", api_base=server.url, tool_calls=settings.get("tool_calls"))
            agent = ToolCallingAgent([read], thinks, verbosity_level=LogLevel.OFF)
            result = runtime.attach(agent, pruning="see-once").run("the task")
            runtime.attach(agent, pruning="see-once").replay(result.run_id)  # marks are no part of the record
        requests = server.requests
    if not marked:
        assert all(marks_in(request) == [] for request in requests)
        return
    for request in requests[1:]:
        assert request["messages"][-1]["role"] == "user"  # the newest observation
        (system, _), (last, text) = marks_in(request)
        assert (system, last) == ("system", "assistant")
        assert request["messages"][-2]["content"][-1]["text"] == text
    assert "word_1_60" in json.dumps(requests[1]["messages"][-1])
    ephemeral = ', "cache_control": {"type": "ephemeral"}'
    before, now = (json.dumps(request["messages"]).replace(ephemeral, "") for request in requests[2:])
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
    assert "recall_observation(1)]" in shared  # what was cut stays as it is


def test_marks_on_messages_of_any_form() -> None:
    model = open_model("openai:anthropic/claude-x", api_base="http://127.0.0.1:1")
    messages: list[Any] = [
        {"role": "system", "content": [{"type": "text", "text": "be"}]},
        {"role": "user", "content": ["odd"]},
        {"role": "assistant", "content": "a text"},
        {"role": "user", "content": []},
    ]
    found = marked(messages, model)
    assert "cache_control" in found[0]["content"][-1]
    assert found[1] is messages[1]
    assert found[2]["content"] == [{"type": "text", "text": "a text", "cache_control": MARK}]
    assert "cache_control" not in messages[0]["content"][-1]
    assert marked([], model) == []


def test_a_run_of_earlier_rules_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as runtime:
        attached = runtime.attach(calling(act(call("read", page=1)), {"error": "gone"}), pruning="see-once")
        with pytest.raises(Exception, match="gone"):
            attached.run("the task", run_id="r1")
        monkeypatch.setattr("dionysus.claims.FORM", 3)
        for again in (
            lambda: attached.run("the task", run_id="r1", accept_changes=True),
            lambda: attached.replay("r1"),
            lambda: attached.fork("r1", at_step=1),
        ):
            with pytest.raises(BadInput, match="pruned by rules of an earlier version"):
                again()
        assert len(runtime.runs.listed()) == 1


def test_what_no_prompt_showed_is_not_said_to_be_pruned(runtime: Runtime) -> None:
    agent = calling(act(call("read", page=1)), act(call("read", page=2)), answer())
    result = runtime.attach(agent, pruning="see-once").run("the task")
    steps = [s for s in runtime.traces.get_trace(result.trace_id).steps if s.step_type == "action"]
    assert [s.pruned is not None for s in steps] == [True, False, False]
