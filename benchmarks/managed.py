"""What a manager costs: one OODA cycle by `ConsciousnessManager`, against its three members called by hand.

`by_hand` is also the way to go where a manager's calls are too slow or too dear: three agents, one after the other,
each handed what the ones before it found; no code is generated. Calls, characters (tokens, where a model reports them)
and time, medians over the rounds, the two taking turns. DIONYSUS_MODEL names the model; default: reflex.
"""

import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from dionysus import Runtime
from dionysus.agents import MetacognitionAgent, PerceptionAgent, ReasoningAgent
from dionysus.agents.faculties import Faculty
from dionysus.agents.tools import Senses

QUESTIONS = (
    "What has changed, and what follows from it?",
    "Which tests are missing?",
    "What should be done next, and why?",
    "How are totals counted?",
)


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Figures of both ways.

    Args:
        data: The folder that is asked about; default: this repository.
    """
    folder = data or Path(__file__).parents[1]
    chance = random.Random(seed)
    rounds = 2 if short else 7
    figures: dict[str, list[dict[str, float]]] = {"manager": [], "by_hand": []}
    with tempfile.TemporaryDirectory() as own, Runtime(store=f"sqlite:///{own}/mind.db") as runtime:
        model = runtime.settings.model
        runtime.ask(QUESTIONS[0], folder)  # reads the history once, for both
        for _ in range(rounds):
            for question in chance.sample(QUESTIONS, len(QUESTIONS)):
                for name, way in (("manager", _by_manager), ("by_hand", _by_hand)):
                    figures[name].append(way(runtime, question, folder))
    medians = {
        name: {what: round(median(f[what] for f in found), 3) for what in found[0]} for name, found in figures.items()
    }
    ratio = {what: _ratio(medians["manager"][what], value) for what, value in medians["by_hand"].items()}
    return {"model": model, "questions": rounds * len(QUESTIONS), **medians, "manager_to_by_hand": ratio}


def by_hand(runtime: Runtime, question: str, folder: Path) -> str:
    """The three members in turn, without a manager; returns what they found."""
    return str(_chain(runtime, question, folder)[0])


def _by_manager(runtime: Runtime, question: str, folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    answer = runtime.ask(question, folder)
    return {
        "model_calls": answer.model_calls,
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "prompt_chars": answer.prompt_chars,
        "seconds": time.perf_counter() - began,
    }


def _by_hand(runtime: Runtime, question: str, folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    _, runs = _chain(runtime, question, folder)
    return {
        "model_calls": sum(run.model_calls for run in runs),
        "input_tokens": sum(run.usage.input_tokens for run in runs),
        "output_tokens": sum(run.usage.output_tokens for run in runs),
        "prompt_chars": sum(run.prompt_chars for run in runs),
        "seconds": time.perf_counter() - began,
    }


def _chain(runtime: Runtime, question: str, folder: Path) -> tuple[str, list[Any]]:
    known, runs = "", []
    with runtime.senses(folder) as senses:
        for kind, ask in (
            (PerceptionAgent, "Observe: say what has changed, what is remembered of it, which rules apply."),
            (ReasoningAgent, "Orient: look back at the places named below; where does it meet?"),
            (MetacognitionAgent, "Decide: which goals are concerned? Compare what was expected with what came."),
        ):
            result = runtime.attach(_agent(kind, senses, runtime), pruning="see-once").run(
                f"Your manager gave you this task:\n{ask}\nQuestion: {question}\n{known}\n"
                "Finish with final_answer within 5 actions."
            )
            runs.append(result)
            known += f"What is known so far:\n{result.output}\n"
    return known, runs


def _agent(kind: type[Faculty], senses: Senses, runtime: Runtime) -> Faculty:
    return kind(kind.tools_over(senses), runtime.model)


def _ratio(one: float, other: float) -> float | None:
    return round(one / other, 2) if other else None
