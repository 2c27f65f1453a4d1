"""The three faculties of a mind that loops: perception, reasoning, metacognition.

Each is an agent of its own, with its own tools; a manager calls them by name, and each runs alone as well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from smolagents import LogLevel, Model, Tool, ToolCallingAgent

from dionysus.agents.prompts import prompts
from dionysus.agents.tools import (
    ListGoals,
    MosaeicCapture,
    ObserveEnvironment,
    QueryWisdomGraph,
    ReflectOnTopic,
    ReviseMentalModel,
    SemanticRecall,
    Senses,
    SynthesizeInformation,
    UpdateGoal,
)

PLANNING_INTERVAL = 2
MAX_STEPS = 5


class Faculty(ToolCallingAgent):
    """Plans before actions 1, 3 and 5, acts at most five times."""

    role: ClassVar[str]
    """Its name, by which a manager calls it."""
    purpose: ClassVar[str]
    """What a manager reads: what to ask it for."""
    tool_types: ClassVar[Sequence[Callable[[Senses], Tool]]]

    def __init__(
        self,
        tools: Sequence[Tool],
        model: Model,
        *,
        step_callbacks: Mapping[type, Callable[..., Any]] | None = None,
        planning_interval: int | None = PLANNING_INTERVAL,
        max_steps: int = MAX_STEPS,
        verbosity_level: LogLevel = LogLevel.OFF,
    ) -> None:
        """
        Args:
            tools: `tools_over(senses)`, or others.
            planning_interval: Actions from plan to plan; None: no planning.
        """
        super().__init__(
            tools=list(tools),
            model=model,
            name=self.role,
            description=self.purpose,
            prompt_templates=prompts("faculty"),
            instructions=f"{prompts('faculty', part='roles')[self.role]}\nFinish within {max_steps} actions.",
            step_callbacks=dict(step_callbacks or {}),
            planning_interval=planning_interval,
            max_steps=max_steps,
            verbosity_level=verbosity_level,
        )

    @classmethod
    def tools_over(cls, senses: Senses) -> list[Tool]:
        """Its tools, over what an episode sees."""
        return [tool(senses) for tool in cls.tool_types]


class PerceptionAgent(Faculty):
    """Observe: what is there, what is remembered of it, which principles apply."""

    role = "perception"
    purpose = (
        "OBSERVE. Looks at the environment, recalls memories, asks the wisdom graph for principles that apply, and "
        "keeps the moment. Ask it what there is to see and what is known about it."
    )
    tool_types = (ObserveEnvironment, SemanticRecall, QueryWisdomGraph, MosaeicCapture)


class ReasoningAgent(Faculty):
    """Orient: where the evidence points."""

    role = "reasoning"
    purpose = (
        "ORIENT. Looks back at the places and words where evidence points, and puts information together. Hand it what "
        "was observed, and ask what follows."
    )
    tool_types = (ReflectOnTopic, SynthesizeInformation)


class MetacognitionAgent(Faculty):
    """Decide: goals, and what was expected against what came."""

    role = "metacognition"
    purpose = (
        "DECIDE. Knows the goals and the mental models: compares what was expected with what came, says which goals "
        "are touched. Hand it what was observed and what follows from it."
    )
    tool_types = (ListGoals, ReviseMentalModel, UpdateGoal)


FACULTIES = (PerceptionAgent, ReasoningAgent, MetacognitionAgent)
