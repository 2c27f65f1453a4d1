"""An audit log: one JSON line per plan, action and tool call, appended to a file."""

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from smolagents import ActionStep, PlanningStep

from dionysus.errors import BadInput
from dionysus.journal import Frame, ToolEvent


class Audit:
    """Appends to one file; each line is written whole."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime]) -> None:
        """
        Raises:
            BadInput: The file cannot be written.
        """
        self._path, self._clock, self._lock = path, clock, threading.Lock()
        try:
            with path.open("a"):
                path.chmod(0o600)
        except OSError as error:
            raise BadInput(f"cannot write the audit log {str(path)!r}: {error.strerror}; name another file") from error

    def step_callback(self, step: ActionStep | PlanningStep, agent: Any, frame: Frame) -> None:
        """One line for a plan or an action; none where it is only made again from the record."""
        if frame.recalls(step):
            return
        self._line(
            frame,
            event=type(step).__name__,
            step=getattr(step, "step_number", frame.step_number),
            tools=[call.name for call in getattr(step, "tool_calls", None) or ()],
            error=str(step.error) if getattr(step, "error", None) else None,
        )

    def tool_callback(self, event: ToolEvent, agent: Any, frame: Frame) -> None:
        """One line before and one after a tool call."""
        self._line(
            frame,
            event=f"ToolCall.{event.phase}",
            step=event.step_number,
            tool=event.name,
            arguments=event.arguments,
            error=event.error,
        )

    def _line(self, frame: Frame, **fields: Any) -> None:
        line = {
            "at": self._clock().isoformat(),
            "run": frame.run.id,
            "trace": frame.trace_id,
            "agent": frame.agent_name,
            **fields,
        }
        text = json.dumps(frame.run.secrets.hide_in(line))
        with self._lock, self._path.open("a") as file:
            file.write(text + "\n")
