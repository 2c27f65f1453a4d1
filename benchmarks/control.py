"""What control by coherence saves, on agents that can loop: steps wasted, tokens, finished runs.

The same agent, with the same chances, in three arms: without coherence; with it in its plans, as by default; and with
rules – a loop of three equal calls is told within the observation, and incoherence of three actions brings about a
plan.

Two scripts stand for models. *insists* makes the same fruitless call until something in its prompt tells it that it
does, and then heeds it in 70 of 100 prompts. *flaky* does so with a tool that mostly fails. They read their prompts,
which smolagents and the real callbacks make. With `--model`, a real one is asked for what a fruitless search can never
find.
"""

import random
import re
import tempfile
from pathlib import Path
from statistics import fmean, median
from typing import Any

from smolagents import ChatMessage, LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus import Runtime
from dionysus.counting import count, counter
from dionysus.settings import Settings

_ARMS: dict[str, dict[str, Any]] = {
    "off": {"coherence": False},
    "in_plans": {},
    "rules": {"coherence_loops": 3, "incoherent": "replan"},
}
_MOST = 25
"""Actions of a run."""
_PLAN_EVERY = 8
_HEEDS = 0.7
_TOLD = re.compile(r"\[IWMT\] This is call|WARNING: coherence is below")


def run(*, short: bool, seed: int, data: Path | None, model: str | None = None) -> dict[str, Any]:
    """Figures per kind of agent and arm.

    Args:
        data: Not used: the agents look at nothing.
        model: Such a model, too, asked once per arm and seed.
    """
    del data
    rounds = 5 if short else 40
    rows = []
    for kind in ("insists", "flaky"):
        for arm, flags in _ARMS.items():
            played = [_play(_Scripted(kind, f"{seed} {n}"), flags, f"{seed} {n}") for n in range(rounds)]
            rows.append({"agent": kind, "arm": arm, **_summed(played)})
    if model is not None:
        for arm, flags in _ARMS.items():
            played = [_play(model, flags, f"{seed} {n}") for n in range(1 if short else 5)]
            rows.append({"agent": model, "arm": arm, **_summed(played)})
    return {"runs_per_row": rounds, "actions_at_most": _MOST, "counted_by": counter(), "rows": rows}


def _summed(played: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "finished": round(fmean(p["finished"] for p in played), 3),
        "actions_median": median(p["actions"] for p in played),
        "repeated_calls_mean": round(fmean(p["repeated"] for p in played), 2),
        "prompt_tokens_mean": round(fmean(p["tokens"] for p in played)),
    }


def _play(model: Any, flags: dict[str, Any], seed: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as own:
        settings = Settings(store=f"sqlite:///{own}/mind.db", **flags)
        with Runtime(settings=settings, model=model if isinstance(model, str) else None) as runtime:
            thinker = runtime.model if isinstance(model, str) else model
            agent = ToolCallingAgent(
                [Search(), Fetch(seed), Mirror()],
                thinker,
                max_steps=_MOST,
                planning_interval=_PLAN_EVERY,
                verbosity_level=LogLevel.OFF,
            )
            result = runtime.attach(agent).run(
                "Find the opening hours of the library of Alexandria in the archive, and answer with them."
            )
            steps = [s for s in runtime.traces.get_trace(result.trace_id).steps if s.step_type == "action"]
            calls = [(c.name, str(c.arguments)) for step in steps for c in step.tool_calls]
            tokens = result.usage.input_tokens
    return {
        "finished": float(result.status == "success"),
        "actions": len(steps),
        "repeated": len(calls) - len(set(calls)),
        "tokens": tokens,
    }


class Search(Tool):
    """Finds nothing, ever."""

    name = "search"
    description = "Searches the archive."
    inputs = {"query": {"type": "string", "description": "Words."}}  # noqa: RUF012 – smolagents' form
    output_type = "string"
    idempotent = True

    def forward(self, query: str) -> str:
        """The same for every query."""
        return "no results"


class Fetch(Tool):
    """Fails 19 times of 20."""

    name = "fetch"
    description = "Fetches a page of the archive."
    inputs = {"page": {"type": "string", "description": "Its name."}}  # noqa: RUF012 – smolagents' form
    output_type = "string"
    idempotent = True

    def __init__(self, seed: str) -> None:
        super().__init__()
        self._chance = random.Random(f"{seed} fetch")

    def forward(self, page: str) -> str:
        """The page, sometimes."""
        if self._chance.random() < 0.95:
            raise ConnectionError("the archive does not answer")
        return "open from 8 to 18"


class Mirror(Tool):
    """Has it."""

    name = "mirror"
    description = "Fetches a page of the archive's mirror, which is slow."
    inputs = {"page": {"type": "string", "description": "Its name."}}  # noqa: RUF012 – smolagents' form
    output_type = "string"
    idempotent = True

    def forward(self, page: str) -> str:
        """The page."""
        return "open from 8 to 18"


class _Scripted(Model):
    """Makes the same call until its prompt says that it does."""

    def __init__(self, kind: str, seed: str) -> None:
        super().__init__(model_id=kind)
        self._kind, self._chance = kind, random.Random(f"{seed} {kind}")
        self._calls = 0
        self._has_changed = False

    def generate(
        self, messages: list[ChatMessage], stop_sequences: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> ChatMessage:
        """The next answer."""
        texts = ["".join(part["text"] for part in message.content) for message in messages]
        text = "\n".join(texts)
        usage = TokenUsage(count(text), 0)
        if "<end_plan>" in (stop_sequences or ()):
            return ChatMessage(role=MessageRole.ASSISTANT, content="1. Go on.", token_usage=usage)
        newest = "\n".join(texts[-3:])
        if _TOLD.search(newest) and self._chance.random() < _HEEDS:
            self._has_changed = True
        if "open from 8 to 18" in newest:
            name, arguments = "final_answer", {"answer": "open from 8 to 18"}
        elif self._has_changed:
            name, arguments = "mirror", {"page": "library"}
        elif self._kind == "insists":
            name, arguments = "search", {"query": "opening hours library Alexandria"}
        else:
            name, arguments = "fetch", {"page": "library"}
        self._calls += 1
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id=f"call_{self._calls}", type="function", function=function)
        return ChatMessage(role=MessageRole.ASSISTANT, content=None, tool_calls=[call], token_usage=usage)
