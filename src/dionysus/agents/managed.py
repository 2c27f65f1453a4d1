"""The delegable faces of agents: what a manager's code gets in place of them.

A face has a name, a description and the call, and nothing else: generated code reads attributes, and a live agent would
hand it model, tools and memory. Each call runs a fresh agent, so parallel calls do not share a memory.
"""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from smolagents import MultiStepAgent
from smolagents.agents import populate_template
from smolagents.utils import AgentMaxStepsError

from dionysus.agents.faculties import Faculty, MetacognitionAgent, PerceptionAgent, ReasoningAgent

_INPUTS = {
    "task": {"type": "string", "description": "What to find out or decide, in full sentences, with what is known."},
    "additional_args": {"type": "object", "description": "Further inputs by name.", "nullable": True},
}
_NO_ANSWER = "Error in generating final LLM output"
"""How smolagents begins the answer that it puts in place of a model's that failed."""


class ManagedAgent:
    """A name, a description, and the call."""

    def __init__(self, name: str, description: str, answer: Callable[..., Any]) -> None:
        """
        Args:
            answer: (task, additional_args=…) → report.
        """
        self.name, self.description = name, description
        self.inputs: Mapping[str, Any] = _INPUTS
        self.output_type = "string"
        _ANSWERS[self] = answer

    def __call__(self, task: str, additional_args: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """The report."""
        if additional_args is not None:
            more["additional_args"] = additional_args
        return _ANSWERS[self](task, **more)


_ANSWERS: WeakKeyDictionary[ManagedAgent, Callable[..., Any]] = WeakKeyDictionary()
_BUILDERS: WeakKeyDictionary[ManagedAgent, Callable[[], MultiStepAgent]] = WeakKeyDictionary()
# Beside the faces, not in them: even private attributes are within reach of generated code.


class ManagedFaculty(ManagedAgent):
    """The face of a faculty."""

    def __init__(self, kind: type[Faculty], build: Callable[[], Faculty]) -> None:
        super().__init__(kind.role, kind.purpose, lambda task, **more: delegate(build(), task, **more))
        _BUILDERS[self] = build


class ManagedPerceptionAgent(ManagedFaculty):
    """Observe; each call works with a new agent that `build` makes."""

    def __init__(self, build: Callable[[], PerceptionAgent]) -> None:
        super().__init__(PerceptionAgent, build)


class ManagedReasoningAgent(ManagedFaculty):
    """Orient; each call works with a new agent that `build` makes."""

    def __init__(self, build: Callable[[], ReasoningAgent]) -> None:
        super().__init__(ReasoningAgent, build)


class ManagedMetacognitionAgent(ManagedFaculty):
    """Decide; each call works with a new agent that `build` makes."""

    def __init__(self, build: Callable[[], MetacognitionAgent]) -> None:
        super().__init__(MetacognitionAgent, build)


def fresh_agent(face: ManagedAgent) -> MultiStepAgent | None:
    """A new agent, as a call of the face would use; None: the face was not made from an agent."""
    build = _BUILDERS.get(face)
    return build() if build is not None else None


def is_built(face: ManagedAgent) -> bool:
    """Whether calls of the face run an agent."""
    return face in _BUILDERS


def delegate(agent: MultiStepAgent, task: str, additional_args: Mapping[str, Any] | None = None) -> str:
    """Hands a task to an agent; returns its report.

    That it failed, or used up its steps, is said in the report: the manager's code goes on.
    """
    templates = agent.prompt_templates["managed_agent"]
    given = {"name": agent.name, "task": task, "max_steps": agent.max_steps}
    try:
        answer = agent.run(
            populate_template(templates["task"], given), additional_args=dict(additional_args or {}) or None
        )
    except Exception as failure:  # noqa: BLE001 – said in the report, and in the trace where there is one
        return f"{agent.name} failed: {type(failure).__name__}: {failure}; nothing of it is known."
    last = agent.memory.steps[-1] if agent.memory.steps else None
    if not isinstance(getattr(last, "error", None), AgentMaxStepsError):
        return str(populate_template(templates["report"], {"name": agent.name, "final_answer": answer}))
    used_up = f"{agent.name} used up its {agent.max_steps} actions before it answered"
    if _NO_ANSWER in str(answer):
        return f"{used_up}, and could not sum up what it found: {answer[0]['text']}"
    report = populate_template(templates["report"], {"name": agent.name, "final_answer": answer})
    return f"{used_up}; from what it found:\n{report}"
