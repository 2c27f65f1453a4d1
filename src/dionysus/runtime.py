"""The composition root: opens store and model, builds agents with their callbacks, runs them on the record."""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from smolagents import ActionStep, PlanningStep
from smolagents.memory import ToolCall
from smolagents.utils import AgentMaxStepsError

from dionysus.agents.heartbeat import PLANNING_INTERVAL, HeartbeatAgent
from dionysus.agents.tools import Senses, heartbeat_tools
from dionysus.callbacks.audit import Audit
from dionysus.callbacks.basins import basin_activation_callback
from dionysus.callbacks.iwmt import iwmt_coherence_callback
from dionysus.callbacks.pruning import MemoryPruning
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.errors import BadInput, RecordLost, RunInterrupted
from dionysus.findings import plural
from dionysus.journal import Frame, Journal, Run
from dionysus.journal.holding import Holder
from dionysus.journal.secrets import Secrets, named_secrets
from dionysus.memory.basins import Basins
from dionysus.memory.goals import SOON, Goals
from dionysus.memory.mental_models import MentalModels
from dionysus.memory.semantic import SemanticMemory
from dionysus.models import open_model
from dionysus.models.metering import measure
from dionysus.settings import Settings, load_settings
from dionysus.stores import open_store, store_path
from dionysus.stores.contract import AgentExecutionTrace, Beat, Goal, RunRecord, Status, Usage
from dionysus.traces import ExecutionTraceService, Projection
from dionysus.world import Snapshot, World

log = logging.getLogger("dionysus")
_NOTE_CHARS = 100_000


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
    basins_activated: int = 0
    seconds: float = 0.0
    since: datetime | None = None
    """Idle: when the last beat with something to do was."""
    since_beat: int | None = None
    next_due: Goal | None = None


class Runtime:
    """Everything one process needs to run agents on the record; a context manager."""

    def __init__(
        self,
        store: str | None = None,
        model: str | Any | None = None,
        *,
        settings: Settings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(3),
    ) -> None:
        """
        Args:
            store: A store's URL; default: the settings'.
            model: A model's spec, or a smolagents `Model`; default: the settings'.
            settings: Default: from the environment.
            clock: The time, in UTC.
            new_suffix: What makes run ids unique across stores.

        Raises:
            DionysusError: Store or model cannot be opened.
        """
        self.settings = settings or load_settings()
        self.clock, self._new_suffix = clock, new_suffix
        self.callbacks = CallbackRegistry()
        """Your own callbacks, fired for every agent after the built-in ones and before the trace is sealed."""
        self._store_url = store or self.settings.store
        self._given_model = model if model is not None else self.settings.model
        self._key = self.settings.api_key.get_secret_value() if self.settings.api_key else None
        self._secrets = Secrets([*named_secrets(os.environ), *([self._key] if self._key else [])])
        self._store = open_store(self._store_url)
        self._holder = Holder(self._store.path)
        self._running: Run | None = None
        self._model: Any = None
        hide = self._secrets.hide
        self.traces = ExecutionTraceService(self._store.records, clock=clock)
        self.basins = Basins(self._store.mind, clock=clock)
        self.memory = SemanticMemory(self._store.mind, self.basins, clock=clock, hide=hide)
        self.goals = Goals(self._store.mind, clock=clock, hide=hide)
        self._hide = hide
        projection = Projection(self._store.records) if self.settings.trace else None
        self._journal = Journal(self._store.records, projection, clock)
        self._mark_interrupted()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of store and locks."""
        self._holder.release()
        self._store.close()

    @property
    def model(self) -> Any:
        """The model that agents think with, opened at first use."""
        if self._model is None:
            given = self._given_model
            self._model = (
                open_model(
                    given,
                    api_base=self.settings.api_base,
                    api_key=self._key,
                    timeout_s=self.settings.model_timeout_s,
                )
                if isinstance(given, str)
                else given
            )
        return self._model

    # -- the heartbeat ---------------------------------------------------------------------------------

    def beat(
        self, watch: str | Path = ".", *, git: bool = True, on_wake: Callable[[Waking], None] | None = None
    ) -> BeatReport:
        """One heartbeat over a folder: what changed, what it recalls, what to do next.

        Looks first, without any model; where nothing happened the beat is idle and costs nothing.

        Args:
            git: False: watch it as a plain folder.
            on_wake: Told when there is something to do.

        Raises:
            WatchError: The folder cannot be observed.
            DionysusError: The store, or the model.
        """
        began = self.clock()
        model = self.model
        world = World(Path(watch), git=git, skip=self._own_files())
        place = str(world.root)
        mind = self._store.mind
        seen = mind.last_beat(place, seen=True)
        view = world.look(_snapshot_of(seen), began.timestamp())
        notes = mind.unread_notes()
        failed = self._failed_since(seen)
        newly_due = [g for g in self.goals.due(began) if seen is None or _became_due(g, seen.started_at, began)]
        reasons = (
            *(["first look"] if view.first else view.reasons()),
            *([plural(len(notes), "unread note")] if notes else []),
            *([f"{plural(len(newly_due), 'goal')} due"] if newly_due else []),
            *([plural(len(failed), "failed run")] if failed else []),
        )
        if not reasons:
            with self._store.transaction():
                number = mind.open_beat(place, began)
                mind.update_beat(Beat(number=number, place=place, status="idle", started_at=began))
            worked = mind.last_beat(place, worked=True)
            return BeatReport(
                number=number,
                status="idle",
                seconds=self._seconds_since(began),
                since=worked.started_at if worked else None,
                since_beat=worked.number if worked else None,
                next_due=next((g for g in self.goals.listed() if g.due_at), None),
            )
        holder = self._holder.claim()
        with self._store.transaction():
            number = mind.open_beat(place, began)
            run_id = f"beat-{number}-{self._new_suffix()}"
            beat = Beat(number=number, place=place, status="running", started_at=began, reasons=reasons, run_id=run_id)
            mind.update_beat(beat)
            self._store.records.save_run(
                RunRecord(run_id=run_id, agent_name="heartbeat", status="running", started_at=began, holder=holder)
            )
        if on_wake is not None:
            on_wake(Waking(number=number, place=place, reasons=reasons, model=str(model.model_id)))
        frame = self._frame(run_id, "heartbeat")
        basin = self.basins.opened(place, f"beat {number}", at=began)
        senses = Senses(
            view=view,
            place=place,
            beat=number,
            now=began,
            reasons=reasons,
            notes=notes,
            due=self.goals.due(began),
            failed=failed,
            last=mind.last_beat(place, worked=True),
            memory=self.memory,
            goals=self.goals,
            models=MentalModels(mind, place),
            basin_id=basin,
            frame=frame,
        )
        if not getattr(model, "is_reflex", False):
            senses.thinker = frame.model(model, within_tool=True)
        registry = self._registry(frame, place)
        agent = HeartbeatAgent(
            [frame.tool(tool) for tool in heartbeat_tools(senses)],
            frame.model(model),
            step_callbacks=registry.get_registry("heartbeat", frame),
            planning_interval=PLANNING_INTERVAL if self.settings.planning else None,
        )
        agent.tools["final_answer"] = frame.tool(agent.tools["final_answer"])
        with self._beat_ending(beat):
            status, output, error = self._run(frame, agent, agent.beat_task)
        report = self._reported(frame, number, reasons, status, output, error, began)
        ending: Beat = replace(
            beat,
            report=report.text,
            next_action=senses.captured.get("impulses"),
            status="done" if status in ("success", "max_steps") else "failed",
        )
        with self._store.transaction():
            self.basins.close(basin)
            if ending.status == "done":
                self._remember_notes(senses)
                senses.models.settle()
                ending = replace(ending, snapshot=view.snapshot.to_json())
                mind.drop_snapshots(place, before=number)
            mind.update_beat(ending)
        return report

    def stop(self, reason: str = "interrupted") -> bool:
        """Asks what runs now to end before its next call; safe from a signal handler. False: nothing runs."""
        running = self._running
        if running is not None:
            running.stop(reason)
        return running is not None

    # -- notes -----------------------------------------------------------------------------------------

    def tell(self, text: str) -> int:
        """Leaves a note that the next beat takes up; returns its number.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self._store.mind.add_note(self._hide(checked_text("note", text)), self.clock())

    def remember(self, text: str) -> int:
        """Keeps a fact; returns the memory's id.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self.memory.remember(checked_text("memory", text))

    # -- within ----------------------------------------------------------------------------------------

    def _run(self, frame: Frame, agent: HeartbeatAgent, task: str) -> tuple[Status, Any, str | None]:
        """Runs an agent to its end, whatever that is; returns status, final answer, error."""
        frame.bind(agent)
        frame.start(task, str(getattr(agent.model, "model_id", "")))
        self._running = frame.run
        status: Status = "error"
        output, error = None, None
        try:
            output = agent.run(task)
            last = agent.memory.steps[-1] if agent.memory.steps else None
            status = "max_steps" if isinstance(getattr(last, "error", None), AgentMaxStepsError) else "success"
            if status == "max_steps":
                error = f"no final answer within {agent.max_steps} actions"
        except (RunInterrupted, KeyboardInterrupt) as stop:
            status, error = "interrupted", str(stop) or "interrupted"
            raise RunInterrupted(error) from None
        except RecordLost as lost:
            raise lost.cause from lost
        except Exception as failure:  # whatever ends an agent's run is its error, in the trace and in the report
            error = _reason(failure)
            log.debug("run %s failed", frame.run.id, exc_info=True)
        finally:
            self._running = None
            self._finish(frame, status, output, error)
        return status, output, error

    def _finish(self, frame: Frame, status: Status, output: Any, error: str | None) -> None:
        try:
            frame.finish(status, output=output, error=error)
            self._store.records.set_run_status(frame.run.id, status)
        except RecordLost as lost:  # the next start finds the run without an end and marks it
            raise lost.cause from lost

    @contextmanager
    def _beat_ending(self, beat: Beat) -> Iterator[None]:
        """A beat that is cut short says so."""
        try:
            yield
        except RunInterrupted:
            self._store.mind.update_beat(replace(beat, status="interrupted"))
            raise

    def _frame(self, run_id: str, agent_name: str) -> Frame:
        run = Run(run_id, self._journal, secrets=self._secrets, meter=measure)
        return Frame(run=run, agent_name=agent_name, trace_id=run_id, path=agent_name)

    def _registry(self, frame: Frame, place: str) -> CallbackRegistry:
        """The built-in callbacks that are switched on, then the user's, then the one that seals the step."""
        on = self.settings
        registry = CallbackRegistry()
        if on.coherence:
            registry.register(PlanningStep, partial(iwmt_coherence_callback, warning_below=on.coherence_warning))
        if on.basins:
            registry.register(
                ActionStep,
                partial(basin_activation_callback, memory=self.memory, basins=self.basins, place=place),
            )
        if on.pruning_rule != "off":
            pruning = MemoryPruning(on.pruning_rule, window=on.memory_window or 3)
            registry.register(ActionStep, pruning.memory_pruning_callback)
        if on.audit is not None:
            audit = Audit(on.audit, clock=self.clock)
            registry.register(PlanningStep, audit.step_callback)
            registry.register(ActionStep, audit.step_callback)
            registry.register(ToolCall, audit.tool_callback)
        registry.extend(self.callbacks)
        registry.register(PlanningStep, execution_trace_callback, required=True)
        registry.register(ActionStep, execution_trace_callback, required=True)
        frame.on_tool = registry.tool_called
        return registry

    def _reported(
        self,
        frame: Frame,
        number: int,
        reasons: tuple[str, ...],
        status: Status,
        output: Any,
        error: str | None,
        began: datetime,
    ) -> BeatReport:
        return BeatReport(
            number=number,
            status=status,
            reasons=reasons,
            text=str(output) if output is not None else "",
            run_id=frame.run.id,
            trace_id=frame.trace_id,
            error=error,
            plans=sum(s.step_type == "planning" for s in frame.finished),
            actions=sum(s.step_type == "action" for s in frame.finished),
            model_calls=frame.model_calls,
            usage=frame.usage,
            prompt_chars=frame.prompt_chars,
            observations_pruned=sum(len(cuts) for cuts in frame.effects["pruned"]),
            chars_saved=frame.chars_saved,
            basins_activated=len({b["id"] for basins in frame.effects["basins"] for b in basins}),
            seconds=self._seconds_since(began),
        )

    def _remember_notes(self, senses: Senses) -> None:
        for note in senses.notes:
            self.memory.remember(note.text, kind="note", source=f"note {note.id}", at=note.at, basin_id=senses.basin_id)
        self._store.mind.mark_notes_read([note.id for note in senses.notes], senses.beat)

    def _failed_since(self, seen: Beat | None) -> list[AgentExecutionTrace]:
        """Traces that failed since the last beat that was carried through."""
        return [
            trace
            for status in ("error", "interrupted")
            for trace in self.traces.list_traces(status=status, limit=5)
            if seen is not None and trace.started_at > seen.started_at
        ]

    def _mark_interrupted(self) -> None:
        """Runs whose process died get their trace's status, and their beat's."""
        for run in self._store.records.runs("running"):
            if self._holder.is_alive(run.holder):
                continue
            with self._store.transaction():
                for trace in self.traces.list_traces(run_id=run.run_id, status="running", limit=1000):
                    self._journal.append(
                        run.run_id,
                        "run_finished",
                        "recovery",
                        {
                            "trace": trace.id,
                            "status": "interrupted",
                            "output": None,
                            "error": "its process ended without finishing it",
                        },
                        secrets=self._secrets,
                    )
                self._store.records.set_run_status(run.run_id, "interrupted")
                for beat in self._store.mind.beats(status="running", limit=1000):
                    if beat.run_id == run.run_id:
                        self._store.mind.update_beat(replace(beat, status="interrupted"))

    def _own_files(self) -> list[Path]:
        path = store_path(self._store_url)
        mine = [] if path is None else [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-locks")]
        return [*mine, *([self.settings.audit] if self.settings.audit else [])]

    def _seconds_since(self, began: datetime) -> float:
        return (self.clock() - began).total_seconds()


def checked_text(what: str, text: str) -> str:
    """Text that a person gave, if it is text.

    Raises:
        BadInput: It is empty, too long, or holds NUL bytes or bytes that are not UTF-8.
    """
    if not text.strip():
        raise BadInput(f"the {what} is empty; give it a text")
    if len(text) > _NOTE_CHARS:
        raise BadInput(f"the {what} has {len(text):,} characters, at most {_NOTE_CHARS:,} fit; put it into a file")
    if "\0" in text:
        raise BadInput(f"the {what} holds a NUL byte at character {text.index(chr(0))}; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(f"the {what} is not UTF-8 at character {error.start}; convert it first") from error
    return text


def _snapshot_of(beat: Beat | None) -> Any:
    return Snapshot.from_json(beat.snapshot) if beat is not None and beat.snapshot is not None else None


def _became_due(goal: Goal, last: datetime, now: datetime) -> bool:
    """Whether a goal came near its date, or passed it, since the last look; or was set since."""
    if goal.due_at is None:
        return False
    return goal.created_at > last or last < goal.due_at - SOON <= now or last < goal.due_at <= now


def _reason(failure: BaseException) -> str:
    """What went wrong, in one line: the innermost cause, which smolagents wraps."""
    cause = failure
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return " ".join(f"{type(cause).__name__}: {cause}".split())


__all__ = ["BeatReport", "Runtime", "Waking", "checked_text"]
