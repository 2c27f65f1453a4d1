"""Your own OpenAI-compatible model – Ollama, vLLM, LM Studio, llama.cpp … – for the built-in agents and for yours.

python examples/06_your_own_endpoint.py http://localhost:11434/v1 qwen3
"""

import sys

from smolagents import LogLevel, ToolCallingAgent

from dionysus import Runtime, open_model

if len(sys.argv) != 3:
    sys.exit(f"usage: python {sys.argv[0]} URL MODEL")
model = open_model(f"openai:{sys.argv[2]}", api_base=sys.argv[1])

with Runtime(store="sqlite://", model=model) as runtime:
    print(runtime.ask("What is this folder about?", watch=".").text)
    agent = ToolCallingAgent([], model, max_steps=3, verbosity_level=LogLevel.OFF)
    result = runtime.attach(agent).run("Name the capital of Norway.")
    print(result.output, "·", result.usage.input_tokens, "tokens in,", result.usage.cached_tokens, "of them cached")
