"""Callbacks by step type, in the order of registration."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from smolagents import ActionStep, PlanningStep
from smolagents.memory import ToolCall

from dionysus.errors import BadInput, CallbackFailed, RunAborted, ToolRefused
from dionysus.journal import Frame, ToolEvent

Callback = Callable[..., Any]
STEP_TYPES = (PlanningStep, ActionStep, ToolCall)


@dataclass(frozen=True)
class _Registered:
    call: Callback
    name: str
    required: bool
    arity: int


class CallbackRegistry:
    """Which callbacks fire for `PlanningStep`, `ActionStep` and `ToolCall`.

    A callback takes `(step)`, `(step, agent)` or `(step, agent, frame)`; for ToolCall the step is a `ToolEvent`,
    told before and after each call. One that raises `ToolRefused` before a call keeps it from being made. Any other
    that raises is recorded in the trace with its traceback and the run goes on, unless it was registered as required:
    then the run ends, whichever of its agents it is in.
    """

    def __init__(self) -> None:
        self._callbacks: dict[type, list[_Registered]] = {step_type: [] for step_type in STEP_TYPES}

    def register(self, step_type: type, callback: Callback, *, required: bool = False) -> None:
        """Adds a callback behind those that are there.

        Raises:
            BadInput: Not one of the three step types, or not callable with one to three arguments.
        """
        if step_type not in self._callbacks:
            names = ", ".join(t.__name__ for t in STEP_TYPES)
            raise BadInput(f"no callbacks for {step_type!r}; register for one of {names}")
        entry = _Registered(callback, _name(callback), required, _arity(callback))
        self._callbacks[step_type].append(entry)

    def get_callbacks(self, step_type: type) -> list[Callback]:
        """The callbacks of a step type, in order."""
        return [entry.call for entry in self._callbacks.get(step_type, [])]

    def extend(self, other: "CallbackRegistry") -> None:
        """Adds another registry's callbacks behind those that are there."""
        for step_type, entries in other._callbacks.items():
            self._callbacks[step_type] += entries

    def get_registry(self, agent_name: str, frame: Frame | None = None) -> dict[type, Callback]:
        """What smolagents' `step_callbacks=` takes: a dispatcher for each step type that has callbacks.

        Args:
            agent_name: Whose steps they are; named in errors.
            frame: Handed to callbacks that want it; failures are recorded there. Without one, every callback that
                raises ends the run, as smolagents has it.
        """
        return {
            step_type: partial(self._dispatch, step_type, agent_name, frame)
            for step_type in (PlanningStep, ActionStep)
            if self._callbacks[step_type]
        }

    def tool_called(self, event: ToolEvent, frame: Frame) -> None:
        """Fires the ToolCall callbacks; what a frame's `on_tool` takes."""
        self._dispatch(ToolCall, frame.agent_name, frame, event, agent=frame.agent)

    def _dispatch(self, step_type: type, agent_name: str, frame: Frame | None, step: Any, agent: Any = None) -> None:
        for entry in self._callbacks[step_type]:
            try:
                entry.call(*(step, agent, frame)[: entry.arity])
            except Exception as error:  # whatever a callback raises is recorded; see the class docstring
                if frame is None or (isinstance(error, ToolRefused) and getattr(step, "phase", None) == "before"):
                    raise
                frame.callback_failed(entry.name, error)
                if entry.required:
                    failed = CallbackFailed(
                        f"the required callback {entry.name!r} of {agent_name!r} failed: "
                        f"{type(error).__name__}: {error}; the trace has its traceback"
                    )
                    failed.__cause__ = error
                    raise RunAborted(failed) from error


def _name(callback: Callback) -> str:
    inner = callback.func if isinstance(callback, partial) else callback
    return getattr(inner, "__qualname__", type(inner).__name__)


def _arity(callback: Callback) -> int:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError) as error:
        raise BadInput(f"{callback!r} is not a callback: {error}") from error
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    needed = [p for p in positional if p.default is p.empty]
    if not positional or len(needed) > 3:
        raise BadInput(f"{_name(callback)} takes (step), (step, agent) or (step, agent, frame)")
    return min(3, len(positional))
