"""The past of a run: what its journal answers when the run is made again.

Resuming, replaying and forking are one thing: the agent runs again from the top, and whatever is on record is taken
from there – no model call, no tool call, no clock. The first position without a record is where the run goes on.
"""

import builtins
import difflib
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from smolagents import ChatMessage
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole
from smolagents.monitoring import TokenUsage

from dionysus.errors import BadInput, CallUncertain, Damaged, StoreError, ToolRefused
from dionysus.journal.spending import Spent
from dionysus.journal.values import LostText, name_of, packed, unpacked
from dionysus.stores.contract import Event, Usage
from dionysus.stores.records import Records

_CALLS = ("model_called", "tool_finished")
_SHOWN_LINES = 12
RECOVERY = "recovery"
"""Where the end of a run stands whose process died."""


class Past:
    """What is on record of a run, by kind and position; of several attempts the last one counts."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._found: dict[tuple[str, str], Event] = {}
        self._prompts: dict[int, Event] = {}
        self._left: dict[tuple[str, str], dict[str, Event]] = defaultdict(dict)
        self._spent: dict[str | None, Spent] = defaultdict(Spent)
        self._lock = threading.Lock()
        self.seconds = 0.0
        """Time worked."""
        self.last_seq = 0
        self.top: Event | None = None
        """How it began."""
        self.ended: Event | None = None
        """How it ended last."""
        self.made_of: Mapping[str, Any] = {}
        """What the agent that was run was made of; of a fork, what it went on with."""
        self.hidden: set[str] = set()
        """Placeholders of secrets that the run was given, or met."""
        began: datetime | None = None
        for event in events:
            if event.kind == "run_forked":  # what is shared was paid for, and waited for, by another run
                self._spent.clear()
                began, self.seconds = None, 0.0
            if began is None or (event.kind == "run_resumed" and event.position == self._top_path):
                began, before = event.at, self.seconds
            if event.position != RECOVERY:  # written by who found the run dead
                self.seconds = before + (event.at - began).total_seconds()
            self._add(event)

    def __bool__(self) -> bool:
        return self.top is not None

    @property
    def _top_path(self) -> str:
        return self.top.position if self.top is not None else ""

    def _add(self, event: Event) -> None:
        self.last_seq = event.seq
        body, place = event.body, (event.body["trace"], event.body.get("step") or "")
        if event.kind == "run_started" and self.top is None:
            self.top = event
        self.hidden.update(body.get("hides", ()))
        if "made_of" in body:
            self.made_of = body["made_of"]
        if event.kind == "run_finished" and self.top is not None and body["trace"] == self.top.body["trace"]:
            self.ended = event
        if event.kind == "model_started":
            self._prompts[event.seq] = event
            for spent in self._spents(body["trace"]):
                spent.model_calls += 1
        if event.kind == "model_called" and "usage" in body:
            started = self._found.get(("model_started", event.position))
            for spent in self._spents(body["trace"]):
                spent.answered(Usage(**body["usage"]), started.body if started is not None else {})
        if event.kind in (*_CALLS, "tool_started") and not body.get("within_tool"):
            self._left[place][event.position] = event
        self._found[event.kind, event.position] = event

    def _spents(self, trace: str) -> list[Spent]:
        return [self._spent[None], self._spent[trace]]

    def spent(self, trace: str | None = None) -> Spent:
        """What it took, in one trace or in all; calls without an answer count as calls."""
        return self._spent[trace].copy() if trace in self._spent else Spent()

    def has(self, kind: str, position: str) -> bool:
        """Whether this is on record."""
        return (kind, position) in self._found

    def find(self, kind: str, position: str) -> Event | None:
        """What is on record there, if anything; to be looked at only."""
        return self._found.get((kind, position))

    def take(self, kind: str, position: str) -> Event | None:
        """What is on record there, if anything."""
        event = self._found.get((kind, position))
        if event is not None and self._left:
            with self._lock:
                self._left[event.body["trace"], event.body.get("step") or ""].pop(position, None)
        return event

    def left(self, trace: str, step: str) -> list[Event]:
        """Calls of a step that are on record and were not made again."""
        with self._lock:
            return list(self._left.get((trace, step), {}).values())

    def prompt(self, event: Event) -> list[dict[str, Any]]:
        """The messages of a `model_started`; those that its journal does not hold any more are left out."""
        prompt = event.body["prompt"]
        before = self._prompts.get(prompt["like"]) if prompt["like"] is not None else None
        kept = self.prompt(before)[: prompt["keep"]] if before is not None else []
        return [*kept, *prompt["add"]]

    def prompt_at(self, position: str) -> list[dict[str, Any]] | None:
        """The messages of the last call of a model at this position."""
        event = self._found.get(("model_started", position))
        return self.prompt(event) if event is not None else None

    def seq_of_prompt(self, position: str) -> int | None:
        """The number of the event that holds them."""
        event = self._found.get(("model_started", position))
        return event.seq if event is not None else None


def whole_events(records: Records, run_id: str) -> Iterator[Event]:
    """A run's events, each the one after the one before.

    Raises:
        Damaged: While iterating: the next one is missing, or cannot be read.
    """
    last, steps, top, reason = 0, 0, "", ""
    events = records.events(run_id)
    while True:
        try:
            event = next(events, None)
        except StoreError as error:
            reason = str(error)
            break
        if event is None:
            return
        if event.seq != last + 1:
            reason = f"event {last + 1} is missing"
            break
        last, top = event.seq, top or event.body["trace"]
        steps += (
            event.kind == "step_finished" and event.body["trace"] == top and event.body["step"].startswith("action")
        )
        yield event
    cure = f"restore a copy, or go on from there: dionysus runs fork {run_id} --at {steps}"
    raise Damaged(f"the journal of run {run_id!r}", usable=last, steps=steps, reason=reason, cure=cure)


class Branch:
    """Where a run is forked: which of its events are shared, and which steps are told otherwise."""

    def __init__(self, records: Records, run_id: str, at_step: int, edit: Mapping[str, str]) -> None:
        """
        Raises:
            BadInput: No such step, or nothing of that kind to edit.
            Damaged: The journal cannot be read that far.
        """
        if isinstance(at_step, bool) or not isinstance(at_step, int) or at_step < 0:
            raise BadInput(f"at_step {at_step!r} is not a whole number ≥ 0")
        unknown = set(edit) - {"observation", "plan"}
        if unknown or not all(isinstance(text, str) for text in edit.values()):
            raise BadInput(f"edit takes texts for `observation` and `plan`, not {sorted(unknown) or edit}")
        if "observation" in edit and not at_step:
            raise BadInput("at_step=0 shares no action, so there is no observation to edit")
        self._run_id = run_id
        found, answered = self._steps(records, run_id, at_step, next_plan="plan" in edit)
        action = found.get(f"action.{at_step}")
        plans = [event for key, event in found.items() if key.startswith("planning.")]
        if at_step and action is None:
            last = max((int(key.partition(".")[2]) for key in found if key.startswith("action.")), default=0)
            raise BadInput(f"run {run_id!r} has no step {at_step} to share; its last whole one is {last}")
        if answered and at_step:
            raise BadInput(f"step {at_step} of run {run_id!r} has the answer; fork at an earlier one")
        if "plan" in edit and not plans:
            raise BadInput(f"run {run_id!r} has no plan that is in force at step {at_step}")
        self.seq = max([self._began, *(event.seq for event in (action, *plans[-1:]) if event is not None)])
        """The last event that is shared."""
        self.edited = [
            replace(event, body={**event.body, name: edit[name]})
            for name, event in (("observation", action), ("plan", plans[-1] if plans else None))
            if name in edit and event is not None
        ]
        """Ends of steps that take the place of those that are shared."""

    def _readable(self, records: Records, run_id: str, at_step: int) -> Iterator[Event]:
        """A run's events; where they are damaged behind the wanted step, as far as they go."""
        whole = 0
        try:
            for event in whole_events(records, run_id):
                key = str(event.body.get("step") or "")
                if event.kind == "step_finished" and key.startswith("action.") and "/" not in event.body["trace"]:
                    whole = max(whole, int(key.partition(".")[2]))
                yield event
        except Damaged:
            if whole < at_step:
                raise

    def _steps(self, records: Records, run_id: str, at_step: int, *, next_plan: bool) -> tuple[dict[str, Event], bool]:
        """The whole steps of the agent that was run, up to the given action, or to the plan that follows it; and
        whether the run has its answer by then."""
        top, answered, found = "", False, dict[str, Event]()
        self._began = 0
        for event in self._readable(records, run_id, at_step):
            if event.kind == "run_started" and not top:
                top, self._began = event.body["trace"], event.seq
            if event.body["trace"] != top:
                continue
            if event.kind == "model_started" and event.body["step"] in (
                f"action.{at_step + 1}",
                f"final.{at_step + 1}",
            ):
                break
            if event.kind == "run_finished" and event.body["status"] in ("success", "max_steps"):
                answered = True
            if event.kind == "step_finished" and not event.body.get("cut"):
                number = int(event.body["step"].partition(".")[2])
                if number <= at_step or (next_plan and event.body["step"] == f"planning.{at_step + 1}"):
                    found[event.body["step"]] = event
        if not top:
            raise BadInput(f"run {run_id!r} did not begin: there is nothing to share")
        return found, answered


def answer_of(event: Event) -> ChatMessage:
    """A model's recorded answer."""
    answer, usage = event.body["answer"], event.body["usage"]
    calls = [
        ChatMessageToolCall(
            id=call["id"],
            type="function",
            function=ChatMessageToolCallFunction(name=call["name"], arguments=call["arguments"]),
        )
        for call in answer["tool_calls"]
    ]
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        content=answer["content"],
        tool_calls=calls or None,
        token_usage=None
        if usage["estimated"]
        else TokenUsage(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"]),
    )


def error_fields(error: BaseException, text: str) -> dict[str, Any]:
    """Fields that hold what a call raised.

    Args:
        text: What it says, without secrets.
    """
    fields: dict[str, Any] = {"error": f"{type(error).__name__}: {text}", "raised": name_of(type(error))}
    bases = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    if bases[0] != "Exception":
        fields["bases"] = bases[: bases.index("Exception")]
    if text == str(error):  # no secrets in it
        given = packed("args", list(error.args))
        fields |= {} if "lost" in given else {"raised_with": given}
    return fields


def error_of(body: Mapping[str, Any]) -> Exception:
    """What a call raised, as it is on record: with its text and arguments; of the same class if that is loaded, else
    of one of the same name and built-in bases."""
    name, _, text = body["error"].partition(": ")
    for ours in (ToolRefused, CallUncertain):
        if name == ours.__name__:
            return ours(text)
    arguments = unpacked("args", body["raised_with"]) if "raised_with" in body else [text]
    for bases in (
        _loaded(body.get("raised", "")),
        [getattr(builtins, base, None) for base in body.get("bases", ())],
        [],
    ):
        usable = [
            b for b in bases if isinstance(b, type) and issubclass(b, Exception) and not issubclass(b, ExceptionGroup)
        ]
        try:
            kind = type(name, tuple(usable) or (Exception,), {"__str__": lambda self: text, "__module__": "builtins"})
            error: Exception = kind.__new__(kind, *arguments)
            if isinstance(error, OSError):
                OSError.__init__(error, *arguments)
            error.args = tuple(arguments)
        except (TypeError, ValueError):  # they do not go together, or want other arguments
            continue
        return error
    return Exception(text)


def _loaded(name: str) -> list[Any]:
    """The class of that name, if its module is loaded; nothing is imported."""
    module, _, kind = str(name).rpartition(".")
    found = getattr(sys.modules.get(module), kind, None)
    return [found] if found is not None else []


def result_of(event: Event, lost: list[str]) -> Any:
    """What a tool returned; `lost` is told the type of a value that the journal could not hold."""
    value = unpacked("result", event.body)
    if isinstance(value, LostText):
        lost.append(f"a {value.kind} that {event.body['tool']} returned")
    return value


def first_difference(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first message in which two prompts differ, as lines of a diff."""
    for number, (old, new) in enumerate(zip(then, now, strict=False), 1):
        if old != new:
            return f"message {number} ({new['role']}):\n{_diff(_lines(old), _lines(new))}"
    if len(then) != len(now):
        more, which = (now, "new") if len(now) > len(then) else (then, "missing")
        extra = more[min(len(then), len(now))]
        return f"message {min(len(then), len(now)) + 1} ({extra['role']}) is {which}:\n{_shown(_lines(extra))}"
    return "the messages are the same; stop sequences, tools or response format differ"


def _lines(message: Mapping[str, Any]) -> list[str]:
    content = message["content"]
    if isinstance(content, list):
        content = "\n".join(str(p["text"]) if isinstance(p, dict) and "text" in p else json.dumps(p) for p in content)
    return str(content).splitlines()


def _diff(then: list[str], now: list[str]) -> str:
    return _shown(list(difflib.unified_diff(then, now, "on record", "now", lineterm="", n=1)))


def _shown(lines: list[str]) -> str:
    shown = [
        line if len(line) <= 300 else f"{line[:300]} … ({len(line):,} characters)" for line in lines[:_SHOWN_LINES]
    ]
    return "\n".join([*shown, *([f"… {len(lines) - _SHOWN_LINES} more lines"] if len(lines) > _SHOWN_LINES else [])])
