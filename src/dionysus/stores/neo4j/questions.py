"""What only a graph answers: each question is a query of the folder `cypher`, for here and for Neo4j's browser."""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dionysus.stores.neo4j.graph import Graph

if TYPE_CHECKING:
    from neo4j import ManagedTransaction


@dataclass(frozen=True)
class Question:
    """A documented query."""

    name: str
    """Of its file."""

    @cached_property
    def cypher(self) -> str:
        """The query, with what it asks and takes in comments."""
        return files("dionysus.stores").joinpath(f"neo4j/cypher/{self.name}.cypher").read_text("utf-8")

    def ask(self, graph: Graph, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of the answer.

        Raises:
            GraphError: The graph does not answer.
        """

        def look(tx: "ManagedTransaction") -> list[dict[str, Any]]:
            return tx.run(self.cypher, **parameters).data()

        return graph.read(look)


WHY = Question("why")
SHARED_BASINS = Question("shared_basins")
DELEGATION = Question("delegation")
MEMORY = Question("memory")
QUESTIONS = (WHY, SHARED_BASINS, DELEGATION, MEMORY)
