"""River flow: how a run flows – from its errors, what is new, and what is taken up – and what the next delegation gets.

Flow is told to the planner, and sets how many actions the next managed agent may take; within a run smolagents fixes
that number. The rules are first forms: chosen to be readable, not fitted to data.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smolagents import PlanningStep

from dionysus.journal import FinishedStep, Frame
from dionysus.words import stems

log = logging.getLogger("dionysus")
State = Literal["turbulent", "flowing", "drifting", "stagnant"]
_LATELY = 3
"""Actions looked at: those since the last plan of a manager."""
_LITTLE = 0.15
BUDGET: dict[State, int | None] = {"flowing": None, "drifting": 4, "turbulent": 3, "stagnant": 3}
"""Actions of the next managed agent; None: as many as it has."""
_ADVICE: dict[State, str] = {
    "flowing": "go on",
    "drifting": "what was found is not taken up: come back to the question",
    "turbulent": "much fails: ask for less at once",
    "stagnant": "nothing new comes: ask somebody else, or something else",
}


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How the newest actions flow; all shares in [0, 1]."""

    state: State
    errors: float
    """Share of actions that failed."""
    novelty: float
    """Share of words in their observations that no text before held."""
    progress: float
    """Share of words in their thoughts and calls that come from the task or from earlier observations; 0 for an action
    that was made before to the letter."""


def flow_of(task: str, steps: Sequence[FinishedStep]) -> Flow | None:
    """The flow of a run so far; None before its first action.

    turbulent: at least half of the newest three actions failed; stagnant: less than .15 of what they saw was new, or
    each was made before; drifting: less than .15 of what they said was taken up from task or observations; else
    flowing.
    """
    acts = [step for step in steps if step.calls or step.error]
    if not acts:
        return None
    seen, made = set(stems(task)), set[str]()
    novelty, progress = [], []
    for step in acts:
        said = {stem for call in step.calls for stem in stems(str(call[1]))} | set(stems(step.thought or ""))
        found = set(stems(step.observation or step.error or ""))
        novelty.append(len(found - seen) / len(found) if found else 0.0)
        again = str(step.calls) in made
        progress.append(0.0 if again or not said else len(said & seen) / len(said))
        made.add(str(step.calls))
        seen |= found
    lately = acts[-_LATELY:]
    errors = sum(step.error is not None for step in lately) / len(lately)
    new = sum(novelty[-_LATELY:]) / len(lately)
    taken_up = sum(progress[-_LATELY:]) / len(lately)
    state: State = (
        "turbulent"
        if errors >= 0.5
        else "stagnant"
        if new < _LITTLE or not any(progress[-_LATELY:])
        else "drifting"
        if taken_up < _LITTLE
        else "flowing"
    )
    return Flow(state=state, errors=round(errors, 2), novelty=round(new, 2), progress=round(taken_up, 2))


def river_flow_callback(step: PlanningStep, agent: Any, frame: Frame) -> None:
    """For agents with members: appends the flow to the plan, and sets the actions of the next member's call."""
    if not getattr(agent, "managed_agents", None):
        return
    flow = flow_of(str(agent.task or ""), frame.finished)
    if flow is None:
        return
    value = frame.effect("flow", lambda: {**vars(flow), "member_steps": BUDGET[flow.state]}, pure=True)
    frame.member_steps = value["member_steps"]
    room = f"; the next member gets {frame.member_steps} actions" if frame.member_steps else ""
    step.plan = (
        f"{step.plan}\n[River] {flow.state}: {flow.errors:.0%} errors, {flow.novelty:.0%} new, "
        f"{flow.progress:.0%} taken up – {_ADVICE[flow.state]}{room}."
    )
    log.info("[River] %s of %s", flow.state, frame.agent_name)
