"""Commands for what is on record: traces and runs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dionysus.cli.given import (
    Agent,
    ApiBase,
    ApiKey,
    BudgetText,
    Json,
    McpServer,
    Model,
    Quiet,
    RunId,
    Store,
    TraceId,
    agent_named,
    command,
    newest_unless,
    opened,
    stop_at_safe_point,
    text_of,
)
from dionysus.cli.shown import live_display, plain_run, print_json, printable, show_answer, show_report, show_run
from dionysus.stores.contract import Per

if TYPE_CHECKING:
    pass

traces_app = typer.Typer(help="What agents did: list, show, replay, count tokens.", no_args_is_help=True)
runs_app = typer.Typer(help="Runs: list, resume, replay, fork, compare, carry in a file.", no_args_is_help=True)


@traces_app.command("list")
def list_traces(
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Traces, newest first."""
    from dionysus.traces.render import local, tokens_of

    with opened(store) as runtime:
        found = runtime.traces.list_traces(agent_name=agent, limit=limit)
    if as_json:
        print_json([asdict(trace) for trace in found])
        return
    for t in found:
        print(
            f"{local(t.started_at)}  {t.id:<20}  {t.agent_name:<12}  {t.status:<11}  "
            f"{t.planning_count:>2} plans {t.step_count:>3} actions  {tokens_of(t)}"
        )
    if not found:
        print("no traces yet; `dionysus beat` makes one")


@traces_app.command("show")
def show_trace(trace_id: TraceId = None, store: Store = None, as_json: Json = False) -> None:
    """One trace at a glance; --json for all of it."""
    from dionysus.traces.render import overview

    with opened(store) as runtime:
        full = runtime.traces.get_trace(newest_unless(trace_id, runtime))
    if as_json:
        print_json(asdict(full))
    else:
        print(printable(overview(full)))
        if full.trace.status in ("interrupted", "error", "budget_exhausted", "incoherent"):
            print(f"\n{command()} runs resume {full.trace.run_id} goes on with the run")


@traces_app.command("replay")
def replay_trace(trace_id: TraceId = None, store: Store = None) -> None:
    """The whole story of a trace: plans, thoughts, calls, observations, what was pruned."""
    from dionysus.traces import retold
    from dionysus.traces.render import replay

    with opened(store) as runtime:
        print(printable(replay(retold(runtime.traces, newest_unless(trace_id, runtime)))))


@traces_app.command("tokens")
def count_tokens(
    by: Annotated[Per, typer.Option(help="sum up per agent, per run with all its agents, or per UTC day")] = "agent",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="runs or days, newest first")] = 30,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Tokens and money: input, of it cached and written to the cache, output; what pruning saved is estimated."""
    from dionysus.traces.render import usage_table

    with opened(store) as runtime:
        sums = runtime.traces.token_usage(by=by, limit=-1 if by == "agent" else limit)
    if as_json:
        print_json([asdict(usage) for usage in sums])
        return
    print(printable(usage_table(sums, by)))


@runs_app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Runs, newest first; those that did not finish can be resumed."""
    from dionysus.terminal import run_table

    with opened(store) as runtime:
        found = runtime.runs.listed(limit=limit)
    if as_json:
        print_json([asdict(summary) for summary in found])
        return
    print(run_table(found) if found else "no runs yet; `dionysus beat` makes one")


@runs_app.command("resume")
def resume_run(
    run: RunId,
    budget: BudgetText = None,
    mcp_server: McpServer = None,
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

    with opened(
        store, model=model, api_base=api_base, api_key=api_key, in_flight=in_flight, mcp_server=mcp_server
    ) as runtime:
        out = console()
        display = None if as_json or quiet else live_display(runtime, out)
        stop_at_safe_point(runtime)
        done = runtime.resume(
            run,
            agent_named(agent),
            budget=Budget.parse(budget) if budget is not None else None,
            deadline_s=deadline,
            accept_changes=accept_changes,
            on_wake=display.wake if display else None,
            on_start=display.ask if display else None,
        )
        if isinstance(done, BeatReport):
            show_report(runtime, out, done, as_json=as_json)
        elif isinstance(done, Answer):
            show_answer(runtime, out, done, as_json=as_json)
        else:
            show_run(runtime, done, as_json=as_json)


@runs_app.command("replay")
def replay_run(run: RunId, agent: Agent = None, store: Store = None, as_json: Json = False) -> None:
    """Play a run again from its record alone, and check that it does the same."""
    with opened(store) as runtime:
        done = runtime.replay(run, agent_named(agent))
        if as_json:
            print_json(plain_run(done))
            return
        print(printable(str(done.output if done.output is not None else "")))
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
    mcp_server: McpServer = None,
    agent: Agent = None,
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """A new run that shares the first steps of another, then goes on live: its tools act."""
    from dionysus.journal import Budget

    edit = {name: text_of(text) for name, text in (("observation", observation), ("plan", plan)) if text is not None}
    with opened(store, api_base=api_base, api_key=api_key, mcp_server=mcp_server) as runtime:
        stop_at_safe_point(runtime)
        done = runtime.fork(
            run,
            agent_named(agent),
            at_step=at,
            model=model,
            edit=edit,
            new_id=new_id,
            budget=Budget.parse(budget) if budget is not None else None,
        )
        show_run(runtime, done, as_json=as_json)


@runs_app.command("diff")
def diff_runs(
    one: Annotated[str, typer.Argument(metavar="RUN")],
    other: Annotated[str, typer.Argument(metavar="OTHER")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Where two runs part."""
    from dionysus.terminal import run_table

    with opened(store) as runtime:
        parting = runtime.runs.diff(one, other)
        both = [runtime.runs.summary(runtime.runs.found(run_id)) for run_id in (one, other)]
    if as_json:
        print_json(asdict(parting))
        return
    print(run_table(both))
    if parting.step is None:
        print(f"\nThey are the same: {parting.same_steps} plans and actions, and the answer.")
        return
    print(f"\nThe same for {parting.same_steps} plans and actions; then {parting.step} ({parting.what}):")
    print(printable(parting.difference))


@runs_app.command("export")
def export_run(
    run: RunId,
    file: Path,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    store: Store = None,
) -> None:
    """Write a run into a file, a cassette; secrets in it are placeholders."""
    with opened(store) as runtime:
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
    with opened(store) as runtime:
        print(f"run {runtime.import_run(file, as_id=new_id, partial=partial)} is taken in")
