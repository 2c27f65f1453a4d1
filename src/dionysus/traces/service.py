"""The verbs on execution traces: create, add steps, complete, link basins, read, list, count tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from dionysus.errors import BadInput, NotFound
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    BasinLink,
    CreatedMemory,
    Status,
    TokenUsage,
)
from dionysus.stores.records import Records
from dionysus.traces.projection import lowest, stories_of

_OF_A_RUN = 100_000
_GIVEN = {"id", "trace_id", "order"}
_STEP_FIELDS = {f.name for f in fields(AgentExecutionStep)} - _GIVEN


@dataclass(frozen=True, kw_only=True)
class FullTrace:
    """A trace with all that belongs to it."""

    trace: AgentExecutionTrace
    steps: tuple[AgentExecutionStep, ...]
    basins: tuple[BasinLink, ...]
    memories: tuple[CreatedMemory, ...]
    """What the run kept."""
    delegated: tuple[AgentExecutionTrace, ...] = ()
    """The traces of the agents that it called, in order."""


class ExecutionTraceService:
    """Execution traces in a store. All verbs raise `StoreError` where the store fails."""

    def __init__(self, records: Records, *, clock: Callable[[], datetime]) -> None:
        self._records, self._clock = records, clock

    def create_trace(
        self,
        agent_name: str,
        run_id: str,
        *,
        trace_id: str | None = None,
        task: str | None = None,
        model: str | None = None,
        parent_trace_id: str | None = None,
        parent_step: int | None = None,
    ) -> str:
        """Opens a trace with status `running`; returns its id (`trace_id`, or the run's with the agent's name).

        Raises:
            BadInput: There is a trace of that id.
        """
        new = trace_id or f"{run_id}/{agent_name}"
        with self._records.transaction():
            if self._records.trace(new) is not None:
                raise BadInput(f"trace {new!r} exists; give another run_id or trace_id")
            self._records.save_trace(
                AgentExecutionTrace(
                    id=new,
                    agent_name=agent_name,
                    run_id=run_id,
                    status="running",
                    started_at=self._clock(),
                    task=task,
                    model=model,
                    parent_trace_id=parent_trace_id,
                    parent_step=parent_step,
                )
            )
        return new

    def add_step(self, trace_id: str, step_data: Mapping[str, Any]) -> str:
        """Appends a step; its tokens are added to the trace's. Returns the step's id.

        Args:
            step_data: Fields of `AgentExecutionStep` but its id, trace and order; `step_number` and `step_type`
                are needed, `started_at` defaults to now.

        Raises:
            NotFound: No such trace.
            BadInput: An unknown or missing field.
        """
        unknown = set(step_data) - _STEP_FIELDS
        missing = {"step_number", "step_type"} - set(step_data)
        if unknown or missing:
            wrong = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
            raise BadInput(f"step_data: {wrong}; it takes {sorted(_STEP_FIELDS)}")
        with self._records.transaction():
            trace = self._require(trace_id)
            order = self._records.next_order(trace_id)
            data = {"started_at": self._clock(), **step_data}
            step = AgentExecutionStep(id=f"{trace_id}:{order}", trace_id=trace_id, order=order, **data)
            self._records.save_step(step)
            self._records.save_trace(
                replace(
                    trace,
                    step_count=trace.step_count + (step.step_type != "planning"),
                    planning_count=trace.planning_count + (step.step_type == "planning"),
                    model_calls=trace.model_calls + len(step.model_calls),
                    input_tokens=trace.input_tokens + step.input_tokens,
                    cached_tokens=trace.cached_tokens + step.cached_tokens,
                    output_tokens=trace.output_tokens + step.output_tokens,
                    coherence_min=lowest(trace.coherence_min, step.coherence),
                )
            )
        return step.id

    def complete_trace(
        self,
        trace_id: str,
        success: bool,
        summary: str | None = None,
        *,
        status: Status | None = None,
        error_message: str | None = None,
    ) -> None:
        """Closes a trace with its final answer or error.

        Args:
            status: Defaults to `success` or `error`, after `success`.

        Raises:
            NotFound: No such trace.
        """
        with self._records.transaction():
            self._records.save_trace(
                replace(
                    self._require(trace_id),
                    status=status or ("success" if success else "error"),
                    success=success,
                    summary=summary,
                    error_message=error_message,
                    completed_at=self._clock(),
                )
            )

    def link_basin(self, trace_id: str, basin_id: int, strength: float, at_step: int | None = None) -> None:
        """Records that a step of the trace activated a basin (ACTIVATED_BASIN), with strength in [0, 1].

        Raises:
            NotFound: No such trace.
            BadInput: The strength is outside [0, 1].
        """
        if not 0 <= strength <= 1:
            raise BadInput(f"strength {strength!r} is not in [0, 1]")
        self._require(trace_id)
        self._records.save_basin_link(trace_id, basin_id, strength, at_step)

    def get_trace(self, trace_id: str) -> FullTrace:
        """The trace with its steps and basins.

        Args:
            trace_id: The id, or a beginning that only one trace has.

        Raises:
            NotFound: No such trace, or several begin so.
        """
        trace = self._records.trace(trace_id)
        if trace is None:
            matches = self._records.trace_ids(trace_id) if trace_id else []
            if len(matches) > 1:
                raise BadInput(f"{len(matches)} traces begin with {trace_id!r}: {', '.join(matches[:5])}; write more")
            trace = self._require(matches[0] if matches else trace_id)
        of_run = self._records.traces(run_id=trace.run_id, limit=_OF_A_RUN)
        children = [self._as_it_is(t) for t in of_run if t.parent_trace_id == trace.id]
        steps = self._records.steps(trace.id)
        if trace.status == "running":
            story = stories_of(self._records, trace.run_id).get(trace.id)
            if story is not None:  # None: opened by hand
                trace, steps = story.as_trace(), [story.as_step(key) for key in story.steps]
        return FullTrace(
            trace=trace,
            steps=tuple(steps),
            basins=tuple(self._records.basin_links(trace.id)),
            memories=tuple(self._records.created_memories(trace.run_id)),
            delegated=tuple(sorted(children, key=lambda t: (t.started_at, t.id))),
        )

    def list_traces(
        self,
        *,
        agent_name: str | None = None,
        status: Status | None = None,
        run_id: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 20,
    ) -> list[AgentExecutionTrace]:
        """Traces, newest first.

        Args:
            before: (started_at, id) of the last trace of the page before.
        """
        found = self._records.traces(agent_name=agent_name, status=status, run_id=run_id, before=before, limit=limit)
        return [self._as_it_is(trace) for trace in found]

    def token_usage(self) -> list[TokenUsage]:
        """Sums per agent."""
        return self._records.token_usage()

    def _as_it_is(self, trace: AgentExecutionTrace) -> AgentExecutionTrace:
        """The counts of a running trace, which its row does not have yet."""
        story = stories_of(self._records, trace.run_id).get(trace.id) if trace.status == "running" else None
        return trace if story is None else story.as_trace()

    def _require(self, trace_id: str) -> AgentExecutionTrace:
        trace = self._records.trace(trace_id)
        if trace is None:
            raise NotFound("trace", trace_id, see="`dionysus traces list`")
        return trace
