"""A stage for reflex: a real smolagents agent over tools that return fixed texts, with see-once stubs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from smolagents import ActionStep, ChatMessage, LogLevel, PlanningStep, Tool, ToolCallingAgent

from dionysus.findings import parse
from dionysus.models.reflex import Reflex

Answer = str | Exception

_GOAL: dict[str, dict[str, Any]] = {
    "goal_id": {"type": "integer", "description": "number"},
    "progress": {"type": "string", "description": "line"},
    "status": {"type": "string", "description": "open, done, dropped", "nullable": True},
}
_RECALL: dict[str, dict[str, Any]] = {
    "step": {"type": "integer", "description": "number"},
    "query": {"type": "string", "description": "words", "nullable": True},
}


def _strings(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"type": "string", "description": name} for name in names}


INPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "observe_environment": {},
    "semantic_recall": _strings("query"),
    "query_wisdom_graph": _strings("topic"),
    "mosaeic_capture": _strings("senses", "actions", "emotions", "impulses", "cognitions"),
    "reflect_on_topic": _strings("topic"),
    "synthesize_information": _strings("information", "question"),
    "list_goals": {},
    "update_goal": _GOAL,
    "revise_mental_model": {},
    "recall_observation": _RECALL,
}
OPENING = [
    "observe_environment",
    "list_goals",
    "semantic_recall",
    "revise_mental_model",
    "reflect_on_topic",
    "query_wisdom_graph",
]
ENDING = ["synthesize_information", "mosaeic_capture", "final_answer"]
"""The tools of a beat in order; between them, a goal is updated or a second place reflected on."""

NOTHING: dict[str, Answer] = {
    "observe_environment": "- [beat] beat 1, Sat 2026-11-21: first look\n- [place] 1 file (1 .txt), no git history",
    "semantic_recall": "- [nothing] no memory speaks of it",
    "query_wisdom_graph": "- [nothing] no principle speaks of it",
    "mosaeic_capture": "- [captured] beat 1 kept as a memory (300 characters)",
    "reflect_on_topic": "- [nothing] nothing here is called so",
    "synthesize_information": "- [nothing] no three kinds of evidence speak of the same thing",
    "list_goals": "- [nogoal] no goals set",
    "update_goal": "- [progress] goal 1 is open; noted",
    "revise_mental_model": "- [nothing] no expectation applied",
    "recall_observation": "- [nothing] never asked",
}
"""What the tools of an empty folder say."""


class Fixed(Tool):
    """A tool that says one thing, or raises."""

    skip_forward_signature_validation = True
    output_type = "string"
    name = "fixed"
    description = "Says one thing."
    inputs: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, name: str, answer: Answer, *, description: str = "", inputs: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.description = description or f"The tool {name}."
        self.inputs = dict(INPUTS[name] if inputs is None else inputs)  # type: ignore[misc]
        self.answer = answer
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Played:
    """What an agent did."""

    text: str
    tools: list[str] = field(default_factory=list)
    """Called tool by step; `!name` where the call failed."""
    arguments: list[Mapping[str, Any]] = field(default_factory=list)
    results: dict[int, str] = field(default_factory=dict)
    """The full tool result of each step."""
    plans: list[list[str]] = field(default_factory=list)
    last_input: list[Any] = field(default_factory=list)

    def asked(self, tool: str) -> list[Mapping[str, Any]]:
        return [a for name, a in zip(self.tools, self.arguments, strict=True) if name == tool]


class _Recorder(Reflex):
    """Reflex, and what it said: a call that raised is nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.last_input: list[Any] = []

    def generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatMessage:
        message = super().generate(messages, *args, **kwargs)
        for call in message.tool_calls or ():
            self.calls.append((call.function.name, call.function.arguments))
            self.last_input = list(messages)
            assert call.id == f"call_{len(self.calls)}"
        assert message.token_usage is not None
        assert message.token_usage.total_tokens == 0
        return message


def beat_task(actions: int) -> str:
    """The heartbeat's task."""
    return (
        "Heartbeat: see what changed, recall what is known about it, compare it with what was expected.\n"
        f"Use the tools and finish with final_answer within {actions} actions."
    )


def play(
    said: Mapping[str, Answer],
    *,
    without: Iterable[str] = (),
    extra: Iterable[Tool] = (),
    actions: int = 10,
    task: str | None = None,
    max_steps: int | None = None,
) -> Played:
    """Runs a beat over tools that say what is given, and nothing where nothing is given."""
    answers = {**NOTHING, **said}
    tools = [Fixed(name, answer) for name, answer in answers.items() if name not in set(without)]
    results: dict[int, str] = {}
    plans: list[list[str]] = []

    def stub(step: ActionStep, agent: Any) -> None:
        """What the model has seen whole once is a stub from now on: no room, and only names are left."""
        results[step.step_number] = step.observations or ""
        for earlier in agent.memory.steps:
            text = getattr(earlier, "observations", None)
            if text and len(text) > 40 and not text.startswith("[cut "):
                names = [name for f in parse(text) for name in f.identifiers]
                earlier.observations = (
                    f"[cut {len(text)} chars; recall_observation({earlier.step_number})] " + " ".join(names)
                )

    def plan(step: PlanningStep, agent: Any) -> None:
        lines = step.plan.splitlines()
        plans.append([line.partition(". ")[2] for line in lines if line[:1].isdigit()])
        step.plan += "\n\n[IWMT] Coherence: 83.0% (loops 1.00; fine)\n- [idle] a line that no tool said"

    model = _Recorder()
    agent = ToolCallingAgent(
        tools=[*tools, *extra],
        model=model,
        planning_interval=3,
        max_steps=max_steps or actions,
        verbosity_level=LogLevel.OFF,
        step_callbacks={ActionStep: stub, PlanningStep: plan},
    )
    text = str(agent.run(task or beat_task(actions)))
    done = [s for s in agent.memory.steps if isinstance(s, ActionStep) and s.model_output is not None]
    names = [f"{'!' if s.error else ''}{name}" for s, (name, _) in zip(done, model.calls, strict=True)]
    return Played(text, names, [a for _, a in model.calls], results, plans, model.last_input)


def mark_of(line: str) -> int | None:
    """The step that a line of a report comes from."""
    found = re.search(r"\[(\d+)\](?: \(\+\d+ more\))?$", line)
    return int(found[1]) if found else None
