"""SQLite and Neo4j side by side: what writing and reading traces takes, and what shipping takes from an agent.

Both backends get the same traces of 14 steps with observations of 2 KB, through the same verbs, in turns; where many
are listed, most of them have no steps. The agent's step is measured with the shipper on and off, in turns, on the
machine that the server runs on.
"""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from smolagents import Model

from benchmarks.overhead import STEPS as READING_STEPS
from benchmarks.overhead import pages_of, reading_agent
from ci.bolt import BoltServer, server_for
from dionysus import Runtime
from dionysus.settings import Settings, load_settings
from dionysus.stores import open_store
from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, Parcel, ToolUse, TraceStore
from dionysus.stores.neo4j import Graph, GraphTraces

STEPS = 14
CHARS = 2_000
_BATCH = 35
"""Traces in a batch: with their steps about what a parcel of the shipper holds."""
_FILLED_AT_ONCE = 1_000
_AT = datetime(2026, 1, 1, tzinfo=UTC)


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Figures for each backend.

    Args:
        data: A text that observations are cut from; default: made-up words.
    """
    chance = random.Random(seed)
    made_up = " ".join(f"w{chance.randrange(10**6)}" for _ in range(100_000))
    text = (data.read_text(errors="replace") if data else made_up) or " "
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        server = server_for(root / "server")
        server.start()
        try:
            graph = Graph(server.uri, user=server.user, password=server.password, database="neo4j", timeout_s=300)
            graph.initialise()
            store = open_store(f"sqlite:///{root}/store.db")
            backends: dict[str, TraceStore] = {"sqlite": store.records, "neo4j": GraphTraces(graph, store_id="bench")}
            batched: dict[str, Callable[[Sequence[_Whole]], None]] = {
                "sqlite": lambda wholes: _at_once(store.records, wholes),
                "neo4j": lambda wholes: _put(backends["neo4j"], graph, wholes),
            }
            figures = _figures(backends, batched, _Maker(text, chance), short=short)
            store.close()
            graph.close()
            server.empty()
            steps = _agent_steps(server, root, pages_of(chance, data), rounds=3 if short else 15)
            return {"server": server.name, "steps_a_trace": STEPS, **figures, **steps}
        finally:
            server.kill()


_Whole = tuple[AgentExecutionTrace, list[AgentExecutionStep]]


class _Maker:
    """Makes traces, each later than the one before."""

    def __init__(self, text: str, chance: random.Random) -> None:
        self._text, self._chance = text, chance
        self._numbers = count(1)

    def whole(self, steps: int = STEPS) -> _Whole:
        """A trace and its steps."""
        number = next(self._numbers)
        at = _AT + timedelta(seconds=number)
        name = f"beat-{number}-{self._chance.randrange(16**6):06x}"
        trace = AgentExecutionTrace(
            id=name,
            agent_name=self._chance.choice(("heartbeat", "manager", "perception")),
            run_id=name,
            status="success",
            started_at=at,
            completed_at=at,
            success=True,
            task="Look.",
            step_count=steps,
            model_calls=steps,
            input_tokens=1000,
        )
        return trace, [self._step(name, order, at) for order in range(1, steps + 1)]

    def _step(self, trace_id: str, order: int, at: datetime) -> AgentExecutionStep:
        begins = self._chance.randrange(max(1, len(self._text) - CHARS))
        seen = self._text[begins : begins + CHARS]
        call = ToolUse(
            position=f"{order}", name="look", arguments={"at": order}, started_at=at, completed_at=at, result=seen
        )
        return AgentExecutionStep(
            id=f"{trace_id}:{order}",
            trace_id=trace_id,
            order=order,
            step_number=order,
            step_type="action",
            started_at=at,
            completed_at=at,
            observation=seen,
            tool_calls=(call,),
        )


def _figures(
    backends: dict[str, TraceStore],
    batched: dict[str, Callable[[Sequence[_Whole]], None]],
    maker: _Maker,
    *,
    short: bool,
) -> dict[str, Any]:
    singles, many, sizes = (20, 140, (500, 2_000)) if short else (200, 1_400, (10_000, 100_000))
    wholes = [maker.whole() for _ in range(singles)]
    figures: dict[str, Any] = {"traces_per_s": {}, "newest_20_ms": {}, "trace_ms": {}}
    single: dict[str, list[float]] = {name: [] for name in backends}
    for whole in wholes:
        for name, backend in backends.items():
            single[name].append(_took(lambda b=backend, w=whole: _one_by_one(b, w)))  # type: ignore[misc]
    figures["traces_per_s"]["single"] = {name: round(1 / median(times), 1) for name, times in single.items()}
    rates: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(many // _BATCH):
        some = [maker.whole() for _ in range(_BATCH)]
        for name in backends:
            rates[name].append(len(some) / _took(lambda n=name, s=some: batched[n](s)))  # type: ignore[misc]
    figures["traces_per_s"]["batched"] = {name: round(median(found), 1) for name, found in rates.items()}
    there = singles + many
    for size in sizes:
        while there < size:
            some = [maker.whole(steps=0) for _ in range(min(_FILLED_AT_ONCE, size - there))]
            for name in backends:
                batched[name](some)
            there += len(some)
        rounds = 20 if short else 100
        looks: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(rounds):
            for name, backend in backends.items():
                looks[name].append(_took(lambda b=backend: b.traces(limit=20)))  # type: ignore[misc]
        figures["newest_20_ms"][f"of_{size}"] = _ms(looks)
    flat = {
        name: round(
            figures["newest_20_ms"][f"of_{sizes[1]}"][name] / figures["newest_20_ms"][f"of_{sizes[0]}"][name], 2
        )
        for name in backends
    }
    figures["newest_20_ratio"] = flat
    for steps in (10, 500):
        whole = maker.whole(steps)
        for name in backends:
            batched[name]([whole])
        reads: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(10 if short else 50):
            for name, backend in backends.items():
                reads[name].append(_took(lambda b=backend, w=whole: _read(b, w)))  # type: ignore[misc]
        figures["trace_ms"][f"{steps}_steps"] = _ms(reads)
    return figures


def _one_by_one(backend: TraceStore, whole: _Whole) -> None:
    """A trace as it comes about: begun, each step added, ended."""
    trace, steps = whole
    backend.save_trace(replace(trace, status="running"))
    for step in steps:
        backend.save_step(step)
    backend.save_trace(trace)


def _at_once(backend: TraceStore, wholes: Sequence[_Whole]) -> None:
    def save() -> None:
        for trace, steps in wholes:
            backend.save_trace(trace)
            for step in steps:
                backend.save_step(step)

    backend.atomically(save)


def _put(backend: TraceStore, graph: Graph, wholes: Sequence[_Whole]) -> None:
    assert isinstance(backend, GraphTraces)
    steps = tuple(step for _, steps in wholes for step in steps)
    backend.put(Parcel(traces=tuple(trace for trace, _ in wholes), steps=steps), graph_id=graph.required())


def _read(backend: TraceStore, whole: _Whole) -> None:
    trace, steps = whole
    assert backend.trace(trace.id) == trace
    assert backend.steps(trace.id) == steps


# -- what an agent feels of it ------------------------------------------------------------------------


def _agent_steps(server: BoltServer, root: Path, pages: list[str], *, rounds: int) -> dict[str, Any]:
    """Milliseconds a step, shipper off and on, in turns: with a model that answers at once, and one that thinks."""
    graph = Graph(server.uri, user=server.user, password=server.password, database="neo4j")
    graph.initialise()
    graph.close()
    shipped = {"neo4j_uri": server.uri, "neo4j_username": server.user, "neo4j_password": server.password}
    settings = {"off": load_settings(), "on": load_settings(**shipped)}
    figures: dict[str, Any] = {}
    for kind, think_s in (("instant_model", 0.0), ("model_of_50_ms", 0.05)):
        took: dict[str, list[float]] = {name: [] for name in settings}
        ratios = []
        for number in range(rounds):
            order = ("off", "on") if number % 2 else ("on", "off")
            pair = {n: _step_ms(settings[n], root / f"{kind}-{n}-{number}.db", pages, think_s) for n in order}
            for name, milliseconds in pair.items():
                took[name].append(milliseconds)
            ratios.append(pair["on"] / pair["off"])
        figures[kind] = {
            **{f"shipper_{name}_ms": round(median(times), 2) for name, times in took.items()},
            "ratio": round(median(ratios), 3),
        }
    return {"agent_step": figures, "agent_runs": rounds, "agent_steps": READING_STEPS}


def _step_ms(settings: Settings, store: Path, pages: list[str], think_s: float) -> float:
    agent = reading_agent(pages)
    agent.model = _Thinker(agent.model, think_s)
    with Runtime(store=f"sqlite:///{store}", settings=settings) as runtime:
        attached = runtime.attach(agent)
        return 1000 * _took(lambda: attached.run("Read the pages.")) / READING_STEPS


class _Thinker(Model):
    """A model that takes its time, as those do that answer over a network."""

    def __init__(self, model: Any, think_s: float) -> None:
        super().__init__(model_id="thinker")
        self._model, self._think_s = model, think_s

    def generate(self, *args: Any, **options: Any) -> Any:
        time.sleep(self._think_s)
        return self._model.generate(*args, **options)


def _took(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _ms(took: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(1000 * median(times), 2) for name, times in took.items()}
