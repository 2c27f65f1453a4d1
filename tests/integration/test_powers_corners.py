"""Corners of resume, replay, fork and cassettes: secrets in odd places, odd values, odd instants, foreign files."""

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from PIL import Image
from smolagents import ActionStep, CodeAgent, LogLevel, Tool
from smolagents.models import ChatMessageStreamDelta

from conftest import Clock
from dionysus import Budget, Runtime
from dionysus.errors import BadInput, Damaged, RunHeld, RunInterrupted
from transcripts import ByTranscript, Cut, act, add, agent_of, answer, call, code, read

READS = (act(call("read", page=1)), act(call("read", page=2)), act(call("read", page=3)), answer("three pages"))
KEY = "sk-proj-" + "a1B2" * 8


@pytest.fixture
def runtime(tmp_path: Path, clock: Clock) -> Iterator[Runtime]:
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db", clock=clock) as opened:
        yield opened


def reader(dies_at: int | None = None, **options: Any) -> Any:
    return agent_of(READS, [read], dies_at=dies_at, **options)


def coder(codes: Any, *, tools: Any = (add,), dies_at: int | None = None, **options: Any) -> CodeAgent:
    turns = [code(text) for text in codes]
    return CodeAgent(list(tools), ByTranscript(turns, dies_at=dies_at), verbosity_level=LogLevel.OFF, **options)


def made(name: str, inputs: tuple[str, ...], do: Callable[..., Any]) -> Tool:
    class Made(Tool):
        description = "Does it."
        output_type = "any"
        skip_forward_signature_validation = True

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return do(*args, **kwargs)

    Made.name = name
    Made.inputs = {each: {"type": "any", "description": each} for each in inputs}
    return Made()


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file())


# -- secrets ------------------------------------------------------------------------------------------------


def test_a_secret_in_a_question_is_in_no_file(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    answered = runtime.ask(f"what is {KEY}?", folder)
    runtime.runs.export(answered.run_id, tmp_path / "it.cassette")
    assert KEY.encode() not in bytes_of(tmp_path) + gzip.decompress((tmp_path / "it.cassette").read_bytes())


def test_code_that_hands_secrets_on_is_made_again(runtime: Runtime, tmp_path: Path) -> None:
    got: list[Any] = []
    tools = [
        made("login", ("key",), got.append),
        made("vault", (), lambda: {"keys": {KEY}, "raw": KEY.encode()}),
    ]
    codes = ["login(key)\nv = vault()\nlogin(list(v['keys'])[0])\nlogin(v['raw'])", "final_answer('ok')"]
    runtime.attach(coder(codes, tools=tools)).run("t", run_id="r1", additional_args={"key": KEY})
    assert runtime.replay("r1", coder(codes, tools=tools)).output == "ok"
    assert got == [KEY, KEY, KEY.encode()]
    assert KEY.encode() not in bytes_of(tmp_path)


def test_streamed_code_that_names_a_password_is_played_again(runtime: Runtime, tmp_path: Path) -> None:
    """What is streamed is executed as it came; what is on record has the placeholder."""

    class Streamed(ByTranscript):
        def generate_stream(self, messages: Any, **options: Any) -> Iterator[Any]:
            yield ChatMessageStreamDelta(content=self.generate(messages, **options).content)

    got: list[str] = []

    def make() -> CodeAgent:
        agent = coder([], tools=[made("login", ("key",), lambda key: got.append(key) or f"in with {key}")])  # type: ignore[func-returns-value]
        agent.model = Streamed([code("password = 'hunter2024x'\nprint(login(password))"), code("final_answer('ok')")])
        agent.stream_outputs = True
        return agent

    runtime.attach(make()).run("t", run_id="r1")
    assert runtime.replay("r1", make()).output == "ok"
    assert got == ["hunter2024x"]
    assert b"hunter2024x" not in bytes_of(tmp_path)


def test_digests_tell_nothing_of_a_secret(tmp_path: Path) -> None:
    """Who has the store, but not its key, cannot try passwords out."""
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db", secrets=["hunter2"]) as runtime:
        agent = agent_of((act(call("login", key="hunter2")), answer("in")), [made("login", ("key",), lambda key: "in")])
        runtime.attach(agent).run("t", run_id="r1")
        (event,) = [
            e for e in runtime._store.records.events("r1") if e.kind == "tool_started" and e.body["tool"] == "login"
        ]
    text = json.dumps({"key": "hunter2"}, sort_keys=True, separators=(",", ":"))
    assert event.digest != hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    assert event.digest is not None
    assert event.digest[:8] in event.position


def test_known_secrets_are_seen_in_any_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = ["/9j/4AAQSkZJRgABAQ", "pa'ss\"w\\ord1", "line1xx\nline2yy"]
    for i, value in enumerate(values):
        monkeypatch.setenv(f"A{i}_TOKEN", value)
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        agent = agent_of((act(call("tell")), answer("told")), [made("tell", (), lambda: values)])
        runtime.attach(agent).run("t", run_id="r1", additional_args={"all": values})
        shown = str(agent.model.prompts)
    for value in values:
        assert value not in shown
        assert repr(value)[1:-1] not in shown
        assert json.dumps(value)[1:-1].encode() not in bytes_of(tmp_path)


# -- values -------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Blob(bytes):
    pass


VALUES = {
    "image": Image.new("RGB", (3, 3)),
    "zone": datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
    "str enum": Colour.RED,
    "int enum": Size.BIG,
    "set": {"a", "b", "c"},
    "bytes": Blob(b"x"),
    "object": object(),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.not_replayed("it is replayed here")
def test_the_task_says_of_inputs_what_it_said(runtime: Runtime, name: str) -> None:
    value = VALUES[name]
    with pytest.raises(Cut):
        runtime.attach(reader(3)).run("t", run_id="r1", additional_args={"v": value})
    result = runtime.attach(reader()).run("t", run_id="r1", additional_args={"v": value})
    assert result.output == "three pages"
    given = {"additional_args": {"v": value}} if name in ("object", "bytes", "str enum", "int enum") else {}
    assert runtime.attach(reader()).replay("r1", **given).output == "three pages"


@pytest.mark.not_replayed("it is replayed here")
@pytest.mark.parametrize("text", ["Counter('aab')", "OrderedDict(a=1)", "deque([1])", "range(3)", "{1, 2}"])
def test_answers_that_no_journal_holds_are_replayed(runtime: Runtime, text: str) -> None:
    codes = [f"from collections import Counter, OrderedDict, deque\nfinal_answer({text})"]
    result = runtime.attach(coder(codes)).run("t", run_id="r1")
    assert type(result.output) is not str
    assert runtime.replay("r1", coder(codes)).status == "success"


@pytest.mark.not_replayed("it is replayed here")
def test_a_full_result_is_replayed(runtime: Runtime) -> None:
    runtime.attach(reader(return_full_result=True)).run("t", run_id="r1")
    assert runtime.replay("r1", reader(return_full_result=True)).status == "success"


def _shrink(it: list[Any]) -> None:
    it.pop()
    it[0].append(9)


IN_PLACE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "set": ("s = set()\nfill(s)\nx = add(len(s), 1)", lambda s: s.add(5)),
    "nested": ("l = []\nd = {'k': l}\nfill(d)\nx = add(len(l), 1)", lambda d: d["k"].append(5)),
    "tuple": ("l = [1]\nfill((l, 2))\nx = add(len(l), 1)", lambda t: t[0].append(5)),
    "shrunk": ("l = [[1], [2], 3]\nm = l[0]\nfill(l)\nx = add(len(l), len(m))", _shrink),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_tools_change_in_place_is_changed_again(runtime: Runtime, kind: str) -> None:
    text, change = IN_PLACE[kind]
    tools = [add, made("fill", ("it",), change)]
    codes = [text, "final_answer(x)"]
    result = runtime.attach(coder(codes, tools=tools)).run("t", run_id="r1")
    assert runtime.replay("r1", coder(codes, tools=tools)).output == result.output


class Two(LookupError, ValueError):
    pass


RAISED: dict[str, tuple[str, Callable[[], Any]]] = {
    "json": ("except json.JSONDecodeError as e:\n    x = e.args[0]", lambda: json.loads("{")),
    "errno": ("except OSError as e:\n    x = e.errno", lambda: open("/no/such/file")),  # noqa: SIM115
    "key": ("except KeyError as e:\n    x = e.args[0]", lambda: dict[str, int]()["k"]),
    "two": ("except ValueError as e:\n    x = str(e)", lambda: (_ for _ in ()).throw(Two("both"))),
    "unicode": ("except UnicodeDecodeError as e:\n    x = str(e)", lambda: b"\xff".decode()),
}


@pytest.mark.parametrize("kind", RAISED)
def test_exceptions_of_tools_come_back_with_class_and_content(runtime: Runtime, kind: str) -> None:
    clause, fail = RAISED[kind]
    codes = [f"import json\ntry:\n    fail()\n{clause}\necho(x)", "final_answer(x)"]
    tools = [made("fail", (), fail), made("echo", ("x",), lambda x: x)]

    def make() -> CodeAgent:
        return coder(codes, tools=tools, additional_authorized_imports=["json"])

    result = runtime.attach(make()).run("t", run_id="r1")
    assert result.output not in (None, "")
    assert runtime.replay("r1", make()).output == result.output


def test_what_a_failing_tool_was_asked_stays_on_record(runtime: Runtime) -> None:
    agent = agent_of((act(call("read", page=-1)), answer("done")), [read])
    runtime.attach(agent).run("t", run_id="r1")
    ended = next(e for e in runtime._store.records.events("r1") if e.kind == "tool_finished")
    assert (ended.body["arguments"], ended.body["error"]) == ({"page": -1}, "ValueError: no page -1")


# -- instants -------------------------------------------------------------------------------------------------


def test_code_that_was_given_up_is_given_up_again(runtime: Runtime) -> None:
    slow = made("slow", (), lambda: time.sleep(1.4))
    codes = ["x = slow()\ny = add(1, 1)\nprint(x)", "final_answer('ok')"]

    def make(dies_at: int | None = None) -> CodeAgent:
        return coder(codes, tools=[slow, add], dies_at=dies_at, executor_kwargs={"timeout_seconds": 1})

    with pytest.raises(Cut):
        runtime.attach(make(2)).run("t", run_id="r1")
    result = runtime.attach(make()).run("t", run_id="r1")
    assert result.output == "ok"
    assert "exceeded the maximum execution time" in str(runtime.traces.get_trace("r1").steps[0].error)
    assert runtime.replay("r1", make()).output == "ok"
    assert runtime.fork("r1", make(), at_step=1).output == "ok"


@pytest.mark.parametrize("by", ["stop", "close"])
def test_a_run_may_be_stopped_while_it_is_made_again(runtime: Runtime, by: str) -> None:
    with pytest.raises(Cut):
        runtime.attach(reader(4)).run("t", run_id="r1")
    if by == "stop":
        runtime.callbacks.register(ActionStep, lambda step: runtime.stop("x") if step.step_number == 1 else None)
        with pytest.raises(RunInterrupted):
            runtime.attach(reader()).run("t", run_id="r1")
        runtime.callbacks._callbacks[ActionStep].clear()
    else:
        stream = runtime.attach(reader()).run("t", run_id="r1", stream=True)
        next(stream)
        stream.close()
    assert runtime.runs.found("r1").status == "interrupted"
    assert runtime.replay("r1", reader()).status == "interrupted"
    assert runtime.attach(reader()).run("t", run_id="r1").output == "three pages"


def test_a_stream_that_is_read_while_an_exception_is_handled(runtime: Runtime) -> None:
    stream = runtime.attach(reader()).run("t", run_id="r1", stream=True)
    next(stream)
    try:
        raise ValueError("elsewhere")
    except ValueError:
        list(stream)
    assert runtime.fork("r1", reader(), at_step=2).output == "three pages"


def test_a_record_made_without_streaming_is_played_with_it(runtime: Runtime) -> None:
    class Streamed(ByTranscript):
        def generate_stream(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("nothing is called")

    runtime.attach(reader()).run("t", run_id="r1")
    streaming = reader()
    streaming.model, streaming.stream_outputs = Streamed(READS), True
    assert runtime.replay("r1", streaming).output == "three pages"


def test_two_threads_do_not_work_on_a_run_that_is_just_opened(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    waiting, go = threading.Event(), threading.Event()

    def wake(waking: Any) -> None:
        waiting.set()
        go.wait(30)

    thread = threading.Thread(target=lambda: runtime.beat(folder, on_wake=wake))
    thread.start()
    assert waiting.wait(30)
    with pytest.raises(RunHeld):
        runtime.resume(runtime.runs.listed()[0].run.run_id)
    go.set()
    thread.join()
    assert runtime.runs.listed()[0].run.status == "success"


def test_a_run_whose_opening_fails_can_be_taken_up(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    with pytest.raises(ZeroDivisionError):
        runtime.beat(folder, on_wake=lambda waking: 1 / 0)  # type: ignore[arg-type]
    run = runtime.runs.listed()[0].run
    assert run.status == "interrupted"
    assert runtime.resume(run.run_id).status == "success"


def test_idle_time_is_not_worked(runtime: Runtime, clock: Clock) -> None:
    with pytest.raises(Cut):
        runtime.attach(reader(3)).run("t", run_id="r1")
    clock.now += timedelta(days=1)
    assert runtime.attach(reader()).run("t", run_id="r1", budget=Budget(seconds=3600)).status == "success"
    clock.now += timedelta(days=1)
    assert runtime.fork("r1", reader(), at_step=2, budget=Budget(seconds=3600, calls=2)).status == "success"


# -- conversations ----------------------------------------------------------------------------------------------


def test_conversations_are_replayed_forked_and_taken_up(runtime: Runtime, tmp_path: Path) -> None:
    turns = (answer("1"), answer("2"), answer("3"))
    attached = runtime.attach(agent_of(turns, [read]))
    assert [attached.run(f"t{i}", run_id=f"c{i}", reset=False).output for i in range(2)] == ["1", "2"]
    assert [attached.replay(f"c{i}").output for i in range(2)] == ["1", "2"]
    fork = attached.fork("c1", at_step=0, new_id="f1")
    assert fork.output == "2"
    assert attached.replay("f1").output == "2"
    assert attached.fork("f1", at_step=0).output == "2"
    runtime.runs.export("c1", tmp_path / "c1")
    with Runtime(store="sqlite://") as other:
        other.import_run(tmp_path / "c1")
        with pytest.raises(BadInput, match="conversation of run 'c0', which is not in this store"):
            other.replay("c1", agent_of(turns, [read]))


@pytest.mark.not_replayed("it is stopped by a callback")
def test_a_conversation_that_was_stopped_goes_on_from_where_it_began(runtime: Runtime) -> None:
    codes = ["xs = [1]\nfinal_answer('a')", "xs.append(2)\nprint(xs)", "final_answer(xs)"]
    attached = runtime.attach(coder(codes))
    attached.run("one", run_id="e0")
    runtime.callbacks.register(ActionStep, lambda step: runtime.stop("x") if step.step_number == 1 else None)
    with pytest.raises(RunInterrupted):
        attached.run("two", run_id="e1", reset=False)
    runtime.callbacks._callbacks[ActionStep].clear()
    assert attached.run("two", run_id="e1", reset=False).output == [1, 2]


# -- damage, and files from elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model_started", "tool_finished", "run_finished"])
def test_the_cure_that_is_named_for_a_damaged_journal_works(runtime: Runtime, kind: str) -> None:
    runtime.attach(reader()).run("t", run_id="r1")
    seq = max(e.seq for e in runtime._store.records.events("r1") if e.kind == kind)
    runtime._store._database.write("UPDATE events SET body = 'garbage' WHERE run_id = 'r1' AND seq = ?", (seq,))
    with pytest.raises(Damaged):
        runtime.replay("r1", reader())
    again = reader()
    assert runtime.fork("r1", again, at_step=3).output == "three pages"
    assert len(again.model.prompts) == 1


def forged(tmp_path: Path, runtime: Runtime, change: Callable[[list[Any]], None]) -> Path:
    """A cassette of r1, changed, with a digest that fits."""
    file = tmp_path / "forged"
    runtime.runs.export("r1", file, overwrite=True)
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()][:-1]
    change(lines)
    raw = [(json.dumps(line) + "\n").encode() for line in lines]
    digest = hashlib.sha256(b"".join(raw)).hexdigest()
    end = json.dumps({"end": len(raw) - 1, "sha256": digest}).encode() + b"\n"
    file.write_bytes(gzip.compress(b"".join([*raw, end])))
    return file


def _first(lines: list[Any], kind: str) -> Any:
    return next(line for line in lines if line.get("kind") == kind)


FORGERIES: dict[str, Callable[[list[Any]], Any]] = {
    "another run's traces": lambda lines: [line["body"].update(trace="victim") for line in lines[1:]],
    "a status that there is not": lambda lines: _first(lines, "run_finished")["body"].update(status="weird"),
    "itself as its caller": lambda lines: _first(lines, "run_started")["body"].update(parent="r1", parent_step=1),
    "a parent's step": lambda lines: _first(lines, "run_started")["body"].update(parent_step={}),
    "a coherence": lambda lines: _first(lines, "effect")["body"].update(value={"level": "high"}),
    "a task": lambda lines: _first(lines, "run_started")["body"].update(task={}),
    "what it is made of": lambda lines: _first(lines, "run_started")["body"].update(made_of=[1]),
    "secrets": lambda lines: _first(lines, "run_started")["body"].update(hides=5),
    "a time": lambda lines: lines[3].update(at=10**30),
    "a digest": lambda lines: lines[3].update(digest={}),
    "a position": lambda lines: lines[3].update(position=[]),
    "a kind": lambda lines: lines[3].update(kind="spell"),
    "a request": lambda lines: lines[0].update(request={"verb": "ask"}),
    "a tool": lambda lines: lines[0]["request"].update(tools=[{"name": 5}]),
    "a budget": lambda lines: lines[0].update(request={"verb": "attached", "budget": {"foo": 1}}),
    "an id": lambda lines: lines[0].update(run="a/b\x1b[31m"),
    "a status in the head": lambda lines: lines[0].update(status="odd"),
    "an inputs' value": lambda lines: _first(lines, "run_started")["body"].update(exact={"$is": "spell"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_cassette_is_refused_and_the_store_stays_readable(runtime: Runtime, tmp_path: Path, name: str) -> None:
    runtime.attach(reader(planning_interval=2)).run("t", run_id="r1")
    runtime.attach(reader()).run("mine", run_id="victim")
    before = runtime.traces.list_traces(), runtime.traces.get_trace("victim")
    file = forged(tmp_path, runtime, FORGERIES[name])
    with pytest.raises((BadInput, Damaged)):
        runtime.import_run(file, as_id="r2")
    assert (runtime.traces.list_traces(), runtime.traces.get_trace("victim")) == before
    assert len(runtime.runs.listed()) == 2


def test_ids_of_imported_runs_are_checked(runtime: Runtime, tmp_path: Path) -> None:
    runtime.attach(reader()).run("t", run_id="r1")
    runtime.runs.export("r1", tmp_path / "it")
    for wrong in ("", "a/b", "a b\n"):
        with pytest.raises(BadInput, match="run_id"):
            runtime.import_run(tmp_path / "it", as_id=wrong)
    with pytest.raises(BadInput, match="is a folder"):
        runtime.runs.export("r1", tmp_path, overwrite=True)


def test_a_beat_of_another_store_is_not_taken_up(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    runtime.callbacks.register(ActionStep, lambda step: runtime.stop("x") if step.step_number == 2 else None)
    with pytest.raises(RunInterrupted):
        runtime.beat(folder)
    run_id = runtime.runs.listed()[0].run.run_id
    runtime.runs.export(run_id, tmp_path / "beat")
    with Runtime(store="sqlite://") as other:
        other.import_run(tmp_path / "beat")
        with pytest.raises(BadInput, match="a beat of another store"):
            other.resume(run_id)
        assert other.replay(run_id).status == "interrupted"


def test_a_fork_that_cannot_be_leaves_nothing_behind(runtime: Runtime) -> None:
    attached = runtime.attach(reader())
    attached.run("t", run_id="r1", additional_args={"o": object()})
    with pytest.raises(BadInput, match="which a journal cannot"):
        attached.fork("r1", at_step=1, new_id="f1")
    assert [summary.run.run_id for summary in runtime.runs.listed()] == ["r1"]
