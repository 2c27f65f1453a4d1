"""Execution traces: the readable, queryable projection of the journal.

`ExecutionTraceService` has the verbs; `Projection` writes a trace while its run goes on; `render` makes the texts
that people read.
"""

from dionysus.traces.parting import Parting, parting_of
from dionysus.traces.projection import Projection
from dionysus.traces.service import ExecutionTraceService, FullTrace

__all__ = ["ExecutionTraceService", "FullTrace", "Parting", "Projection", "parting_of"]
