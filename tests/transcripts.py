"""What tests of attached agents share: turns of a script, tools, a model that goes by what it is shown, and processes
that die – as far as a test in one process can tell."""

from collections.abc import Callable, Sequence
from typing import Any

from smolagents import ChatMessage, LogLevel, Model, MultiStepAgent, Tool, ToolCallingAgent, tool
from smolagents.models import MessageRole

from dionysus.models.scripted import ScriptedModel

USED = {"input_tokens": 100, "output_tokens": 10}


@tool  # type: ignore[untyped-decorator]
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One number.
        b: The other.
    """
    return a + b


@tool  # type: ignore[untyped-decorator]
def read(page: int) -> str:
    """Reads a page.

    Args:
        page: Its number.
    """
    if page < 0:
        raise ValueError(f"no page {page}")
    return f"page {page}: " + " ".join(f"word_{page}_{i}" for i in range(120))


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def act(*calls: dict[str, Any], thought: str = "so") -> dict[str, Any]:
    return {"thought": thought, "calls": list(calls), "usage": USED}


def answer(text: Any = "done") -> dict[str, Any]:
    return act(call("final_answer", answer=text), thought="enough")


def code(text: str) -> dict[str, Any]:
    return {"thought": f"Thought: so\n<code>\n{text}\n</code>", "usage": USED}


class Cut(BaseException):
    """The process dies here: nothing of it may run on, so tests throw their runtime away."""


class ByTranscript(Model):
    """Its n-th action is the n-th of a script, counted in the prompt: so a run that is taken up goes on with it."""

    def __init__(self, turns: Sequence[Any], *, dies_at: int | None = None, model_id: str = "by transcript") -> None:
        super().__init__(model_id=model_id)
        self.turns, self.dies_at = turns, dies_at
        self.prompts: list[Any] = []

    def generate(self, messages: list[Any], stop_sequences: Any = None, **options: Any) -> ChatMessage:
        self.prompts.append(list(messages))
        if len(self.prompts) == self.dies_at:
            raise Cut
        if "<end_plan>" in (stop_sequences or ()):
            return ScriptedModel([], plans=["1. Go on."]).generate(messages, stop_sequences)
        acted = sum(message.role == MessageRole.TOOL_CALL for message in messages)
        turn = self.turns[acted] if acted < len(self.turns) else {"error": f"no turn {acted}"}
        return ScriptedModel([turn]).generate(messages, ["Observation:"])


class Note(Tool):
    """Has effects, and may be the last thing that a process does."""

    name = "note"
    description = "Notes."
    inputs = {"text": {"type": "string", "description": "What."}}  # noqa: RUF012 – as smolagents has it
    output_type = "string"

    def __init__(self, made: list[str], *, dies: bool = False, before: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.made, self.dies, self.before = made, dies, before

    def forward(self, text: str) -> str:
        self.before()
        self.made.append(text)
        if self.dies:
            raise Cut
        return f"noted {text}"


def agent_of(turns: Sequence[Any], tools: Sequence[Any], *, dies_at: int | None = None, **options: Any) -> Any:
    """A ToolCallingAgent that goes by the transcript."""
    return ToolCallingAgent(list(tools), ByTranscript(turns, dies_at=dies_at), verbosity_level=LogLevel.OFF, **options)


def calls_made(agent: MultiStepAgent) -> int:
    """Model calls that really were made, its members' included."""
    return len(agent.model.prompts) + sum(map(calls_made, agent.managed_agents.values()))
