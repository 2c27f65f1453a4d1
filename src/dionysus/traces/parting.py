"""Where two runs part: the first step in which they differ."""

import difflib
from dataclasses import dataclass
from typing import Any

from dionysus.stores.contract import AgentExecutionStep
from dionysus.traces.service import FullTrace

_FIELDS = ("plan", "thought", "calls", "observation", "error")


@dataclass(frozen=True, kw_only=True)
class Parting:
    """How two traces compare."""

    same_steps: int
    """Plans and actions that are the same from the beginning on."""
    step: str | None = None
    """The first one that is not, as `action 3`; None: they are the same."""
    what: str | None = None
    """What differs in it: `plan`, `thought`, `calls`, `observation` or `error`; `end`: one of them has no such step."""
    difference: str = ""
    """As lines of a diff."""


def parting_of(one: FullTrace, other: FullTrace) -> Parting:
    """Compares two traces step by step: what was planned, thought, called, seen; then their answers."""
    if one.trace.task != other.trace.task:
        return Parting(same_steps=0, step="the task", what="task", difference=_diff(one.trace.task, other.trace.task))
    for number, (a, b) in enumerate(zip(one.steps, other.steps, strict=False)):
        told = _told(a), _told(b)
        for name in _FIELDS:
            if told[0][name] != told[1][name]:
                return Parting(
                    same_steps=number, step=_label(a), what=name, difference=_diff(told[0][name], told[1][name])
                )
    same = min(len(one.steps), len(other.steps))
    if len(one.steps) != len(other.steps):
        longer, mark = (one, "-") if len(one.steps) > same else (other, "+")
        more = [f"{mark} {_label(step)}" for step in longer.steps[same:]]
        return Parting(same_steps=same, step=_label(longer.steps[same]), what="end", difference="\n".join(more))
    if one.trace.summary != other.trace.summary:
        return Parting(
            same_steps=same, step="the answer", what="answer", difference=_diff(one.trace.summary, other.trace.summary)
        )
    return Parting(same_steps=same)


def _told(step: AgentExecutionStep) -> dict[str, Any]:
    return {
        "plan": step.plan,
        "thought": step.thought,
        "calls": "\n".join(f"{use.name} {use.arguments}" for use in step.tool_calls),
        "observation": step.observation,
        "error": step.error,
    }


def _label(step: AgentExecutionStep) -> str:
    kind = {"planning": "the plan before action", "action": "action", "final": "the forced answer after action"}
    number = step.step_number - 1 if step.step_type == "final" else step.step_number
    return f"{kind[step.step_type]} {number}"


def _diff(one: str | None, other: str | None) -> str:
    lines = difflib.unified_diff((one or "").splitlines(), (other or "").splitlines(), lineterm="", n=1)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))
