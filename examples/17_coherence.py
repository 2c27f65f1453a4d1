"""Coherence: a loop that is noticed, told within the observation, and ended by a plan of its own accord."""

from smolagents import LogLevel, ToolCallingAgent, tool

from dionysus import Runtime, Turn, assess_coherence
from dionysus.models.scripted import ScriptedModel
from dionysus.settings import Settings


@tool  # type: ignore[untyped-decorator]
def search(query: str) -> str:
    """Searches the archive.

    Args:
        query: Words.
    """
    return "no results"


# Any transcript can be assessed, without an agent, a store or an LLM.
turns = [Turn(step=n, calls=[("search", {"query": "ferry"})], observation="no results") for n in (1, 2, 3)]
found = assess_coherence("When does the ferry leave?", turns)
if found is not None:
    print(f"{found.level:.2f}  {found.reason} → {found.advice}  ({found.in_words})")

# An agent that repeats itself, with rules switched on.
again = {"thought": "Let me search.", "calls": [{"name": "search", "arguments": {"query": "ferry"}}]}
done = {"thought": "Enough.", "calls": [{"name": "final_answer", "arguments": {"answer": "I cannot find it."}}]}
agent = ToolCallingAgent([search], ScriptedModel([again] * 4 + [done]), verbosity_level=LogLevel.OFF)

settings = Settings(store="sqlite://", coherence_loops=3, incoherent="replan", incoherent_after=2)
with Runtime(settings=settings) as runtime:
    result = runtime.attach(agent).run("When does the ferry leave?")
    for step in runtime.traces.get_trace(result.trace_id).steps:
        text = step.plan or step.observation or ""
        print(f"{step.step_number:>2} {step.step_type:<8} {step.coherence}  {text.splitlines()[-1]}")
    assessed = runtime.assess(result.trace_id)
    print(f"lowest {assessed.lowest}; calibrated by {assessed.calibrated_by} runs of this agent")
