"""The command line: parses, calls the runtime, prints. No logic; heavy imports only where a command needs them."""

import errno
import io
import logging
import os
import sys
from typing import Annotated

import typer

from dionysus import __version__
from dionysus.cli import coherence, graph, mind, model, record, servers
from dionysus.cli.given import Model, Store, command, settings_of
from dionysus.cli.shown import printable
from dionysus.errors import DionysusError, RunInterrupted

app = typer.Typer(
    name="dionysus",
    help="A cognitive runtime for smolagents: heartbeat, memory, coherence, traces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _command in (mind.beat, mind.ask, mind.tell, mind.remember, mind.recall, mind.forget, servers.serve, servers.mcp):
    app.command()(_command)
for _name, _group in (
    ("goals", mind.goals_app),
    ("basins", mind.basins_app),
    ("memory", mind.memory_app),
    ("coherence", coherence.coherence_app),
    ("traces", record.traces_app),
    ("runs", record.runs_app),
    ("model", model.model_app),
    ("store", graph.store_app),
    ("graph", graph.graph_app),
):
    app.add_typer(_group, name=_name)


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
    logging.getLogger("neo4j").setLevel(logging.ERROR)  # what it warns of is said in our words


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dionysus {__version__}")
        raise typer.Exit


@app.command()
def doctor(store: Store = None, model: Model = None) -> None:
    """What is installed, what would be used, and what to do about what is missing."""
    from dionysus.doctor import examine

    findings, healthy = examine(settings_of(store, model=model))
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
        print(f"dionysus: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 – what is still buffered has nowhere to go
        print(f"dionysus: cannot write the output: {error.strerror}; what was done is on record", file=sys.stderr)
        sys.exit(3)
    except (RunInterrupted, KeyboardInterrupt) as stop:
        run_id = getattr(stop, "run_id", None)
        more = f"; {command()} runs resume {run_id} goes on" if run_id else ""
        print(f"dionysus: stopped ({str(stop) or 'Ctrl-C'}); what was finished is on record{more}", file=sys.stderr)
        sys.exit(130)
