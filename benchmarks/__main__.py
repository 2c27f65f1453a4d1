"""Runs one benchmark and writes its figures as JSON, with machine, commit and seed."""

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path

from benchmarks import (
    api,
    beat,
    cache,
    coherence,
    control,
    facts,
    kill,
    local,
    long,
    managed,
    memory,
    outage,
    overhead,
    recall,
    store,
    tokens,
    usage,
)

BENCHMARKS = {
    "api": api,
    "beat": beat,
    "cache": cache,
    "coherence": coherence,
    "control": control,
    "facts": facts,
    "kill": kill,
    "local": local,
    "long": long,
    "managed": managed,
    "memory": memory,
    "outage": outage,
    "overhead": overhead,
    "recall": recall,
    "store": store,
    "tokens": tokens,
    "usage": usage,
}

_OF = {
    "kills": ["kill"],
    "beats": ["outage"],
    "model": ["local", "cache", "control"],
    "limit": ["coherence", "recall", "tokens"],
    "planning": ["tokens"],
    "embedder": ["recall"],
    "unseen": ["coherence"],
    "fit": ["coherence"],
}
"""Which benchmarks an option is for."""


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--short", action="store_true", help="a minute at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--data",
        type=Path,
        help="beat, facts, managed: a folder; local: tasks; cache, coherence, tokens: recorded runs; recall: these, or "
        "conversations; others: a text",
    )
    parser.add_argument("--kills", type=int, help="kill: at random instants; default: 1000")
    parser.add_argument("--beats", type=int, help="outage: while the server is disturbed; default: 1000")
    parser.add_argument("--model", help="local, cache: such a model, default: local:smollm2; control: such a one, too")
    parser.add_argument("--limit", type=int, help="coherence, recall, tokens: take so many of the runs at most")
    parser.add_argument("--embedder", help="recall: what `ours` means; default: minilm")
    parser.add_argument("--planning", type=int, help="tokens: re-plan every so many actions; default: never")
    parser.add_argument(
        "--unseen", action="store_true", default=None, help="coherence: only tasks that its profile is not fitted on"
    )
    parser.add_argument("--fit", type=Path, nargs="+", help="coherence: fit its profile on these recorded runs")
    chosen = parser.parse_args()
    more = {name: getattr(chosen, name) for name in _OF if getattr(chosen, name) is not None}
    if any(isinstance(value, int) and value < 1 for value in more.values()):
        parser.error("numbers are at least 1")
    for name in more:
        if chosen.name not in _OF[name]:
            parser.error(f"--{name} is not for the benchmark {chosen.name}")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    figures = {
        "benchmark": chosen.name,
        "commit": _commit(),
        "machine": f"{machine}, Python {platform.python_version()}",
        "seed": chosen.seed,
        **BENCHMARKS[chosen.name].run(short=chosen.short, seed=chosen.seed, data=chosen.data, **more),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
