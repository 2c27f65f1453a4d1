"""Runs at rest: listed, compared, carried from store to store."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from dionysus.errors import BadInput, EntryDamaged, NotFound, StoreError
from dionysus.findings import quoted
from dionysus.journal.cassette import Cassette, checked_id, read_cassette, renamed, write_cassette
from dionysus.journal.replaying import Past, whole_events
from dionysus.journal.secrets import Secrets
from dionysus.journal.values import unpacked
from dionysus.mcp_tools import stand_ins
from dionysus.stores import Store
from dionysus.stores.contract import AgentExecutionTrace, RunRecord, Status, Usage
from dionysus.traces import ExecutionTraceService, Parting, Projection, parting_of
from dionysus.traces.render import overview

_ALL = 100_000


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run at a glance, over all its agents."""

    run: RunRecord
    agents: int
    """Traces: the agent that was run, and each call of a managed one."""
    plans: int
    actions: int
    model_calls: int
    usage: Usage
    own_bytes: int
    """What its own events take in the store; those that it shares with the run it was forked from are that one's."""


class Runs:
    """The runs of a store."""

    def __init__(
        self, store: Store, traces: ExecutionTraceService, *, secrets: Secrets, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._records, self._traces = store, store.records, traces
        self._secrets, self._clock = secrets, clock

    def found(self, run_id: str) -> RunRecord:
        """The run of that id, or of the only one that begins so.

        Raises:
            NotFound: There is none.
            BadInput: There are several.
        """
        matches = self._records.run_ids(run_id) if run_id else []
        if "~" not in run_id:  # a run goes before its forks
            matches = [name for name in matches if "~" not in name] or matches
        record = self._records.run(run_id if run_id in matches or len(matches) != 1 else matches[0])
        if record is not None:
            return record
        if matches:
            raise BadInput(f"{len(matches)} runs begin with {run_id!r}: {', '.join(matches[:5])}; write more")
        raise NotFound("run", run_id, see="`dionysus runs list`")

    def listed(self, *, limit: int = 20) -> list[RunSummary]:
        """Runs, newest first."""
        return [self.summary(record) for record in self._records.runs(limit=limit)]

    def summary(self, record: RunRecord) -> RunSummary:
        """A run at a glance."""
        traces = self._traces.list_traces(run_id=record.run_id, limit=_ALL)
        return RunSummary(
            run=record,
            agents=len(traces),
            plans=sum(trace.planning_count for trace in traces),
            actions=sum(trace.step_count for trace in traces),
            model_calls=sum(trace.model_calls for trace in traces),
            usage=sum(map(_usage, traces), Usage()),
            own_bytes=self._records.size_of(record.run_id),
        )

    def diff(self, one: str, other: str) -> Parting:
        """Where two runs part, by the steps of the agents that were run.

        Raises:
            NotFound: One of them is not there, or did not begin.
        """
        first, second = (self._traces.get_trace(self.found(run_id).run_id) for run_id in (one, other))
        return parting_of(first, second)

    def export(self, run_id: str, path: Path, *, overwrite: bool = False) -> int:
        """Writes a run into a cassette; returns the number of its events.

        Raises:
            NotFound: No such run.
            BadInput: The file is there.
            Damaged: Not all of the journal can be read; nothing is written.
            StoreError: The file cannot be written.
        """
        record = self.found(run_id)
        return write_cassette(path, record, whole_events(self._records, record.run_id), overwrite=overwrite)

    def import_(self, path: Path, *, as_id: str | None = None, partial: bool = False) -> RunRecord:
        """Takes a run in from a cassette; one that is not finished has the status `running`, and nobody holds it.

        Args:
            as_id: Under which id; default: the one it had.
            partial: Take in what is whole of a damaged one, as a run that was interrupted.

        Raises:
            BadInput: It cannot be read, or there is a run of that id.
            Damaged: Not all of it is whole; nothing was taken in.
        """
        cassette = read_cassette(path)
        if cassette.damage is not None and not partial:
            raise cassette.damage
        if as_id is not None:
            cassette = renamed(cassette, checked_id(as_id))
        return self._taken_in(cassette)

    def _taken_in(self, cassette: Cassette) -> RunRecord:
        run_id = cassette.run.run_id
        if not cassette.events:
            raise BadInput("the cassette holds no event: there is nothing to take in")
        record = replace(cassette.run, status="running") if cassette.damage is not None else cassette.run
        project = Projection(self._records, links=False)
        with self._store.transaction():
            if self._records.run(run_id) is not None:
                raise BadInput(f"run {run_id!r} exists; take it in under another id with --as ID")
            self._records.save_run(replace(record, request=self._secrets.hide_in_body(record.request)))
            try:
                for event in cassette.events:
                    written = replace(event, body=self._secrets.hide_in_body(event.body))
                    self._records.append(written)
                    project(written)
                self._read_back(run_id)
                stand_ins(record.request.get("tools", ()))
            except Exception as error:  # whatever a foreign file brings
                if isinstance(error, StoreError) and not isinstance(error, EntryDamaged):
                    raise
                reason = quoted(f"{type(error).__name__}: {error}", 200)
                raise BadInput(
                    f"the cassette holds what Dionysus does not write: {reason}; nothing was taken in"
                ) from error
        return record

    def _read_back(self, run_id: str) -> None:
        """What was taken in can be read: a file from elsewhere must not make the store unreadable."""
        past = Past(self._records.events(run_id))
        if past.top is None or not isinstance(past.top.body["task"], str) or not isinstance(past.made_of, dict):
            raise ValueError("it has no beginning")
        rule = past.made_of.get("runtime", {}).get("pruning", "off")
        if rule not in ("off", "see-once", "window"):
            raise ValueError(f"pruning {rule!r}")
        unpacked("inputs", past.top.body)
        if past.ended is not None:
            unpacked("output", past.ended.body)
        traces = {trace.id: trace for trace in self._records.traces(run_id=run_id, limit=_ALL)}
        for trace in traces.values():
            if trace.status not in get_args(Status):
                raise ValueError(f"status {trace.status!r}")
            above: set[str] = set()
            parent = trace.parent_trace_id
            while parent in traces:
                if parent in above:
                    raise ValueError(f"trace {parent!r} was called by itself")
                above.add(parent)
                parent = traces[parent].parent_trace_id
            overview(self._traces.get_trace(trace.id))


def _usage(trace: AgentExecutionTrace) -> Usage:
    return Usage(
        input_tokens=trace.input_tokens,
        cached_tokens=trace.cached_tokens,
        output_tokens=trace.output_tokens,
        cost_usd=trace.cost_usd,
        estimated=trace.usage_estimated,
        mended=trace.mended_calls,
    )
