"""Commands for the graph in Neo4j: what is shipped, and what only a graph answers."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dionysus.cli.given import Json, Store, TraceId, newest_unless, opened
from dionysus.cli.shown import print_json, printable
from dionysus.errors import DionysusError

if TYPE_CHECKING:
    from dionysus.stores.contract import Backlog

store_app = typer.Typer(help="Traces on their way to Neo4j: set it up, see what waits, ship.", no_args_is_help=True)
graph_app = typer.Typer(help="What the graph in Neo4j knows: causes, failures, delegation.", no_args_is_help=True)

Cypher = Annotated[bool, typer.Option("--cypher", help="Print the query instead, to run it elsewhere.")]
_SHOWN = 20


@store_app.command("init")
def init_graph(store: Store = None) -> None:
    """Makes the constraints and indexes that traces need in Neo4j; again it changes nothing."""
    with opened(store) as runtime:
        shipper = runtime.shipper
        made, there = shipper.initialise()
        where = f"{shipper.graph.target}, {shipper.graph.readiness().server}"
    print(f"{where}: {len(made)} made, {len(there)} there already")
    for name in made:
        print(f"  made  {name}")
    print("runs ship their traces from now on; `dionysus store ship` ships what is there by now")


@store_app.command("ship")
def ship(
    everything: Annotated[bool, typer.Option("--all", help="Ship again what the graph has already.")] = False,
    store: Store = None,
) -> None:
    """Ships what the graph lacks, now, and tries again what it refused."""
    with opened(store) as runtime:
        shipper = runtime.shipper
        shipped = shipper.ship(again="everything" if everything else "refused")
        left = shipper.backlog()
    print(f"{shipped:,} changes shipped to {left.target}, {left.refusals:,} refused")
    _print_refusals(left)
    if left.refused:
        raise typer.Exit(3)


@store_app.command("status")
def status(store: Store = None, as_json: Json = False) -> None:
    """What Neo4j has, what waits, what it refused, and why."""
    with opened(store) as runtime:
        shipper = runtime.shipper
        graph = shipper.graph
        try:
            found, problem = graph.readiness(), None
            left = shipper.backlog(found.graph_id or "")  # one that was not set up has nothing
        except DionysusError as error:
            found, problem = None, str(error)
            left = shipper.backlog()
        exposed = graph.is_exposed
    if as_json:
        print_json({**asdict(left), "graph": None if found is None else asdict(found), "problem": problem})
        return
    from dionysus.traces.render import local

    if found is None:
        print(f"graph    {problem}")
    elif found.graph_id is None:
        print(f"graph    {left.target} · {found.server} · not set up; `dionysus store init` does that")
    else:
        print(f"graph    {left.target} · {found.server} · schema {found.version}")
        for name in (*found.missing, *found.missing_indexes):
            print(f"         {name} is missing; `dionysus store init` makes it")
    if exposed:
        print("         the password travels in the clear; write neo4j+s:// or bolt+s://")
    when = f", last {local(left.shipped_at)}" if left.shipped_at else ""
    print(f"shipped  {left.shipped:,} changes{when}")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in left.waiting.items())
    print(f"waiting  {sum(left.waiting.values()):,}" + (f": {kinds}" if kinds else ""))
    print(f"refused  {left.refusals:,}")
    _print_refusals(left)
    if left.failure and left.failed_at:
        print(f"failed   {local(left.failed_at)}: {left.failure}")


def _print_refusals(left: "Backlog") -> None:
    for refusal in left.refused[:_SHOWN]:
        print(printable(f"  {refusal.kind} {refusal.key}: {refusal.reason}"))
    if left.refusals > _SHOWN:
        print(f"  … and {left.refusals - _SHOWN:,} more")
    if left.refused:
        print("they are whole in the store; `dionysus store ship` tries them again")


@graph_app.command("why")
def why(
    trace_id: TraceId = None,
    step: Annotated[int | None, typer.Argument(metavar="ACTION", help="Its number; default: the last one.")] = None,
    store: Store = None,
    as_json: Json = False,
    cypher: Cypher = False,
) -> None:
    """Which memories and basins led to an action."""
    if cypher:
        return _print_query("why")
    with opened(store) as runtime:
        number, causes = runtime.lineage.why(newest_unless(trace_id, runtime), step)
    if as_json:
        return print_json([asdict(cause) for cause in causes])
    for c in causes:
        kind = "memory" if c.link == "RECALLED" else "basin "
        text = f"  {c.text.splitlines()[0][:80]}" if c.text else ""
        print(printable(f"{kind} {c.number:>5}  {c.weight:>7.2g}  {c.agent} action {c.at_step}  {c.what}{text}"))
    if not causes:
        print(f"nothing was recalled or activated before action {number}")


@graph_app.command("shared-basins")
def shared_basins(
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    store: Store = None,
    as_json: Json = False,
    cypher: Cypher = False,
) -> None:
    """Runs that share a basin with runs that failed."""
    if cypher:
        return _print_query("shared_basins")
    with opened(store) as runtime:
        found = runtime.lineage.shared_basins(run, limit=limit)
    if as_json:
        return print_json([asdict(row) for row in found])
    from dionysus.traces.render import local

    for s in found:
        failed = f"{', '.join(s.failed_runs)}{' …' if s.failures > len(s.failed_runs) else ''}"
        print(
            printable(
                f"{local(s.started_at)}  {s.trace}  {s.status}  {s.basin} {s.strength:.2f}  shared with {s.failures} "
                f"failed: {failed}"
            )
        )
    if not found:
        print("no run shares a basin with one that failed")


@graph_app.command("delegation")
def delegation(trace_id: TraceId = None, store: Store = None, as_json: Json = False, cypher: Cypher = False) -> None:
    """Who handed work to whom, with the tokens that each took."""
    if cypher:
        return _print_query("delegation")
    with opened(store) as runtime:
        found = runtime.lineage.delegation(newest_unless(trace_id, runtime))
    if as_json:
        return print_json([asdict(row) for row in found])
    from dionysus.terminal import delegation_tree

    print(printable(delegation_tree(found)))


@graph_app.command("memory")
def memory(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Of the memory, as `recall` shows it.")],
    store: Store = None,
    as_json: Json = False,
    cypher: Cypher = False,
) -> None:
    """What a memory came from, and what it was used in."""
    if cypher:
        return _print_query("memory")
    with opened(store) as runtime:
        found = runtime.lineage.memory(number)
    if as_json:
        return print_json(asdict(found))
    from dionysus.traces.render import local

    print(printable(f"memory {found.number}  {found.kind}  {found.source}  {local(found.at)}\n{found.text}\n"))
    print(printable(f"lies in   {found.basin or '–'}"))
    for maker in found.makers:
        print(f"made by   {maker.trace} action {maker.at_step}")
    if not found.makers:
        print("made by   no run: it was read, or told")
    for use in found.uses:
        when = f"  {local(use.started_at)}" if use.started_at else ""
        print(f"used in   {use.trace} action {use.at_step}  {use.score or 0:.2g}  {use.status}{when}")
    if not found.uses:
        print("used in   nothing yet")


def _print_query(name: str) -> None:
    from dionysus.stores.neo4j import QUESTIONS

    print(next(question.cypher for question in QUESTIONS if question.name == name), end="")
