"""Commands for a mind: beat, ask, tell, remember, recall, forget, basins, memory, goals."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dionysus.cli.given import (
    ApiBase,
    ApiKey,
    BudgetText,
    Git,
    Json,
    McpServer,
    Model,
    Quiet,
    Store,
    date_of,
    day_of,
    opened,
    stop_at_safe_point,
    text_of,
)
from dionysus.cli.shown import live_display, print_json, show_answer, show_report

if TYPE_CHECKING:
    from dionysus.stores.contract import Goal

basins_app = typer.Typer(help="Episodes of memory, and how active they are.", invoke_without_command=True)
memory_app = typer.Typer(help="What memories take; rebuild, consolidate.", invoke_without_command=True)
goals_app = typer.Typer(help="What is wanted: list, add, close.", invoke_without_command=True)


def beat(
    watch: Annotated[Path, typer.Option("--watch", help="The folder to look at.")] = Path("."),
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    budget: BudgetText = None,
    mcp_server: McpServer = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One heartbeat: what changed, what it recalls, what to do next."""
    from dionysus.terminal import console

    with opened(
        store, model=model, api_base=api_base, api_key=api_key, budget=budget, mcp_server=mcp_server
    ) as runtime:
        out = console()
        display = None if as_json or quiet else live_display(runtime, out)
        stop_at_safe_point(runtime)
        report = runtime.beat(watch, git=git, on_wake=display.wake if display else None)
        show_report(runtime, out, report, as_json=as_json)


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    watch: Annotated[Path, typer.Option("--watch", help="The folder that it is about.")] = Path("."),
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    budget: BudgetText = None,
    mcp_server: McpServer = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask: a manager and its three members observe, orient, decide, and answer."""
    from dionysus.terminal import console

    with opened(
        store, model=model, api_base=api_base, api_key=api_key, budget=budget, mcp_server=mcp_server
    ) as runtime:
        out = console()
        display = None if as_json or quiet else live_display(runtime, out)
        stop_at_safe_point(runtime)
        answer = runtime.ask(text_of(question), watch, git=git, on_start=display.ask if display else None)
        show_answer(runtime, out, answer, as_json=as_json)


def tell(
    note: Annotated[str, typer.Argument(help="The note; - reads it from standard input.")], store: Store = None
) -> None:
    """Leave a note that the next beat takes up."""
    with opened(store) as runtime:
        print(f"note {runtime.tell(text_of(note))} is kept for the next beat")


def remember(
    text: Annotated[str, typer.Argument(help="The fact; - reads it from standard input.")],
    actor: Annotated[str, typer.Option(help="Who says it.")] = "",
    session: Annotated[str | None, typer.Option(help="The conversation in whose course it is said.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; again for more.")] = None,
    store: Store = None,
) -> None:
    """Keep a fact in memory."""
    with opened(store) as runtime:
        number = runtime.remember(text_of(text), actor=actor, session=session, tags=tuple(tag or ()))
        print(f"memory {number} is kept")


def recall(
    query: Annotated[str, typer.Argument(help="A few telling words, or a question.")],
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind, such as fact; may be repeated.")] = None,
    actor: Annotated[
        list[str] | None, typer.Option(help="Only what this person or agent said; may be repeated.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Only what this run kept.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; again for more, all of them.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this day on: 2026-05-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Only up to this day: 2026-05-31.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Say what speaks for each, and where it comes from.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find memories: by their words, what they mean, whose they are, and when they are of."""
    from dionysus.runtime import checked_text
    from dionysus.stores.contract import Filter

    wanted = Filter(
        kinds=tuple(kind or ()),
        actors=tuple(actor or ()),
        run_id=run,
        tags=tuple(tag or ()),
        since=day_of(since, "--since") if since else None,
        until=day_of(until, "--until", end=True) if until else None,
    )
    with opened(store) as runtime:
        hits = runtime.memory.recall(checked_text("query", query), limit=limit, wanted=wanted)
        failed = runtime.memory.looks_failed
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        m = hit.memory
        by = f"{m.actor}: " if m.actor else ""
        print(f"{m.id:>5}  {m.at.astimezone():%Y-%m-%d}  {m.kind:<9}  {m.source}: {by}{' '.join(m.text.split())}")
        if why:
            reasons = ", ".join(f"{name} {value:+.2f}" for name, value in hit.why.items())
            origin = f"run {m.run_id}, step {m.step}" if m.run_id else "told"
            print(f"       {hit.score:.2f} = {reasons} · {origin} · basin {m.basin_id}")
    if not hits:
        print(f"no memory speaks of {query!r}")
    if failed is not None:
        print(f"by words alone: {failed}")


def forget(
    ids: Annotated[list[int] | None, typer.Argument(help="Memories, as `dionysus recall` numbers them.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="All of this kind.")] = None,
    run: Annotated[str | None, typer.Option(help="All that this run kept.")] = None,
    before: Annotated[str | None, typer.Option(help="All from before this day: 2026-05-31.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All with this tag.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, what options choose is counted.")] = False,
    store: Store = None,
) -> None:
    """Forget memories, and all that was made of them: words, vectors, patterns. What runs were shown stays on
    record."""
    from dionysus.errors import BadInput
    from dionysus.findings import plural
    from dionysus.stores.contract import Filter

    chosen = Filter(
        kinds=tuple(kind or ()),
        run_id=run,
        tags=tuple(tag or ()),
        until=day_of(before, "--before") if before else None,
    )
    if bool(ids) == (not chosen.lets_all_pass):
        raise BadInput("name memories by their numbers, or choose them by --kind, --run, --before, --tag")
    with opened(store) as runtime:
        numbers = list(ids or runtime.memory.ids(chosen))
        said = plural(len(numbers), "memory", "memories")
        if not ids and not yes:
            print(f"{said} would be forgotten; --yes does it")
            return
        gone = runtime.forget(numbers) if numbers else 0
    print(f"{plural(gone, 'memory', 'memories')} forgotten; what runs were shown of them stays on record")


@basins_app.callback()
def basins(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    picture: Annotated[Path | None, typer.Option(help="Draw them into this SVG file.")] = None,
    cue: Annotated[str | None, typer.Option(help="Which episode a few words belong to.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """The landscape: episodes of memory, how active they are, and their most telling words."""
    if context.invoked_subcommand is not None:
        return
    if cue is not None:
        _complete(cue, store, as_json=as_json)
        return
    with opened(store) as runtime:
        found = runtime.landscape.lie(limit=limit)
    if picture is not None:
        from dionysus.memory.landscape import picture as drawn

        picture.write_text(drawn(found), "utf-8")
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        wired = "  ↔ " + ", ".join(f"{n} {w:.2f}" for n, w in one.associates) if one.associates else ""
        words = ", ".join(one.words)
        print(f"{one.basin.id:>5}  {one.activation:.2f}  {one.memories:>5}  {one.basin.name}  ({words}){wired}")
    if not found:
        print('no basin yet; a heartbeat, or dionysus remember "…", makes one')
    elif picture is not None:
        print(f"drawn into {picture}")


def _complete(cue: str, store: Store, *, as_json: bool) -> None:
    with opened(store) as runtime:
        done = runtime.landscape.complete(cue)
    if as_json:
        print_json(asdict(done) if done else None)
    elif done is None:
        print(f"no episode has a word of {cue!r}")
    else:
        words = ", ".join(done.words)
        print(f"basin {done.basin.id}  {done.basin.name}  ({words}): {done.share:.0%} after {done.updates} updates")


@basins_app.command("activate")
def activate_basin(
    basin_id: int, strength: Annotated[float, typer.Argument(help="The drive; 1 is usual.")] = 1.0, store: Store = None
) -> None:
    """Drive a basin: its activation rises towards 1."""
    with opened(store) as runtime:
        done = runtime.basins.activate_basin(basin_id, strength)
        print(f"basin {done.basin_id} {done.name} is active: {done.activation:.2f}")


@basins_app.command("merge")
def merge_basins(into: int, other: int, store: Store = None) -> None:
    """Make one episode of two: the memories of the second go to the first."""
    with opened(store) as runtime:
        basin = runtime.basins.merge(into, other)
        print(f"basin {other} lies in basin {basin.id} {basin.name} now")


@basins_app.command("split")
def split_basin(basin_id: int, memory_id: int, store: Store = None) -> None:
    """Make two episodes of one, from a memory on."""
    with opened(store) as runtime:
        print(f"from memory {memory_id} on it is basin {runtime.basins.split(basin_id, memory_id).id} now")


@memory_app.callback()
def memory(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """How many memories there are, and what they take."""
    from dionysus.findings import plural

    if context.invoked_subcommand is not None:
        return
    with opened(store) as runtime:
        size = runtime.memory.size()
    if as_json:
        print_json(asdict(size))
        return
    count = plural(size.memories, "memory", "memories")
    print(f"{count}, {size.words} words; embedder: {size.embedder or 'none, by words alone'}")
    for name, (seen, taken) in size.vectors.items():
        print(f"  {name}: {plural(seen, 'memory', 'memories')}, {taken / max(seen, 1):.0f} bytes each")


@memory_app.command("rebuild")
def rebuild_memory(store: Store = None) -> None:
    """Make the index and all vectors again, from the memories."""
    with opened(store) as runtime:
        print(f"index and vectors of {runtime.memory.rebuild()} memories are made again")


@memory_app.command("consolidate")
def consolidate(store: Store = None) -> None:
    """Do now what idle beats do: join duplicates, promote what repeats, forget by policy, embed what is missing."""
    from dionysus.terminal import consolidated_line

    with opened(store) as runtime:
        while True:
            done = runtime.consolidation.run()
            print(f"{done.looked_at} looked at: {consolidated_line(done) or 'nothing to do'}")
            if not (done.looked_at or done.made_up):
                break


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
    with opened(store) as runtime:
        found = runtime.goals.listed(status=None if all_ else "open")
    if as_json:
        print_json([asdict(goal) for goal in found])
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

    with opened(store) as runtime:
        goal = runtime.goals.add(checked_text("goal", text), due_at=date_of(due) if due is not None else None)
        print(_goal_line(goal))


@goals_app.command("done")
def finish_goal(goal_id: int, store: Store = None) -> None:
    """Close a goal that was reached."""
    with opened(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="done")))


@goals_app.command("drop")
def drop_goal(goal_id: int, store: Store = None) -> None:
    """Close a goal that is no longer wanted."""
    with opened(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="dropped")))


@goals_app.command("reopen")
def reopen_goal(goal_id: int, store: Store = None) -> None:
    """Open a closed goal again."""
    with opened(store) as runtime:
        print(_goal_line(runtime.goals.update(goal_id, status="open")))


def _goal_line(goal: "Goal") -> str:
    due = f", due {goal.due_at.astimezone():%Y-%m-%d}" if goal.due_at else ""
    noted = f"  ({goal.progress[-1]})" if goal.progress else ""
    return f"goal {goal.id} {goal.status}{due}: {goal.text}{noted}"
