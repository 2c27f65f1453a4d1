"""A model that plays a script: how to try an agent without an LLM."""

from pathlib import Path

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel

script = ScriptedModel(
    plans=["1. observe_environment\n2. final_answer"],
    actions=[
        {"thought": "Look first.", "calls": [{"name": "observe_environment", "arguments": {}}]},
        {"thought": "That will do.", "calls": [{"name": "final_answer", "arguments": {"answer": "All seen [1]."}}]},
    ],
)

with Runtime(store="sqlite://", model=script) as runtime:
    report = runtime.beat(watch=Path(__file__).parent)
    print(report.status, "–", report.text)
    print(f"{report.model_calls} model calls, {len(script.prompts)} prompts; the last one ends with:")
    print(script.prompts[-1][-1].content[0]["text"][:200])
