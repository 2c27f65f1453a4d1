"""The coherence of runs that are on record, and what an agent's finished runs say of how coherent it usually is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dionysus.callbacks.iwmt import turn_of
from dionysus.coherence import DEFAULT, DETECTOR, Calibration, Coherence, Turn, assess_coherence, calibrated, strains_of
from dionysus.coherence.calibration import LEAST_RUNS, LEAST_TURNS
from dionysus.errors import BadInput
from dionysus.findings import plural
from dionysus.journal import FinishedStep
from dionysus.stores import Store
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    CoherenceRecord,
    RunRecord,
    Status,
)
from dionysus.traces import ExecutionTraceService

_OF_A_RUN = 100_000
_LOOKED_AT = 200
"""Newest finished runs of an agent that it is calibrated by."""
_HABITS = {
    "loops": "repeating calls",
    "stuck": "seeing the same after different actions",
    "errors": "failing calls",
}
_AGAIN = timedelta(days=7)
"""How long a calibration stands before it is made anew by itself."""


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
    """In [0, 1], 1 = coherent, 0.5 = the threshold of a warning: the lowest of the components; None: there is nothing
    to measure yet."""
    lowest: float | None
    """The lowest level at any of the steps."""
    components: Mapping[str, float]
    """autonomy, errors, causal, temporal, spatial, integration, each in [0, 1]; see `dionysus.coherence.Monitor`."""
    reason: str
    """In words, what lowers the level, with the steps."""
    advice: str = ""
    """In words, what to do about it."""
    confidence: float = 0.0
    """In [0, 1]: how much a run of that many steps can say."""
    trend: float = 0.0
    """The level, less that of three steps before."""
    calibrated_by: int = 0
    """The agent's own runs that the threshold rests on; 0: the default."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What an agent's finished runs said."""

    agent_name: str
    family: str
    runs: int
    """Successful ones of at least six steps; of them the newest 200 at most."""
    threshold: float | None
    """Strain at which coherence is 0.5, in parts of the default's; None: there are too few runs."""
    set_by: str = ""
    """The component that was lowest in the run that set the threshold."""
    habits: tuple[str, ...] = ()
    """Of `loops`, `stuck` and `errors`: what more than a tenth of its runs have more of than the default lets pass."""

    @property
    def in_words(self) -> str:
        """One sentence."""
        who = f"{self.agent_name}{f' ({self.family})' if self.family else ''}"
        if self.threshold is None:
            return (
                f"{who}: {plural(self.runs, 'successful run')} of at least {LEAST_TURNS} steps on record, {LEAST_RUNS} "
                "are needed; the default stays"
            )
        used_to = f"; it is used to {' and '.join(map(_HABITS.__getitem__, self.habits))}" if self.habits else ""
        near = 0.95 < self.threshold < 1.05
        strict = "as strict as" if near else "stricter than" if self.threshold < 1 else "milder than"
        return (
            f"{who}: calibrated by {self.runs} successful runs; {strict} the default (threshold {self.threshold:.2f}), "
            f"so that at most 2 % of such runs are warned about; {self.set_by} sets it{used_to}"
        )


class Calibrations:
    """Which calibration each agent's runs are assessed with."""

    def __init__(self, store: Store, traces: ExecutionTraceService, *, clock: Callable[[], datetime]) -> None:
        self._store, self._traces, self._clock = store, traces, clock

    def of(self, agent_name: str, run_id: str) -> Calibration:
        """For an agent's part in a run: its own, where there is one for the run's family of tasks; else the default."""
        record = self._store.mind.coherence_record(agent_name, _family(self._store.records.run(run_id)))
        if record is None or record.detector != DETECTOR:
            return DEFAULT
        return Calibration(threshold=record.body["threshold"], bounds=record.body["bounds"], runs=record.runs)

    def calibrate(self, agent_name: str | None = None) -> list[Calibrated]:
        """Learns from the finished runs on record, of one agent or of all; what was learned is kept.

        Raises:
            BadInput: No finished run of that agent is on record.
        """
        groups = self._groups(agent_name)
        if agent_name is not None and not groups:
            raise BadInput(f"no successful run of {agent_name!r} is on record; `dionysus traces list` shows the agents")
        return [self._calibrated(*key, traces) for key, traces in sorted(groups.items())]

    def keep_up(self, agent_name: str) -> None:
        """Calibrates an agent once a week, as soon as there are enough runs; else it costs a look-up."""
        record = self._store.mind.coherence_record(agent_name, "")
        if record is not None and record.detector == DETECTOR and self._clock() - record.calibrated_at < _AGAIN:
            return
        traces = self._traces.list_traces(agent_name=agent_name, status="success", limit=_LOOKED_AT)
        long = [trace for trace in traces if trace.step_count >= LEAST_TURNS]
        if len(long) >= LEAST_RUNS:
            self._calibrated(agent_name, "", long)

    def _groups(self, agent_name: str | None) -> dict[tuple[str, str], list[AgentExecutionTrace]]:
        """Successful traces of agent and family, newest first."""
        families: dict[str, str] = {}
        groups: dict[tuple[str, str], list[AgentExecutionTrace]] = {}
        for trace in self._traces.list_traces(agent_name=agent_name, status="success", limit=_OF_A_RUN):
            if trace.run_id not in families:
                families[trace.run_id] = _family(self._store.records.run(trace.run_id))
            group = groups.setdefault((trace.agent_name, families[trace.run_id]), [])
            if trace.step_count >= LEAST_TURNS and len(group) < _LOOKED_AT:
                group.append(trace)
        return groups

    def _calibrated(self, agent_name: str, family: str, traces: list[AgentExecutionTrace]) -> Calibrated:
        runs = []
        for trace in reversed(traces):
            full = self._traces.get_trace(trace.id, exact=True)
            turns = _turns(full.steps)
            if len(turns) >= LEAST_TURNS:
                runs.append(strains_of(str(full.trace.task or ""), turns))
        learned = calibrated(runs)
        calibration = learned.calibration if learned is not None else DEFAULT
        self._store.mind.save_coherence_record(
            CoherenceRecord(
                agent_name=agent_name,
                family=family,
                detector=DETECTOR,
                calibrated_at=self._clock(),
                runs=calibration.runs,
                body={"threshold": calibration.threshold, "bounds": dict(calibration.bounds)},
            )
        )
        if learned is None:
            return Calibrated(agent_name=agent_name, family=family, runs=len(runs), threshold=None)
        return Calibrated(
            agent_name=agent_name,
            family=family,
            runs=calibration.runs,
            threshold=round(calibration.threshold / DEFAULT.threshold, 4),
            set_by=learned.set_by,
            habits=tuple(sorted(calibration.bounds)),
        )


def assessed(traces: ExecutionTraceService, calibrations: Calibrations, run_id: str | None = None) -> Assessment:
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
    turns = _turns(full.steps)
    calibration = calibrations.of(full.trace.agent_name, full.trace.run_id)
    measured = assess_coherence(str(full.trace.task or ""), turns, calibration)
    found = measured or Coherence(level=0.0, reason="no action has been finished yet")
    return Assessment(
        trace_id=full.trace.id,
        run_id=full.trace.run_id,
        agent_name=full.trace.agent_name,
        status=full.trace.status,
        steps=len(turns),
        consciousness_level=measured.consciousness_level if measured else None,
        lowest=measured.lowest if measured else None,
        components=found.components,
        reason=found.reason,
        advice=found.advice,
        confidence=found.confidence,
        trend=found.trend,
        calibrated_by=calibration.runs,
    )


def _turns(steps: tuple[AgentExecutionStep, ...]) -> list[Turn]:
    return [turn_of(_finished(step)) for step in steps if step.step_type == "action" and step.completed_at]


def _family(record: RunRecord | None) -> str:
    return str(record.request.get("family", "")) if record is not None else ""


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
