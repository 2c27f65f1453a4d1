"""A short context: observations become stubs once the model has seen them.

See-once decides on each observation when the model has seen it whole exactly once: an edit there is followed only
by tokens that are uncached anyway, so it breaks no cached prefix (figures in docs/decisions/0005). The window rule
keeps the newest steps whole. Nothing is lost: a stub names the step, `recall_observation` brings its text back.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from smolagents import ActionStep, TaskStep

from dionysus.journal import Frame

Rule = Literal["see-once", "window", "off"]
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{5,}|#?[A-Z0-9]{5,}|\d{4,}")
_WORD = re.compile(r"\w+")
_LEAST_CHARS = 200
"""Shorter observations stay; a stub may spend this much on identifiers, or an eighth of the text."""
_STUB_SHARE = 0.5
_FETCHED_AGAIN = 0.9
_FIVE = 5


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A decision: this step's observation is shown as this stub from now on."""

    step: int
    before_step: int
    stub: str
    chars_saved: int


def head_of_stub(chars: int, step: int) -> str:
    """How a stub begins."""
    return f"[cut {chars} chars; recall_observation({step})]"


@dataclass(kw_only=True)
class SeeOnce:
    """The see-once rule over one run: what was visible, what was cut, what was fetched again."""

    seen: set[str] = field(default_factory=set)
    _cut: set[tuple[str, ...]] = field(default_factory=set)
    _pinned: set[tuple[str, ...]] = field(default_factory=set)

    def read(self, texts: Iterable[str]) -> None:
        """Identifiers of these texts are visible to the model anyway: prompt, task, its own outputs."""
        for text in texts:
            self.seen.update(_IDENTIFIER.findall(text))

    def decide(self, step: int, observation: str) -> str | None:
        """The stub for an observation that was seen whole once; None: leave it whole, for good.

        The stub keeps the identifiers that are visible nowhere else, shortest first, up to its room.
        """
        size = len(observation)
        grams = _five_grams(observation)
        new = [w for w in dict.fromkeys(_IDENTIFIER.findall(observation)) if w not in self.seen]
        room = max(_LEAST_CHARS, size // 8)
        keep: set[str] = set()
        for word in sorted(new, key=len):
            if len(word) + 1 > room:
                break
            room -= len(word) + 1
            keep.add(word)
        stub = " ".join([head_of_stub(size, step), *(w for w in new if w in keep)])
        if size < _LEAST_CHARS or len(stub) > _STUB_SHARE * size:
            return None
        if grams and len((grams & self._cut) - self._pinned) >= _FETCHED_AGAIN * len(grams):
            self._pinned |= grams
            return None
        self._cut |= grams
        self.seen |= keep
        return stub


class MemoryPruning:
    """The pruning of one agent's run; `memory_pruning_callback` is what an agent calls."""

    def __init__(self, rule: Rule, *, window: int = 3) -> None:
        """
        Args:
            window: Steps kept whole under the window rule; 999 turns it off.
        """
        self._rule: Rule = "off" if rule == "window" and window >= 999 else rule
        self._window = window
        self._see_once = SeeOnce()
        self._decided: set[int] = set()
        self._read = 0

    def memory_pruning_callback(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """Fires before smolagents appends the step: what is cut now is a stub in the very next prompt."""
        if self._rule == "off":
            return
        cuts = self._window_cuts(step, agent) if self._rule == "window" else self._see_once_cuts(step, agent, frame)
        if not cuts:
            return
        taken = frame.effect("pruned", lambda: [asdict(cut) for cut in cuts], pure=True)
        stubs = {cut["step"]: cut for cut in taken}
        for earlier in steps_of_this_run(agent):
            if earlier.step_number in stubs:
                earlier.observations = stubs[earlier.step_number]["stub"]
        frame.pruned_chars += sum(cut["chars_saved"] for cut in taken)

    def _see_once_cuts(self, step: ActionStep, agent: Any, frame: Frame) -> list[Cut]:
        if not self._read:
            self._see_once.read([agent.memory.system_prompt.system_prompt, str(agent.task or "")])
        self._see_once.read(done.plan or "" for done in frame.finished[self._read :])
        self._see_once.read([str(step.model_output or ""), str(step.tool_calls or "")])
        self._read = len(frame.finished)
        cuts = []
        for earlier in steps_of_this_run(agent):
            if earlier.step_number in self._decided:
                continue
            self._decided.add(earlier.step_number)
            text = earlier.observations or ""
            stub = self._see_once.decide(earlier.step_number, text)
            if stub is not None:
                cuts.append(_cut(earlier.step_number, step.step_number, text, stub))
        return cuts

    def _window_cuts(self, step: ActionStep, agent: Any) -> list[Cut]:
        cuts = []
        for earlier in steps_of_this_run(agent):
            if earlier.step_number > step.step_number - self._window:
                continue
            text = earlier.observations or ""
            if earlier.step_number not in self._decided and len(text) > _LEAST_CHARS:
                self._decided.add(earlier.step_number)
                stub = f"{head_of_stub(len(text), earlier.step_number)} {text[:100]}…"
                cuts.append(_cut(earlier.step_number, step.step_number, text, stub))
        return cuts


def prunable_tokens(frame: Frame, system_prompt: str, task: str) -> int:
    """What see-once would have kept out of the prompts of a run that it was not applied to.

    Estimated per call as what it does save is: reported input tokens × characters left out ÷ characters sent.
    """
    rule = SeeOnce()
    rule.read([system_prompt, task])
    saved, total, last = 0, 0.0, None
    for done in frame.finished:
        for tokens, chars in frame.sent.get(done.key, ()):
            total += tokens * saved / chars if chars else 0.0
        rule.read([done.plan or "", done.thought or "", str(done.calls or "")])
        if done.step_type != "action":
            continue
        if last is not None:
            stub = rule.decide(last.number, last.observation or "")
            saved += 0 if stub is None else len(last.observation or "") - len(stub)
        last = done
    return round(total)


def steps_of_this_run(agent: Any) -> list[ActionStep]:
    """The actions since the task was set: smolagents numbers them from 1 again when a conversation goes on."""
    steps: list[ActionStep] = []
    for step in reversed(agent.memory.steps):
        if isinstance(step, TaskStep):
            break
        if isinstance(step, ActionStep):
            steps.append(step)
    return steps[::-1]


def _cut(step: int, now: int, text: str, stub: str) -> Cut:
    return Cut(step=step, before_step=now + 1, stub=stub, chars_saved=len(text) - len(stub))


def _five_grams(text: str) -> set[tuple[str, ...]]:
    found = _WORD.findall(text)
    return {tuple(found[i : i + _FIVE]) for i in range(len(found) - _FIVE + 1)}
