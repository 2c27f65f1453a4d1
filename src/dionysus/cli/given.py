"""What a command is given: options, texts, the runtime that they ask for."""

import os
import signal
import sys
from datetime import UTC, date, datetime, time, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dionysus.errors import BadInput

if TYPE_CHECKING:
    from dionysus.runtime import Runtime
    from dionysus.settings import Settings

_OF_A_RUN = 100
"""Traces among which that of the agent that was run is looked for."""
Store = Annotated[
    str | None,
    typer.Option("--store", help="sqlite:///PATH; default: DIONYSUS_STORE, else .dionysus/mind.db here."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="reflex (no LLM; the default), local:FILE.gguf (or smollm2), openai:NAME, scripted:FILE."
    ),
]
ApiBase = Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible endpoint, for openai:NAME.")]
ApiKey = Annotated[str | None, typer.Option(help="Its key; default: OPENAI_API_KEY.")]
Git = Annotated[bool, typer.Option(help="Use git where there is a repository.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result, no live lines.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BudgetText = Annotated[
    str | None,
    typer.Option("--budget", metavar="LIMITS", help="calls=N,tokens=N,usd=N,seconds=N: what the run may take in all."),
]
McpServer = Annotated[
    list[str] | None,
    typer.Option(
        "--mcp-server",
        metavar="SERVER",
        help="Tools of an MCP server for the agents: URL, 'URL HEADER: VALUE', or a command; repeatable.",
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="An id, or its beginning.")]
TraceId = Annotated[
    str | None, typer.Argument(metavar="TRACE", help="An id, or its beginning; default: the newest trace.")
]
Agent = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="MODULE:NAME", help="For runs of your own: the agent, or a function that makes it."
    ),
]


def settings_of(store: str | None, **flags: Any) -> "Settings":
    """The settings, with these flags."""
    from dionysus.settings import load_settings

    servers = flags.pop("mcp_server", None)
    if servers:
        flags["mcp_servers"] = "\n".join(servers)
    return load_settings(store=store, **flags)


def opened(store: str | None, **flags: Any) -> "Runtime":
    """A runtime over these settings."""
    from dionysus.runtime import Runtime

    return Runtime(
        settings=settings_of(store, **flags),
        warn=lambda text: print(f"dionysus: {text}", file=sys.stderr),
        ask_person=_ask if sys.stdin.isatty() and sys.stderr.isatty() else None,
    )


def _ask(question: str) -> str | None:
    """Puts a question to who sits at the terminal; None: the run should stop."""
    print(f"\ndionysus: {question}", file=sys.stderr)
    how = "tell it what to do (Enter: go on; stop: end it here)"
    said: str = typer.prompt(how, default="", show_default=False, err=True)
    return None if said.strip().lower() == "stop" else said


def newest_unless(trace_id: str | None, runtime: "Runtime") -> str:
    """The trace that is asked for; where none is, that of the newest run – of the agent that was run."""
    if trace_id is not None:
        return trace_id
    found = runtime.traces.list_traces(limit=_OF_A_RUN)
    if not found:
        raise BadInput("no traces yet; `dionysus beat` makes one")
    return next((trace.id for trace in found if trace.parent_trace_id is None), found[0].id)


def agent_named(where: str | None) -> Any:
    """What MODULE:NAME names: an agent, or a function that makes one."""
    if where is None:
        return None
    from importlib import import_module

    from smolagents import LogLevel, MultiStepAgent

    module, colon, name = where.partition(":")
    if not (module and colon and name):
        raise BadInput(f"--agent {where!r}: write MODULE:NAME, as in my_agents:make")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), name)
        agent = found if isinstance(found, MultiStepAgent) or not callable(found) else found()
    except Exception as error:  # the user's own code ran, and what it did is said
        raise BadInput(f"--agent {where!r}: {' '.join(f'{type(error).__name__}: {error}'.split())}") from error
    if isinstance(agent, MultiStepAgent):
        agent.logger.level = LogLevel.OFF  # this program prints its own lines
    return agent


def text_of(given: str) -> str:
    """The argument, or what standard input holds."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if given == "-" else given


def stop_at_safe_point(runtime: "Runtime") -> None:
    """The first Ctrl-C (or SIGTERM) ends the run before its next call, the second one at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not runtime.stop(signal.Signals(number).name):
            raise KeyboardInterrupt
        print("stopping before the next call; again to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def date_of(text: str) -> datetime:
    """A number of days from now, or the end of a day."""
    try:
        if text.endswith("d"):
            due = datetime.now(UTC) + timedelta(days=float(text[:-1]))
        else:
            due = datetime.combine(date.fromisoformat(text), time(23, 59, 59)).astimezone(UTC)
        if not 2000 <= due.year <= 9000:
            raise ValueError("out of range")
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(f"--due {text!r} is no date; write 2026-12-31, or 3d for in three days") from error
    return due


def day_of(text: str, option: str, *, end: bool = False) -> datetime:
    """The beginning of a day here, or its end."""
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=end), time()).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(f"{option} {text!r} is no date; write 2026-12-31") from error


def command() -> str:
    """How this program was called."""
    return "python -m dionysus" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
