"""A real language model in this process: what it is asked and answers, and every agent driven by it.

SmolLM2 has 135 million parameters: it is here to be a real model, not to be right. So what it says is never asserted,
but that every call is valid, what was counted, and what the prefix cache did.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from smolagents import ChatMessage, LogLevel, ToolCallingAgent, tool
from smolagents.models import MessageRole

from conftest import Repository
from dionysus import Runtime
from dionysus.errors import ModelError
from dionysus.models import open_model
from dionysus.models.constrained import ConstrainedModel
from dionysus.models.local import LocalModel
from dionysus.settings import Settings
from dionysus.stores.contract import AgentExecutionStep
from dionysus.traces import FullTrace
from models.test_constrained import everything, look, take
from models.test_weights import gguf

pytestmark = pytest.mark.usefixtures("smollm2")

SHORT: dict[str, Any] = {"model": "local:smollm2", "max_tokens": 64}
"""Answers of 64 tokens: what is tested is their form."""
TOOLS = set(
    "observe_environment semantic_recall mosaeic_capture query_wisdom_graph reflect_on_topic synthesize_information "
    "list_goals update_goal revise_mental_model recall_observation final_answer".split()
)


def said(text: str, role: MessageRole = MessageRole.USER) -> ChatMessage:
    return ChatMessage(role=role, content=[{"type": "text", "text": text}])


def actions_of(trace: FullTrace) -> list[AgentExecutionStep]:
    return [step for step in trace.steps if step.step_type == "action"]


def assert_valid(trace: FullTrace, offered: set[str]) -> None:
    """Every answer was a call of what is offered, that smolagents could read and the tool took."""
    wrong = ("no valid call", "parsing", "Unknown tool", "Argument ", "SyntaxError", "regex pattern")
    made = []
    for step in actions_of(trace):
        assert not any(word in (step.error or "") for word in wrong), step.error
        made += [(use.name, json.dumps(use.arguments, sort_keys=True)) for use in step.tool_calls]
    assert {name for name, _ in made} <= offered
    for at, call in enumerate(made):  # the same again only after something new
        before = made[:at]
        if call in before:
            since = before[len(before) - before[::-1].index(call) :]
            assert any(made.index(other) >= at - len(since) for other in since), made
    if made:
        assert made[0][0] != "final_answer"


def assert_counted(trace: FullTrace) -> None:
    """Tokens are llama.cpp's, add up, and cost nothing."""
    calls = [call for step in trace.steps for call in step.model_calls if call.completed_at and not call.error]
    assert calls
    assert all(call.usage.input_tokens and call.usage.output_tokens and call.usage.tokens_per_s for call in calls)
    assert not any(call.usage.estimated for call in calls)
    for name in ("input_tokens", "cached_tokens", "output_tokens"):
        assert getattr(trace.trace, name) == sum(getattr(call.usage, name) for call in calls)
    assert trace.trace.mended_calls == sum(call.usage.mended for call in calls)
    assert trace.trace.cost_usd == 0


def test_a_heartbeat_thinks_with_a_real_model(tmp_path: Path, repository: Repository) -> None:
    with Runtime(settings=Settings(store=f"sqlite:///{tmp_path}/mind.db", beat_steps=5, **SHORT)) as runtime:
        report = runtime.beat(repository.path)
        assert report.status in ("success", "max_steps")
        assert report.run_id
        trace = runtime.traces.get_trace(str(report.trace_id))
        assert_valid(trace, TOOLS)
        assert_counted(trace)
        planned = [step.step_number for step in trace.steps if step.step_type == "planning"]
        assert planned == [1, 4, 7, 10][: (len(actions_of(trace)) + 2) // 3]
        assert all(
            line.partition(". ")[2].partition(" ")[0] in TOOLS
            for step in trace.steps
            for line in (step.plan or "").splitlines()
            if line[:1].isdigit()
        )
        acting = [step.model_calls[0].usage for step in actions_of(trace)]
        assert acting[1].cached_tokens > acting[0].input_tokens * 0.9  # what was read once is not read again
        assert runtime.replay(report.run_id).status == report.status  # the same prompts, byte for byte, without a model
        assert runtime.beat(repository.path).status == "idle"


def test_a_manager_hands_work_to_its_members_on_a_real_model(tmp_path: Path, repository: Repository) -> None:
    """Within a number of calls, so that the test ends: the manager has fifteen steps."""
    settings = Settings(store=f"sqlite:///{tmp_path}/mind.db", budget="calls=12", **SHORT)
    with Runtime(settings=settings) as runtime:
        answer = runtime.ask("What has changed?", repository.path)
        assert answer.status in ("success", "max_steps", "budget_exhausted")
        manager = runtime.traces.get_trace(answer.trace_id)
        assert manager.delegated
        assert {child.agent_name for child in manager.delegated} <= {"perception", "reasoning", "metacognition"}
        for trace in [manager, *(runtime.traces.get_trace(child.id) for child in manager.delegated)]:
            assert_counted(trace)
        for child in manager.delegated:
            used = runtime.traces.get_trace(child.id)
            assert_valid(used, {use.name for step in used.steps for use in step.tool_calls})
        assert_valid(manager, {"perception", "reasoning", "metacognition", "recall_observation", "final_answer"})
        everywhere = [manager.trace, *manager.delegated]
        assert answer.usage.input_tokens == sum(trace.input_tokens for trace in everywhere)
        assert answer.usage.cached_tokens > 0.4 * answer.usage.input_tokens  # each finds its own prompt again


def test_a_killed_beat_goes_on_without_asking_again(tmp_path: Path, repository: Repository) -> None:
    store = f"sqlite:///{tmp_path}/mind.db"
    command = [sys.executable, "-m", "dionysus", "beat", "--watch", str(repository.path), "--store", store]
    chosen = {"DIONYSUS_MODEL": "local:smollm2", "DIONYSUS_MAX_TOKENS": "64", "DIONYSUS_BUDGET": "calls=5"}
    process = subprocess.Popen(command, env=os.environ | chosen, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    answered = _answered(tmp_path / "mind.db", 2, process)
    process.kill()  # within the third call: the model is all that takes time
    process.communicate()
    with Runtime(store=store) as runtime:
        (trace,) = runtime.traces.list_traces()
        assert trace.status == "interrupted"
        report = runtime.resume(trace.run_id)
        assert report.status in ("success", "max_steps", "budget_exhausted")
        again = _answers(tmp_path / "mind.db")
        assert again[: len(answered)] == answered  # none was asked for again, and none is another
        assert len(set(again)) == len(again)
        assert_counted(runtime.traces.get_trace(trace.id))
        assert runtime.replay(trace.run_id).status in (report.status, "interrupted")  # where the budget ended it


def _answered(path: Path, count: int, process: "subprocess.Popen[bytes]") -> list[Any]:
    until = time.monotonic() + 120
    while not path.exists() or len(found := _answers(path)) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def _answers(path: Path) -> list[Any]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
        query = "SELECT position, seq, at FROM events WHERE kind = 'model_called' ORDER BY seq"
        try:
            return raw.execute(query).fetchall()
        except sqlite3.OperationalError:  # the tables are not made yet
            return []


@pytest.mark.parametrize("number", range(3))
def test_whatever_a_tool_takes_the_model_can_say(number: int) -> None:
    """llama.cpp compiles the schema of every kind of argument, and what comes out fits it."""
    model = open_model("local:smollm2", max_tokens=256)
    assert isinstance(model, ConstrainedModel)
    task = said(f"New task:\nUse everything, with numbers like {number} and a list of names.")
    answer = model.generate([said("You call tools.", MessageRole.SYSTEM), task], tools_to_call_from=[everything])
    assert answer.tool_calls, answer.content
    assert everything(**answer.tool_calls[0].function.arguments).startswith("('")
    assert model.counts.given_up == 0


def test_numbers_come_to_an_end() -> None:
    @tool  # type: ignore[untyped-decorator]
    def use(x: float) -> str:
        """Uses a number.

        Args:
            x: The number.
        """
        return str(x)

    model = open_model("local:smollm2", max_tokens=128)
    assert isinstance(model, ConstrainedModel)
    answer = model.generate([said("New task:\nUse the number 1." + "3" * 40)], tools_to_call_from=[use])
    assert answer.tool_calls, answer.content
    assert isinstance(answer.tool_calls[0].function.arguments["x"], int | float)


def test_agents_take_turns_on_one_server_and_find_their_prompts_again() -> None:
    one, other = LocalModel("smollm2", max_tokens=4), LocalModel("smollm2", max_tokens=4)
    first = [said("You look after the sea. " * 40, MessageRole.SYSTEM), said("Say hello.")]
    second = [said("Numbers count the stars at night. " * 40, MessageRole.SYSTEM), said("Say hello.")]
    usage = [
        model.generate(messages).raw["usage"]
        for model, messages in ((one, first), (other, second), (one, first), (other, second))
    ]
    cached = [each["prompt_tokens_details"]["cached_tokens"] for each in usage]
    prompt = [each["prompt_tokens"] for each in usage]
    assert one._server is other._server
    assert max(cached[:2]) < 10
    assert cached[2] >= prompt[2] - 2
    assert cached[3] >= prompt[3] - 2


def test_threads_may_share_a_model() -> None:
    model = open_model("local:smollm2", max_tokens=64)
    answers: list[ChatMessage] = []

    def ask(number: int) -> None:
        prompt = [said("You call tools.", MessageRole.SYSTEM), said(f"New task:\nTake the thing number {number}.")]
        answers.append(model.generate(prompt, tools_to_call_from=[take]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.tool_calls[0].function.name for answer in answers if answer.tool_calls] == ["take"] * 4


def test_the_same_prompt_has_the_same_answer() -> None:
    model = LocalModel("smollm2", max_tokens=24)
    answers = {model.generate([said("Tell me of the sea.")]).content for _ in range(2)}
    assert len(answers) == 1


def test_without_schemas_the_form_is_the_models_own() -> None:
    model = open_model("local:smollm2", tool_calls="native", max_tokens=16)
    assert isinstance(model, LocalModel)
    answer = model.generate([said("Look around.")], tools_to_call_from=[look])
    assert answer.content or answer.tool_calls


def test_a_context_too_small_for_the_prompt_is_one_clear_line() -> None:
    agent = ToolCallingAgent([look], open_model("local:smollm2", context=256), verbosity_level=LogLevel.OFF)
    with pytest.raises(Exception, match="context of local:smollm2 is too small") as caught:
        agent.run("Look around.")
    assert "it holds 256 tokens, the prompt has" in str(caught.value)
    assert "DIONYSUS_CONTEXT (it takes 8,192)" in str(caught.value)


def test_an_answer_that_fills_the_context_is_not_handed_on() -> None:
    model = LocalModel("smollm2", context=256, max_tokens=2000)
    with pytest.raises(ModelError, match="the answer filled the rest"):
        model.generate([said("Count from one to a thousand, in words.")])


def test_a_call_that_takes_too_long_is_stopped_and_the_next_one_works() -> None:
    slow = LocalModel("smollm2", timeout_s=0.3)
    with pytest.raises(ModelError, match=r"did not answer within 0\.3 s"):
        slow.generate([said("Write a very long story about the sea.")])
    assert LocalModel("smollm2", max_tokens=4).generate([said("Say hello.")]).content


def test_the_same_schemas_hold_a_server_that_speaks_openais_protocol(tmp_path: Path, smollm2: Path) -> None:
    """llama.cpp's own, over HTTP: what it enforces there is what we ask for."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(smollm2), 4096, 1, 0
    params.api_keys, params.ui = ["secret"], False
    server = xllamacpp.Server(params)
    url = f"{server.listening_address}/v1"
    model = open_model("openai:smollm2", api_base=url, api_key="secret", tool_calls="schema", max_tokens=160)
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        agent = ToolCallingAgent([look, take], model, max_steps=3, verbosity_level=LogLevel.OFF)
        result = runtime.attach(agent).run("Look, then take the key.")
        trace = runtime.traces.get_trace(result.trace_id)
    assert_valid(trace, {"look", "take", "final_answer"})
    calls = [call.usage for step in trace.steps for call in step.model_calls]
    assert all(call.tokens_per_s and not call.estimated for call in calls)
    assert calls[1].cached_tokens > calls[0].input_tokens * 0.9


def test_images_are_refused() -> None:
    picture = ChatMessage(role=MessageRole.USER, content=[{"type": "image", "image": b""}])
    with pytest.raises(ModelError, match="reads no images"):
        LocalModel("smollm2").generate([picture])


def test_a_file_that_ends_within_its_last_tensor_says_what_llama_says(tmp_path: Path, smollm2: Path) -> None:
    short = tmp_path / "short.gguf"
    shutil.copy(smollm2, short)
    os.truncate(short, smollm2.stat().st_size - 100)
    with pytest.raises(ModelError, match=r"cannot load .*: .*data is not within the file bounds"):
        LocalModel(str(short)).generate([said("Say hello.")])


def test_a_head_without_a_model_says_what_llama_says(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match=r"cannot load local:\S+: \w+") as caught:
        LocalModel(str(tmp_path / "tiny.gguf")).generate([said("Say hello.")])
    assert "does not say why" not in str(caught.value)


def test_what_does_not_fit_into_memory_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "vast.gguf").write_bytes(gguf(context=2**31))
    with pytest.raises(ModelError, match=r"does not fit into memory: .* MiB, and .* MiB are free"):
        LocalModel(str(tmp_path / "vast.gguf"), context=2**31).generate([said("Say hello.")])


TIGHT = """
import resource
from dionysus.errors import ModelError
from dionysus.models.local import LocalModel
from smolagents import ChatMessage
model = LocalModel("smollm2")
import xllamacpp, psutil
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20,) * 2)
try:
    model.generate([ChatMessage(role="user", content=[{"type": "text", "text": "hello"}])])
except ModelError as error:
    print(error)
"""


def test_memory_that_is_refused_is_one_clear_line() -> None:
    done = subprocess.run([sys.executable, "-c", TIGHT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("local:smollm2 does not fit into memory: ")
    assert len(done.stdout.splitlines()) == 1


LEAVES = """
import threading, time
from dionysus.models.local import LocalModel
from smolagents import ChatMessage
model = LocalModel("smollm2")
hello = [ChatMessage(role="user", content=[{"type": "text", "text": "Write a very long story."}])]
model.generate(hello, max_tokens=1)
threading.Thread(target=model.generate, args=(hello,), daemon=True).start()
time.sleep(0.3)
print("leaving", flush=True)
"""


def test_a_process_may_end_within_a_call() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


INTERRUPTED = """
import os, signal, threading
from dionysus.models.local import LocalModel
from smolagents import ChatMessage
model = LocalModel("smollm2", max_tokens=4000)
hello = [ChatMessage(role="user", content=[{"type": "text", "text": "Write a very long story."}])]
model.generate(hello, max_tokens=1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes are started without one
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    model.generate(hello)
except KeyboardInterrupt:
    print("interrupted, and then", len(model.generate(hello, max_tokens=2).content) > 0)
"""


def test_ctrl_c_ends_a_call_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted, and then True\n"), done.stderr


FORKED = """
import multiprocessing
from dionysus.errors import ModelError
from dionysus.models.local import LocalModel
from smolagents import ChatMessage
model = LocalModel("smollm2", max_tokens=2)
hello = [ChatMessage(role="user", content=[{"type": "text", "text": "Say hello."}])]
model.generate(hello)
def work():
    for one in (model, LocalModel("smollm2")):
        try:
            one.generate(hello)
        except ModelError as error:
            print("forked" in str(error), flush=True)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
print(child.exitcode, len(model.generate(hello).content) > 0)
"""


def test_a_forked_process_says_that_it_cannot() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n0 True\n"), done.stderr


def test_calls_that_wait_for_their_turn_keep_their_time() -> None:
    long = LocalModel("smollm2", max_tokens=400)
    long.generate([said("Say hello.")])
    thread = threading.Thread(target=long.generate, args=([said("Write a very long story.")],))
    thread.start()
    with pytest.raises(ModelError, match="did not answer within"):
        LocalModel("smollm2", timeout_s=0.2).generate([said("Say hello.")])
    assert thread.is_alive()  # the other one goes on
    thread.join()


def test_a_schema_that_is_none_is_not_passed_over() -> None:
    impossible = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 5, "maximum": 1}},
        "required": ["n"],
    }
    with pytest.raises(ModelError, match=r"schema|refuses"):
        LocalModel("smollm2", max_tokens=16).generate(
            [said("Say hello.")], response_format={"type": "json_schema", "json_schema": {"schema": impossible}}
        )


def test_the_model_reads_messages_whole() -> None:
    """smolagents' own conversion would keep the first part of each message."""
    model = LocalModel("smollm2", max_tokens=1)
    one = model.generate([said("Say hello.")]).raw["usage"]["prompt_tokens"]
    parts = [{"type": "text", "text": "Say hello."}, {"type": "text", "text": "And tell me of the sea."}]
    assert model.generate([ChatMessage(role=MessageRole.USER, content=parts)]).raw["usage"]["prompt_tokens"] > one + 4
    assert (
        model.generate([ChatMessage(role=MessageRole.USER, content="Say hello.")]).raw["usage"]["prompt_tokens"] == one
    )
