"""The coherence of a run that is on record, as a plan made now would show it.

A code agent's actions are the tools that its code called; its own plans see the code instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dionysus.callbacks.iwmt import turn_of
from dionysus.coherence import assess_coherence
from dionysus.errors import BadInput
from dionysus.journal import FinishedStep
from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, Status
from dionysus.traces import ExecutionTraceService

_OF_A_RUN = 100_000


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """How coherent one agent's run is so far."""

    trace_id: str
    run_id: str
    agent_name: str
    status: Status
    steps: int
    """Actions that were looked at."""
    consciousness_level: float | None
    """In [0, 1], 1 = coherent: the minimum of autonomy, errors and context; None: there is nothing to measure yet."""
    components: Mapping[str, float]
    """Each in [0, 1]; see `dionysus.coherence.assess_coherence`."""
    reason: str
    """In words, what lowers the level, with the steps."""


def assessed(traces: ExecutionTraceService, run_id: str | None = None) -> Assessment:
    """The coherence of a run, or of one agent's part in it.

    Args:
        run_id: The id of a run or of a trace; None: the newest run.

    Raises:
        NotFound: No such run.
        BadInput: There is no run yet.
    """
    if run_id is None:
        newest = traces.list_traces(limit=1)
        if not newest:
            raise BadInput("there is no run yet to assess; a heartbeat makes one")
        run_id = _top_of(traces, newest[0])
    full = traces.get_trace(run_id, exact=True)
    turns = [turn_of(_finished(step)) for step in full.steps if step.step_type == "action" and step.completed_at]
    measured = assess_coherence(str(full.trace.task or ""), turns)
    return Assessment(
        trace_id=full.trace.id,
        run_id=full.trace.run_id,
        agent_name=full.trace.agent_name,
        status=full.trace.status,
        steps=len(turns),
        consciousness_level=measured.level if measured else None,
        components=measured.components if measured else {},
        reason=measured.reason if measured else "no action has been finished yet",
    )


def _top_of(traces: ExecutionTraceService, trace: AgentExecutionTrace) -> str:
    """The trace of the agent that was run, where this is one of its members."""
    of_run = {t.id: t for t in traces.list_traces(run_id=trace.run_id, limit=_OF_A_RUN)}
    seen: set[str] = set()
    while trace.parent_trace_id in of_run and trace.id not in seen:
        seen.add(trace.id)
        trace = of_run[trace.parent_trace_id]
    return trace.id


def _finished(step: AgentExecutionStep) -> FinishedStep:
    return FinishedStep(
        key=step.id,
        step_type=step.step_type,
        number=step.step_number,
        thought=step.thought,
        calls=tuple((call.name, call.arguments) for call in step.tool_calls),
        observation=step.observation,
        error=step.error,
    )
