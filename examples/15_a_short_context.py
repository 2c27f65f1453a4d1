"""A short context in which nothing is lost: what was seen once becomes a stub, and comes back when it is asked for.

`DIONYSUS_KEEP_WHOLE="read_file=5"` would show what `read_file` read in five prompts instead of one.
"""

from pathlib import Path

from smolagents import LogLevel, ToolCallingAgent, tool

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel


@tool  # type: ignore[untyped-decorator]
def read_file(path: str) -> str:
    """Reads a file.

    Args:
        path: Which.
    """
    return Path(path).read_text()


here = Path(__file__).parent
files = [str(here / name) for name in ("08_survive_kill_9.py", "11_rest.py", "12_mcp.py")]
calls = [{"name": "read_file", "arguments": {"path": path}} for path in files]
calls.append({"name": "recall_observation", "arguments": {"step": 1, "query": "SIGKILL"}})
calls.append({"name": "final_answer", "arguments": {"answer": "read"}})
model = ScriptedModel([{"calls": [call]} for call in calls])
agent = ToolCallingAgent([read_file], model, verbosity_level=LogLevel.OFF)

with Runtime(store="sqlite://") as runtime:
    result = runtime.attach(agent, pruning="see-once").run("Read them all.")
    for step in runtime.traces.get_trace(result.trace_id).steps:
        saw = len(step.observation or "")
        shown = f"later shown as: {step.pruned.stub[:60]}…" if step.pruned else "shown whole"
        print(f"{step.step_number}: {saw:,} characters, {shown}")
