"""What pruning costs on a real prefix cache: prompt tokens that llama.cpp evaluates, and those that it has already.

A run of sixty actions is played by an attached smolagents `ToolCallingAgent` – its model and tool play the record – and
every prompt is handed to llama.cpp, which reads it and answers one token that nobody uses: so the prompts are what the
real callbacks make of them, and the counts are llama.cpp's own. Policies: none; the naive window rule (steps older than
three cut, at every step); see-once. Each has a server of its own, with nothing in its cache.

`model_evaluated` is what the usual model of such a cache says: the longest common prefix with the prompt before is
cached, the rest is not – by characters; `agreement` is that ÷ what llama.cpp evaluated.

Long runs exceed what a small model was trained for. Its text would mean nothing there, but nobody reads it: the
benchmark works on a copy of the weights whose head allows more.
"""

import multiprocessing
import os
import struct
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from smolagents import ChatMessage

from benchmarks.recorded import Player, agent_of, reading_this_project, runs_in
from dionysus import Runtime
from dionysus.callbacks.see_once import Rule
from dionysus.models.gguf import read_head
from dionysus.models.local import LocalModel
from dionysus.models.weights import find_weights
from dionysus.settings import Settings

STEPS = 60
POLICIES: dict[str, Rule] = {"none": "off", "naive": "window", "ours": "see-once"}
_CHARS_PER_TOKEN = 2.2
"""Fewer than any recorded run has: so much context is made room for."""


def run(*, short: bool, seed: int, data: Path | None, model: str = "local:smollm2") -> dict[str, Any]:
    """Figures per policy.

    Args:
        data: Recorded runs, one JSON object a line (gzip or not): `{"id", "prefix": [{"role", "content"}], "steps":
            [{"thought", "action", "obs"}]}`; the first of at least sixty steps whose place is the seed. Default: a run
            that reads this project's files.
        model: A local model.
    """
    steps = 8 if short else STEPS
    record = _recorded(data, steps, seed) if data else reading_this_project(steps)
    spawn = multiprocessing.get_context("spawn")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = _with_room(find_weights(model.removeprefix("local:")), record, Path(folder))
        for name, rule in POLICIES.items():
            with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                figures[name] = alone.submit(_played, record, str(weights), rule).result()
    none = figures["none"]
    for found in figures.values():
        for what in ("prompt_tokens", "evaluated", "prompt_seconds"):
            found[f"{what}_to_none"] = round(found[what] / none[what], 3)
    return {"model": model, "run": record["id"], "steps": steps, **figures}


def _played(record: dict[str, Any], weights: str, rule: Rule) -> dict[str, Any]:
    """One run under one policy, in a process of its own."""
    local = LocalModel(weights, context=read_head(Path(weights)).context, max_tokens=1, timeout_s=3600)
    model = _Reading(record, local)
    agent, task = agent_of(record, model)
    os.environ.pop("AGENT_MEMORY_WINDOW", None)
    with tempfile.TemporaryDirectory() as own:
        settings = Settings(store=f"sqlite:///{own}/mind.db", memory_window=3 if rule == "window" else None)
        with Runtime(settings=settings) as runtime:
            result = runtime.attach(agent, pruning=rule).run(task)
    assert result.status == "success", result.error
    told = model.told
    prompt, evaluated, supposed = (sum(call[what] for call in told) for what in ("prompt", "evaluated", "supposed"))
    return {
        "calls": len(told),
        "prompt_tokens": prompt,
        "evaluated": evaluated,
        "reused": prompt - evaluated,
        "model_evaluated": round(supposed),
        "agreement": round(supposed / evaluated, 3),
        "agreement_per_call_median": round(median(call["supposed"] / call["evaluated"] for call in told), 3),
        "prompt_seconds": round(sum(call["seconds"] for call in told), 1),
        "last_prompt_tokens": told[-1]["prompt"],
    }


class _Reading(Player):
    """Has llama.cpp read every prompt."""

    def __init__(self, record: dict[str, Any], local: LocalModel) -> None:
        super().__init__(record, local.model_id)
        self._local = local
        self.told: list[dict[str, float]] = []
        self._last = ""

    def asked(self, messages: list[ChatMessage], action: int | None) -> dict[str, Any]:
        read = self._local.generate(messages)
        timings = read.raw["timings"]
        prompt = timings["prompt_n"] + timings["cache_n"]
        text = "".join(f"{m.role}\n{part['text']}\n" for m in messages for part in m.content)
        common = next((i for i, (a, b) in enumerate(zip(text, self._last, strict=False)) if a != b), len(self._last))
        self._last = text
        self.told.append(
            {
                "prompt": prompt,
                "evaluated": timings["prompt_n"],
                "supposed": prompt * (len(text) - common) / len(text),
                "seconds": timings["prompt_ms"] / 1000,
            }
        )
        return {"raw": read.raw, "token_usage": read.token_usage}


def _recorded(data: Path, steps: int, seed: int) -> dict[str, Any]:
    """A run of a file that is long enough, cut to so many steps."""
    runs = [made for made in runs_in(data) if len(made["steps"]) >= steps]
    chosen = runs[(seed - 1) % len(runs)]
    return {**chosen, "steps": chosen["steps"][:steps]}


def _with_room(weights: Path, record: dict[str, Any], folder: Path) -> Path:
    """The weights, or a copy that takes a longer context."""
    chars = sum(len(m["content"]) for m in record["prefix"])
    chars += sum(len(s["thought"]) + len(s["obs"]) + len(s["action"]) + 200 for s in record["steps"])
    needed = 2 ** max(12, int(chars / _CHARS_PER_TOKEN).bit_length())
    head = read_head(weights)
    if head.context >= needed:
        return weights
    key = f"{head.architecture}.context_length".encode()
    data = bytearray(weights.read_bytes())
    struct.pack_into("<I", data, data.index(key) + len(key) + 4, needed)  # after the key: its type, then the number
    copy = folder / weights.name
    copy.write_bytes(data)
    return copy
