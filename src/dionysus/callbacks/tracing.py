"""Seals each step in the journal, from which the execution trace is projected; registered last."""

import logging
from typing import Any

from smolagents import ActionStep, PlanningStep

from dionysus.findings import quoted
from dionysus.journal import Frame

log = logging.getLogger("dionysus")


def execution_trace_callback(step: ActionStep | PlanningStep, agent: Any, frame: Frame) -> None:
    """Writes the step's final texts, after all other callbacks had their turn."""
    again = frame.recalls(step)
    done = frame.seal(step)
    if isinstance(step, PlanningStep) and not again:
        log.info("PlanningStep before action %d of %s: %s", done.number, frame.agent_name, quoted(step.plan, 160))
