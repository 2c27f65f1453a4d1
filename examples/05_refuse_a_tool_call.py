"""A policy on tool calls: smolagents has no hook around its tools; here one fires before and after each call.

What it refuses is not made, and becomes an observation with the reason. The same works for agents that act in code.
"""

from smolagents import CodeAgent, LogLevel, tool
from smolagents.memory import ToolCall

from dionysus import Runtime, ToolEvent, ToolRefused
from dionysus.models.scripted import ScriptedModel


@tool  # type: ignore[untyped-decorator]
def delete(path: str) -> str:
    """Deletes a file.

    Args:
        path: Which.
    """
    return f"{path} is gone"


def policy(event: ToolEvent) -> None:
    """Nothing outside of /tmp may be deleted."""
    if event.phase == "before" and event.name == "delete" and not event.arguments["path"].startswith("/tmp/"):
        raise ToolRefused("only files in /tmp may be deleted")


def code(text: str) -> str:
    return f"Thought: let me see.\n<code>\n{text}\n</code>"


script = ScriptedModel(
    [code("print(delete('/tmp/a'))"), code("print(delete('/etc/passwd'))"), code("final_answer('one of two')")]
)
agent = CodeAgent([delete], script, verbosity_level=LogLevel.OFF)

with Runtime(store="sqlite://") as runtime:
    runtime.callbacks.register(ToolCall, policy)
    result = runtime.attach(agent).run("Delete both.")
    for step in runtime.traces.get_trace(result.trace_id).steps:
        for call in step.tool_calls:
            print(call.name, call.arguments, "→", call.error or call.result)
