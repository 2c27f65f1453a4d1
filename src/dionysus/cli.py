"""The command line: parses, calls the runtime, prints. No logic; heavy imports only where a command needs them."""

import errno
import io
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dionysus import __version__
from dionysus.errors import BadInput, DionysusError, RunInterrupted

if TYPE_CHECKING:
    from dionysus.runtime import Runtime
    from dionysus.stores.contract import Goal

app = typer.Typer(
    name="dionysus",
    help="A cognitive runtime for smolagents: heartbeat, memory, coherence, traces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
goals_app = typer.Typer(help="What is wanted: list, add, close.", invoke_without_command=True)
traces_app = typer.Typer(help="What agents did: list, show, replay, count tokens.", no_args_is_help=True)
app.add_typer(goals_app, name="goals")
app.add_typer(traces_app, name="traces")

Store = Annotated[
    str | None,
    typer.Option("--store", help="sqlite:///PATH; default: DIONYSUS_STORE, else .dionysus/mind.db here."),
]
Model = Annotated[str | None, typer.Option("--model", help="reflex (no LLM; the default), openai:NAME, scripted:FILE.")]
ApiBase = Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible endpoint, for openai:NAME.")]
ApiKey = Annotated[str | None, typer.Option(help="Its key; default: OPENAI_API_KEY.")]
Git = Annotated[bool, typer.Option(help="Use git where there is a repository.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result, no live lines.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda v: _version(v))
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to standard error.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, format="%(asctime)s %(levelname)s %(message)s"
    )
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "openai"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dionysus {__version__}")
        raise typer.Exit


@app.command()
def beat(
    watch: Annotated[Path, typer.Option("--watch", help="The folder to look at.")] = Path("."),
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One heartbeat: what changed, what it recalls, what to do next."""
    from smolagents import ActionStep, PlanningStep

    from dionysus.terminal import LiveDisplay, console, print_report

    with _runtime(store, model=model, api_base=api_base, api_key=api_key) as runtime:
        out, on_wake = console(), None
        if not (as_json or quiet):
            display = LiveDisplay(out)
            runtime.callbacks.register(PlanningStep, display.plan)
            runtime.callbacks.register(ActionStep, display.action)
            on_wake = display.wake
        _stop_at_safe_point(runtime)
        report = runtime.beat(watch, git=git, on_wake=on_wake)
        if as_json:
            _print_json(asdict(report))
        else:
            reflex = bool(getattr(runtime.model, "is_reflex", False))
            print_report(out, report, reflex=reflex, command=_command() if _is_kept(runtime) else None)
    if report.status not in ("idle", "success", "max_steps"):
        print(f"dionysus: the beat ended with status {report.status}: {report.error}", file=sys.stderr)
        raise typer.Exit(4)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    watch: Annotated[Path, typer.Option("--watch", help="The folder that it is about.")] = Path("."),
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask: a manager and its three members observe, orient, decide, and answer."""
    from smolagents import ActionStep, PlanningStep

    from dionysus.terminal import LiveDisplay, console, print_answer

    with _runtime(store, model=model, api_base=api_base, api_key=api_key) as runtime:
        out, on_start = console(), None
        if not (as_json or quiet):
            display = LiveDisplay(out)
            runtime.callbacks.register(PlanningStep, display.plan)
            runtime.callbacks.register(ActionStep, display.action)
            on_start = display.ask
        _stop_at_safe_point(runtime)
        answer = runtime.ask(_text(question), watch, git=git, on_start=on_start)
        if as_json:
            _print_json(asdict(answer))
        else:
            reflex = bool(getattr(runtime.model, "is_reflex", False))
            print_answer(out, answer, reflex=reflex, command=_command() if _is_kept(runtime) else None)
    if answer.status not in ("success", "max_steps"):
        print(f"dionysus: the question ended with status {answer.status}: {answer.error}", file=sys.stderr)
        raise typer.Exit(4)


@app.command()
def tell(
    note: Annotated[str, typer.Argument(help="The note; - reads it from standard input.")], store: Store = None
) -> None:
    """Leave a note that the next beat takes up."""
    with _runtime(store) as runtime:
        print(f"note {runtime.tell(_text(note))} is kept for the next beat")


@app.command()
def remember(text: Annotated[str, typer.Argument(help="The fact.")], store: Store = None) -> None:
    """Keep a fact in memory."""
    with _runtime(store) as runtime:
        print(f"memory {runtime.remember(text)} is kept")


@app.command()
def recall(
    query: Annotated[str, typer.Argument(help="A few telling words.")],
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find memories."""
    from dionysus.runtime import checked_text

    with _runtime(store) as runtime:
        hits = runtime.memory.recall(checked_text("query", query), limit=limit)
    if as_json:
        _print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        m = hit.memory
        print(f"{m.at.astimezone():%Y-%m-%d}  {m.kind:<9}  {m.source}: {' '.join(m.text.split())}")
    if not hits:
        print(f"no memory speaks of {query!r}")


@goals_app.callback()
def goals(
    context: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List goals; `dionysus goals --help` shows how to add and close them."""
    if context.invoked_subcommand is None:
        list_goals(all_, store, as_json)


@goals_app.command("list")
def list_goals(
    all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List goals."""
    with _runtime(store) as runtime:
        found = runtime.goals.listed(status=None if all_ else "open")
    if as_json:
        _print_json([asdict(goal) for goal in found])
        return
    for goal in found:
        print(_goal_line(goal))
    if not found:
        print('no goals set; add one: dionysus goals add "what is wanted" --due 3d')


@goals_app.command("add")
def add_goal(
    text: str,
    due: Annotated[str | None, typer.Option(help="A date (2026-12-31) or a number of days (3d).")] = None,
    store: Store = None,
) -> None:
    """Open a goal."""
    from dionysus.runtime import checked_text

    with _runtime(store) as runtime:
        goal = runtime.goals.add(checked_text("goal", text), due_at=_date(due) if due is not None else None)
        print(_goal_line(goal))


@goals_app.command("done")
def finish_goal(goal_id: int, store: Store = None) -> None:
    """Close a goal that was reached."""
    with _runtime(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="done")))


@goals_app.command("drop")
def drop_goal(goal_id: int, store: Store = None) -> None:
    """Close a goal that is no longer wanted."""
    with _runtime(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="dropped")))


@goals_app.command("reopen")
def reopen_goal(goal_id: int, store: Store = None) -> None:
    """Open a closed goal again."""
    with _runtime(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="open")))


@traces_app.command("list")
def list_traces(
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Traces, newest first."""
    from dionysus.traces.render import local, tokens_of

    with _runtime(store) as runtime:
        found = runtime.traces.list_traces(agent_name=agent, limit=limit)
    if as_json:
        _print_json([asdict(trace) for trace in found])
        return
    for t in found:
        print(
            f"{local(t.started_at)}  {t.id:<20}  {t.agent_name:<12}  {t.status:<11}  "
            f"{t.planning_count:>2} plans {t.step_count:>3} actions  {tokens_of(t)}"
        )
    if not found:
        print("no traces yet; `dionysus beat` makes one")


TraceId = Annotated[
    str | None, typer.Argument(metavar="TRACE", help="An id, or its beginning; default: the newest trace.")
]


@traces_app.command("show")
def show_trace(trace_id: TraceId = None, store: Store = None, as_json: Json = False) -> None:
    """One trace at a glance; --json for all of it."""
    from dionysus.traces.render import overview

    with _runtime(store) as runtime:
        full = runtime.traces.get_trace(_newest(runtime) if trace_id is None else trace_id)
    if as_json:
        _print_json(asdict(full))
    else:
        print(_printable(overview(full)))


@traces_app.command("replay")
def replay_trace(trace_id: TraceId = None, store: Store = None) -> None:
    """The whole story of a trace: plans, thoughts, calls, observations, what was pruned."""
    from dionysus.traces.render import replay

    with _runtime(store) as runtime:
        print(_printable(replay(runtime.traces.get_trace(_newest(runtime) if trace_id is None else trace_id))))


@traces_app.command("tokens")
def count_tokens(store: Store = None, as_json: Json = False) -> None:
    """Tokens and money per agent."""
    with _runtime(store) as runtime:
        sums = runtime.traces.token_usage()
    if as_json:
        _print_json([asdict(usage) for usage in sums])
        return
    print(f"{'agent':<16}{'traces':>8}{'calls':>8}{'input':>12}{'cached':>12}{'output':>10}{'saved≈':>10}{'USD':>10}")
    for u in sums:
        cost = "unknown" if u.cost_usd is None else f"{u.cost_usd:.4f}"
        print(
            f"{u.agent_name:<16}{u.traces:>8,}{u.model_calls:>8,}{u.input_tokens:>12,}{u.cached_tokens:>12,}"
            f"{u.output_tokens:>10,}{u.tokens_saved:>10,}{cost:>10}"
        )


@app.command()
def doctor(store: Store = None, model: Model = None) -> None:
    """What is installed, what would be used, and what to do about what is missing."""
    from dionysus.doctor import examine

    findings, healthy = examine(_settings(store, model=model))
    for line in findings:
        print(line)
    if not healthy:
        raise typer.Exit(1)


def main() -> None:
    """Runs a command; errors that a user can mend are one line and an exit code of their own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "·" gets a "?", not a traceback
    try:
        app()
    except DionysusError as error:
        print(f"dionysus: {_printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 – what is still buffered has nowhere to go
        print(f"dionysus: cannot write the output: {error.strerror}; what was done is on record", file=sys.stderr)
        sys.exit(3)
    except (RunInterrupted, KeyboardInterrupt) as stop:
        print(f"dionysus: stopped ({str(stop) or 'Ctrl-C'}); what was finished is on record", file=sys.stderr)
        sys.exit(130)


def _settings(store: str | None, **flags: Any) -> Any:
    from dionysus.settings import load_settings

    return load_settings(store=store, **flags)


def _runtime(store: str | None, **flags: Any) -> "Runtime":
    from dionysus.runtime import Runtime

    return Runtime(settings=_settings(store, **flags))


def _text(given: str) -> str:
    """The argument, or what standard input holds."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if given == "-" else given


def _command() -> str:
    """How this program was called."""
    return "python -m dionysus" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _is_kept(runtime: "Runtime") -> bool:
    """Whether traces outlive the process."""
    return bool(runtime.settings.trace and runtime.settings.store != "sqlite://")


def _newest(runtime: "Runtime") -> str:
    found = runtime.traces.list_traces(limit=1)
    if not found:
        raise BadInput("no traces yet; `dionysus beat` makes one")
    return found[0].id


def _stop_at_safe_point(runtime: "Runtime") -> None:
    """The first Ctrl-C (or SIGTERM) ends the run before its next call, the second one at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not runtime.stop(signal.Signals(number).name):
            raise KeyboardInterrupt
        print("stopping before the next call; again to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _date(text: str) -> datetime:
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


def _goal_line(goal: "Goal") -> str:
    due = f", due {goal.due_at.astimezone():%Y-%m-%d}" if goal.due_at else ""
    noted = f"  ({goal.progress[-1]})" if goal.progress else ""
    return f"goal {goal.id} {goal.status}{due}: {goal.text}{noted}"


def _print_json(value: Any) -> None:
    def plain(item: Any) -> Any:
        return item.isoformat() if isinstance(item, datetime) else str(item)

    print(json.dumps(value, default=plain, indent=2))


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
