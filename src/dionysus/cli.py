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
runs_app = typer.Typer(help="Runs: list, resume, replay, fork, compare, carry in a file.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

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


BudgetText = Annotated[
    str | None,
    typer.Option("--budget", metavar="LIMITS", help="calls=N,tokens=N,usd=N,seconds=N: what the run may take in all."),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="An id, or its beginning.")]
Agent = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="MODULE:NAME", help="For runs of your own: the agent, or a function that makes it."
    ),
]


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
    budget: BudgetText = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One heartbeat: what changed, what it recalls, what to do next."""
    from dionysus.terminal import console

    with _runtime(store, model=model, api_base=api_base, api_key=api_key, budget=budget) as runtime:
        out = console()
        display = None if as_json or quiet else _live(runtime, out)
        _stop_at_safe_point(runtime)
        report = runtime.beat(watch, git=git, on_wake=display.wake if display else None)
        _show_report(runtime, out, report, as_json=as_json)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    watch: Annotated[Path, typer.Option("--watch", help="The folder that it is about.")] = Path("."),
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    budget: BudgetText = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask: a manager and its three members observe, orient, decide, and answer."""
    from dionysus.terminal import console

    with _runtime(store, model=model, api_base=api_base, api_key=api_key, budget=budget) as runtime:
        out = console()
        display = None if as_json or quiet else _live(runtime, out)
        _stop_at_safe_point(runtime)
        answer = runtime.ask(_text(question), watch, git=git, on_start=display.ask if display else None)
        _show_answer(runtime, out, answer, as_json=as_json)


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
        if full.trace.status in ("interrupted", "error", "budget_exhausted"):
            print(f"\n{_command()} runs resume {full.trace.run_id} goes on with the run")


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


@runs_app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Runs, newest first; those that did not finish can be resumed."""
    from dionysus.terminal import run_table

    with _runtime(store) as runtime:
        found = runtime.runs.listed(limit=limit)
    if as_json:
        _print_json([asdict(summary) for summary in found])
        return
    print(run_table(found) if found else "no runs yet; `dionysus beat` makes one")


@runs_app.command("resume")
def resume_run(
    run: RunId,
    budget: BudgetText = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds from now.")] = None,
    in_flight: Annotated[
        str | None, typer.Option(help="A call that was cut off and may have happened: report, fail or retry.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on although agent, model or settings are not what they were.")
    ] = False,
    agent: Agent = None,
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run where it stopped; no finished call is made again."""
    from dionysus.journal import Budget
    from dionysus.runtime import Answer, BeatReport
    from dionysus.terminal import console

    with _runtime(store, model=model, api_base=api_base, api_key=api_key, in_flight=in_flight) as runtime:
        out = console()
        display = None if as_json or quiet else _live(runtime, out)
        _stop_at_safe_point(runtime)
        done = runtime.resume(
            run,
            _agent(agent),
            budget=Budget.parse(budget) if budget is not None else None,
            deadline_s=deadline,
            accept_changes=accept_changes,
            on_wake=display.wake if display else None,
            on_start=display.ask if display else None,
        )
        if isinstance(done, BeatReport):
            _show_report(runtime, out, done, as_json=as_json)
        elif isinstance(done, Answer):
            _show_answer(runtime, out, done, as_json=as_json)
        else:
            _show_run(runtime, done, as_json=as_json)


@runs_app.command("replay")
def replay_run(run: RunId, agent: Agent = None, store: Store = None, as_json: Json = False) -> None:
    """Play a run again from its record alone, and check that it does the same."""
    with _runtime(store) as runtime:
        done = runtime.replay(run, _agent(agent))
        if as_json:
            _print_json(_plain_run(done))
            return
        print(_printable(str(done.output if done.output is not None else "")))
        told = f"replayed {done.run_id}: {done.model_calls} model calls answered from the record, none made; "
        print(told + (f"it ended {done.status}: {done.error}" if done.error else f"it ended {done.status}, as then"))


@runs_app.command("fork")
def fork_run(
    run: RunId,
    at: Annotated[int, typer.Option("--at", min=0, help="Actions that are shared; 0: only the task.")],
    observation: Annotated[
        str | None, typer.Option(help="What the last shared action saw instead; - reads it from standard input.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="The plan in force then, instead; - reads standard input.")] = None,
    new_id: Annotated[str | None, typer.Option("--as", metavar="ID", help="The new run's id.")] = None,
    budget: BudgetText = None,
    agent: Agent = None,
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """A new run that shares the first steps of another, then goes on live: its tools act."""
    from dionysus.journal import Budget

    edit = {name: _text(text) for name, text in (("observation", observation), ("plan", plan)) if text is not None}
    with _runtime(store, api_base=api_base, api_key=api_key) as runtime:
        _stop_at_safe_point(runtime)
        done = runtime.fork(
            run,
            _agent(agent),
            at_step=at,
            model=model,
            edit=edit,
            new_id=new_id,
            budget=Budget.parse(budget) if budget is not None else None,
        )
        _show_run(runtime, done, as_json=as_json)


@runs_app.command("diff")
def diff_runs(
    one: Annotated[str, typer.Argument(metavar="RUN")],
    other: Annotated[str, typer.Argument(metavar="OTHER")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Where two runs part."""
    from dionysus.terminal import run_table

    with _runtime(store) as runtime:
        parting = runtime.runs.diff(one, other)
        both = [runtime.runs.summary(runtime.runs.found(run_id)) for run_id in (one, other)]
    if as_json:
        _print_json(asdict(parting))
        return
    print(run_table(both))
    if parting.step is None:
        print(f"\nThey are the same: {parting.same_steps} plans and actions, and the answer.")
        return
    print(f"\nThe same for {parting.same_steps} plans and actions; then {parting.step} ({parting.what}):")
    print(_printable(parting.difference))


@runs_app.command("export")
def export_run(
    run: RunId,
    file: Path,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    store: Store = None,
) -> None:
    """Write a run into a file, a cassette; secrets in it are placeholders."""
    with _runtime(store) as runtime:
        count = runtime.runs.export(run, file, overwrite=force)
        print(f"{runtime.runs.found(run).run_id}: {count} events in {file} ({file.stat().st_size:,} bytes)")


@runs_app.command("import")
def import_run(
    file: Path,
    new_id: Annotated[str | None, typer.Option("--as", metavar="ID", help="Under which id; default: its own.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take in what is whole of a damaged file.")] = False,
    store: Store = None,
) -> None:
    """Take a run in from a cassette."""
    with _runtime(store) as runtime:
        print(f"run {runtime.import_run(file, as_id=new_id, partial=partial)} is taken in")


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
        run_id = getattr(stop, "run_id", None)
        more = f"; {_command()} runs resume {run_id} goes on" if run_id else ""
        print(f"dionysus: stopped ({str(stop) or 'Ctrl-C'}); what was finished is on record{more}", file=sys.stderr)
        sys.exit(130)


def _settings(store: str | None, **flags: Any) -> Any:
    from dionysus.settings import load_settings

    return load_settings(store=store, **flags)


def _runtime(store: str | None, **flags: Any) -> "Runtime":
    from dionysus.runtime import Runtime

    return Runtime(settings=_settings(store, **flags))


def _agent(where: str | None) -> Any:
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


def _live(runtime: "Runtime", out: Any) -> Any:
    """Live lines of what the agents do."""
    from smolagents import ActionStep, PlanningStep

    from dionysus.terminal import LiveDisplay

    display = LiveDisplay(out)
    runtime.callbacks.register(PlanningStep, display.plan)
    runtime.callbacks.register(ActionStep, display.action)
    return display


def _show_report(runtime: "Runtime", out: Any, report: Any, *, as_json: bool) -> None:
    from dionysus.terminal import print_report

    if as_json:
        _print_json(asdict(report))
    else:
        reflex = bool(getattr(runtime.model, "is_reflex", False))
        print_report(out, report, reflex=reflex, command=_command() if _is_kept(runtime) else None)
    if report.status != "idle":
        _say_unless_finished("the beat", report)


def _show_answer(runtime: "Runtime", out: Any, answer: Any, *, as_json: bool) -> None:
    from dionysus.terminal import print_answer

    if as_json:
        _print_json(asdict(answer))
    else:
        reflex = bool(getattr(runtime.model, "is_reflex", False))
        print_answer(out, answer, reflex=reflex, command=_command() if _is_kept(runtime) else None)
    _say_unless_finished("the question", answer)


def _show_run(runtime: "Runtime", done: Any, *, as_json: bool) -> None:
    from dionysus.terminal import run_table

    if as_json:
        _print_json(_plain_run(done))
    else:
        if done.output is not None:
            print(_printable(str(done.output)))
        print(run_table([runtime.runs.summary(runtime.runs.found(done.run_id))]))
    _say_unless_finished("the run", done)


def _plain_run(done: Any) -> dict[str, Any]:
    names = ("run_id", "trace_id", "status", "error", "model_calls", "output")
    return {**{name: getattr(done, name) for name in names}, "usage": asdict(done.usage)}


def _say_unless_finished(what: str, done: Any) -> None:
    if done.status in ("success", "max_steps"):
        return
    larger = " --budget calls=N (more than before)" if done.status == "budget_exhausted" else ""
    goes_on = f"{_command()} runs resume {done.run_id}{larger} goes on with it"
    print(f"dionysus: {what} ended with status {done.status}: {done.error}; {goes_on}", file=sys.stderr)
    raise typer.Exit(4)


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
