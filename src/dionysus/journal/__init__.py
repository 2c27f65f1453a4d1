"""The journal: every model and tool call of a run, written down before its result is used.

`Journal` writes, `Run` is a tree of agents under one id, `Frame` is one agent's part in it, `recorded_model` and
`recorded_tool` wrap what the agent calls. Traces are a projection of what is written here.
"""

from dionysus.journal.budget import Budget
from dionysus.journal.events import Journal
from dionysus.journal.frame import FinishedStep, Frame, ToolEvent, calls_of
from dionysus.journal.recording import RecordedExecutor, as_they_are, recorded_model, recorded_tool
from dionysus.journal.replaying import Past
from dionysus.journal.run import InFlight, Limits, Run

__all__ = [
    "Budget",
    "FinishedStep",
    "Frame",
    "InFlight",
    "Journal",
    "Limits",
    "Past",
    "RecordedExecutor",
    "Run",
    "ToolEvent",
    "as_they_are",
    "calls_of",
    "recorded_model",
    "recorded_tool",
]
