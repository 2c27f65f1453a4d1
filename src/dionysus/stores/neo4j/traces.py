"""Traces in a graph: the verbs of `TraceStore`, and parcels taken in whole.

(:AgentExecutionTrace)-[:HAS_STEP {order}]->(:AgentExecutionStep)
(:AgentExecutionTrace)-[:DELEGATED_FROM {at_step}]->(:AgentExecutionTrace)        called by
(:AgentExecutionTrace)-[:ACTIVATED_BASIN {strength, at_step}]->(:AttractorBasin)
(:AgentExecutionTrace)-[:RECALLED {score, at_step}]->(:AgentMemory)
(:AgentExecutionTrace)-[:CREATED_MEMORY {at_step}]->(:AgentMemory)-[:LIES_IN]->(:AttractorBasin)

Properties are the fields of the records (`codec`); nodes name the `store` that they come from. Numbers of basins and
memories are a store's own, so their `id` is `STORE/NUMBER`. Properties that others add to the nodes stay.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from dionysus.errors import DataRefused, GraphRefused
from dionysus.stores.codec import as_unicode, column_of, dumps, from_us, hints_of, record_of, to_us
from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    BasinLink,
    CreatedMemory,
    Edge,
    Parcel,
    Per,
    RecalledMemory,
    Status,
    T,
    TokenUsage,
)
from dionysus.stores.neo4j.graph import Graph, Work

if TYPE_CHECKING:
    from neo4j import ManagedTransaction

Row = dict[str, Any]
Record = TypeVar("Record")
_ALWAYS = 2**62
_PER = {
    "agent": ("t.agent_name", "agent_name"),
    "run": ("t.run_id", "run_id"),
    "day": ("left(toString(datetime({epochMillis: t.started_at / 1000})), 10)", "day"),
}
_PARCEL_S = 60.0

# Who makes a node names its owner in the same stroke, and others leave it alone: nothing is looked up before.
_TRACES = """
UNWIND $rows AS row
MERGE (t:AgentExecutionTrace {id: row.id}) ON CREATE SET t.store = row.properties.store
WITH t, row WHERE t.store = row.properties.store
SET t += row.properties
RETURN count(t) AS n
"""
_OTHERS_TRACE = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace {id: row.id}) WHERE t.store IS NULL OR t.store <> row.properties.store
RETURN t.id AS id, t.store AS owner LIMIT 1
"""
_OTHERS_STEP = """
UNWIND $rows AS row
MATCH (s:AgentExecutionStep {id: row.id}) WHERE s.trace_id IS NULL OR s.trace_id <> row.trace_id
RETURN s.id AS id, s.trace_id AS owner LIMIT 1
"""
_DELEGATED = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace {id: row.id}) MATCH (p:AgentExecutionTrace {id: row.parent})
MERGE (t)-[d:DELEGATED_FROM]->(p) SET d.at_step = row.at_step
"""
_STEPS = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace {id: row.trace_id})
MERGE (s:AgentExecutionStep {id: row.id}) ON CREATE SET s.trace_id = row.trace_id
WITH t, s, row WHERE s.trace_id = row.trace_id
SET s += row.properties
MERGE (t)-[h:HAS_STEP]->(s) SET h.order = row.order
RETURN count(s) AS n
"""
_BASINS = "UNWIND $rows AS row MERGE (b:AttractorBasin {id: row.id}) SET b += row.properties RETURN count(b) AS n"
_MEMORIES = "UNWIND $rows AS row MERGE (m:AgentMemory {id: row.id}) SET m += row.properties RETURN count(m) AS n"
_FORGOTTEN = "MATCH (m:AgentMemory) WHERE m.id IN $ids DETACH DELETE m"
_DISSOLVED = "MATCH (b:AttractorBasin) WHERE b.id IN $ids DETACH DELETE b"
_MOVED = """
UNWIND $rows AS row
MATCH (m:AgentMemory {id: row.id})-[old:LIES_IN]->(b:AttractorBasin) WHERE row.basin IS NULL OR b.id <> row.basin
DELETE old
"""
_LIES_IN = """
UNWIND $rows AS row
MATCH (m:AgentMemory {id: row.id}) MATCH (b:AttractorBasin {id: row.basin}) MERGE (m)-[:LIES_IN]->(b)
"""
_KEPT_BY_OTHERS = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace)-[old:CREATED_MEMORY]->(m:AgentMemory {id: row.id})
WHERE row.run_id IS NULL OR t.run_id <> row.run_id
DELETE old
"""
_CREATED = """
UNWIND $rows AS row
MATCH (m:AgentMemory {id: row.id}) MATCH (t:AgentExecutionTrace {run_id: row.run_id})
WHERE t.store = m.store AND t.parent_trace_id IS NULL
MERGE (t)-[c:CREATED_MEMORY]->(m) SET c.at_step = row.at_step
"""
_ACTIVATIONS = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace {id: row.trace_id})
MERGE (b:AttractorBasin {id: row.id}) ON CREATE SET b.number = row.number, b.store = row.store
WITH row, t, b
OPTIONAL MATCH (t)-[old:ACTIVATED_BASIN]->(b) 
WHERE old.at_step = row.at_step OR (old.at_step IS NULL AND row.at_step IS NULL)
WITH row, t, b, collect(old) AS olds
FOREACH (one IN olds | DELETE one)
CREATE (t)-[:ACTIVATED_BASIN {strength: row.weight, at_step: row.at_step}]->(b)
RETURN count(t) AS n
"""
_RECALLS = """
UNWIND $rows AS row
MATCH (t:AgentExecutionTrace {id: row.trace_id})
MERGE (m:AgentMemory {id: row.id}) ON CREATE SET m.number = row.number, m.store = row.store
MERGE (t)-[r:RECALLED {at_step: row.at_step}]->(m) SET r.score = row.weight
RETURN count(r) AS n
"""


class GraphTraces:
    """`TraceStore` on a graph, for one store's traces – and what others shipped there, to read. Raises `StoreError`."""

    def __init__(self, graph: Graph, *, store_id: str = "") -> None:
        """
        Args:
            store_id: Of the store that what is written comes from.
        """
        self._graph, self._store_id = graph, store_id
        self._within = threading.local()
        self._is_set_up = False

    # -- parcels ---------------------------------------------------------------------------------------

    def put(self, parcel: Parcel, *, graph_id: str) -> None:
        """Takes a parcel in, all or nothing; again it changes nothing.

        Args:
            graph_id: Which graph is meant, as `Graph.required` found it.

        Raises:
            GraphDown: It cannot be reached; nothing was taken in, or all.
            GraphRefused: It is another graph by now.
            DataRefused: Something of it cannot be taken in; nothing was.
        """
        self._graph.write(lambda tx: self._put(tx, parcel, graph_id), timeout_s=_PARCEL_S)

    def _put(self, tx: "ManagedTransaction", parcel: Parcel, graph_id: str | None) -> None:
        if graph_id is not None:
            there = tx.run("MATCH (g:DionysusGraph {graph_id: $id}) RETURN count(g) AS n", id=graph_id).data()
            if not there[0]["n"]:
                raise GraphRefused(
                    f"the graph {self._graph.target} was emptied; `dionysus store init` sets it up again"
                )
        traces = sorted(
            parcel.traces, key=lambda trace: trace.id
        )  # in one order, so that processes wait for each other
        ids = [as_unicode(trace.id) for trace in traces]
        rows = [{"id": i, "properties": self._properties(t)} for i, t in zip(ids, traces, strict=True)]
        _all(tx, _TRACES, rows, others=_OTHERS_TRACE)
        delegated = [
            {"id": as_unicode(trace.id), "parent": as_unicode(trace.parent_trace_id), "at_step": trace.parent_step}
            for trace in traces
            if trace.parent_trace_id is not None
        ]
        if delegated:
            tx.run(_DELEGATED, rows=delegated).consume()
        _all(tx, _STEPS, [_step_row(step) for step in parcel.steps], others=_OTHERS_STEP)
        _all(tx, _BASINS, [{"id": self._id(b.id), "properties": self._numbered(b)} for b in parcel.basins])
        memories = [
            {
                "id": self._id(memory.id),
                "properties": self._numbered(memory),
                "basin": None if memory.basin_id is None else self._id(memory.basin_id),
                "run_id": memory.run_id,
                "at_step": memory.step,
            }
            for memory in parcel.memories
        ]
        if memories:
            _all(tx, _MEMORIES, memories)
            edges = [{k: v for k, v in memory.items() if k != "properties"} for memory in memories]
            for query in (_MOVED, _LIES_IN, _KEPT_BY_OTHERS, _CREATED):
                tx.run(query, rows=edges).consume()
        for query, gone in ((_FORGOTTEN, parcel.forgotten), (_DISSOLVED, parcel.dissolved)):
            if gone:
                tx.run(query, ids=[self._id(number) for number in gone]).consume()
        _all(tx, _ACTIVATIONS, [self._edge_row(edge) for edge in parcel.activations])
        _all(tx, _RECALLS, [self._edge_row(edge) for edge in parcel.recalls])

    # -- the verbs -------------------------------------------------------------------------------------

    def atomically(self, work: Callable[[], T]) -> T:
        """What `work` does with these verbs, all or nothing; it is called again where others were in the way."""

        def within(tx: "ManagedTransaction") -> T:
            self._within.tx = tx
            try:
                return work()
            finally:
                del self._within.tx

        self._require_set_up()
        return self._graph.write(within)

    def add_trace(self, trace: AgentExecutionTrace) -> bool:
        """Adds a trace; False: there is one of that id."""

        def add(tx: "ManagedTransaction") -> bool:
            row = tx.run(
                "MERGE (t:AgentExecutionTrace {id: $id}) ON CREATE SET t.is_new = true, t.store = $store "
                "WITH t, t.is_new AS is_new REMOVE t.is_new RETURN is_new",
                id=as_unicode(trace.id),
                store=self._store_id,
            ).data()
            if not row[0]["is_new"]:
                return False
            self._put(tx, Parcel(traces=(trace,)), None)
            return True

        return self._write(add)

    def save_trace(self, trace: AgentExecutionTrace) -> None:
        """Adds a trace, or replaces the one of that id."""
        self._save(Parcel(traces=(trace,)))

    def save_step(self, step: AgentExecutionStep) -> None:
        """Adds a step, or replaces the one of that id."""
        self._save(Parcel(steps=(step,)))

    def save_basin_link(self, trace_id: str, basin_id: int, strength: float, at_step: int | None) -> None:
        """A step of a trace activated a basin (ACTIVATED_BASIN); once for each step."""
        edge = Edge(trace_id=trace_id, number=basin_id, weight=strength, at_step=at_step)
        self._save(Parcel(activations=(edge,)))

    def save_recall(self, trace_id: str, memory_id: int, score: float, at_step: int) -> None:
        """A tool of a step of a trace brought a memory back (RECALLED); once for each step."""
        edge = Edge(trace_id=trace_id, number=memory_id, weight=score, at_step=at_step)
        self._save(Parcel(recalls=(edge,)))

    def trace(self, trace_id: str) -> AgentExecutionTrace | None:
        """The trace of that id."""
        rows = self._rows("MATCH (n:AgentExecutionTrace {id: $id}) RETURN properties(n) AS n", id=as_unicode(trace_id))
        return _record(AgentExecutionTrace, rows[0]["n"]) if rows else None

    def trace_ids(self, prefix: str) -> list[str]:
        """Ids that begin so, newest first, at most 20."""
        rows = self._rows(
            "MATCH (t:AgentExecutionTrace) WHERE t.id STARTS WITH $prefix "
            "RETURN t.id AS id ORDER BY t.started_at DESC LIMIT 20",
            prefix=as_unicode(prefix),
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
        """Traces, newest first; see `TraceStore`."""
        equal = {"agent_name": agent_name, "status": status, "success": success, "run_id": run_id}
        chosen: Row = {k: as_unicode(v) if isinstance(v, str) else v for k, v in equal.items() if v is not None}
        where = ["t.started_at >= $since", *(f"t.{name} = ${name}" for name in chosen)]
        chosen["since"] = to_us(since) if since else -_ALWAYS
        if until is not None:
            where.append("t.started_at < $until")
            chosen["until"] = to_us(until)
        for place, sign in ((before, "<"), (after, ">")):
            if place is not None:
                where.append(f"t.started_at {sign}= $at AND (t.started_at {sign} $at OR t.id {sign} $id)")
                chosen |= {"at": to_us(place[0]), "id": as_unicode(place[1])}
        way = "" if after else " DESC"
        rows = self._rows(
            f"MATCH (t:AgentExecutionTrace) WHERE {' AND '.join(where)} "
            f"RETURN properties(t) AS n ORDER BY t.started_at{way}, t.id{way}{_at_most(limit)}",
            **chosen,
            limit=limit,
        )
        found = [_record(AgentExecutionTrace, row["n"]) for row in rows]
        return found[::-1] if after else found

    def step(self, step_id: str) -> AgentExecutionStep | None:
        """The step of that id."""
        rows = self._rows("MATCH (n:AgentExecutionStep {id: $id}) RETURN properties(n) AS n", id=as_unicode(step_id))
        return _record(AgentExecutionStep, rows[0]["n"]) if rows else None

    def steps(self, trace_id: str, *, after: int = 0, limit: int = -1) -> list[AgentExecutionStep]:
        """A trace's steps in order: those behind an order, at most so many; -1: all."""
        rows = self._rows(
            "MATCH (:AgentExecutionTrace {id: $id})-[h:HAS_STEP]->(s) WHERE h.order > $after "
            f"RETURN properties(s) AS n, h.order AS place ORDER BY place{_at_most(limit)}",
            id=as_unicode(trace_id),
            after=after,
            limit=limit,
        )
        return [_record(AgentExecutionStep, row["n"]) for row in rows]

    def next_order(self, trace_id: str) -> int:
        """The order of the step that comes next; within `atomically` nobody else gets it."""

        def look(tx: "ManagedTransaction") -> int:
            # a write locks the trace until the end of the transaction, so others wait here
            tx.run(
                "MATCH (t:AgentExecutionTrace {id: $id}) SET t.locked = true REMOVE t.locked", id=as_unicode(trace_id)
            ).consume()
            found = tx.run(
                "MATCH (:AgentExecutionTrace {id: $id})-[h:HAS_STEP]->() RETURN max(h.order) AS last",
                id=as_unicode(trace_id),
            ).data()
            return (found[0]["last"] or 0) + 1

        return self._write(look)

    def basin_links(self, trace_id: str) -> list[BasinLink]:
        """The basins that a trace activated, in order of steps, strongest first."""
        rows = self._rows(
            "MATCH (:AgentExecutionTrace {id: $id})-[l:ACTIVATED_BASIN]->(b) RETURN b.number AS basin_id, "
            "coalesce(b.name, '(forgotten)') AS name, l.strength AS strength, l.at_step AS at_step",
            id=as_unicode(trace_id),
        )
        found = [BasinLink(**row) for row in rows]
        return sorted(found, key=lambda link: (*_step(link.at_step), -link.strength, link.basin_id))

    def recalled_memories(self, trace_id: str) -> list[RecalledMemory]:
        """The memories that a trace recalled, in order of steps, best first."""
        rows = self._rows(
            "MATCH (:AgentExecutionTrace {id: $id})-[r:RECALLED]->(m) RETURN m.number AS memory_id, "
            "coalesce(m.source, '(forgotten)') AS source, r.score AS score, r.at_step AS at_step",
            id=as_unicode(trace_id),
        )
        return sorted((RecalledMemory(**row) for row in rows), key=lambda m: (m.at_step, -m.score, m.memory_id))

    def created_memories(self, run_id: str) -> list[CreatedMemory]:
        """The memories that a run kept (CREATED_MEMORY), in order of steps."""
        rows = self._rows(
            "MATCH (m:AgentMemory {run_id: $run_id}) "
            "RETURN m.number AS memory_id, m.source AS source, m.step AS at_step",
            run_id=as_unicode(run_id),
        )
        return sorted((CreatedMemory(**row) for row in rows), key=lambda m: (*_step(m.at_step), m.memory_id))

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
        key, name = _PER[by]
        order = name if by == "agent" else f"newest DESC, {name}"
        rows = self._rows(
            "MATCH (t:AgentExecutionTrace) WHERE t.started_at >= $since AND t.started_at < $until "
            "AND t.status <> 'running' AND ($agent_name IS NULL OR t.agent_name = $agent_name) "
            f"RETURN {key} AS {name}, count(*) AS traces, sum(t.model_calls) AS model_calls, "
            "sum(t.input_tokens) AS input_tokens, sum(t.cached_tokens) AS cached_tokens, "
            "sum(coalesce(t.cache_write_tokens, 0)) AS cache_write_tokens, "
            "sum(t.output_tokens) AS output_tokens, sum(t.tokens_saved) AS tokens_saved, sum(t.cost_usd) AS cost_usd, "
            "sum(CASE WHEN t.cost_usd IS NULL THEN 1 ELSE 0 END) AS unpriced, "
            "sum(CASE WHEN t.usage_estimated THEN 1 ELSE 0 END) AS estimated, max(t.started_at) AS newest "
            f"ORDER BY {order}{f' LIMIT {int(limit)}' if limit >= 0 else ''}",
            agent_name=None if agent_name is None else as_unicode(agent_name),
            since=to_us(since) if since else -_ALWAYS,
            until=to_us(until) if until else _ALWAYS,
        )
        for row in rows:
            row["newest"] = from_us(row["newest"])
            row["cost_usd"] = None if row["unpriced"] else float(row["cost_usd"])
        return [TokenUsage(**row) for row in rows]

    # -- within ----------------------------------------------------------------------------------------

    def _save(self, parcel: Parcel) -> None:
        self._write(lambda tx: self._put(tx, parcel, None))

    def _write(self, work: Work[T]) -> T:
        tx = getattr(self._within, "tx", None)
        if tx is not None:
            return work(tx)
        self._require_set_up()
        return self._graph.write(work)

    def _require_set_up(self) -> None:
        """A database that was never set up is none without traces: it may be the wrong one."""
        if not self._is_set_up:
            self._graph.required()
            self._is_set_up = True

    def _rows(self, query: str, **parameters: Any) -> list[Row]:
        def look(tx: "ManagedTransaction") -> list[Row]:
            return tx.run(query, **parameters).data()

        tx = getattr(self._within, "tx", None)
        if tx is not None:
            return look(tx)
        self._require_set_up()
        return self._graph.read(look)

    def _id(self, number: int) -> str:
        return f"{self._store_id}/{number}"

    def _properties(self, record: Any) -> Row:
        return {**_properties(record), "store": self._store_id}

    def _numbered(self, record: Any) -> Row:
        properties = self._properties(record)
        return {**properties, "id": self._id(record.id), "number": record.id}

    def _edge_row(self, edge: Edge) -> Row:
        return {
            "trace_id": as_unicode(edge.trace_id),
            "id": self._id(edge.number),
            "number": edge.number,
            "store": self._store_id,
            "weight": edge.weight,
            "at_step": edge.at_step,
        }


def _all(tx: "ManagedTransaction", query: str, rows: Sequence[Row], *, others: str | None = None) -> None:
    """Writes rows; all of them must have found what they hang on.

    Args:
        others: Finds a node that has the id of one of them, and is none of ours.

    Raises:
        DataRefused: One did not.
    """
    if not rows:
        return
    written = tx.run(query, rows=rows).data()
    if not written or written[0]["n"] != len(rows):
        for found in tx.run(others, rows=rows) if others else ():
            owner = f"of {found['owner']!r}" if found["owner"] else "of nobody that we know"
            raise DataRefused(f"{found['id']!r} is in the graph already, {owner}")
        raise DataRefused(
            f"{len(rows) - (written[0]['n'] if written else 0)} of {len(rows)} have no trace in the graph"
        )


def _properties(record: Any) -> Row:
    """A record's fields as properties. What is no Unicode is there readable, and exact beside it."""
    found: Row = {f.name: column_of(getattr(record, f.name)) for f in fields(record)}
    exact = {k: v for k, v in found.items() if isinstance(v, str) and as_unicode(v) != v}
    return {**found, **{k: as_unicode(v) for k, v in exact.items()}, "exact": dumps(exact) if exact else None}


def _record(kind: type[Record], properties: Row) -> Record:
    """The record that `_properties` took. What is absent is None where it may be, whatever a field's default."""
    exact = json.loads(properties.get("exact") or "{}")
    absent = {name: None for name, hint in hints_of(kind).items() if type(None) in get_args(hint)}
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # records are dataclasses
    return record_of(kind, absent | {name: properties[name] for name in names if name in properties} | exact)


def _step_row(step: AgentExecutionStep) -> Row:
    return {
        "id": as_unicode(step.id),
        "trace_id": as_unicode(step.trace_id),
        "order": step.order,
        "properties": _properties(step),
    }


def _at_most(limit: int) -> str:
    return " LIMIT $limit" if limit >= 0 else ""


def _step(at_step: int | None) -> tuple[bool, int]:
    """Sorts what belongs to no step first."""
    return at_step is not None, at_step or 0
