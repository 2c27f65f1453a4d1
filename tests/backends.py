"""The backends of `TraceStore`, side by side: the same tests run over each."""

from dataclasses import dataclass, field
from typing import Protocol

from conftest import START
from dionysus.stores import Store
from dionysus.stores.contract import Basin, Memory, NewMemory, Parcel, TraceStore
from dionysus.stores.neo4j import Graph, GraphTraces


class Backend(Protocol):
    """A store of traces, with the basins and memories that they hang on."""

    @property
    def traces(self) -> TraceStore: ...
    def add_basin(self, name: str) -> int: ...
    def add_memory(self, source: str, *, run_id: str | None, step: int | None, basin_id: int | None = None) -> int: ...


@dataclass
class Embedded:
    """SQLite."""

    store: Store

    @property
    def traces(self) -> TraceStore:
        return self.store.records

    def add_basin(self, name: str) -> int:
        return self.store.mind.add_basin(name=name, place="", opened_at=START)

    def add_memory(self, source: str, *, run_id: str | None, step: int | None, basin_id: int | None = None) -> int:
        memory = NewMemory(
            kind="fact",
            text=f"of {source}",
            at=START,
            source=source,
            run_id=run_id,
            step=step,
            basin_id=basin_id,
        )
        return self.store.memories.add([memory])[0]


@dataclass
class Graphed:
    """A graph. Basins and memories get the numbers that SQLite would give them."""

    graph: Graph
    store_id: str = "here"
    basins: int = 0
    memories: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.traces = GraphTraces(self.graph, store_id=self.store_id)
        self._graph_id = self.graph.required()

    def add_basin(self, name: str) -> int:
        self.basins += 1
        basin = Basin(id=self.basins, name=name, place="", opened_at=START)
        self.traces.put(Parcel(basins=(basin,)), graph_id=self._graph_id)
        return self.basins

    def add_memory(self, source: str, *, run_id: str | None, step: int | None, basin_id: int | None = None) -> int:
        number = self.memories.setdefault(source, len(self.memories) + 1)
        memory = Memory(
            id=number,
            kind="fact",
            text=f"of {source}",
            at=START,
            source=source,
            run_id=run_id,
            step=step,
            basin_id=basin_id,
        )
        self.traces.put(Parcel(memories=(memory,)), graph_id=self._graph_id)
        return number
