"""The verbs on execution traces: create, add steps, complete, link basins, read, list, count tokens."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from dionysus.errors import BadInput, NotFound
from dionysus.stores.codec import from_us, to_us, unfit
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    BasinLink,
    CreatedMemory,
    Per,
    Status,
    TokenUsage,
    TraceStore,
)
from dionysus.stores.records import Records
from dionysus.traces.projection import Story, lowest, stories_of

CURSOR = r"(older|newer)_([0-9]{1,16})_([\s\S]+)"
"""What a cursor looks like: which way to go from which place, (started_at in microseconds since 1970, id)."""
_OF_A_RUN = 100_000
_NAMED: dict[Per, str] = {"agent": "agent_name", "run": "run_id", "day": "day"}
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
    next_after: int | None = None
    """More steps come behind this order; None: these are all."""


@dataclass(frozen=True, kw_only=True)
class TraceTree:
    """A trace with the traces of the agents that the steps shown called, and so on."""

    full: FullTrace
    members: Mapping[str, "TraceTree"]
    """By the trace's id."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The traces of one run, and what its journal tells of those that run."""

    traces: list[AgentExecutionTrace]
    stories: Mapping[str, Story]


@dataclass(frozen=True, kw_only=True)
class TracePage:
    """Some traces, newest first, and where there are more."""

    traces: tuple[AgentExecutionTrace, ...]
    next_cursor: str | None = None
    """For the page behind this one: older traces; None: there are none."""
    previous_cursor: str | None = None
    """For the page before this one: newer traces; None: there were none."""


class Filters(TypedDict, total=False):
    """Which traces; see `ExecutionTraceService.list_traces`."""

    agent_name: str | None
    status: Status | None
    success: bool | None
    run_id: str | None
    since: datetime | None
    until: datetime | None


class ExecutionTraceService:
    """Execution traces in a store. All verbs raise `StoreError` where the store fails."""

    def __init__(self, store: TraceStore, *, clock: Callable[[], datetime], journal: Records | None = None) -> None:
        """
        Args:
            journal: Where the journals of runs are: it tells more of those that run than their traces in the store.
        """
        self._store, self._clock, self._journal = store, clock, journal

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
            NotFound: There is none of the parent's.
        """
        new = trace_id or f"{run_id}/{agent_name}"
        trace = AgentExecutionTrace(
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

        _check("a trace", trace)

        def added() -> bool:
            if parent_trace_id is not None:
                self._require(parent_trace_id)
            return self._store.add_trace(trace)

        if not self._store.atomically(added):
            raise BadInput(f"trace {new!r} exists; give another run_id or trace_id")
        return new

    def add_step(self, trace_id: str, step_data: Mapping[str, Any]) -> str:
        """Appends a step; its tokens are added to the trace's. Returns the step's id.

        Args:
            step_data: Fields of `AgentExecutionStep` but its id, trace and order; `step_number` and `step_type`
                are needed, `started_at` defaults to now.

        Raises:
            NotFound: No such trace.
            BadInput: An unknown or missing field, or one of another type.
        """
        unknown = set(step_data) - _STEP_FIELDS
        missing = {"step_number", "step_type"} - set(step_data)
        if unknown or missing:
            wrong = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
            raise BadInput(f"step_data: {wrong}; it takes {sorted(_STEP_FIELDS)}")
        fields_given = {name: tuple(v) if isinstance(v, list) else v for name, v in step_data.items()}
        data: dict[str, Any] = {"started_at": self._clock(), **fields_given}
        given = AgentExecutionStep(id="", trace_id=trace_id, order=0, **data)
        _check("step_data", given)
        if given.coherence is not None and not 0 <= given.coherence <= 1:
            raise BadInput(f"step_data: coherence {given.coherence!r} is not in [0, 1]")

        def added() -> str:
            order = self._store.next_order(trace_id)
            trace = self._require(trace_id)
            step = replace(given, id=f"{trace_id}:{order}", order=order)
            self._store.save_step(step)
            self._store.save_trace(
                replace(
                    trace,
                    step_count=trace.step_count + (step.step_type != "planning"),
                    planning_count=trace.planning_count + (step.step_type == "planning"),
                    model_calls=trace.model_calls + len(step.model_calls),
                    input_tokens=trace.input_tokens + step.input_tokens,
                    cached_tokens=trace.cached_tokens + step.cached_tokens,
                    cache_write_tokens=trace.cache_write_tokens + step.cache_write_tokens,
                    output_tokens=trace.output_tokens + step.output_tokens,
                    coherence_min=lowest(trace.coherence_min, step.coherence),
                )
            )
            return step.id

        return self._store.atomically(added)

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
            BadInput: A value of another type, or a status that there is not.
        """
        now = self._clock()

        def complete() -> None:
            done = replace(
                self._require(trace_id),
                status=status or ("success" if success else "error"),
                success=success,
                summary=summary,
                error_message=error_message,
                completed_at=now,
            )
            _check("a trace", done)
            self._store.save_trace(done)

        self._store.atomically(complete)

    def link_basin(self, trace_id: str, basin_id: int, strength: float, at_step: int | None = None) -> None:
        """Records that a step of the trace activated a basin (ACTIVATED_BASIN), with strength in [0, 1].

        Raises:
            NotFound: No such trace.
            BadInput: The strength is outside [0, 1].
        """
        _check("a link", BasinLink(basin_id=basin_id, name="", strength=strength, at_step=at_step))
        if not 0 <= strength <= 1:
            raise BadInput(f"strength {strength!r} is not in [0, 1]")

        def link() -> None:
            self._require(trace_id)
            self._store.save_basin_link(trace_id, basin_id, strength, at_step)

        self._store.atomically(link)

    def get_trace(self, trace_id: str, *, exact: bool = False, after: int = 0, limit: int | None = None) -> FullTrace:
        """The trace with its steps and basins.

        Args:
            trace_id: The id, or a beginning that only one trace has.
            exact: The id is whole, not a beginning.
            after: Only steps behind this order.
            limit: At most so many steps; `next_after` says where to go on.

        Raises:
            NotFound: No such trace.
            BadInput: Several begin so.
        """
        trace = self._require(trace_id) if exact else found_in(self._store, trace_id)
        return self._full(trace, self._family(trace.run_id), after, limit)

    def get_tree(self, trace_id: str, *, exact: bool = False, after: int = 0, limit: int | None = None) -> TraceTree:
        """`get_trace`, with the traces of the agents that the steps shown called.

        Args:
            limit: At most so many steps of each.
        """
        trace = self._require(trace_id) if exact else found_in(self._store, trace_id)
        return self._tree(trace, self._family(trace.run_id), after, limit, frozenset())

    def _tree(
        self, trace: AgentExecutionTrace, family: _Family, after: int, limit: int | None, above: frozenset[str]
    ) -> TraceTree:
        full = self._full(trace, family, after, limit)
        acted = {step.step_number for step in full.steps if step.step_type != "planning"}
        seen = above | {trace.id}
        called = [child for child in full.delegated if child.parent_step in acted and child.id not in seen]
        return TraceTree(full=full, members={child.id: self._tree(child, family, 0, limit, seen) for child in called})

    def _family(self, run_id: str) -> _Family:
        traces = self._store.traces(run_id=run_id, limit=_OF_A_RUN)
        is_running = any(trace.status == "running" for trace in traces)
        return _Family(traces=traces, stories=self._stories(run_id) if is_running else {})

    def _full(self, trace: AgentExecutionTrace, family: _Family, after: int, limit: int | None) -> FullTrace:
        one_more = -1 if limit is None else limit + 1
        story = family.stories.get(trace.id) if trace.status == "running" else None
        if story is not None:  # None: finished, or opened by hand
            trace = story.as_trace()
            keys = list(story.steps)[after : None if limit is None else after + one_more]
            steps = [story.as_step(key) for key in keys]
        else:
            steps = self._store.steps(trace.id, after=after, limit=one_more)
        shown = steps[:limit]
        children = [_as_it_is(t, family.stories) for t in family.traces if t.parent_trace_id == trace.id]
        return FullTrace(
            trace=trace,
            steps=tuple(shown),
            basins=tuple(self._store.basin_links(trace.id)),
            memories=tuple(self._store.created_memories(trace.run_id)),
            delegated=tuple(sorted(children, key=lambda t: (t.started_at, t.id))),
            next_after=(shown[-1].order if shown else after) if len(steps) > len(shown) else None,
        )

    def list_traces(
        self,
        *,
        agent_name: str | None = None,
        status: Status | None = None,
        success: bool | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: tuple[datetime, str] | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 20,
    ) -> list[AgentExecutionTrace]:
        """Traces, newest first.

        Args:
            since, until: When they began: at the first or later, before the second.
            before: (started_at, id) of the last trace of the page before.
            after: The same of the first trace of the page behind: the nearest ones that are newer.
        """
        found = self._store.traces(
            agent_name=agent_name,
            status=status,
            success=success,
            run_id=run_id,
            since=since,
            until=until,
            before=before,
            after=after,
            limit=limit,
        )
        running = {trace.run_id for trace in found if trace.status == "running"}
        stories = {name: story for run in running for name, story in self._stories(run).items()}
        return [_as_it_is(trace, stories) for trace in found]

    def page(self, *, cursor: str | None = None, limit: int = 20, **filters: Unpack[Filters]) -> TracePage:
        """A page of `list_traces`: traces that are written meanwhile move none of those that were there.

        Args:
            cursor: From another page; None: the newest traces.
            filters: See `list_traces`.

        Raises:
            BadInput: The cursor is none.
        """
        way, place = _place_of(cursor)
        before, after = (None, place) if way == "newer" else (place, None)
        found = self.list_traces(**filters, before=before, after=after, limit=limit + 1)
        more = len(found) > limit
        shown = found[-limit:] if after else found[:limit]
        newer, older = (more, bool(shown)) if after else (before is not None and bool(shown), more)
        return TracePage(
            traces=tuple(shown),
            next_cursor=_cursor("older", shown[-1]) if older else None,
            previous_cursor=_cursor("newer", shown[0]) if newer else None,
        )

    def token_usage(
        self,
        *,
        by: Per = "agent",
        agent_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = -1,
    ) -> list[TokenUsage]:
        """Sums per agent, by name, or per run or UTC day, newest first; running traces as far as they are.

        Args:
            since, until: Of traces that began at the first or later, before the second.
            limit: At most so many; -1: all.
        """
        what = {"agent_name": agent_name, "since": since, "until": until}
        running = self.list_traces(**what, status="running", limit=_OF_A_RUN)  # type: ignore[arg-type]
        found = self._store.token_usage(by=by, **what, limit=-1 if running else limit)  # type: ignore[arg-type]
        name = _NAMED[by]
        sums = {getattr(usage, name): usage for usage in found}
        for trace in running:
            key = f"{trace.started_at.astimezone(UTC):%Y-%m-%d}" if by == "day" else getattr(trace, name)
            sums[key] = total_usage([sums.get(key, TokenUsage()), _usage(trace)], of={name: key})
        if by == "agent":
            ordered = sorted(sums.values(), key=lambda usage: str(usage.agent_name))
        else:
            ordered = sorted(sums.values(), key=lambda usage: str(getattr(usage, name)))
            ordered.sort(key=lambda usage: to_us(usage.newest) if usage.newest else 0, reverse=True)
        return ordered[: None if limit < 0 else limit]

    def _stories(self, run_id: str) -> Mapping[str, Story]:
        return {} if self._journal is None else stories_of(self._journal, run_id)

    def _require(self, trace_id: str) -> AgentExecutionTrace:
        trace = self._store.trace(trace_id)
        if trace is None:
            raise NotFound("trace", trace_id, see="`dionysus traces list`")
        return trace


def _check(what: str, record: Any) -> None:
    wrong = unfit(record)
    if wrong:
        shown = ", ".join(f"{name}={getattr(record, name)!r}"[:80] for name in wrong)
        raise BadInput(f"{what}: {shown} cannot be kept; see {type(record).__name__} for the types")


def found_in(
    store: TraceStore, trace_id: str, *, kind: str = "trace", see: str = "`dionysus traces list`"
) -> AgentExecutionTrace:
    """The trace of that id, or the only one whose id begins so.

    Args:
        kind, see: What is looked for, and where it can be seen, in words.

    Raises:
        NotFound: There is none.
        BadInput: Several begin so.
    """
    matches = [trace_id] if store.trace(trace_id) is not None else store.trace_ids(trace_id) if trace_id else []
    if len(matches) > 1:
        raise BadInput(f"{len(matches)} traces begin with {trace_id!r}: {', '.join(matches[:5])}; write more")
    trace = store.trace(matches[0]) if matches else None
    if trace is None:
        raise NotFound(kind, trace_id, see=see)
    return trace


def total_usage(sums: Iterable[TokenUsage], *, of: Mapping[str, str] | None = None) -> TokenUsage:
    """Several sums as one, under the agent, run or day of `of`; None: of all."""
    parts = list(sums)
    added = {
        name: sum(getattr(part, name) for part in parts)
        for name in (f.name for f in fields(TokenUsage))
        if name not in (*_NAMED.values(), "cost_usd", "newest")
    }
    costs = [part.cost_usd for part in parts]
    known = [cost for cost in costs if cost is not None]
    newest = max((part.newest for part in parts if part.newest is not None), default=None)
    named: dict[str, Any] = {**(of or {}), "newest": newest}
    return TokenUsage(**named, cost_usd=sum(known, 0.0) if len(known) == len(costs) else None, **added)


def _usage(trace: AgentExecutionTrace) -> TokenUsage:
    tokens = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "tokens_saved")
    counts = ("model_calls", *tokens, "cost_usd")
    return TokenUsage(
        agent_name=trace.agent_name,
        newest=trace.started_at,
        traces=1,
        unpriced=int(trace.cost_usd is None),
        estimated=int(trace.usage_estimated),
        **{name: getattr(trace, name) for name in counts},
    )


def _as_it_is(trace: AgentExecutionTrace, stories: Mapping[str, Story]) -> AgentExecutionTrace:
    """The counts of a running trace, which its row does not have yet."""
    story = stories.get(trace.id) if trace.status == "running" else None
    return trace if story is None else story.as_trace()


def _cursor(way: str, trace: AgentExecutionTrace) -> str:
    return f"{way}_{to_us(trace.started_at)}_{trace.id}"


def _place_of(cursor: str | None) -> tuple[str, tuple[datetime, str] | None]:
    """Which way to go, and from which place."""
    if cursor is None:
        return "older", None
    match = re.fullmatch(CURSOR, cursor)
    if match is None:
        raise BadInput(f"cursor {cursor!r} is none; take next_cursor or previous_cursor of a page")
    return match[1], (from_us(int(match[2])), match[3])
