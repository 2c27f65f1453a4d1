"""Your own smolagents agent on the record: journaled, traced, metered – the agent itself is left as it was.

The model is a script, so it needs no key; put one of your own in its place.
"""

from smolagents import LogLevel, ToolCallingAgent, tool

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel


@tool  # type: ignore[untyped-decorator]
def weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


script = ScriptedModel(
    [
        {
            "thought": "Both at once.",
            "calls": [{"name": "weather", "arguments": {"city": c}} for c in ("Oslo", "Rome")],
        },
        {"thought": "Enough.", "calls": [{"name": "final_answer", "arguments": {"answer": "sunny in both"}}]},
    ]
)
agent = ToolCallingAgent([weather], script, planning_interval=3, verbosity_level=LogLevel.OFF)

with Runtime(store="sqlite://") as runtime:
    result = runtime.attach(agent).run("What is the weather in Oslo and Rome?")
    print(
        result.output, "·", result.status, "·", result.model_calls, "model calls ·", result.usage.input_tokens, "tokens"
    )
    for step in runtime.traces.get_trace(result.trace_id).steps:
        print(step.step_type, step.step_number, [(call.name, call.arguments, call.result) for call in step.tool_calls])
