"""How many prompt tokens pruning saves a heartbeat, and how they grow with its steps.

The same heartbeat – its own agent, tools, callbacks and prompts, over a real folder – runs with and without pruning;
what it does is fixed, so that both do the same. Counted are all prompts, those for plans included, by
`dionysus.counting`: their messages, and the schemas of the tools as JSON.

    python scripts/benchmark_token_usage.py [--steps 10] [--reading] [--data FOLDER] [--ci] [--growth] [--json FILE]
        [--plot FILE]

Its own tools answer in a few short lines, of which there is little to cut. `--reading` gives it one more, over MCP,
that reads files, as a heartbeat has that is given tools of one's own. `--ci` exits with 1 where pruning saves less than
30 %. `--growth` runs 10, 20, 40, 80 and 160 steps and fits tokens = a · steps^b; `--plot` draws that as SVG.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from smolagents import ChatMessage, Model
from smolagents.models import (
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    TokenUsage,
    get_tool_json_schema,
)

from dionysus import Runtime
from dionysus.counting import count, counter
from dionysus.settings import Settings

WANTED = 0.30
_compiled = shutil.ignore_patterns("__pycache__")
STEPS = (10, 20, 40, 80, 160)
ROOT = Path(__file__).parents[1]
PLAN = "1. Look at what changed most.\n2. Hold it against what is remembered.\n3. Say what to do next."


class Diligent(Model):
    """Looks, remembers, reflects on one file after the other, and answers with its last action; counts its prompts."""

    def __init__(self, files: Sequence[str], steps: int, *, reading: bool) -> None:
        super().__init__(model_id="diligent")
        self._calls = [
            *islice(_calls(files, reading=reading), steps - 1),
            ("final_answer", {"answer": "All files were read."}),
        ]
        self._acted = 0
        self.messages = 0
        """Tokens of messages, over all prompts."""
        self.schemas = 0
        """Tokens of the schemas of tools."""
        self.plans = 0
        """Of the former, in prompts for plans."""

    def generate(
        self, messages: list[ChatMessage], stop_sequences: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> ChatMessage:
        """A plan, or the next call."""
        tokens = sum(count(part["text"]) for message in messages for part in message.content)
        schemas = sum(count(json.dumps(get_tool_json_schema(t))) for t in kwargs.get("tools_to_call_from") or ())
        self.messages += tokens
        self.schemas += schemas
        usage = TokenUsage(tokens + schemas, 0)
        if "<end_plan>" in (stop_sequences or ()):
            self.plans += tokens
            return ChatMessage(role=MessageRole.ASSISTANT, content=PLAN, token_usage=usage)
        name, arguments = self._calls[self._acted]
        self._acted += 1
        call = ChatMessageToolCall(
            id=f"call_{self._acted}",
            type="function",
            function=ChatMessageToolCallFunction(name=name, arguments=arguments),
        )
        thought = f"Next is {name} {' '.join(map(str, arguments.values()))}".strip()
        return ChatMessage(role=MessageRole.ASSISTANT, content=thought, tool_calls=[call], token_usage=usage)


def _calls(files: Sequence[str], *, reading: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a diligent heartbeat calls, without end."""
    yield "observe_environment", {}
    yield "list_goals", {}
    yield "semantic_recall", {"query": "what was fixed lately"}
    yield "revise_mental_model", {}
    for path in cycle(files):
        yield ("read_file", {"path": path}) if reading else ("reflect_on_topic", {"topic": path})


def serve_files(folder: Path) -> None:
    """An MCP server over stdio with one tool."""
    from mcp.server.fastmcp import FastMCP

    server = FastMCP("files", log_level="WARNING")

    @server.tool()
    def read_file(path: str) -> str:
        """The text of a file of the watched folder."""
        return (folder / path).read_text(encoding="utf-8")

    server.run()


def measured(steps: int, folder: Path, *, reading: bool) -> dict[str, Any]:
    """Prompt tokens of one heartbeat of so many steps, without and with pruning."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py") if ".venv" not in path.parts)
    found = {}
    for name, pruning in (("unpruned", "off"), ("pruned", "see-once")):
        with tempfile.TemporaryDirectory() as own:
            model = Diligent(files, steps, reading=reading)
            files_server = f"{sys.executable} {Path(__file__).resolve()} --serve {folder.resolve()}" if reading else ""
            store = f"sqlite:///{own}/mind.db"
            settings = Settings(store=store, pruning=pruning, beat_steps=steps, mcp_servers=files_server)
            with Runtime(settings=settings, model=model) as runtime:
                beat = runtime.beat(folder)
        if beat.status != "success" or beat.actions != steps:
            raise SystemExit(f"the heartbeat ended with {beat.status} after {beat.actions} actions: {beat.error}")
        found[name] = {
            "prompt_tokens": model.messages + model.schemas,
            "of_messages": model.messages,
            "of_plans": model.plans,
            "of_schemas": model.schemas,
        }
    without, with_ = found["unpruned"], found["pruned"]
    return {
        "steps": steps,
        **found,
        "reduction": round(1 - with_["prompt_tokens"] / without["prompt_tokens"], 4),
        "reduction_of_messages": round(1 - with_["of_messages"] / without["of_messages"], 4),
    }


def fitted(points: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """(a, b) of tokens = a · steps^b, by least squares over the logarithms."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    b = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    return math.exp(mean_y - b * mean_x), b


def plot(rows: Sequence[dict[str, Any]], growth: dict[str, Any]) -> str:
    """Both curves as SVG, with both axes logarithmic."""
    width, height, left, low = 640, 400, 70, 40
    most = max(row["unpruned"]["prompt_tokens"] for row in rows)
    least = min(row["pruned"]["prompt_tokens"] for row in rows)
    span_x, span_y = math.log(STEPS[-1] / STEPS[0]), math.log(most / least)

    def at(steps: float, tokens: float) -> tuple[float, float]:
        x = left + (width - left - 130) * math.log(steps / STEPS[0]) / span_x
        return round(x, 1), round(height - low - (height - 2 * low) * math.log(tokens / least) / span_y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="20">Prompt tokens of one heartbeat, plans included ({counter()})</text>',
    ]
    for row in rows:
        x, _ = at(row["steps"], least)
        parts.append(f'<text x="{x}" y="{height - low + 18}" text-anchor="middle">{row["steps"]}</text>')
    for name, colour, beside in (("unpruned", "#b2182b", -6), ("pruned", "#2166ac", 16)):
        places = [at(row["steps"], row[name]["prompt_tokens"]) for row in rows]
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" '
            f'points="{" ".join(f"{x},{y}" for x, y in places)}"/>'
        )
        for (x, y), row in zip(places, rows, strict=True):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
            label = f"{row[name]['prompt_tokens']:,}"
            parts.append(f'<text x="{x - 6}" y="{y + beside}" text-anchor="end" fill="{colour}">{label}</text>')
        x, y = places[-1]
        parts.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{name} ∝ n^{growth[name]["exponent"]:.2f}</text>')
    parts.append(f'<text x="{left + 200}" y="{height - 6}" text-anchor="middle">steps</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> int:
    """Measures, prints, judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="actions of the heartbeat; at least 2")
    parser.add_argument("--reading", action="store_true", help="with a tool that reads files")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="the folder that is watched; default: this project's sources")
    parser.add_argument("--ci", action="store_true", help="exit with 1 below 30 %% fewer")
    parser.add_argument("--growth", action="store_true", help="10 to 160 steps, fitted")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the growth to this SVG file")
    chosen = parser.parse_args()
    if chosen.serve:
        serve_files(chosen.serve)
        return 0
    if chosen.steps < 2:
        parser.error("--steps: at least 2")
    if chosen.data is not None and not any(chosen.data.rglob("*.py")):
        parser.error(f"--data: no Python files in {chosen.data}")
    with tempfile.TemporaryDirectory() as copy:
        folder = chosen.data or Path(shutil.copytree(ROOT / "src", Path(copy) / "src", ignore=_compiled))
        figures: dict[str, Any] = {
            "benchmark": "token_usage",
            "counted_by": counter(),
            **measured(chosen.steps, folder, reading=chosen.reading),
        }
        if chosen.growth or chosen.plot:
            rows = [measured(steps, folder, reading=chosen.reading) for steps in STEPS]
            growth = {}
            for name in ("unpruned", "pruned"):
                a, b = fitted([(row["steps"], row[name]["prompt_tokens"]) for row in rows])
                growth[name] = {"factor": round(a, 1), "exponent": round(b, 3)}
            figures["growth"] = {**growth, "rows": rows}
            if chosen.plot:
                chosen.plot.write_text(plot(rows, growth))
    text = json.dumps(figures, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    if chosen.ci and figures["reduction"] < WANTED:
        print(f"only {100 * figures['reduction']:.1f} % fewer; wanted: {100 * WANTED:.0f} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
