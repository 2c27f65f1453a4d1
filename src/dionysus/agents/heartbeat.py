"""The heartbeat: an agent that looks at what changed, remembers, compares and says what to do next."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smolagents import LogLevel, Model, Tool, ToolCallingAgent

from dionysus.agents.prompts import prompts

PLANNING_INTERVAL = 3
MAX_STEPS = 10


class HeartbeatAgent(ToolCallingAgent):
    """Plans before actions 1, 4, 7 and 10, acts at most ten times."""

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
            planning_interval: Actions from plan to plan; None: no planning.
        """
        super().__init__(
            tools=list(tools),
            model=model,
            prompt_templates=prompts("heartbeat"),
            step_callbacks=dict(step_callbacks or {}),
            planning_interval=planning_interval,
            max_steps=max_steps,
            verbosity_level=verbosity_level,
        )

    @property
    def beat_task(self) -> str:
        """What each beat asks of the agent; the same text every time, so that prompts share their prefix."""
        return str(prompts("heartbeat", part="task")["beat"]).format(max_steps=self.max_steps)
