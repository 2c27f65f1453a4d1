"""A budget over a whole tree of agents: not one model call more, and the run can go on with a larger one."""

from smolagents import LogLevel, Model, ToolCallingAgent, tool
from smolagents.models import MessageRole

from dionysus import Budget, Runtime
from dionysus.models.scripted import ScriptedModel


@tool  # type: ignore[untyped-decorator]
def step(number: int) -> str:
    """Takes a step.

    Args:
        number: Which.
    """
    return f"step {number} taken"


class Walker(Model):
    """Takes six steps."""

    def generate(self, messages, stop_sequences=None, **options):  # type: ignore[no-untyped-def]
        taken = sum(message.role == MessageRole.TOOL_CALL for message in messages)
        call = {"name": "step", "arguments": {"number": taken + 1}}
        last = {"name": "final_answer", "arguments": {"answer": "arrived"}}
        return ScriptedModel([{"thought": "on", "calls": [call if taken < 6 else last]}]).generate(messages, ["x"])


agent = ToolCallingAgent([step], Walker(model_id="walker"), verbosity_level=LogLevel.OFF)
with Runtime(store="sqlite://") as runtime:
    attached = runtime.attach(agent, budget=Budget(calls=4, seconds=60))
    result = attached.run("Walk to the hill.", run_id="walk")
    print(result.status, "·", result.error)
    result = attached.run("Walk to the hill.", run_id="walk", budget=Budget(calls=20))
    print(result.status, "·", result.output, "·", result.model_calls, "model calls in all")
