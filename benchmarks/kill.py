"""Runs that are killed, and go on: a manager with three members, planning, parallel tool calls, a tool with effects.

SIGKILL at random instants, then the run is resumed, until it has its answer; then the next run. Apart from that, one
run is killed once after each of its journal writes in turn. Held against what is outside the journal: a log that
models and tools write by themselves, a file that the tool with effects appends to, a log of the writes that returned.
"""

import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smolagents import ChatMessage, CodeAgent, LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus import Runtime
from dionysus.journal import Journal
from dionysus.stores import open_store

_RUN = "killed"
_TASK = "Look at everything, write down what matters, and say what you saw."
_LINES = [f"line {n}: " + " ".join(f"word{n * 7 + i}" for i in range(30)) for n in range(40)]
_MARK = re.compile(r"#([0-9a-f]{16})")
_STUCK_S = 120.0


def run(*, short: bool, seed: int, data: Path | None, kills: int | None = None) -> dict[str, Any]:
    """How often a run that was killed did wrong.

    Args:
        data: A text; its lines are what the tools see.
        kills: At random instants; default: 1000, short: 40.
    """
    wanted = kills if kills is not None else 30 if short else 1000
    lines = (data.read_text(errors="replace").splitlines() or [""]) if data else _LINES
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        rounds = 1 if short else 3
        calm = _Place(Path(folder) / "calm", lines, rounds)
        began = time.perf_counter()
        _go(calm, None)
        took = time.perf_counter() - began
        counts = _Counts(expected=calm.answer())
        writes, effects = len(calm.acknowledged()), len(calm.effects())
        gaps = [("write", n) for n in range(1, writes + 1)] + [("effect", n) for n in range(1, effects + 1)]
        for number, gap in enumerate(gaps):
            place = _Place(Path(folder) / f"gap-{number}", lines, rounds)
            counts.killed_in_gap += _killed(place, counts, lambda gap=gap: gap)  # type: ignore[misc]
            _until_done(place, counts)
        number = 0
        while counts.kills < wanted:
            number += 1
            place = _Place(Path(folder) / f"run-{number}", lines, rounds)
            while counts.kills < wanted and not place.is_done():
                counts.kills += _killed(place, counts, None, after_s=chance.uniform(0, took))
            _until_done(place, counts)
            counts.runs += 1
    return counts.figures()


class _Counts:
    """What is counted."""

    def __init__(self, expected: str) -> None:
        self.expected = expected
        self.kills = self.killed_in_gap = self.runs = 0
        self.repeated = self.lost = self.wrong = self.doubled = self.corrupt = 0
        self.uncertain = self.made_again = self.calls = 0

    def figures(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "runs": self.runs,
            "gaps": self.killed_in_gap,
            "calls_completed": self.calls,
            "completed_repeated": self.repeated,
            "events_lost": self.lost,
            "wrong_answers": self.wrong,
            "effects_doubled": self.doubled,
            "corrupt_stores": self.corrupt,
            "in_flight_made_again": self.made_again,
            "effects_reported_uncertain": self.uncertain,
        }


class _Place:
    """The files of one run: its store, and what is written beside it."""

    def __init__(self, folder: Path, lines: list[str], rounds: int) -> None:
        folder.mkdir()
        self.folder, self.lines, self.rounds = folder, lines, rounds
        """How often a member looks and writes before it answers."""
        self.store = folder / "mind.db"
        self.completed: set[str] = set()
        """Calls that were on record as completed after the last kill."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def is_done(self) -> bool:
        return self.path("answer").exists()

    def answer(self) -> str:
        return self.path("answer").read_text()

    def effects(self) -> list[str]:
        return _read(self.path("effects"))

    def acknowledged(self) -> list[str]:
        return _read(self.path("acknowledged"))


def _killed(place: _Place, counts: _Counts, gap: Callable[[], tuple[str, int]] | None, after_s: float = 0.0) -> int:
    """One attempt that is killed; 0: it was done before. Then it looks at what is left."""
    child = _fork(place, gap() if gap else None)
    if gap is None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    status = _wait(child)
    _look(place, counts)
    return int(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)


def _until_done(place: _Place, counts: _Counts) -> None:
    if not place.is_done():
        _go(place, None)
        _look(place, counts)
    counts.wrong += place.answer() != counts.expected
    done = Counter(place.effects())
    counts.doubled += sum(n - 1 for n in done.values())
    made = Counter(_read(place.path("made")))
    counts.made_again += sum(n - 1 for n in made.values())
    with sqlite3.connect(place.store) as db:
        uncertain = "SELECT count(*) FROM events WHERE kind = 'tool_finished' AND body LIKE '%CallUncertain%'"
        counts.uncertain += db.execute(uncertain).fetchone()[0]
    db.close()
    counts.calls += len(place.completed)


def _look(place: _Place, counts: _Counts) -> None:
    """What the store holds after a kill, against what was written beside it."""
    made = _read(place.path("made"))
    new = made[getattr(place, "seen", 0) :]
    counts.repeated += sum(call in place.completed for call in new)
    place.seen = len(made)  # type: ignore[attr-defined]
    if not place.store.exists():
        return
    db = sqlite3.connect(place.store)
    try:
        counts.corrupt += db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        there = {str(seq) for (seq,) in db.execute("SELECT seq FROM events WHERE run_id = ?", (_RUN,))}
    except sqlite3.DatabaseError:
        if place.acknowledged():
            counts.corrupt += 1
        return
    finally:
        db.close()
    counts.lost += len(set(place.acknowledged()) - there)
    place.completed = _completed(place)


def _completed(place: _Place) -> set[str]:
    """The calls that the journal has as completed, by the names that models and tools write."""
    found: set[str] = set()
    store = open_store(f"sqlite:///{place.store}")
    try:
        for event in store.records.events(_RUN):
            if event.kind == "model_called" and "answer" in event.body:
                found.update(f"model {mark}" for mark in _MARK.findall(str(event.body["answer"]["content"])))
            elif event.kind == "tool_finished" and event.body["tool"] in ("look", "write_down"):
                found.add(f"{event.body['tool']} {event.body['arguments']['what']}")
    finally:
        store.close()
    return found


# -- one attempt, in a process of its own -------------------------------------------------------------


def _fork(place: _Place, gap: tuple[str, int] | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        random.seed(os.urandom(8))
        _attempt(place, gap)
        code = 0
    except BaseException as error:  # noqa: BLE001 – the last word of a process that ends here
        place.path("failure").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _go(place: _Place, gap: tuple[str, int] | None) -> None:
    status = _wait(_fork(place, gap))
    if not place.is_done():
        raise RuntimeError(f"a run that nobody killed failed ({status}): {_read(place.path('failure'))}")


def _wait(child: int) -> int:
    until = time.monotonic() + _STUCK_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise RuntimeError(f"an attempt hung for {_STUCK_S:g} s")


def _attempt(place: _Place, gap: tuple[str, int] | None) -> None:
    with Runtime(store=f"sqlite:///{place.store}") as runtime:
        _acknowledging(runtime._claims._journal, place, gap)
        agent = _manager(place, gap)
        result = runtime.attach(agent).run(_TASK, run_id=_RUN)
    written = place.path("answer.new")
    written.write_text(str(result.output))
    written.rename(place.path("answer"))


def _acknowledging(journal: Journal, place: _Place, gap: tuple[str, int] | None) -> None:
    """Writes down each journal write that returned; the n-th may be the last thing that this process does."""
    before, log = journal.transaction, place.path("acknowledged")
    done = len(place.acknowledged())

    @contextmanager
    def transaction(*, durable: bool = True) -> Iterator[None]:
        nonlocal done
        with before(durable=durable):
            yield
        seq = journal._last.get(_RUN)
        if not journal._depth and seq is not None and seq > done:
            done = seq
            _write(log, str(seq))
            if gap is not None and gap[0] == "write" and len(place.acknowledged()) == gap[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    journal.transaction = transaction  # type: ignore[method-assign]


class _Look(Tool):
    name = "look"
    description = "Looks."
    inputs = {"what": {"type": "string", "description": "What at."}}  # noqa: RUF012 – as smolagents has it
    output_type = "string"
    idempotent = True

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self.place = place

    def forward(self, what: str) -> str:
        _write(self.place.path("made"), f"look {what}")
        lines = self.place.lines
        return f"saw {what}: {lines[int(hashlib.md5(what.encode()).hexdigest(), 16) % len(lines)]}"


class _WriteDown(Tool):
    name = "write_down"
    description = "Writes down; each call adds a line."
    inputs = {"what": {"type": "string", "description": "What."}}  # noqa: RUF012 – as smolagents has it
    output_type = "string"

    def __init__(self, place: _Place, gap: tuple[str, int] | None) -> None:
        super().__init__()
        self.place, self.gap = place, gap

    def forward(self, what: str) -> str:
        _write(self.place.path("made"), f"write_down {what}")
        _write(self.place.path("effects"), what)
        if self.gap is not None and self.gap[0] == "effect" and len(self.place.effects()) == self.gap[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"written: {what}"


class _Thinking(Model):
    """Answers by what it is shown alone; says a mark of that in each answer, and writes it down."""

    def __init__(self, place: _Place, act: Callable[[int, str], dict[str, Any]]) -> None:
        super().__init__(model_id="by the transcript")
        self.place, self.act = place, act

    def generate(self, messages: list[Any], stop_sequences: Any = None, **options: Any) -> ChatMessage:
        shown = [_shown(message) for message in messages]
        mark = hashlib.blake2b(json.dumps([self.place.folder.name, shown]).encode(), digest_size=8).hexdigest()
        _write(self.place.path("made"), f"model {mark}")
        planning = "<end_plan>" in (stop_sequences or ())
        acted = sum(role == "assistant" and text.startswith("Acting") for role, text in shown)
        turn = {"say": "1. Look.\n2. Answer."} if planning else self.act(acted, "\n".join(text for _, text in shown))
        calls = [
            ChatMessageToolCall(
                id=f"call_{acted}_{i}",
                type="function",
                function=ChatMessageToolCallFunction(name=name, arguments=arguments),
            )
            for i, (name, arguments) in enumerate(turn.get("calls", ()))
        ]
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=f"{'Planning' if planning else 'Acting'} #{mark}\n{turn.get('say', '')}",
            tool_calls=calls or None,
            token_usage=TokenUsage(input_tokens=len(str(shown)) // 4, output_tokens=20),
        )


def _shown(message: Any) -> tuple[str, str]:
    role = str(getattr(message.role, "value", message.role))
    parts = message.content if isinstance(message.content, list) else [{"text": str(message.content)}]
    return role, "\n".join(str(part.get("text", "")) for part in parts)


def _manager(place: _Place, gap: tuple[str, int] | None) -> CodeAgent:
    members = [_member(place, gap, name) for name in ("perception", "reasoning", "metacognition")]
    codes = (
        "import random\nseen = perception(task='look around')\nprint(seen, random.random())",
        "thought = reasoning(task='think about ' + str(len(seen)))\nprint(thought)\nwrite_down(what='thought')",
        "import time\ndecided = metacognition(task='decide on ' + str(len(thought)))\nprint(decided, time.time())",
        "write_down(what='decided')",
        "final_answer(seen + thought + decided)",
    )

    def act(step: int, text: str) -> dict[str, Any]:
        return {"say": f"Thoughts: step {step}\n<code>\n{codes[min(step, len(codes) - 1)]}\n</code>"}

    return CodeAgent(
        tools=[_WriteDown(place, gap)],
        model=_Thinking(place, act),
        managed_agents=members,
        planning_interval=3,
        max_steps=8,
        additional_authorized_imports=["random", "time"],
        executor_kwargs={"timeout_seconds": None},
        verbosity_level=LogLevel.OFF,
    )


def _member(place: _Place, gap: tuple[str, int] | None, name: str) -> ToolCallingAgent:
    def act(step: int, text: str) -> dict[str, Any]:
        if step < place.rounds:
            asked = [("look", {"what": f"{name} {step} {side}"}) for side in ("left", "right")]
            return {"calls": [*asked, ("write_down", {"what": f"{name} {step}"})]}
        saw = sorted(set(re.findall(r"saw [^\n]*", text)))
        return {
            "calls": [("final_answer", {"answer": f"{name}: {len(saw)} {hashlib.md5(str(saw).encode()).hexdigest()}"})]
        }

    return ToolCallingAgent(
        tools=[_Look(place), _WriteDown(place, gap)],
        model=_Thinking(place, act),
        planning_interval=2,
        max_steps=5,
        name=name,
        description=f"Does {name}.",
        verbosity_level=LogLevel.OFF,
    )


def _write(path: Path, line: str) -> None:
    """A line that outlives this process, from any thread."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
