"""A language model in this process, by llama.cpp, that can make valid calls only; any GGUF file goes the same way.

`dionysus model get smollm2` brings the weights (93 MB). SmolLM2 is too small to be right; a model of several billion
parameters – `local:PATH.gguf`, `local:hf://OWNER/REPO/FILE.gguf` – takes its place by name alone.
"""

from smolagents import ToolCallingAgent, tool

from dionysus import Runtime, open_model
from dionysus.models.weights import get_weights


@tool  # type: ignore[untyped-decorator]
def tide(harbour: str) -> str:
    """Says when the next high tide is.

    Args:
        harbour: The name of a harbour.
    """
    return f"high tide at {harbour}: 14:20"


get_weights("smollm2")
model = open_model("local:smollm2", max_tokens=96)
with Runtime() as runtime:
    result = runtime.attach(ToolCallingAgent([tide], model, max_steps=3)).run("When is high tide at Lerwick?")
    print(result.status, "–", result.output)
    usage = result.usage
    print(f"{usage.input_tokens} tokens in, {usage.cached_tokens} of them cached, {usage.output_tokens} out")
    for step in runtime.traces.get_trace(result.trace_id).steps:
        for call in step.tool_calls:
            print(step.step_number, call.name, call.arguments)
