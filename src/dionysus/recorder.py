"""Runs agents on the record: opens their run and frame, attaches callbacks, and writes how they ended."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from smolagents import ActionStep, MultiStepAgent, PlanningStep
from smolagents.memory import ToolCall
from smolagents.utils import AgentMaxStepsError

from dionysus.callbacks.audit import Audit
from dionysus.callbacks.basins import basin_activation_callback
from dionysus.callbacks.iwmt import iwmt_coherence_callback
from dionysus.callbacks.pruning import MemoryPruning
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.errors import DionysusError, RecordLost, RunInterrupted
from dionysus.journal import Frame, Journal, Run
from dionysus.journal.holding import Holder
from dionysus.journal.secrets import Secrets
from dionysus.memory.basins import Basins
from dionysus.memory.semantic import SemanticMemory
from dionysus.models.metering import measure
from dionysus.settings import Settings
from dionysus.stores import Store
from dionysus.stores.contract import RunRecord, Status
from dionysus.traces import Projection

log = logging.getLogger("dionysus")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an agent's run ended."""

    status: Status
    output: Any = None
    error: str | None = None
    """One line, where it did not succeed."""


class Recorder:
    """What all agents of a runtime run through."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        memory: SemanticMemory,
        basins: Basins,
        secrets: Secrets,
        clock: Callable[[], datetime],
    ) -> None:
        self.callbacks = CallbackRegistry()
        """The user's own, for every agent."""
        self._store, self._settings, self._clock = store, settings, clock
        self._memory, self._basins, self._secrets = memory, basins, secrets
        self._holder = Holder(store.path)
        self._journal = Journal(store.records, Projection(store.records) if settings.trace else None, clock)
        self._audit = Audit(settings.audit, clock=clock) if settings.audit else None
        self._running: Run | None = None

    def close(self) -> None:
        """Gives up the claim on this process's runs."""
        self._holder.release()

    def claim(self, run_id: str, agent_name: str) -> Frame:
        """Opens a run that this process holds; returns its agent's frame. Call it in the caller's transaction."""
        self._store.records.save_run(
            RunRecord(
                run_id=run_id,
                agent_name=agent_name,
                status="running",
                started_at=self._clock(),
                holder=self._holder.claim(),
            )
        )
        run = Run(run_id, self._journal, secrets=self._secrets, meter=measure)
        return Frame(run=run, agent_name=agent_name, trace_id=run_id, path=agent_name)

    def callbacks_for(self, frame: Frame, place: str) -> CallbackRegistry:
        """The built-in callbacks that are switched on, then the user's, then the one that seals the step."""
        on = self._settings
        registry = CallbackRegistry()
        if on.coherence:
            registry.register(PlanningStep, partial(iwmt_coherence_callback, warning_below=on.coherence_warning))
        if on.basins:
            registry.register(
                ActionStep,
                partial(basin_activation_callback, memory=self._memory, basins=self._basins, place=place),
            )
        if on.pruning_rule != "off":
            pruning = MemoryPruning(on.pruning_rule, window=on.memory_window or 3)
            registry.register(ActionStep, pruning.memory_pruning_callback)
        if self._audit is not None:
            registry.register(PlanningStep, self._audit.step_callback)
            registry.register(ActionStep, self._audit.step_callback)
            registry.register(ToolCall, self._audit.tool_callback)
        registry.extend(self.callbacks)
        registry.register(PlanningStep, execution_trace_callback, required=True)
        registry.register(ActionStep, execution_trace_callback, required=True)
        frame.on_tool = registry.tool_called
        return registry

    def run(self, frame: Frame, agent: MultiStepAgent, task: str) -> Ending:
        """Runs an agent to its end, whatever that is.

        Raises:
            RunInterrupted: It was asked to stop; all that was finished is on record.
            StoreError: The record could not be written; the run was stopped before it used what is not on record.
        """
        frame.bind(agent)
        try:
            frame.start(task, str(getattr(agent.model, "model_id", "")))
        except RecordLost as lost:
            raise lost.cause from lost
        self._running = frame.run
        ending = Ending(status="error")
        try:
            output = agent.run(task)
            last = agent.memory.steps[-1] if agent.memory.steps else None
            if isinstance(getattr(last, "error", None), AgentMaxStepsError):
                used_up = f"no final answer within {agent.max_steps} actions"
                ending = Ending(status="max_steps", output=output, error=used_up)
            else:
                ending = Ending(status="success", output=output)
        except (RunInterrupted, KeyboardInterrupt) as stop:
            ending = Ending(status="interrupted", error=str(stop) or "interrupted")
            raise RunInterrupted(ending.error) from None
        except RecordLost as lost:
            raise lost.cause from lost
        except Exception as failure:  # whatever ends an agent's run is its error, in the trace and for the caller
            stopped = frame.run.stop_reason
            status: Status = "interrupted" if stopped else "error"
            ending = Ending(status=status, error=stopped or self._secrets.hide(_reason(failure)))
            log.debug("run %s failed", frame.run.id, exc_info=True)
            if stopped:
                raise RunInterrupted(stopped) from None
        except BaseException as stop:  # the interpreter is on its way out
            ending = Ending(status="interrupted", error=type(stop).__name__)
            raise
        finally:
            self._running = None
            self._finish(frame, ending)
        return ending

    def stop(self, reason: str) -> bool:
        """Asks what runs now to end before its next call; safe from a signal handler. False: nothing runs."""
        running = self._running
        if running is not None:
            running.stop(reason)
        return running is not None

    def mark_interrupted(self) -> None:
        """Runs whose process died, and their traces, get the status `interrupted`."""
        records = self._store.records
        for run in records.runs("running"):
            if self._holder.is_alive(run.holder):
                continue
            with self._store.transaction():
                for trace in records.traces(run_id=run.run_id, status="running", limit=1000):
                    error = "its process ended without finishing it"
                    body = {"trace": trace.id, "status": "interrupted", "output": None, "error": error}
                    self._journal.append(run.run_id, "run_finished", "recovery", body, secrets=self._secrets)
                records.set_run_status(run.run_id, "interrupted")

    def _finish(self, frame: Frame, ending: Ending) -> None:
        try:
            frame.finish(ending.status, output=ending.output, error=ending.error)
            self._store.records.set_run_status(frame.run.id, ending.status)
        except RecordLost as lost:  # the next start finds the run without an end and marks it
            raise lost.cause from lost


def _reason(failure: BaseException) -> str:
    """What went wrong, in one line: our own error where there is one, else the innermost cause."""
    chain = [failure]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    ours = [error for error in chain if isinstance(error, DionysusError)]
    if ours:
        return " ".join(str(ours[-1]).split())
    return " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())
