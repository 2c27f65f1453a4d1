"""Coherence into every plan: the text reaches the next model input."""

import logging
from typing import Any

from smolagents import PlanningStep

from dionysus.coherence import Coherence, Turn, assess_coherence
from dionysus.findings import quoted
from dionysus.journal import FinishedStep, Frame

log = logging.getLogger("dionysus")
WARNING_BELOW = 0.5


def iwmt_coherence_callback(
    step: PlanningStep, agent: Any, frame: Frame, *, warning_below: float = WARNING_BELOW
) -> None:
    """Assesses the run so far and appends the result to the plan; a level below the threshold brings a warning."""
    coherence = assess_coherence(str(agent.task or ""), [turn_of(s) for s in frame.finished if s.calls or s.error])
    if coherence is None:
        step.plan = f"{step.plan}\n\n[IWMT] Coherence: nothing to measure before the first action."
        log.info("[IWMT] Coherence: nothing to measure before the first action")
        return
    value = frame.effect("coherence", lambda: _plain(coherence), pure=True)
    parts = ", ".join(f"{name} {score:.2f}" for name, score in value["components"].items())
    text = f"[IWMT] Coherence: {value['level']:.1%} ({parts}; {value['reason']})"
    if value["level"] < warning_below:
        text += f"\nWARNING: coherence is below {warning_below:.0%}: change course – do not repeat what did not work."
        log.warning("[IWMT] Coherence: %.1f%% – %s", 100 * value["level"], value["reason"])
    else:
        log.info("[IWMT] Coherence: %.1f%%", 100 * value["level"])
    step.plan = f"{step.plan}\n\n{text}"


def turn_of(step: FinishedStep) -> Turn:
    """A finished step as the assessment sees it."""
    action = "; ".join(f"{name} {arguments}" for name, arguments in step.calls)
    return Turn(
        step=step.number,
        thought=step.thought or "",
        action=action or quoted(step.thought or "", 200),
        observation=step.observation or step.error or "",
        failed=step.error is not None,
    )


def _plain(coherence: Coherence) -> dict[str, Any]:
    return {
        "level": coherence.level,
        "components": dict(coherence.components),
        "reason": coherence.reason,
    }
