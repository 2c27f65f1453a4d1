"""The journal: every model and tool call of a run, written down before its result is used.

`Journal` writes, `Run` is a tree of agents under one id, `Frame` is one agent's part in it and hands out the
wrapped model and tools. Traces are a projection of what is written here.
"""

from dionysus.journal.events import Journal
from dionysus.journal.recording import FinishedStep, Frame, Run, ToolEvent

__all__ = ["FinishedStep", "Frame", "Journal", "Run", "ToolEvent"]
