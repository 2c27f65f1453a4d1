"""Agents tested without a model: what the pytest fixture `cassette` hands out.

def test_my_agent(cassette):
    result = cassette("capital").run(my_agent(), "What is the capital of France?")
    assert result.output == "Paris"

`pytest --record-cassettes` runs what has no cassette with its real model and tools, and keeps it in `cassettes/` beside
the test; from then on it is played: no model and no tool is called, and an agent that would do something else fails
with the first difference (`ReplayDiverged`).
"""

from pathlib import Path
from typing import Any

from smolagents import MultiStepAgent

from dionysus.attached import RecordedRun
from dionysus.callbacks.see_once import Rule
from dionysus.errors import BadInput
from dionysus.journal.cassette import read_cassette
from dionysus.journal.replaying import Past
from dionysus.runtime import Runtime
from dionysus.settings import Settings, load_settings


class PlayedCassette:
    """One recorded run, or the place where it will be kept."""

    def __init__(self, path: Path, *, record: bool, pruning: Rule) -> None:
        self.path, self._record, self._pruning = path, record, pruning

    def run(self, agent: MultiStepAgent, task: str, **inputs: Any) -> RecordedRun:
        """Plays the run with this agent; what it raised then, it raises now.

        Args:
            inputs: Further arguments of the agent's `run()`.

        Raises:
            ReplayDiverged: This agent would do something else than what is recorded.
            BadInput: There is no cassette, or it has another task.
        """
        if self.path.exists():
            return self._played(agent, task, inputs)
        if not self._record:
            raise BadInput(f"no cassette {str(self.path)!r}; record it once: pytest --record-cassettes")
        with Runtime(store="sqlite://", settings=_unshipped(load_settings())) as runtime:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                result: RecordedRun = runtime.attach(agent, pruning=self._pruning).run(
                    task, run_id="cassette", **inputs
                )
            finally:
                if runtime.runs.listed():
                    runtime.runs.export("cassette", self.path)
            return result

    def _played(self, agent: MultiStepAgent, task: str, inputs: dict[str, Any]) -> RecordedRun:
        cassette = read_cassette(self.path)
        if cassette.damage is not None:
            raise cassette.damage
        past = Past(cassette.events)
        with Runtime(store="sqlite://", settings=_as_recorded(past)) as runtime:
            run_id = runtime.import_run(self.path)
            attached = runtime.attach(agent, pruning=past.made_of.get("runtime", {}).get("pruning", "off"))
            asked = past.top.body["task"] if past.top is not None else None
            if not attached.asks_as_recorded(run_id, task, inputs):
                raise BadInput(
                    f"the cassette {str(self.path)!r} answers another task: {asked!r}; remove it to record anew"
                )
            frame, ending = attached.replayed(run_id, **inputs)
            if ending.failure is not None:
                raise ending.failure
            return attached.result(frame, ending)


def _as_recorded(past: Past) -> Settings:
    """What reaches prompts is switched as it was, whatever this machine's settings."""
    then = past.made_of.get("runtime", {})
    switches = {name: then[name] for name in ("coherence", "flow", "basins", "memory_window") if name in then}
    settings = load_settings(**switches)
    rules = then.get("coherence_rules") or {"loops": None, "incoherent": "warn"}
    named = {"loops": "coherence_loops", "incoherent": "incoherent", "after": "incoherent_after"}
    return _unshipped(settings.model_copy(update={named[name]: rules[name] for name in named if name in rules}))


def _unshipped(settings: Settings) -> Settings:
    """Tests leave nothing in a graph, whatever Neo4j this machine uses."""
    return settings.model_copy(update={"neo4j_uri": None, "traces_from": "store"})
