"""Traces, basins and memories as a graph in Neo4j, over Bolt; the driver (extra `neo4j`) is imported at the first call.

`Graph` is a connection: bounded waits, errors in words, the schema. `GraphTraces` has the verbs of `TraceStore` on it,
and takes parcels in. `questions` are what only a graph answers.
"""

from dionysus.stores.neo4j.graph import Graph, Readiness
from dionysus.stores.neo4j.questions import QUESTIONS, Question
from dionysus.stores.neo4j.traces import GraphTraces

__all__ = ["QUESTIONS", "Graph", "GraphTraces", "Question", "Readiness"]
