"""A long run: what its journal takes, how fast it is taken up, what its prompts take in memory.

One agent, one tool, observations of 2,000 characters, pruning off; three lengths, so that growth can be seen: bytes a
step that do not grow with the steps mean that the journal is linear.
"""

import random
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from smolagents import LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import MessageRole

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel

_CHARS = 2000


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Figures for each length.

    Args:
        data: A text that observations are cut from; default: random words.
    """
    lengths = (20, 40, 80) if short else (125, 250, 500)
    chance = random.Random(seed)
    text = data.read_text(errors="replace") if data else " ".join(f"w{chance.randrange(10**6)}" for _ in range(200_000))
    pages = [text[i % max(1, len(text) - _CHARS) :][:_CHARS] for i in range(0, lengths[-1] * _CHARS, _CHARS)]
    figures = [_one(pages, steps) for steps in lengths]
    first, last = figures[0], figures[-1]
    return {
        "lengths": figures,
        "bytes_a_step_ratio": round(last["store_bytes_a_step"] / first["store_bytes_a_step"], 2),
        "prompt_memory_ratio": round(last["prompt_memory_bytes_a_step"] / first["prompt_memory_bytes_a_step"], 2),
    }


def _one(pages: list[str], steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mind.db"
        with Runtime(store=f"sqlite:///{store}") as runtime:
            began = time.perf_counter()
            result = runtime.attach(_agent(pages, steps)).run("Read on.", run_id="long", budget=None)
            made_s = time.perf_counter() - began
            sent = result.prompt_chars
        size = store.stat().st_size
        with Runtime(store=f"sqlite:///{store}") as runtime:
            runtime._store.records.set_run_status("long", "interrupted")
            _without_end(runtime)
            began = time.perf_counter()
            again = runtime.attach(_agent(pages, steps)).run("Read on.", run_id="long")
            resumed_s = time.perf_counter() - began
            tracemalloc.start()
            runtime.replay("long", _agent(pages, steps))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    if again.output != result.output:
        raise RuntimeError("the resumed run has another answer")
    return {
        "steps": steps,
        "made_s": round(made_s, 2),
        "chars_sent": sent,
        "store_bytes_a_step": round(size / steps),
        "resumed_s": round(resumed_s, 2),
        "resumed_steps_per_s": round(steps / resumed_s),
        "prompt_memory_bytes_a_step": round(peak / steps),
    }


def _without_end(runtime: Runtime) -> None:
    """The run as it is when it is killed before its last call."""
    events = list(runtime._store.records.events("long"))
    last = next(event.seq for event in reversed(events) if event.kind == "model_started")
    runtime._store._database.write("DELETE FROM events WHERE run_id = ? AND seq >= ?", ("long", last))


class _Read(Tool):
    name = "read"
    description = "A page."
    inputs = {"page": {"type": "integer", "description": "Its number."}}  # noqa: RUF012 – as smolagents has it
    output_type = "string"
    idempotent = True

    def __init__(self, pages: list[str]) -> None:
        super().__init__()
        self.pages = pages

    def forward(self, page: int) -> str:
        return self.pages[page]


class _Reader(Model):
    """Reads page after page, as many as it has read so far."""

    def __init__(self, steps: int) -> None:
        super().__init__(model_id="reader")
        self.steps = steps

    def generate(self, messages: list[Any], *args: Any, **options: Any) -> Any:
        read = sum(message.role == MessageRole.TOOL_CALL for message in messages)
        if read + 1 < self.steps:
            turn = {"name": "read", "arguments": {"page": read}}
        else:
            turn = {"name": "final_answer", "arguments": {"answer": f"{read} pages"}}
        script = ScriptedModel([{"thought": "on", "calls": [turn]}])
        return script.generate(messages, ["Observation:"])


def _agent(pages: list[str], steps: int) -> ToolCallingAgent:
    return ToolCallingAgent([_Read(pages)], _Reader(steps), max_steps=steps + 1, verbosity_level=LogLevel.OFF)
