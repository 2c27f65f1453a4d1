"""Commands for a mind: beat, ask, tell, remember, recall, goals."""

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
    opened,
    stop_at_safe_point,
    text_of,
)
from dionysus.cli.shown import live_display, print_json, show_answer, show_report

if TYPE_CHECKING:
    from dionysus.stores.contract import Goal

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


def remember(text: Annotated[str, typer.Argument(help="The fact.")], store: Store = None) -> None:
    """Keep a fact in memory."""
    with opened(store) as runtime:
        print(f"memory {runtime.remember(text)} is kept")


def recall(
    query: Annotated[str, typer.Argument(help="A few telling words.")],
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find memories."""
    from dionysus.runtime import checked_text

    with opened(store) as runtime:
        hits = runtime.memory.recall(checked_text("query", query), limit=limit)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        m = hit.memory
        print(f"{m.id:>5}  {m.at.astimezone():%Y-%m-%d}  {m.kind:<9}  {m.source}: {' '.join(m.text.split())}")
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
