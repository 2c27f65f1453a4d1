"""Runs with a fault put in: twins of recorded runs, from a random step in the middle third on.

The kinds in `UNSEEN` were written when the monitor's signals had been chosen, and nothing was changed for their sake.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dionysus.coherence import Turn

LEAST = 6
"""Turns of a run that is looked at."""


@dataclass(frozen=True)
class Recorded:
    """A recorded run."""

    id: str
    task: str
    success: bool
    goal: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Twin:
    """A run with a fault in it."""

    turns: tuple[Turn, ...]
    at: int
    """The first turn that is not as it was."""


def recorded(run: dict[str, Any]) -> Recorded:
    """A run of a file, as the monitor is told of it."""
    coded = any(step.get("rc") is not None for step in run["steps"])
    turns = [
        Turn(
            step=number,
            thought=step["thought"],
            calls=_calls(step),
            observation=step["obs"],
            failed=coded and step.get("rc") != 0,  # none: the action could not be run
        )
        for number, step in enumerate(run["steps"], 1)
    ]
    goal = "\n\n".join(m["content"] for m in run["prefix"] if m["role"] != "system")
    return Recorded(run["id"], str(run.get("task_id", run["id"])), bool(run.get("success", True)), goal, tuple(turns))


def _calls(step: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    action = step["action"]
    try:
        calls = json.loads(action)
        return tuple((str(call["name"]), _arguments(call["arguments"])) for call in calls)
    except (ValueError, TypeError, KeyError):
        return ((str(step.get("tool") or "run"), action),) if action else ()


def _arguments(given: Any) -> Any:
    return json.loads(given) if isinstance(given, str) and given[:1] == "{" else given


def twin_of(kind: str, run: Recorded, other: Recorded, chance: random.Random) -> Twin:
    """The same run with a fault of that kind.

    Args:
        other: Whose observations, thoughts or steps are put in, where some are.
    """
    size = len(run.turns)
    at = chance.randrange(size // 3, 2 * size // 3)
    turns, first = FAULTS[kind](run.turns, at, other.turns, chance)
    return Twin(tuple(turns), first)


Turns = Sequence[Turn]
Made = tuple[list[Turn], int]


def _shuffled(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    return [*turns[:at], *_moved(list(turns[at:]), chance)], at


def _permuted(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    seen = _moved(list(turns[at:]), chance)
    return [*turns[:at], *(_seeing(t, s) for t, s in zip(turns[at:], seen, strict=True))], at


def _foreign(share: float) -> Callable[[Turns, int, Turns, random.Random], Made]:
    def made(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
        return [
            *turns[:at],
            *(_seeing(t, chance.choice(other)) if chance.random() < share else t for t in turns[at:]),
        ], at

    return made


def _rest_of_another(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """From the same part of it."""
    return [*turns[:at], *other[min(round(at / len(turns) * len(other)), len(other) - 2) :]], at


def _loop(times: int) -> Callable[[Turns, int, Turns, random.Random], Made]:
    """The step is made so often, one time after the other."""

    def made(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
        return [*turns[:at], *[turns[at]] * times, *turns[at + 1 :]], at + 1

    return made


def _nearly(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """The step five times, with small differences in an argument."""
    again = [replace(turns[at], calls=_tweaked(turns[at].calls, chance)) for _ in range(4)]
    return [*turns[: at + 1], *again, *turns[at + 1 :]], at + 1


def _abab(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """Two steps in turn, three times."""
    return [*turns[: at + 1], *[turns[at - 1], turns[at]] * 2, *turns[at + 1 :]], at + 1


def _stuck(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    return [*turns[: at + 1], *(_seeing(t, turns[at]) for t in turns[at + 1 :])], at + 1


_ERRORS = (
    "bash: {}: command not found",
    "Traceback (most recent call last):\n  File \"<stdin>\", line 1\nModuleNotFoundError: No module named '{}'",
    "timed out after 60 s",
    "Error: connection reset by peer while calling {}",
    "Error: permission denied: {}",
)


def _errors(share: float) -> Callable[[Turns, int, Turns, random.Random], Made]:
    def failing(turn: Turn, chance: random.Random) -> Turn:
        word = next(iter(re.findall(r"[\w./-]+", turn.said)), "it")[:30]
        return replace(turn, observation=chance.choice(_ERRORS).format(word), failed=True)

    def made(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
        return [*turns[:at], *(failing(t, chance) if chance.random() < share else t for t in turns[at:])], at

    return made


def _late(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """Each observation is that of the step before."""
    return [*turns[:at], *(_seeing(t, turns[i - 1]) for i, t in enumerate(turns[at:], at))], at


def _restarted(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """The run begins anew, and makes its first steps once more before it goes on."""
    return [*turns[:at], *turns[: min(at, 8)], *turns[at:]], at


def _garbled(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    """Observations whose letters are in any order."""
    return [*turns[:at], *(replace(t, observation=_stirred(t.observation, chance)) for t in turns[at:])], at


def _thoughts_of_another(turns: Turns, at: int, other: Turns, chance: random.Random) -> Made:
    return [*turns[:at], *(replace(t, thought=chance.choice(other).thought) for t in turns[at:])], at


FAULTS: dict[str, Callable[[Turns, int, Turns, random.Random], Made]] = {
    "shuffled": _shuffled,
    "permuted": _permuted,
    "foreign": _foreign(1.0),
    "foreign_half": _foreign(0.5),
    "rest_of_another_run": _rest_of_another,
    "loop_x2": _loop(2),
    "loop_x3": _loop(3),
    "loop_x5": _loop(5),
    "loop_nearly": _nearly,
    "loop_abab": _abab,
    "stuck": _stuck,
    "errors": _errors(1.0),
    "errors_40": _errors(0.4),
    "late": _late,
    "restarted": _restarted,
    "garbled": _garbled,
    "thoughts_of_another_run": _thoughts_of_another,
}
UNSEEN = ("late", "restarted", "garbled", "thoughts_of_another_run")


def _seeing(turn: Turn, other: Turn) -> Turn:
    return replace(turn, observation=other.observation, failed=other.failed)


def _moved(turns: list[Turn], chance: random.Random) -> list[Turn]:
    """In another order; where possible, each at another place."""
    order = list(range(len(turns)))
    for _ in range(100):
        chance.shuffle(order)
        if all(place != old for place, old in enumerate(order)):
            break
    return [turns[old] for old in order]


def _stirred(text: str, chance: random.Random) -> str:
    letters = list(text[:4_000])
    chance.shuffle(letters)
    return "".join(letters)


def _tweaked(calls: Sequence[tuple[str, Any]], chance: random.Random) -> tuple[tuple[str, Any], ...]:
    """A small difference in one argument: a space, other quotes, a number more by one."""
    made = list(calls)
    if not made:
        return ()
    place = chance.randrange(len(made))
    name, given = made[place]
    if isinstance(given, dict) and given:
        key = chance.choice(sorted(given))
        made[place] = name, {**given, key: _changed(str(given[key]), chance)}
    elif isinstance(given, str):
        made[place] = name, _changed(given, chance)
    return tuple(made)


def _changed(text: str, chance: random.Random) -> str:
    kind = chance.randrange(3)
    numbers = list(re.finditer(r"\d+", text))
    if kind == 0 and numbers:
        found = chance.choice(numbers)
        return f"{text[: found.start()]}{int(found[0]) + 1}{text[found.end() :]}"
    return f" {text} " if kind == 1 else text.replace('"', "'") + "  "
