"""The MCP server: any smolagents agent remembers, recalls and looks at its own record, through Dionysus.

The other way round – tools of other servers for our agents – is `dionysus beat --mcp-server "URL or command"`.
"""

import sys
import warnings

from mcp import StdioServerParameters
from smolagents import LogLevel, MCPClient, ToolCallingAgent

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel

script = [
    {"calls": [{"name": "remember", "arguments": {"text": "Ada prefers tests that cause the fault."}}]},
    {"calls": [{"name": "semantic_recall", "arguments": {"query": "what does Ada prefer?"}}]},
    {"calls": [{"name": "final_answer", "arguments": {"answer": "She prefers tests that cause the fault."}}]},
]
server = StdioServerParameters(command=sys.executable, args=["-m", "dionysus", "mcp"])
warnings.simplefilter("ignore", DeprecationWarning)
with MCPClient(server, structured_output=True) as tools, Runtime(store="sqlite://") as runtime:
    print(", ".join(sorted(tool.name for tool in tools)))
    agent = ToolCallingAgent(tools=tools, model=ScriptedModel(script), verbosity_level=LogLevel.OFF)
    result = runtime.attach(agent).run("What does Ada prefer?")
    for step in runtime.traces.get_trace(result.trace_id).steps:
        print(step.step_number, step.observation)
    print(result.output)
