"""How well a local model drives agents: twenty small tasks with answers that can be checked, with and without schemas.

Each task is a few files and a question; a smolagents `ToolCallingAgent` as it comes has five tools to find the answer.
`schema` holds each call to a JSON schema of what is offered, `native` leaves the form to the model, `pruned` is as
`schema`, with see-once pruning; they take turns.
A call is valid if smolagents could read it and the tool took it; a run is finished if the model ended it itself; it is
correct if its answer holds the expected word or number and is no longer than a sentence. `threads`: tokens a second of
one answer under the OpenMP settings that there are, on an idle machine and on one with as many busy processes as cores.
"""

import ast
import json
import operator
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from smolagents import ActionStep, LogLevel, Tool, ToolCallingAgent, tool
from smolagents.utils import AgentGenerationError, AgentMaxStepsError

from dionysus import Runtime, open_model
from dionysus.callbacks.see_once import Rule
from dionysus.models import ToolCalls
from dionysus.models.local import LocalModel
from dionysus.traces import FullTrace

TASKS = Path(__file__).with_name("tasks.jsonl")
_SENTENCE = 160
"""Characters of an answer: who hands on whole files has found nothing."""
_STEPS = 6
_TOKENS = 320
_OMP: dict[str, dict[str, str]] = {
    "ours": {},
    "active": {"OMP_WAIT_POLICY": "active"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
_OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def run(*, short: bool, seed: int, data: Path | None, model: str = "local:smollm2") -> dict[str, Any]:
    """Figures of each way.

    Args:
        data: Tasks, one JSON object a line: `{"id", "question", "files": {name: text}, "answer": [accepted, …]}`;
            default: the twenty of this project.
        model: A local model.
    """
    tasks = [json.loads(line) for line in (data or TASKS).read_text().splitlines() if line.strip()]
    random.Random(seed).shuffle(tasks)
    steps, tokens = (2, 96) if short else (_STEPS, _TOKENS)
    ways: dict[str, tuple[ToolCalls, Rule]] = {"schema": ("schema", "off"), "native": ("native", "off")}
    if not short:
        ways["pruned"] = ("schema", "see-once")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as own, Runtime(store=f"sqlite:///{own}/mind.db") as runtime:
        calls: tuple[ToolCalls, ...] = ("schema", "native")
        models = {form: open_model(model, tool_calls=form, max_tokens=tokens, timeout_s=600) for form in calls}
        for task in tasks[: 2 if short else None]:
            for way, (form, pruning) in ways.items():
                found[way].append(_attempt(runtime, models[form], task, steps, way, pruning))
    return {
        "model": model,
        "tasks": len(found["schema"]),
        "max_steps": steps,
        "max_tokens": tokens,
        **{way: _summed(runs) for way, runs in found.items()},
        "mended": vars(models["schema"].counts),
        **({} if short else {"threads": _threads(model), "each": found}),
    }


def tools_over(files: dict[str, str]) -> list[Tool]:
    """What an agent has to find an answer: the files, and some arithmetic. Wrong input is answered, not raised."""

    def list_files() -> str:
        """Lists the names of all files."""
        return "\n".join(files)

    def read_file(name: str) -> str:
        """Shows the text of a file.

        Args:
            name: The name of the file, as list_files shows it.
        """
        return files.get(name, f"there is no file {name!r}")

    def find(text: str) -> str:
        """Shows the lines of all files that hold a text.

        Args:
            text: A word, or some words.
        """
        hits = [
            f"{n}: {line}" for n, all_ in files.items() for line in all_.splitlines() if text.lower() in line.lower()
        ]
        return "\n".join(hits) or f"no line holds {text!r}"

    def calculate(expression: str) -> str:
        """Calculates with + - * / and brackets.

        Args:
            expression: For example "(3 + 4) * 2".
        """
        try:
            return f"{_value(ast.parse(expression, mode='eval').body):g}"
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
            return f"{expression!r} is nothing to calculate"

    def days_between(first: str, last: str) -> str:
        """Counts the days from one date to another.

        Args:
            first: A date like 2024-01-31.
            last: A date like 2024-01-31.
        """
        try:
            return str((date.fromisoformat(last) - date.fromisoformat(first)).days)
        except ValueError as error:
            return str(error)

    return [tool(function) for function in (list_files, read_file, find, calculate, days_between)]


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise ValueError


def is_correct(answer: Any, accepted: list[str]) -> bool:
    """Whether an answer holds an accepted word or number, and not much else."""
    text = str(answer).replace(",", "")
    return len(text) <= _SENTENCE and any(
        re.search(rf"(?<![\w.\-]){re.escape(word)}(?:\.0+)?(?![\w\-]|\.\d)", text, re.I) for word in accepted
    )


def _attempt(runtime: Runtime, model: Any, task: dict[str, Any], steps: int, way: str, pruning: Rule) -> dict[str, Any]:
    agent = ToolCallingAgent(tools_over(task["files"]), model, max_steps=steps, verbosity_level=LogLevel.OFF)
    actions: list[ActionStep] = []
    agent.step_callbacks.register(ActionStep, actions.append)
    run_id = f"{task['id']}-{way}"
    began = time.perf_counter()
    try:
        answer = runtime.attach(agent, pruning=pruning).run(task["question"], run_id=run_id).output
    except AgentGenerationError as error:  # the context is full, or the model took too long: this task is lost, no more
        answer = f"failed: {error}"
    seconds = time.perf_counter() - began
    trace = runtime.traces.get_trace(run_id)
    ended = trace.trace.status == "success"
    actions = [step for step in actions if not isinstance(step.error, AgentMaxStepsError)]  # smolagents' closing step
    return {
        "task": task["id"],
        "status": trace.trace.status,
        "finished": ended,
        "correct": ended and is_correct(answer, task["answer"]),
        "answer": str(answer)[:_SENTENCE],
        "actions": len(actions),
        "valid": sum(step.error is None for step in actions),
        "mended": trace.trace.mended_calls,
        "input_tokens": trace.trace.input_tokens,
        "cached_tokens": trace.trace.cached_tokens,
        "output_tokens": trace.trace.output_tokens,
        "tokens_per_s": _speed(trace),
        "seconds": round(seconds, 2),
    }


def _speed(trace: FullTrace) -> float:
    speeds = [
        c.usage.tokens_per_s for step in trace.steps for c in step.model_calls if c.usage.tokens_per_s is not None
    ]
    return round(median(speeds), 1) if speeds else 0.0


def _summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    total = {name: sum(run[name] for run in runs) for name in ("actions", "valid", "mended", "finished", "correct")}
    tokens = {name: sum(run[name] for run in runs) for name in ("input_tokens", "cached_tokens", "output_tokens")}
    return {
        **total,
        "valid_share": round(total["valid"] / total["actions"], 3),
        "finished_share": round(total["finished"] / len(runs), 3),
        "correct_share": round(total["correct"] / len(runs), 3),
        **tokens,
        "tokens_per_s_median": round(median(run["tokens_per_s"] for run in runs), 1),
        "seconds_median": round(median(run["seconds"] for run in runs), 2),
    }


def _threads(model: str) -> dict[str, Any]:
    """Output tokens a second, medians of three; the settings take turns."""
    figures: dict[str, Any] = {}
    for name, busy in (("idle", 0), ("busy", os.cpu_count() or 1)):
        speeds: dict[str, list[float]] = {policy: [] for policy in _OMP}
        with _busy(busy):
            for _ in range(3):
                for policy, variables in _OMP.items():
                    speeds[policy].append(_speed_under(model, variables))
        figures[name] = {policy: round(median(found), 1) for policy, found in speeds.items()}
    return figures


def _speed_under(model: str, variables: dict[str, str]) -> float:
    """In a process of its own: OpenMP reads its settings once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    script = f"from benchmarks.local import print_speed; print_speed({model!r})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def print_speed(model: str) -> None:
    """Tokens a second of one answer of 60 tokens."""
    opened = LocalModel(model.removeprefix("local:"), max_tokens=60)
    text = "You help. " * 150 + "Tell a long story."
    asked: Any = {"role": "user", "content": [{"type": "text", "text": text}]}
    print(opened.generate([asked]).raw["timings"]["predicted_per_second"])


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
