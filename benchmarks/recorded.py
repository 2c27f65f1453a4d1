"""Recorded runs, and how an attached smolagents agent plays one: its model and its tool say what the record says.

A record is a JSON object a line (gzip or not): `{"id", "prefix": [{"role", "content"}], "steps": [{"thought", "action",
"obs"}]}`. Whatever prompts come out are made by smolagents and by the real callbacks.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smolagents import ChatMessage, LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

PLAN = "1. Go on with the task as the last results suggest.\n2. Check the outcome.\n3. Answer."
"""What a played agent says when it is asked for a plan."""
_PIECE = 1_100
"""Characters of an observation of the run that is made of this project's own files."""


def runs_in(data: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The runs of a file, with texts where something is missing.

    Raises:
        SystemExit: A line is no such run.
    """
    found: list[dict[str, Any]] = []
    try:
        with gzip.open(data, "rt") if data.suffix == ".gz" else data.open() as lines:
            for number, line in enumerate(lines, 1):
                if limit is not None and len(found) >= limit:
                    break
                made = _run(line, data, number)
                found += [made] if made["steps"] else []
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{data} cannot be read: {error}") from error
    if not found:
        raise SystemExit(f"{data} holds no run with steps")
    return found


def _run(line: str, data: Path, number: int) -> dict[str, Any]:
    try:
        made = json.loads(line)
        steps = [{**step, **_texts(step, "thought", "action", "raw", "obs")} for step in made["steps"]]
        prefix = [{"role": str(m["role"]), **_texts(m, "content")} for m in made["prefix"]]
        if not any(m["content"].strip() for m in prefix if m["role"] != "system"):
            raise ValueError("its prefix has no task, which is what a user says")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"{data}, line {number}: no recorded run ({type(error).__name__}: {error})") from error
    return {**made, "id": str(made.get("id", number)), "prefix": prefix, "steps": steps}


def _texts(record: dict[str, Any], *names: str) -> dict[str, str]:
    return {name: str(record.get(name) or "") for name in names}


def reading_this_project(steps: int, start: int = 0) -> dict[str, Any]:
    """A run that reads this project's files, piece by piece."""
    root = Path(__file__).parents[1] / "src"
    pieces = [
        (f"{path.relative_to(root)}:{at}", text[at : at + _PIECE])
        for path in sorted(root.rglob("*.py"))
        for text in [path.read_text()]
        for at in range(0, len(text) - _PIECE, _PIECE)
    ]
    chosen = pieces[start :: max(1, len(pieces) // (steps + start + 1))][:steps]
    return {
        "id": f"reading this project from {start}",
        "prefix": [
            {"role": "system", "content": "You read files and say what they are for."},
            {"role": "user", "content": "Read the pieces one by one, then answer."},
        ],
        "steps": [
            {"thought": f"Next is {name}.", "action": f"show {name}", "raw": f"show {name}", "obs": piece}
            for name, piece in chosen
        ],
    }


class Player(Model):
    """Says what the record says, and keeps nothing; `asked` is called with each prompt for an action or a plan."""

    def __init__(self, record: dict[str, Any], model_id: str = "recorded") -> None:
        super().__init__(model_id=model_id)
        self._steps: Sequence[dict[str, Any]] = record["steps"]
        self._played = 0
        self.offered: Sequence[Tool] = ()
        """The tools of the prompt that is asked for."""

    def asked(self, messages: list[ChatMessage], action: int | None) -> dict[str, Any]:
        """What else the answer carries: `raw`, `token_usage`.

        Args:
            action: Which action is asked for, from 1 on; None: a plan. One more than there are: the end.
        """
        return {"token_usage": TokenUsage(0, 0)}

    def generate(
        self, messages: list[ChatMessage], stop_sequences: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> ChatMessage:
        """The next answer."""
        self.offered = kwargs.get("tools_to_call_from") or ()
        if "<end_plan>" in (stop_sequences or ()):
            return ChatMessage(role=MessageRole.ASSISTANT, content=PLAN, **self.asked(messages, None))
        self._played += 1
        more = self.asked(messages, self._played)
        if self._played > len(self._steps):
            name, arguments, thought = "final_answer", {"answer": "done"}, "Done."
        else:
            step = self._steps[self._played - 1]
            name, arguments, thought = "run", {"command": step["action"]}, step["thought"]
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id=f"call_{self._played}", type="function", function=function)
        return ChatMessage(role=MessageRole.ASSISTANT, content=thought or None, tool_calls=[call], **more)


class Recorded(Tool):
    """Gives the recorded observations, one after the other."""

    name = "run"
    description = "Runs a command."
    inputs = {"command": {"type": "string", "description": "The command."}}  # noqa: RUF012 – smolagents' form
    output_type = "string"

    def __init__(self, steps: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._seen: Iterator[str] = iter([step["obs"] for step in steps])

    def forward(self, command: str) -> str:
        return next(self._seen)


def agent_of(record: dict[str, Any], model: Player, planning_interval: int | None = None) -> tuple[Any, str]:
    """A smolagents agent that plays a record – its prefix is the system prompt and the task – and the task."""
    system = "\n\n".join(m["content"] for m in record["prefix"] if m["role"] == "system")
    task = "\n\n".join(m["content"] for m in record["prefix"] if m["role"] != "system")
    agent = ToolCallingAgent(
        [Recorded(record["steps"])], model, max_steps=len(record["steps"]) + 1, planning_interval=planning_interval
    )
    agent.logger.level = LogLevel.OFF
    agent.initialize_system_prompt = lambda: system  # as it is: a template would read its braces
    agent.memory.system_prompt.system_prompt = system
    return agent, task
