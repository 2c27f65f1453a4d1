"""One OODA cycle over a folder, on the record: a manager and its three faculties answer a question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from smolagents import Tool

from dionysus.agents.faculties import Faculty, MetacognitionAgent, PerceptionAgent, ReasoningAgent
from dionysus.agents.managed import ManagedMetacognitionAgent, ManagedPerceptionAgent, ManagedReasoningAgent
from dionysus.agents.manager import ConsciousnessManager, ooda_task
from dionysus.agents.tools import Senses
from dionysus.cycles import Cycle
from dionysus.journal import Frame, Limits
from dionysus.mcp_tools import without_clashes
from dionysus.recorder import Ending
from dionysus.stores.contract import Memory, RunRecord, Status, Usage
from dionysus.watching import Look

SomeFaculty = TypeVar("SomeFaculty", bound=Faculty)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run of one agent that an answer rests on."""

    agent: str
    trace_id: str
    at_step: int | None
    """The manager's step that called it; None: the manager itself."""
    status: Status


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a question came to."""

    text: str
    status: Status
    run_id: str
    trace_id: str
    """The manager's."""
    sources: tuple[Source, ...]
    """The traces of manager and members, in the order of their calls."""
    memories: tuple[Memory, ...]
    """What was recalled."""
    error: str | None = None
    model_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    prompt_chars: int = 0
    """Characters that were sent over all model calls."""
    chars_saved: int = 0
    """Characters that pruning kept out, summed over all prompts."""
    tokens_saved: int = 0
    """Input tokens that these are, estimated; see `dionysus.counting.Calibration`."""
    seconds: float = 0.0
    reflex: bool = False
    """Rules thought, not an LLM."""


class Mind(Cycle):
    """Answers questions, one cycle each."""

    verb, name = "ask", "consciousness_manager"

    def ask(
        self, question: str, watch: Path, model: Any, *, git: bool, on_start: Callable[[str, str], None] | None
    ) -> Answer:
        """See `Runtime.ask`."""
        look = self._watch.look(watch, git=git)
        request = self._request(look, model, git=git, question=question)
        run_id = self._recorder.claims.new_id("ask", self._new_suffix)
        return self._work(look, run_id, model, request, on_start=on_start)

    def resume(
        self,
        record: RunRecord,
        model: Any,
        *,
        limits: Limits,
        accept_changes: bool,
        on_start: Callable[[str, str], None] | None,
    ) -> Answer:
        """Goes on with a question that was not answered."""
        look = self._look(record.request)
        return self._work(
            look, record.run_id, model, record.request, on_start=on_start, limits=limits, accept_changes=accept_changes
        )

    def _work(
        self,
        look: Look,
        run_id: str,
        model: Any,
        request: Mapping[str, Any],
        *,
        on_start: Callable[[str, str], None] | None,
        limits: Limits | None = None,
        accept_changes: bool = False,
    ) -> Answer:
        senses = self._watch.senses(look, run_id, agent_name=self.name)

        def opened() -> None:
            if on_start is not None:
                on_start(look.place, str(getattr(model, "model_id", "")))

        attached = self._attached(self._agent(senses, model, self._others(request)), request, senses, opened)
        try:
            frame, ending = attached.perform(
                ooda_task(request["question"]), run_id=run_id, limits=limits, accept_changes=accept_changes
            )
        finally:
            self._watch.close(senses)
        return self._answer(frame, ending, senses, model)

    def _agent(self, senses: Senses, model: Any, others: Sequence[Tool] = ()) -> ConsciousnessManager:
        planned: dict[str, Any] = {} if self._means.planning else {"planning_interval": None}

        def build(kind: type[SomeFaculty]) -> SomeFaculty:
            more = others if kind is PerceptionAgent else ()
            return kind(without_clashes(kind.tools_over(senses), more), model, **planned)

        build(PerceptionAgent)  # what is wrong with it is said now, not to the manager
        members = [
            ManagedPerceptionAgent(lambda: build(PerceptionAgent)),
            ManagedReasoningAgent(lambda: build(ReasoningAgent)),
            ManagedMetacognitionAgent(lambda: build(MetacognitionAgent)),
        ]

        return ConsciousnessManager(members, model, **planned)

    def _answer(self, frame: Frame, ending: Ending, senses: Senses, model: Any) -> Answer:
        traces = sorted(self._store.records.traces(run_id=frame.run.id, limit=1000), key=lambda t: t.started_at)
        spent = frame.run.spent
        return Answer(
            text=str(ending.output) if ending.output is not None else "",
            status=ending.status,
            run_id=frame.run.id,
            trace_id=frame.trace_id,
            sources=tuple(
                Source(agent=t.agent_name, trace_id=t.id, at_step=t.parent_step, status=t.status) for t in traces
            ),
            memories=tuple(senses.recalled.values()),
            error=ending.error,
            model_calls=spent.model_calls,
            usage=spent.usage,
            prompt_chars=spent.prompt_chars,
            chars_saved=spent.chars_saved,
            tokens_saved=spent.tokens_saved,
            seconds=(self._clock() - senses.now).total_seconds(),
            reflex=bool(getattr(model, "is_reflex", False)),
        )
