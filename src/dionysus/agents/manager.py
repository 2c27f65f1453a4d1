"""The manager: a mind that loops – Observe, Orient, Decide, Act – by handing work on in natural language."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smolagents import CodeAgent, LogLevel, Model

from dionysus.agents.managed import ManagedAgent
from dionysus.agents.prompts import prompts

PLANNING_INTERVAL = 3
MAX_STEPS = 15


class ConsciousnessManager(CodeAgent):
    """Has no tools, only members; writes code that calls them.

    smolagents' local executor runs that code in this process: it is no sandbox. The members' faces expose nothing but
    the call, but who lets a model write code for it should trust the model, or run the whole in a container.
    """

    def __init__(
        self,
        members: Sequence[ManagedAgent],
        model: Model,
        *,
        step_callbacks: Mapping[type, Callable[..., Any]] | None = None,
        planning_interval: int | None = PLANNING_INTERVAL,
        max_steps: int = MAX_STEPS,
        verbosity_level: LogLevel = LogLevel.OFF,
    ) -> None:
        super().__init__(
            tools=[],
            model=model,
            name="consciousness_manager",
            description="Runs Observe–Orient–Decide–Act with its members.",
            managed_agents=list(members),
            prompt_templates=prompts("manager"),
            step_callbacks=dict(step_callbacks or {}),
            planning_interval=planning_interval,
            max_steps=max_steps,
            executor_kwargs={"timeout_seconds": None},  # a member may take minutes; its work must not be thrown away
            verbosity_level=verbosity_level,
        )

    def run_ooda_cycle(self, context: Mapping[str, Any] | str) -> Any:
        """One cycle over a context, `{"task": …, …}` or a text; returns the final answer."""
        return self.run(ooda_task(context))


def ooda_task(context: Mapping[str, Any] | str) -> str:
    """What one cycle asks of the manager: the same text for the same context."""
    given = {"task": context} if isinstance(context, str) else dict(context)
    question = " ".join(str(given.pop("task", "What is going on, and what should be done next?")).split())
    known = "\n".join(f"{name}: {value}" for name, value in sorted(given.items()))
    text = str(prompts("manager", part="task")["cycle"]).format(question=question)
    return f"{text}\nGiven:\n{known}" if known else text
