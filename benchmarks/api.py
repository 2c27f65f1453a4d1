"""How long the REST endpoints take: list, get, replay and token usage, over stores of 1,000 and of 100,000 traces.

Each trace has 4 plans and 10 actions with an observation of 2 KB, out of a pool of 2,000 texts. The stores are served
by a process each; requests go out one after another over one connection, in turns between the stores and the kinds, so
that a noisy machine disturbs all alike. Times are the client's, with HTTP and JSON.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from dionysus.stores import Store, open_store
from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, Status, ToolUse

AGENTS = ("heartbeat", "consciousness_manager", "perception", "reasoning", "metacognition", "rare")
STEPS = 14
OBSERVATION_CHARS = 2_000
TOKEN = "of the benchmark, on loopback"
_POOL = 2_000
_AT = datetime(2026, 1, 1, tzinfo=UTC)


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Milliseconds at the median and the 99th percentile, by kind of request and size of the store.

    Args:
        data: A text file whose pieces are the observations; default: made-up words.
    """
    sizes = (1_000,) if short else (1_000, 100_000)
    rounds = 100 if short else 500
    chance = random.Random(seed)
    texts = _texts(chance, data)
    took: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ids, clients, sizes_of = {}, {}, {}
        for size in sizes:
            path = Path(folder) / f"{size}.db"
            ids[size] = _filled(path, size, chance, texts)
            sizes_of[size] = path.stat().st_size
            clients[size] = stack.enter_context(_served(path))
        deep = {size: _cursor_of(clients[size], size // 2) for size in sizes}
        for number in range(rounds + 5):
            for size in sizes:
                trace = chance.choice(ids[size])
                requests = {
                    "list": "/api/agents/traces",
                    "list_an_agent": "/api/agents/traces?agent=rare",
                    "list_failures": "/api/agents/traces?success=false",
                    "list_from_the_middle": f"/api/agents/traces?cursor={deep[size]}",
                    "get": f"/api/agents/traces/{trace}",
                    "replay": f"/api/agents/traces/{trace}/replay",
                    "token_usage": "/api/agents/token-usage",
                }
                for kind, url in requests.items():
                    began = time.perf_counter()
                    answer = clients[size].get(url)
                    spent = time.perf_counter() - began
                    answer.raise_for_status()
                    if number >= 5:  # the first ones warm up
                        took[size].setdefault(kind, []).append(1000 * spent)
    figures: dict[str, Any] = {
        "requests_of_each_kind": rounds,
        "steps_a_trace": STEPS,
        "store_mib": {f"{size}_traces": round(sizes_of[size] / 2**20, 1) for size in sizes},
        "ms": {
            f"{size}_traces": {kind: {"p50": _p(times, 50), "p99": _p(times, 99)} for kind, times in took[size].items()}
            for size in sizes
        },
    }
    if len(sizes) > 1:
        small, large = sizes
        figures["ratio_of_medians"] = {
            kind: round(median(took[large][kind]) / median(took[small][kind]), 2) for kind in took[small]
        }
    return figures


def _p(times: list[float], percent: int) -> float:
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 2)


def _texts(chance: random.Random, data: Path | None) -> list[str]:
    if data is not None:
        text = data.read_text(errors="replace") or " "
        starts = [(n * OBSERVATION_CHARS) % len(text) for n in range(_POOL)]
        return [f"{n} {text[at : at + OBSERVATION_CHARS]}" for n, at in enumerate(starts)]
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(3000)]
    return [" ".join(chance.choices(words, k=OBSERVATION_CHARS // 6))[:OBSERVATION_CHARS] for _ in range(_POOL)]


def _filled(path: Path, count: int, chance: random.Random, texts: list[str]) -> list[str]:
    store = open_store(f"sqlite:///{path}")
    ids = []
    try:
        for first in range(0, count, 1000):
            with store.records.transaction(durable=False):
                for number in range(first, min(first + 1000, count)):
                    ids.append(_write(store, number, count, chance, texts))
    finally:
        store.close()
    return ids


def _write(store: Store, number: int, count: int, chance: random.Random, texts: list[str]) -> str:
    began = _AT + timedelta(seconds=60 * number)
    failed = number % 50 == 7
    status: Status = "error" if failed else "success"
    rare = number % (count // 40) == 3
    trace = AgentExecutionTrace(
        id=f"run-{number:06}",
        agent_name="rare" if rare else AGENTS[number % 5],
        run_id=f"run-{number:06}",
        status=status,
        started_at=began,
        completed_at=began + timedelta(seconds=30),
        task=chance.choice(texts)[:400],
        model="made up",
        summary=chance.choice(texts)[:400],
        success=not failed,
        step_count=10,
        planning_count=4,
        model_calls=STEPS,
        input_tokens=30_000 + number % 1000,
        cached_tokens=12_000,
        output_tokens=900,
        cost_usd=0.01,
    )
    store.records.save_trace(trace)
    for order in range(1, STEPS + 1):
        planning = order % 4 == 1
        step = AgentExecutionStep(
            id=f"{trace.id}:{order}",
            trace_id=trace.id,
            order=order,
            step_number=order,
            step_type="planning" if planning else "action",
            started_at=began + timedelta(seconds=order),
            completed_at=began + timedelta(seconds=order + 1),
            thought="Look at the next page.",
        )
        if planning:
            store.records.save_step(replace(step, plan=texts[order][:600], coherence=0.9))
        else:
            use = ToolUse(position=f"{order}", name="read", arguments={"page": order}, started_at=step.started_at)
            store.records.save_step(replace(step, tool_calls=(use,), observation=chance.choice(texts)))
    return trace.id


@contextmanager
def _served(path: Path) -> Iterator[httpx.Client]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dionysus", "serve", "--port", "0", "--store", f"sqlite:///{path}"],
        env={**os.environ, "DIONYSUS_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1].rsplit("/api/", 1)[0]
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
            yield client
    finally:
        process.terminate()
        process.communicate()


def _cursor_of(client: httpx.Client, behind: int) -> str:
    """The cursor of the trace that has so many newer ones."""
    until = _AT + timedelta(seconds=60 * behind)
    page = client.get("/api/agents/traces", params={"until": until.isoformat(), "limit": 1}).json()
    return str(page["next_cursor"])
