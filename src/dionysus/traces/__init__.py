"""Execution traces: the readable, queryable projection of the journal.

`ExecutionTraceService` has the verbs; `Projection` writes a trace while its run goes on; `retold` tells it again, and
`render` makes texts of that.
"""

from dionysus.traces.parting import Parting, parting_of
from dionysus.traces.projection import Projection
from dionysus.traces.retelling import Moment, Replay, Scene, retold
from dionysus.traces.service import ExecutionTraceService, FullTrace, TracePage, total_usage

__all__ = [
    "ExecutionTraceService",
    "FullTrace",
    "Moment",
    "Parting",
    "Projection",
    "Replay",
    "Scene",
    "TracePage",
    "parting_of",
    "retold",
    "total_usage",
]
