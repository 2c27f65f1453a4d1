"""What being on the record costs: CPU time of bare smolagents, of an attached agent, and of OpenInference.

One `ToolCallingAgent` over an instant scripted model, 40 steps, an observation of 2 KB each, a plan every third step.
The variants take turns in one process, so that a noisy machine disturbs them alike; ratios are of medians.
OpenInference exports to memory; it makes no span for planning, nor for calls of model classes that it does not know.
"""

import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from smolagents import LogLevel, Tool, ToolCallingAgent

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel

STEPS = 40
OBSERVATION_CHARS = 2_000
Variant = Callable[[int], None]


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Milliseconds of CPU a step, and ratios to bare.

    Args:
        data: A text file whose pieces are the observations; default: made-up words.
    """
    pages = pages_of(random.Random(seed), data)
    rounds = 3 if short else 15
    with tempfile.TemporaryDirectory() as folder, Runtime(store=f"sqlite:///{folder}/mind.db") as runtime:
        openinference = _openinference()
        variants: dict[str, Callable[[], Any]] = {
            "bare": lambda: reading_agent(pages).run("Read the pages."),
            "attached": lambda: runtime.attach(reading_agent(pages)).run("Read the pages."),
            "attached_see_once": lambda: runtime.attach(reading_agent(pages), pruning="see-once").run(
                "Read the pages."
            ),
        }
        cpu: dict[str, list[float]] = {name: [] for name in (*variants, "openinference")}
        wall: dict[str, list[float]] = {name: [] for name in cpu}
        for number in range(rounds + 1):
            for name in cpu:
                with openinference() if name == "openinference" else _nothing():
                    spent = _timed(variants.get(name, variants["bare"]))
                if number:  # the first round warms up
                    cpu[name].append(spent[0])
                    wall[name].append(spent[1])
        result = runtime.attach(reading_agent(pages)).run("Read the pages.", run_id="counted")
        syncs = _syncs(Path(folder), pages)
    per_step = {name: 1000 * median(times) / STEPS for name, times in cpu.items()}
    return {
        "steps": STEPS,
        "observation_chars": OBSERVATION_CHARS,
        "rounds": rounds,
        "model_calls": result.model_calls,
        "cpu_ms_a_step": {name: round(ms, 3) for name, ms in per_step.items()},
        "wall_ms_a_step": {name: round(1000 * median(times) / STEPS, 3) for name, times in wall.items()},
        "cpu_ratio_to_bare": {name: round(ms / per_step["bare"], 2) for name, ms in per_step.items()},
        "added_cpu_ms_a_step": {name: round(ms - per_step["bare"], 3) for name, ms in per_step.items()},
        **syncs,
    }


class _Read(Tool):
    name = "read"
    description = "Reads a page."
    inputs: ClassVar[dict[str, Any]] = {"page": {"type": "integer", "description": "Its number."}}
    output_type = "string"

    def __init__(self, pages: list[str]) -> None:
        super().__init__()
        self.pages = pages

    def forward(self, page: int) -> str:
        return self.pages[page]


def reading_agent(pages: list[str]) -> ToolCallingAgent:
    """Reads each page, a call a step, on an instant model."""
    usage = {"input_tokens": 1000, "output_tokens": 20}
    turns = [
        {"thought": f"Page {n} is next.", "calls": [{"name": "read", "arguments": {"page": n}}], "usage": usage}
        for n in range(STEPS - 1)
    ]
    end = {"thought": "Enough.", "calls": [{"name": "final_answer", "arguments": {"answer": "read"}}], "usage": usage}
    model = ScriptedModel([*turns, end])
    return ToolCallingAgent([_Read(pages)], model, planning_interval=3, max_steps=STEPS, verbosity_level=LogLevel.OFF)


def pages_of(chance: random.Random, data: Path | None) -> list[str]:
    """An observation for each step."""
    if data is not None:
        text = data.read_text(errors="replace")
        return [text[(n * OBSERVATION_CHARS) % max(1, len(text)) :][:OBSERVATION_CHARS] for n in range(STEPS)]
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(3000)]
    return [" ".join(chance.choices(words, k=OBSERVATION_CHARS // 6))[:OBSERVATION_CHARS] for _ in range(STEPS)]


def _timed(do: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    do()
    return time.process_time() - cpu, time.perf_counter() - wall


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _openinference() -> Callable[[], Any]:
    from openinference.instrumentation.smolagents import SmolagentsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    @contextmanager
    def instrumented() -> Iterator[None]:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        instrumentor = SmolagentsInstrumentor()
        instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
        try:
            yield
        finally:
            instrumentor.uninstrument()

    return instrumented


def _syncs(folder: Path, pages: list[str]) -> dict[str, int]:
    """Commits that wait for the disk, counted in one run, against the calls that must."""
    durable = 0
    with Runtime(store=f"sqlite:///{folder}/counted.db") as runtime:
        mode = "FULL"

        def seen(statement: str) -> None:
            nonlocal durable, mode
            if statement.startswith("PRAGMA synchronous="):
                mode = statement.partition("=")[2]
            durable += statement == "COMMIT" and mode == "FULL"

        connection: sqlite3.Connection = runtime._store._database._connection
        connection.set_trace_callback(seen)
        result = runtime.attach(reading_agent(pages)).run("Read the pages.")
        connection.set_trace_callback(None)
    tools = STEPS  # each finished, none of them declared idempotent: each start waits as well
    return {
        "commits_that_wait_for_the_disk": durable,
        "completed_calls_and_tool_starts": result.model_calls + 2 * tools,
    }
