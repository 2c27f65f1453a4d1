"""What a command shows: reports, answers, runs, JSON."""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from dionysus.cli.given import command

if TYPE_CHECKING:
    from dionysus.runtime import Runtime


def live_display(runtime: "Runtime", out: Any) -> Any:
    """Live lines of what the agents do."""
    from smolagents import ActionStep, PlanningStep

    from dionysus.terminal import LiveDisplay

    display = LiveDisplay(out)
    runtime.callbacks.register(PlanningStep, display.plan)
    runtime.callbacks.register(ActionStep, display.action)
    return display


def show_report(runtime: "Runtime", out: Any, report: Any, *, as_json: bool) -> None:
    """Prints what a beat came to; an exit code where it did not finish."""
    from dionysus.terminal import print_report

    if as_json:
        print_json(asdict(report))
    else:
        print_report(out, report, command=command() if is_kept(runtime) else None)
    if report.status != "idle":
        _say_unless_finished("the beat", report)


def show_answer(runtime: "Runtime", out: Any, answer: Any, *, as_json: bool) -> None:
    """Prints what a question came to."""
    from dionysus.terminal import print_answer

    if as_json:
        print_json(asdict(answer))
    else:
        print_answer(out, answer, command=command() if is_kept(runtime) else None)
    _say_unless_finished("the question", answer)


def show_run(runtime: "Runtime", done: Any, *, as_json: bool) -> None:
    """Prints what another run came to."""
    from dionysus.terminal import run_table

    if as_json:
        print_json(plain_run(done))
    else:
        if done.output is not None:
            print(printable(str(done.output)))
        print(run_table([runtime.runs.summary(runtime.runs.found(done.run_id))]))
    _say_unless_finished("the run", done)


def plain_run(done: Any) -> dict[str, Any]:
    """A run for programs."""
    names = ("run_id", "trace_id", "status", "error", "model_calls", "output")
    return {**{name: getattr(done, name) for name in names}, "usage": asdict(done.usage)}


def _say_unless_finished(what: str, done: Any) -> None:
    if done.status in ("success", "max_steps"):
        return
    larger = " --budget calls=N (more than before)" if done.status == "budget_exhausted" else ""
    goes_on = f"{command()} runs resume {done.run_id}{larger} goes on with it"
    print(f"dionysus: {what} ended with status {done.status}: {done.error}; {goes_on}", file=sys.stderr)
    raise typer.Exit(4)


def is_kept(runtime: "Runtime") -> bool:
    """Whether traces outlive the process."""
    return bool(runtime.settings.trace and runtime.settings.store != "sqlite://")


def print_json(value: Any) -> None:
    """Prints a value for programs."""

    def plain(item: Any) -> Any:
        return item.isoformat() if isinstance(item, datetime) else str(item)

    print(json.dumps(value, default=plain, indent=2))


def printable(text: str) -> str:
    """What can be printed of a text: lone surrogates become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
