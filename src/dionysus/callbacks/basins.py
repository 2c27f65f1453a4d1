"""Activates the basins that a `semantic_recall` reached, and shows the agent which."""

import logging
from dataclasses import asdict
from typing import Any

from smolagents import ActionStep

from dionysus.findings import Finding, code
from dionysus.journal import Frame
from dionysus.memory.basins import Basins
from dionysus.memory.semantic import SemanticMemory

log = logging.getLogger("dionysus")
_SHOWN = 3


def basin_activation_callback(
    step: ActionStep, agent: Any, frame: Frame, *, memory: SemanticMemory, basins: Basins, place: str | None = None
) -> None:
    """For each `semantic_recall` of the step: its query's hits drive their basins; links go to the trace."""
    for call in step.tool_calls or ():
        if call.name != "semantic_recall" or not isinstance(call.arguments, dict):
            continue
        query = str(call.arguments.get("query", ""))

        def activate(query: str = query) -> list[dict[str, Any]]:
            hits = memory.recall(query, place=place, limit=10)
            scores = [(hit.memory.basin_id, hit.score) for hit in hits if hit.memory.basin_id is not None]
            done = basins.activate_for(scores)
            return [{**asdict(a), "id": a.basin_id, "words": basins.telling_words(a.basin_id)} for a in done]

        activated = frame.effect("basins", activate)
        for basin in activated:
            log.info("basin %r activated: %.2f", basin["name"], basin["activation"])
        shown = [
            Finding("basin", f"{_called(basin)} is active: {basin['activation']:.2f}") for basin in activated[:_SHOWN]
        ]
        if shown:
            step.observations = "\n".join([step.observations or "", *map(str, shown)]).strip()


def _called(basin: dict[str, Any]) -> str:
    words = ", ".join(basin.get("words", ()))  # a record that was made earlier has none
    return code(basin["name"]) + (f" ({words})" if words else "")
