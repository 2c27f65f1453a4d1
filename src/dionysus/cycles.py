"""What a beat and a question have in common: an agent over the senses of one episode, on the record, that can be taken
up, replayed and forked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from smolagents import Model, MultiStepAgent, Tool

from dionysus.agents.tools import Senses
from dionysus.attached import Attached, RecordedRun
from dionysus.callbacks.see_once import Rule
from dionysus.errors import BadInput
from dionysus.journal import Frame, InFlight, Limits, recorded_model
from dionysus.mcp_tools import McpServers, stand_ins
from dionysus.recorder import Recorder
from dionysus.stores import Store
from dionysus.stores.contract import RunRecord
from dionysus.watching import Look, Watch


@dataclass(frozen=True, kw_only=True)
class Means:
    """What cycles work with."""

    store: Store
    recorder: Recorder
    watch: Watch
    planning: bool
    beat_steps: int
    pruning: Rule
    limits: Limits
    in_flight: InFlight
    servers: McpServers
    clock: Callable[[], datetime]
    new_suffix: Callable[[], str]


class Cycle(ABC):
    """A kind of built-in run."""

    verb: ClassVar[str]
    """What its runs are kept under."""
    name: ClassVar[str]
    """Of the agent that is run."""

    def __init__(self, means: Means) -> None:
        self._store, self._recorder, self._watch = means.store, means.recorder, means.watch
        self._clock, self._new_suffix = means.clock, means.new_suffix
        self._means = means

    @abstractmethod
    def _agent(self, senses: Senses, model: Any, others: Sequence[Tool] = ()) -> MultiStepAgent:
        """The agent, with tools over these senses, and those of other servers."""

    def replay(self, record: RunRecord) -> RecordedRun:
        """See `Runtime.replay`."""
        senses: Any = None  # the tools are never called
        agent = self._agent(senses, Model(model_id="none: replay"), stand_ins(record.request.get("tools", ())))
        return self._attached(agent, record.request).replay(record.run_id)

    def fork(self, record: RunRecord, model: Any, **options: Any) -> RecordedRun:
        """See `Runtime.fork`. What a fork does is neither a beat of the folder nor an answer that is kept."""
        return self._beside(record, model, lambda attached: attached.fork(record.run_id, **options))

    def resume_fork(self, record: RunRecord, model: Any, **options: Any) -> RecordedRun:
        """Goes on with a fork that did not finish."""
        return self._beside(record, model, lambda attached: attached.resume(record.run_id, **options))

    def _beside(self, record: RunRecord, model: Any, do: Callable[[Attached], RecordedRun]) -> RecordedRun:
        """Works with the agent over what there is to see now, in an episode of its own."""
        senses = self._watch.senses(self._look(record.request), f"fork-{self._new_suffix()}")
        request = {**record.request, "verb": "fork", "of": self.verb}
        with ExitStack() as stack:
            stack.callback(self._watch.close, senses)
            return do(self._attached(self._agent(senses, model, self._others(request)), request, senses))

    # -- for those below -------------------------------------------------------------------------------

    def _look(self, request: Mapping[str, Any]) -> Look:
        return self._watch.look(Path(request["watch"]), git=bool(request["git"]))

    def _request(self, look: Look, model: Any, *, git: bool, **more: Any) -> dict[str, Any]:
        """What a run is kept with."""
        offered = {"tools": self._means.servers.definitions()} if self._means.servers else {}
        spec = getattr(model, "spec", None)
        return {"verb": self.verb, "watch": look.place, "git": git, "model": spec, **offered, **more}

    def _others(self, request: Mapping[str, Any]) -> Sequence[Tool]:
        """The tools of other servers that a run works with; those that are connected now."""
        wanted = {tool["name"]: tool["server"] for tool in request.get("tools", ())}
        if not wanted:
            return ()
        offered = {tool.name: tool for tool in self._means.servers.tools()} if self._means.servers else {}
        gone = sorted({server for name, server in wanted.items() if name not in offered})
        if gone:
            raise BadInput(f"the run works with tools of {', '.join(gone)}: connect them again with --mcp-server")
        return [offered[name] for name in wanted]

    def _attached(
        self,
        agent: MultiStepAgent,
        request: Mapping[str, Any],
        senses: Senses | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> Attached:
        def opened(frame: Frame) -> None:
            if senses is not None:
                senses.frame = frame
                if not getattr(agent.model, "is_reflex", False):
                    senses.thinker = recorded_model(agent.model, frame, within_tool=True)
            on_open()

        return Attached(
            agent,
            self._recorder,
            pruning=self._means.pruning,
            limits=self._means.limits,
            in_flight=self._means.in_flight,
            new_suffix=self._new_suffix,
            request=request,
            name=self.name,
            place=str(request["watch"]),
            on_open=opened,
        )
