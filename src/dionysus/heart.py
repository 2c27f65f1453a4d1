"""The heartbeat's cycle: look without a model, wake an agent if something happened, keep what it learned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from smolagents import Tool

from dionysus.agents.heartbeat import PLANNING_INTERVAL, HeartbeatAgent
from dionysus.agents.tools import Senses, heartbeat_tools
from dionysus.assessing import Calibrations
from dionysus.cycles import Cycle, Means
from dionysus.errors import BadInput, StoreError
from dionysus.journal import Frame, Limits
from dionysus.mcp_tools import without_clashes
from dionysus.memory.consolidation import Consolidated, Consolidation
from dionysus.memory.goals import Goals
from dionysus.memory.semantic import SemanticMemory
from dionysus.recorder import Ending
from dionysus.stores.contract import Beat, Goal, RunRecord, Status, Usage
from dionysus.watching import Look


@dataclass(frozen=True, kw_only=True)
class Waking:
    """A beat that found something to do, before its agent runs."""

    number: int
    place: str
    reasons: tuple[str, ...]
    model: str


@dataclass(frozen=True, kw_only=True)
class BeatReport:
    """What a heartbeat found and said."""

    number: int
    status: Status | str
    """`idle`, or the trace's status."""
    reasons: tuple[str, ...] = ()
    """Why it woke: what changed, in words."""
    text: str = ""
    """The final answer."""
    run_id: str | None = None
    trace_id: str | None = None
    error: str | None = None
    plans: int = 0
    actions: int = 0
    model_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    prompt_chars: int = 0
    """Characters that were sent over all model calls."""
    observations_pruned: int = 0
    chars_saved: int = 0
    """Characters that pruning kept out, summed over all prompts."""
    tokens_saved: int = 0
    """Input tokens that these are, estimated; see `dionysus.counting.Calibration`."""
    basins_activated: int = 0
    seconds: float = 0.0
    since: datetime | None = None
    """Idle: when the last beat with something to do was."""
    since_beat: int | None = None
    next_due: Goal | None = None
    reflex: bool = False
    """Rules thought, not an LLM."""
    consolidated: Consolidated | None = None
    """Idle: what became of memories meanwhile."""


_CAN_GO_ON = ("interrupted", "budget_exhausted", "incoherent")


class Heart(Cycle):
    """Beats, one at a time, over folders."""

    verb, name = "beat", "heartbeat"

    def __init__(
        self,
        means: Means,
        *,
        memory: SemanticMemory,
        consolidation: Consolidation,
        coherence: Calibrations,
        goals: Goals,
        hide: Callable[[str], str],
    ) -> None:
        """
        Args:
            consolidation, coherence: What is done while nothing else is to be done.
            hide: Replaces secrets in a text by placeholders.
        """
        super().__init__(means)
        self._memory, self._goals, self._hide = memory, goals, hide
        self._consolidation, self._coherence = consolidation, coherence

    def beat(self, watch: Path, model: Any, *, git: bool, on_wake: Callable[[Waking], None] | None) -> BeatReport:
        """See `Runtime.beat`."""
        look = self._watch.look(watch, git=git)
        if not look.reasons:
            return self._idle(look)
        request = self._request(look, model, git=git)
        return self._work(look, self._open(look), model, request, on_wake=on_wake)

    def resume(
        self,
        record: RunRecord,
        model: Any,
        *,
        limits: Limits,
        accept_changes: bool,
        on_wake: Callable[[Waking], None] | None,
    ) -> BeatReport:
        """Goes on with a beat that did not finish: with what it saw; what has changed since is for the next one."""
        beat = next((beat for beat in self._store.mind.beats(limit=-1) if beat.run_id == record.run_id), None)
        if beat is None:
            raise BadInput(f"run {record.run_id!r} is a beat of another store; fork it, or replay it")
        return self._work(
            self._look(record.request),
            beat,
            model,
            record.request,
            on_wake=on_wake,
            limits=limits,
            accept_changes=accept_changes,
        )

    def mark_interrupted(self) -> None:
        """Beats whose process died get the status `interrupted`; call it after the recorder's."""
        mind = self._store.mind
        if not mind.beats(status="running", limit=1):
            return
        with self._store.transaction():
            for beat in mind.beats(status="running", limit=1000):
                if not (beat.run_id and self._recorder.claims.is_held(beat.run_id)):
                    mind.update_beat(replace(beat, status="interrupted"))

    # -- the cycle -------------------------------------------------------------------------------------

    def _idle(self, look: Look) -> BeatReport:
        mind = self._store.mind
        with self._store.transaction():
            number = mind.open_beat(look.place, look.began)
            mind.update_beat(Beat(number=number, place=look.place, status="idle", started_at=look.began))
        worked = mind.last_beat(look.place, worked=True)
        consolidated = self._consolidation.run(place=look.place)
        self._coherence.keep_up(self.name)
        return BeatReport(
            number=number,
            status="idle",
            consolidated=consolidated,
            seconds=self._seconds_since(look.began),
            since=worked.started_at if worked else None,
            since_beat=worked.number if worked else None,
            next_due=next((g for g in self._goals.listed() if g.due_at), None),
        )

    def _open(self, look: Look) -> Beat:
        with self._store.transaction():
            number = self._store.mind.open_beat(look.place, look.began)
            beat = Beat(
                number=number,
                place=look.place,
                status="running",
                started_at=look.began,
                reasons=look.reasons,
                run_id=f"beat-{number}-{self._new_suffix()}",
                snapshot=look.view.snapshot.to_json(),
            )
            self._store.mind.update_beat(beat)
        return beat

    def _agent(self, senses: Senses, model: Any, others: Sequence[Tool] = ()) -> HeartbeatAgent:
        return HeartbeatAgent(
            without_clashes(heartbeat_tools(senses), others),
            model,
            planning_interval=PLANNING_INTERVAL if self._means.planning else None,
            max_steps=self._means.beat_steps,
        )

    def _work(
        self,
        look: Look,
        beat: Beat,
        model: Any,
        request: Mapping[str, Any],
        *,
        on_wake: Callable[[Waking], None] | None,
        limits: Limits | None = None,
        accept_changes: bool = False,
    ) -> BeatReport:
        senses = self._watch.senses(look, f"beat {beat.number}", agent_name=self.name)

        def opened() -> None:
            self._store.mind.update_beat(replace(beat, status="running"))
            if on_wake is not None:
                name = str(model.model_id)
                on_wake(Waking(number=beat.number, place=look.place, reasons=beat.reasons, model=name))

        with self._end_noted(beat):
            agent = self._agent(senses, model, self._others(request))
            attached = self._attached(agent, request, senses, opened)
            frame, ending = attached.perform(
                agent.beat_task, run_id=str(beat.run_id), limits=limits, accept_changes=accept_changes
            )
        report = self._report(frame, beat, ending, model)
        self._close(beat, senses, report)
        return report

    def _close(self, beat: Beat, senses: Senses, report: BeatReport) -> None:
        """All at once, so that a beat which does not get here has changed nothing the next one looks at."""
        done = report.status in ("success", "max_steps")
        ending: Beat = replace(
            beat,
            report=report.text,
            next_action=self._hide(senses.captured.get("impulses", "")) or None,
            status="done" if done else "interrupted" if report.status in _CAN_GO_ON else "failed",
        )
        with self._store.transaction():
            if done:
                self._remember_notes(beat, senses)
                senses.models.settle()
                self._store.mind.drop_snapshots(beat.place, before=beat.number)
            self._watch.close(senses)
            self._store.mind.update_beat(ending)

    @contextmanager
    def _end_noted(self, beat: Beat) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(StoreError):  # then the next runtime that opens notes it
                run = self._store.records.run(str(beat.run_id))
                failed = run is not None and run.status == "error"
                self._store.mind.update_beat(replace(beat, status="failed" if failed else "interrupted"))
            raise

    def _report(self, frame: Frame, beat: Beat, ending: Ending, model: Any) -> BeatReport:
        return BeatReport(
            number=beat.number,
            status=ending.status,
            reasons=beat.reasons,
            text=str(ending.output) if ending.output is not None else "",
            run_id=frame.run.id,
            trace_id=frame.trace_id,
            error=ending.error,
            plans=sum(s.step_type == "planning" for s in frame.finished),
            actions=sum(s.step_type == "action" for s in frame.finished),
            model_calls=frame.spent.model_calls,
            usage=frame.spent.usage,
            prompt_chars=frame.spent.prompt_chars,
            observations_pruned=len(
                {c["step"] for cuts in frame.effects["pruned"] for c in cuts if c.get("part") in (None, "observation")}
            ),
            chars_saved=frame.spent.chars_saved,
            tokens_saved=frame.spent.tokens_saved,
            basins_activated=len({b["id"] for basins in frame.effects["basins"] for b in basins}),
            seconds=self._seconds_since(beat.started_at),
            reflex=bool(getattr(model, "is_reflex", False)),
        )

    def _remember_notes(self, beat: Beat, senses: Senses) -> None:
        for note in senses.notes:
            self._memory.remember(
                note.text, kind="note", source=f"note {note.id}", at=note.at, basin_id=senses.basin_id
            )
        self._store.mind.mark_notes_read([note.id for note in senses.notes], beat.number)

    def _seconds_since(self, began: datetime) -> float:
        return (self._clock() - began).total_seconds()
