"""Where an action, a failure or a memory comes from: questions that cross traces, answered by the graph in Neo4j.

Each is one documented query (`dionysus.stores.neo4j.QUESTIONS`). The graph has what was shipped, of all stores.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dionysus.errors import NotFound
from dionysus.stores.codec import from_us
from dionysus.stores.neo4j import Graph, GraphTraces
from dionysus.stores.neo4j.questions import DELEGATION, MEMORY, SHARED_BASINS, WHY
from dionysus.traces.service import found_in


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A memory or basin that was there before an action."""

    link: str
    """RECALLED, of a memory, or ACTIVATED_BASIN."""
    number: int
    what: str
    """The memory's source, or the basin's name."""
    text: str | None
    """The memory's."""
    weight: float
    """The recall's score, or the basin's strength."""
    agent: str
    trace: str
    at_step: int
    """The action of that agent that recalled or activated it."""


@dataclass(frozen=True, kw_only=True)
class SharedBasin:
    """A run that activated a basin which runs that failed activated, too."""

    run: str
    trace: str
    agent: str
    status: str
    started_at: datetime
    basin: str
    strength: float
    failures: int
    """Other runs that failed with it."""
    failed_runs: tuple[str, ...]
    """Some of them, at most five."""


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """An agent in a tree of delegation, with what it took itself."""

    trace: str
    depth: int
    """0 for the one at the top."""
    parent: str | None
    at_step: int | None
    """The action of the parent that handed the work down."""
    agent: str
    status: str
    actions: int
    model_calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None: the price is not known."""
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class Use:
    """A recall that hit a memory, or the step that made it."""

    trace: str
    agent: str
    at_step: int | None
    score: float | None = None
    status: str | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a memory came from, and what it was used in."""

    number: int
    kind: str
    text: str
    at: datetime
    source: str
    place: str
    basin: str | None
    makers: tuple[Use, ...]
    uses: tuple[Use, ...]
    """Newest first."""


class Lineage:
    """Questions to a graph. All verbs raise `GraphError` where it does not answer."""

    def __init__(self, graph: Graph, *, store_id: str) -> None:
        """
        Args:
            store_id: Of the store whose memories are meant by their numbers.
        """
        self._graph, self._store_id = graph, store_id
        self._traces = GraphTraces(graph, store_id=store_id)

    def why(self, trace_id: str, step: int | None = None) -> tuple[int, list[Cause]]:
        """The memories and basins that led to an action: those that its agent, the agents above it, and those that it
        had called, recalled and activated before it. Latest first, then strongest.

        Args:
            trace_id: The trace's id, or its beginning.
            step: The number of the action; default: the last one.

        Returns:
            The number of the action, and the causes.

        Raises:
            NotFound: No such trace or action in the graph.
        """
        found = self._id_of(trace_id)
        numbers = {done.step_number for done in self._traces.steps(found) if done.step_type != "planning"}
        if not numbers or (step is not None and step not in numbers):
            raise NotFound("action", f"{found} {step or ''}".strip(), see=f"`dionysus traces show {found}`")
        number = max(numbers) if step is None else step
        rows = WHY.ask(self._graph, trace=found, step=number)
        causes = [Cause(**row) for row in rows]
        causes.sort(key=lambda c: (c.trace != found, -c.at_step, c.link != "RECALLED", -c.weight, c.number))
        return number, causes

    def shared_basins(self, run_id: str | None = None, *, limit: int = 20) -> list[SharedBasin]:
        """Runs that share a basin with runs that failed, newest first.

        Args:
            run_id: Only this run.
        """
        rows = SHARED_BASINS.ask(self._graph, run=run_id, limit=limit)
        return [SharedBasin(**_timed({**row, "failed_runs": tuple(row["failed_runs"])})) for row in rows]

    def delegation(self, trace_id: str) -> list[Delegate]:
        """The agents below a trace, it first, then by depth and time.

        Args:
            trace_id: The trace's id, or its beginning.

        Raises:
            NotFound: No such trace in the graph.
        """
        rows = DELEGATION.ask(self._graph, trace=self._id_of(trace_id))
        return [Delegate(**_timed(row)) for row in rows]

    def memory(self, number: int) -> Provenance:
        """What a memory of this store came from, and what it was used in.

        Raises:
            NotFound: No such memory in the graph.
        """
        rows = MEMORY.ask(self._graph, memory=f"{self._store_id}/{number}")
        if not rows or rows[0]["source"] is None:
            raise NotFound("memory", number, see="`dionysus recall WORDS --json`")
        return _provenance(rows[0])

    def _id_of(self, trace_id: str) -> str:
        return found_in(self._traces, trace_id, kind="trace in the graph", see="`dionysus store status`").id


def _provenance(row: dict[str, Any]) -> Provenance:
    makers = tuple(Use(**maker) for maker in row["makers"])
    uses = tuple(Use(**_timed(use)) for use in row["uses"])
    return Provenance(**{**row, "at": from_us(row["at"]), "makers": makers, "uses": uses})


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "started_at": from_us(row["started_at"])}
