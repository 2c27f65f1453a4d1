"""A run on record is played again without a model, and forked where it might have gone another way."""

from smolagents import LogLevel, Model, ToolCallingAgent, tool

from dionysus import ReplayDiverged, Runtime
from dionysus.models.scripted import ScriptedModel


@tool  # type: ignore[untyped-decorator]
def weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: Where.
    """
    return f"rain in {city}"


class Traveller(Model):
    """Asks once, then goes by what it sees."""

    def generate(self, messages, stop_sequences=None, **options):  # type: ignore[no-untyped-def]
        seen = str(messages[-1].content)
        if "Observation:" not in seen:
            turn = {"thought": "Look first.", "calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
        else:
            answer = "take an umbrella" if "rain" in seen else "take sunglasses"
            turn = {"thought": "So.", "calls": [{"name": "final_answer", "arguments": {"answer": answer}}]}
        return ScriptedModel([turn]).generate(messages, ["Observation:"])


def make(instructions: str | None = None) -> ToolCallingAgent:
    """The agent; replay is how a change to it is tested against what really happened."""
    model = Traveller(model_id="traveller")
    return ToolCallingAgent([weather], model, instructions=instructions, verbosity_level=LogLevel.OFF)


with Runtime(store="sqlite://") as runtime:
    runtime.attach(make()).run("What should I take along to Oslo?", run_id="oslo")
    played = runtime.replay("oslo", make())
    print("replayed:", played.output, "–", played.model_calls, "calls answered from the record")
    try:
        runtime.replay("oslo", make(instructions="Be brief."))
    except ReplayDiverged as diverged:
        new = [line for line in diverged.difference.splitlines() if line.startswith("+") and line.strip("+")]
        print("a changed prompt:", diverged.position, "…", new[-1])
    fork = runtime.fork("oslo", make(), at_step=1, edit={"observation": "sun in Oslo"}, new_id="oslo-with-sun")
    print("forked:", fork.output)
    parting = runtime.runs.diff("oslo", "oslo-with-sun")
    print("they part at", parting.step, f"({parting.what})")
