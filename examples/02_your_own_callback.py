"""Callbacks of your own: one that counts what each tool returns, and one that fails without ending the run."""

from collections import Counter
from pathlib import Path

from smolagents import ActionStep
from smolagents.memory import ToolCall

from dionysus import Runtime
from dionysus.journal import ToolEvent

returned: Counter[str] = Counter()


def count(event: ToolEvent) -> None:
    """Fires before and after each tool call."""
    if event.phase == "after":
        returned[event.name] += len(str(event.result))


def broken(step: ActionStep) -> None:
    """Its failure is recorded in the trace; the run goes on."""
    raise RuntimeError(f"no opinion on step {step.step_number}")


with Runtime(store="sqlite://") as runtime:
    runtime.callbacks.register(ToolCall, count)
    runtime.callbacks.register(ActionStep, broken)
    report = runtime.beat(watch=Path(__file__).parent)
    for name, characters in returned.most_common(3):
        print(f"{name} returned {characters} characters")
    steps = runtime.traces.get_trace(str(report.trace_id)).steps
    failures = [failure for step in steps for failure in step.callback_failures]
    print(f"{len(failures)} callback failures on record, the run ended with {report.status}")
