"""Commands for coherence: show, calibrate."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dionysus.cli.given import Json, Store, TraceId, newest_unless, opened
from dionysus.cli.shown import print_json, printable

if TYPE_CHECKING:
    from dionysus.assessing import Assessment

coherence_app = typer.Typer(
    help="How coherent runs are, and what an agent's runs say of it.", invoke_without_command=True
)
_BAR = 20


@coherence_app.callback()
def coherence(context: typer.Context, store: Store = None) -> None:
    """How coherent the newest run is."""
    if context.invoked_subcommand is None:
        show(None, store)


@coherence_app.command()
def show(trace_id: TraceId = None, store: Store = None, as_json: Json = False) -> None:
    """How coherent a run is, by component, and what to do about it."""
    with opened(store) as runtime:
        found = runtime.assess(newest_unless(trace_id, runtime))
        if as_json:
            print_json(asdict(found))
            return
        for line in _lines(found):
            print(printable(line))


@coherence_app.command()
def calibrate(
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only this agent.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Learn from finished runs how coherent agents usually are: then at most 2 % of such runs are warned about."""
    with opened(store) as runtime:
        found = runtime.coherence.calibrate(agent)
        if as_json:
            print_json([asdict(one) for one in found])
        elif not found:
            print("no finished run is on record yet; an agent needs 60 to be calibrated by")
        else:
            for one in found:
                print(printable(one.in_words))


def _lines(found: "Assessment") -> list[str]:
    lines = [f"trace {found.trace_id} · {found.agent_name} · {found.status} · {found.steps} actions"]
    if found.consciousness_level is None:
        return [*lines, found.reason]
    by = f"calibrated by {found.calibrated_by} runs of this agent" if found.calibrated_by else "default threshold"
    lines.append(
        f"coherence {found.consciousness_level:.2f} ({found.trend:+.2f} in three actions), lowest {found.lowest:.2f} · "
        f"confidence {found.confidence:.2f} · {by}"
    )
    for name, score in found.components.items():
        bar = "█" * round(_BAR * score)
        lines.append(f"  {name:<12} {score:.2f}  {bar:<{_BAR}}{'  below the threshold' if score < 0.5 else ''}")
    lines.append(found.reason)
    return [*lines, f"what to do: {found.advice}"] if found.advice else lines
