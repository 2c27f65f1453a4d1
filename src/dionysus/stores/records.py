"""The journal's and the traces' records in SQLite: runs, events, traces, steps, links."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from dionysus.errors import StoreError
from dionysus.stores.codec import from_us, to_us
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    BasinLink,
    CreatedMemory,
    DaySpending,
    Event,
    Per,
    RecalledMemory,
    RunRecord,
    Status,
    T,
    TokenUsage,
)
from dionysus.stores.database import Database

_AT_ONCE = 1000


class Records:
    """Verbs on runs, events and traces (those of `TraceStore`). Raises `StoreError` throughout."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Several verbs, all or nothing; see `Database.transaction`."""
        return self._db.transaction(durable=durable)

    def atomically(self, work: Callable[[], T]) -> T:
        """What `work` does with these verbs, all or nothing."""
        with self._db.transaction():
            return work()

    # -- runs ------------------------------------------------------------------------------------------

    def save_run(self, run: RunRecord) -> None:
        """Adds a run, or replaces the one of that id."""
        with self._db.transaction():
            self._db.write("DELETE FROM runs WHERE run_id = ?", (run.run_id,))
            self._db.insert("runs", run)

    def set_run_status(self, run_id: str, status: Status) -> None:
        """A run came to its end."""
        self._db.write("UPDATE runs SET status = ? WHERE run_id = ?", (status, run_id))

    def run(self, run_id: str) -> RunRecord | None:
        """The run of that id."""
        rows = self._db.rows("SELECT * FROM runs WHERE run_id = ?", (run_id,))
        return self._db.record(RunRecord, rows[0]) if rows else None

    def runs(self, status: Status | None = None, *, limit: int = -1) -> list[RunRecord]:
        """Runs, newest first; -1: all."""
        rows = self._db.rows(
            "SELECT * FROM runs WHERE ?1 IS NULL OR status = ?1 ORDER BY started_at DESC, run_id DESC LIMIT ?2",
            (status, limit),
        )
        return [self._db.record(RunRecord, row) for row in rows]

    def run_ids(self, prefix: str) -> list[str]:
        """Ids that begin so, newest first, at most 20."""
        rows = self._db.rows(
            "SELECT run_id FROM runs WHERE substr(run_id, 1, length(?1)) = ?1 ORDER BY started_at DESC LIMIT 20",
            (prefix,),
        )
        return [row["run_id"] for row in rows]

    # -- spending --------------------------------------------------------------------------------------

    def spent_on(self, day: str) -> DaySpending:
        """What the model calls of a day took so far."""
        rows = self._db.rows(
            "SELECT calls, input_tokens, output_tokens, cost_usd, unpriced FROM spending WHERE day = ?", (day,)
        )
        return self._db.record(DaySpending, rows[0]) if rows else DaySpending()

    def spend(self, day: str, more: DaySpending) -> None:
        """Adds to what the model calls of a day took."""
        self._db.write(
            "INSERT INTO spending (day, calls, input_tokens, output_tokens, cost_usd, unpriced) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT (day) DO UPDATE SET calls = calls + excluded.calls, "
            "input_tokens = input_tokens + excluded.input_tokens, "
            "output_tokens = output_tokens + excluded.output_tokens, cost_usd = cost_usd + excluded.cost_usd, "
            "unpriced = unpriced + excluded.unpriced",
            (day, more.calls, more.input_tokens, more.output_tokens, more.cost_usd, more.unpriced),
        )

    # -- events ----------------------------------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Adds an event to its run's journal. `StoreError` if the run has one of that number."""
        self._db.write(
            "INSERT INTO events (run_id, seq, kind, position, at, digest, body) VALUES (?,?,?,?,?,?,?)",
            (
                event.run_id,
                event.seq,
                event.kind,
                event.position,
                to_us(event.at),
                event.digest,
                self._db.pack_plain(event.body),
            ),
        )

    def last_seq(self, run_id: str) -> int:
        """The number of a run's newest event, shared ones included; 0: it has none."""
        rows = self._db.rows(
            "SELECT max((SELECT coalesce(max(seq), 0) FROM events WHERE run_id = ?1), "
            "coalesce((SELECT parent_seq FROM runs WHERE run_id = ?1), 0))",
            (run_id,),
        )
        return int(rows[0][0])

    def events(self, run_id: str, *, after: int = 0, before: int = 2**62) -> Iterator[Event]:
        """A run's journal in order: the events between two numbers; a fork's begins with those that it shares.

        Shared events come as the fork's own: with its run id, and its traces' ids.

        Raises:
            StoreError: While iterating: the next event cannot be read. What came before it is whole.
        """
        run = self.run(run_id)
        if run is not None and run.parent is not None and run.parent_seq is not None:
            for event in self.events(run.parent, after=after, before=min(before, run.parent_seq + 1)):
                yield under_name(event, run.parent, run_id)
        at_once = _AT_ONCE
        while True:
            try:
                rows = self._db.rows(
                    "SELECT * FROM events WHERE run_id = ? AND seq > ? AND seq < ? ORDER BY seq LIMIT ?",
                    (run_id, after, before, at_once),
                )
            except StoreError:
                if at_once == 1:
                    raise
                at_once = 1  # up to the damaged one
                continue
            for row in rows:
                yield Event(
                    run_id=row["run_id"],
                    seq=row["seq"],
                    kind=row["kind"],
                    position=row["position"],
                    at=from_us(row["at"]),
                    digest=row["digest"],
                    body=self._db.unpack(row["body"]),
                )
            if len(rows) < at_once:
                return
            after = rows[-1]["seq"]

    def size_of(self, run_id: str) -> int:
        """Bytes that a run's own events take, without long texts that are kept elsewhere anyway."""
        rows = self._db.rows(
            "SELECT coalesce(sum(length(body) + length(position)), 0) FROM events WHERE run_id = ?", (run_id,)
        )
        return int(rows[0][0])

    # -- traces ----------------------------------------------------------------------------------------

    def add_trace(self, trace: AgentExecutionTrace) -> bool:
        """Adds a trace; False: there is one of that id."""
        with self._db.transaction():
            if self._db.rows("SELECT 1 FROM traces WHERE id = ?", (trace.id,)):
                return False
            self.save_trace(trace)
            return True

    def save_trace(self, trace: AgentExecutionTrace) -> None:
        """Adds a trace, or replaces the one of that id."""
        with self._db.transaction():
            self._db.write(
                "INSERT INTO traces (id, agent_name, run_id, status, success, started_at, body) "
                "VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET agent_name = excluded.agent_name, "
                "run_id = excluded.run_id, status = excluded.status, success = excluded.success, "
                "started_at = excluded.started_at, body = excluded.body",
                (
                    trace.id,
                    trace.agent_name,
                    trace.run_id,
                    trace.status,
                    trace.success,
                    to_us(trace.started_at),
                    self._db.pack(trace),
                ),
            )

    def trace(self, trace_id: str) -> AgentExecutionTrace | None:
        """The trace of that id."""
        rows = self._db.rows("SELECT body FROM traces WHERE id = ?", (trace_id,))
        return self._db.unpack_as(AgentExecutionTrace, rows[0]["body"]) if rows else None

    def trace_ids(self, prefix: str) -> list[str]:
        """Ids that begin so, newest first, at most 20."""
        rows = self._db.rows(
            "SELECT id FROM traces WHERE substr(id, 1, ?2) = ?1 ORDER BY started_at DESC LIMIT 20",
            (prefix, len(prefix)),
        )
        return [row["id"] for row in rows]

    def traces(
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
            before: (started_at, id) of a trace: only what comes behind it in this order.
            after: The same: only what comes ahead of it, and the nearest of that.
        """
        few = "+" if agent_name is not None else ""  # "+": an agent's traces are looked through in its own index
        asked: list[tuple[str, list[Any]]] = [
            ("agent_name = ?", [agent_name]),
            (f"{few}status = ?", [status]),
            (f"{few}success = ?", [success]),
            ("run_id = ?", [run_id]),
            ("started_at >= ?", [to_us(since) if since else None]),
            ("started_at < ?", [to_us(until) if until else None]),
            ("(started_at, id) < (?, ?)", [to_us(before[0]), before[1]] if before else [None]),
            ("(started_at, id) > (?, ?)", [to_us(after[0]), after[1]] if after else [None]),
        ]
        chosen = [(condition, values) for condition, values in asked if values[0] is not None]
        where = f"WHERE {' AND '.join(condition for condition, _ in chosen)} " if chosen else ""
        direction = "ASC" if after else "DESC"
        rows = self._db.rows(
            f"SELECT body FROM traces {where}ORDER BY started_at {direction}, id {direction} LIMIT ?",
            [value for _, values in chosen for value in values] + [limit],
        )
        found = [self._db.unpack_as(AgentExecutionTrace, row["body"]) for row in rows]
        return found[::-1] if after else found

    def save_step(self, step: AgentExecutionStep) -> None:
        """Adds a step, or replaces the one at its place."""
        with self._db.transaction():
            self._db.write(
                "INSERT INTO steps (trace_id, ord, id, body) VALUES (?,?,?,?) "
                "ON CONFLICT (trace_id, ord) DO UPDATE SET body = excluded.body",
                (step.trace_id, step.order, step.id, self._db.pack(step)),
            )

    def step(self, step_id: str) -> AgentExecutionStep | None:
        """The step of that id."""
        rows = self._db.rows("SELECT body FROM steps WHERE id = ?", (step_id,))
        return self._db.unpack_as(AgentExecutionStep, rows[0]["body"]) if rows else None

    def steps(self, trace_id: str, *, after: int = 0, limit: int = -1) -> list[AgentExecutionStep]:
        """A trace's steps in order (HAS_STEP): those behind an order, at most so many; -1: all."""
        rows = self._db.rows(
            "SELECT body FROM steps WHERE trace_id = ? AND ord > ? ORDER BY ord LIMIT ?", (trace_id, after, limit)
        )
        return [self._db.unpack_as(AgentExecutionStep, row["body"]) for row in rows]

    def next_order(self, trace_id: str) -> int:
        """The order of the step that comes next."""
        row = self._db.rows("SELECT max(ord) AS last FROM steps WHERE trace_id = ?", (trace_id,))[0]
        return (row["last"] or 0) + 1

    def save_basin_link(self, trace_id: str, basin_id: int, strength: float, at_step: int | None) -> None:
        """A step of a trace activated a basin (ACTIVATED_BASIN); once for each step."""
        self._db.write(
            "INSERT OR REPLACE INTO basin_links (trace_id, basin_id, strength, at_step) VALUES (?,?,?,?)",
            (trace_id, basin_id, strength, at_step),
        )

    def basin_links(self, trace_id: str) -> list[BasinLink]:
        """The basins that a trace activated, in order of steps, strongest first."""
        rows = self._db.rows(
            "SELECT l.basin_id, coalesce(b.name, '(forgotten)') AS name, l.strength, l.at_step "
            "FROM basin_links l LEFT JOIN basins b ON b.id = l.basin_id WHERE l.trace_id = ? "
            "ORDER BY l.at_step, l.strength DESC, l.basin_id",
            (trace_id,),
        )
        return [self._db.record(BasinLink, row) for row in rows]

    def save_recall(self, trace_id: str, memory_id: int, score: float, at_step: int) -> None:
        """A tool of a step of a trace brought a memory back (RECALLED); once for each step."""
        self._db.write(
            "INSERT OR REPLACE INTO recalls (trace_id, memory_id, score, at_step) VALUES (?,?,?,?)",
            (trace_id, memory_id, score, at_step),
        )

    def recalled_memories(self, trace_id: str) -> list[RecalledMemory]:
        """The memories that a trace recalled, in order of steps, best first."""
        rows = self._db.rows(
            "SELECT r.memory_id, coalesce(m.source, '(forgotten)') AS source, r.score, r.at_step "
            "FROM recalls r LEFT JOIN memories m ON m.id = r.memory_id WHERE r.trace_id = ? "
            "ORDER BY r.at_step, r.score DESC, r.memory_id",
            (trace_id,),
        )
        return [self._db.record(RecalledMemory, row) for row in rows]

    def created_memories(self, run_id: str) -> list[CreatedMemory]:
        """The memories that a run kept (CREATED_MEMORY), in order of steps."""
        rows = self._db.rows(
            "SELECT id AS memory_id, source, step AS at_step FROM memories WHERE run_id = ? ORDER BY step, id",
            (run_id,),
        )
        return [self._db.record(CreatedMemory, row) for row in rows]

    def token_usage(
        self,
        *,
        by: Per = "agent",
        agent_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = -1,
    ) -> list[TokenUsage]:
        """Sums over traces that do not run: per agent, by name, or per run or UTC day, newest first. A sum with an
        unknown price has no price."""
        # "+": by the index that holds all that is summed, in the order of agents
        span = (to_us(since) if since else -(2**62), to_us(until) if until else 2**62)
        rows = self._db.rows(
            f"SELECT {_PER[by]}, count(*) AS traces, sum(model_calls) AS model_calls, "
            "sum(input_tokens) AS input_tokens, sum(cached_tokens) AS cached_tokens, "
            "sum(cache_write_tokens) AS cache_write_tokens, sum(output_tokens) AS output_tokens, "
            "sum(tokens_saved) AS tokens_saved, sum(cost_usd) AS cost_usd, sum(unpriced) AS unpriced, "
            "sum(estimated) AS estimated, max(started_at) AS newest FROM traces WHERE (?1 IS NULL OR agent_name = ?1) "
            "AND +started_at >= ?2 AND +started_at < ?3 AND status <> 'running' "
            f"GROUP BY 1 ORDER BY {'1' if by == 'agent' else 'newest DESC, 1'} LIMIT ?4",
            (agent_name, *span, limit),
        )
        return [_token_usage(dict(row)) for row in rows]


def under_name(event: Event, old: str, new: str) -> Event:
    """An event of one run as another's: with its id, and its traces' ids."""
    names = {
        name: new + event.body[name].removeprefix(old)
        for name in ("trace", "parent")
        if str(event.body.get(name) or "").partition("/")[0] == old
    }
    return replace(event, run_id=new, body={**event.body, **names})


_PER = {"agent": "agent_name", "run": "run_id", "day": "date(started_at / 1000000, 'unixepoch') AS day"}


def _token_usage(row: dict[str, Any]) -> TokenUsage:
    newest = from_us(row.pop("newest"))
    counts: dict[str, Any] = {name: value or 0 for name, value in row.items()}
    counts["cost_usd"] = None if counts["unpriced"] else float(counts["cost_usd"])
    return TokenUsage(**counts, newest=newest)
