"""Anybody's agent, on the record: `runtime.attach(agent).run(task)`.

The agent itself is left as it was: `agent.run()` stays bare. Each run works on a copy, so the same agent may be
attached twice, and run from several threads. A run that did not finish goes on where it stopped, when it is run again
under its id; a finished one gives its recorded answer.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from smolagents import MultiStepAgent
from smolagents.memory import FinalAnswerStep

from dionysus.callbacks.pruning import prunable_tokens
from dionysus.callbacks.see_once import Limits as PruningLimits
from dionysus.callbacks.see_once import Rule
from dionysus.copying import as_it_ended
from dionysus.errors import BadInput, LimitReached, ReplayDiverged
from dionysus.journal import Budget, Frame, InFlight, Limits
from dionysus.journal.cassette import checked_id
from dionysus.journal.frame import answer_in
from dionysus.journal.values import LostText, digest_of, plain, unpacked
from dionysus.recorder import Ending, Recorder
from dionysus.stores.contract import FINISHED, Event, Status, Usage


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """How an attached agent's run ended, and what it took, over all its agents, plans included."""

    output: Any
    """What `agent.run()` would have returned; None where a limit was reached."""
    run_id: str
    trace_id: str
    status: Status
    usage: Usage
    """Input, cached and output tokens, and money where the price is known."""
    model_calls: int
    """Begun: those that a crash cut off are counted too."""
    prompt_chars: int
    """Characters that were sent over all answered model calls."""
    error: str | None = None
    """Why there is no final answer of its own: the steps, or a limit, were used up."""
    tokens_saved: int = 0
    """Input tokens that pruning kept out of prompts, estimated; see `dionysus.counting.Calibration`."""
    _frame: Frame | None = field(default=None, repr=False, compare=False)
    _pruning_limits: PruningLimits = field(default_factory=PruningLimits, repr=False, compare=False)

    @cached_property
    def tokens_prunable(self) -> int | None:
        """What see-once would have kept out where pruning is off, estimated by characters. None: only the recorded
        answer was read."""
        if self._frame is None:
            return None
        return sum(_prunable(frame, self._pruning_limits) for frame in _all(self._frame))


class RecordedStream:
    """What a streaming run yields, step by step; `result` is there when it has ended."""

    def __init__(self, steps: Iterator[Any], results: Sequence[RecordedRun]) -> None:
        self._steps, self._results = steps, results

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._steps)

    def close(self) -> None:
        """Ends the run, if it has not ended, as interrupted."""
        self._steps.close()  # type: ignore[attr-defined]  # a generator

    @property
    def result(self) -> RecordedRun:
        """How the run ended.

        Raises:
            BadInput: It was not read to its end.
        """
        if not self._results:
            raise BadInput("the stream was not read to its end; there is a result when it was")
        return self._results[0]


class Attached:
    """An agent whose runs are journaled, traced, metered, and carry the callbacks; made by `Runtime.attach`."""

    def __init__(
        self,
        agent: MultiStepAgent,
        recorder: Recorder,
        *,
        pruning: Rule,
        limits: Limits,
        in_flight: InFlight,
        new_suffix: Callable[[], str],
        request: Mapping[str, Any] | None = None,
        name: str | None = None,
        place: str = "",
        on_open: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        """
        Args:
            request: What its runs are kept with, so that they can be taken up; default: those of an attached agent.
            name: Of its runs; default: the agent's.
            place: The watched folder that its memories belong to.
            on_open: Told the frame of each run before the agent begins or goes on.
        """
        self.agent = agent
        self._recorder, self._pruning, self._new_suffix = recorder, pruning, new_suffix
        self._claims = recorder.claims
        self._limits, self._in_flight = limits, in_flight
        self._request = dict(request or {"verb": "attached"})
        self._name = name or agent.name or type(agent).__name__
        self._place, self._on_open = place, on_open
        self._conversation: MultiStepAgent = agent
        self._latest: str | None = None
        """The run that the conversation comes from."""

    def run(
        self,
        task: str,
        *,
        run_id: str | None = None,
        stream: bool = False,
        reset: bool = True,
        budget: Budget | None = None,
        deadline_s: float | None = None,
        accept_changes: bool = False,
        **inputs: Any,
    ) -> Any:
        """Runs a copy of the agent; what it raises is raised, with the run's id as a note.

        Args:
            run_id: Default: the agent's name with a random suffix. Of a run that exists: it goes on where it stopped,
                or gives its answer where it finished.
            stream: Return a `RecordedStream` instead of a `RecordedRun`.
            reset: False: go on with the conversation of the last attached run that ended (at first: the agent's own).
            budget: For the whole tree of agents; default: the one that was attached with. Where it is used up the
                run ends with status `budget_exhausted`, and can go on with a larger one.
            deadline_s: Seconds from now after which the run ends with status `interrupted`, and can go on.
            accept_changes: Go on with a run although agent or inputs are not what they were.
            inputs: Further arguments of the agent's `run()`: `images`, `additional_args`, `max_steps`.

        Raises:
            BadInput: The task is empty.
            RunHeld: Another process works on this run.
            RunChanged: Task, inputs or agent are not what the run was begun with.
            ReplayDiverged: The run, made again up to where it stopped, does not do what is on record.
            RunInterrupted: The run was asked to stop.
            DionysusError: The record could not be written, or a required callback failed.
        """
        if not isinstance(task, str) or not task.strip():
            raise BadInput("the task is empty; give the agent a text")
        inputs.pop("return_full_result", None)
        inputs = {**({} if reset else {"reset": False}), **inputs}
        chosen = checked_id(run_id) if run_id is not None else self._claims.new_id(self._name, self._new_suffix)
        limits = replace(self._limits, budget=budget or self._limits.budget, deadline_s=deadline_s)
        return self._started(chosen, task, inputs, limits, stream=stream, accept=accept_changes)

    def resume(
        self,
        run_id: str,
        *,
        stream: bool = False,
        budget: Budget | None = None,
        deadline_s: float | None = None,
        accept_changes: bool = False,
    ) -> Any:
        """Goes on with a run that did not finish, with the task and the inputs on record; see `run`.

        Raises:
            NotFound: No such run.
            BadInput: Its inputs cannot be made again from the record: use `run`.
        """
        self._claims.found(run_id)
        task, inputs = self._asked(run_id, self._claims.past(run_id).top)
        limits = replace(self._limits, budget=budget or self._limits.budget, deadline_s=deadline_s)
        return self._started(run_id, task, inputs, limits, stream=stream, accept=accept_changes)

    def replay(self, run_id: str, **inputs: Any) -> RecordedRun:
        """Plays a run again, from its record alone: no model, no tool, no clock; nothing is written.

        Code that an agent wrote does run again.

        Args:
            inputs: What the run was given, where the record cannot hold it.

        Returns:
            What the run came to; of one that did not finish, how far its record goes (`error`).

        Raises:
            NotFound: No such run.
            ReplayDiverged: This agent would have done something else; with the first difference.
        """
        return self.result(*self.replayed(run_id, **inputs))

    def replayed(self, run_id: str, **inputs: Any) -> tuple[Frame, Ending]:
        """Like `replay`; returns how it ended, whatever that is."""
        frame = self._claims.shadow(run_id)
        task, given = self._asked(run_id, frame.run.past.top, inputs)
        ending = self._recorder.run(frame, self._source(run_id, given), task, pruning=self._pruning, **given)
        hide = self._claims.secrets.hide_in
        ended = frame.run.past.ended
        if ended is not None and self._claims.found(run_id).status in (*FINISHED, "error"):
            is_lost = "lost" in ended.body  # then its text is all there is, on both sides
            then = ended.body["status"], None if is_lost else ended.body["output"]
            now = ending.status, None if is_lost else hide(plain(answer_in(ending.output)))
            if digest_of(then) != digest_of(now):
                difference = f"then: {then[0]}: {then[1]!r}\nnow: {now[0]}: {now[1]!r}"
                raise ReplayDiverged(ended.position, "the run ends otherwise", difference=difference)
        return frame, ending

    def asks_as_recorded(self, run_id: str, task: str, inputs: Mapping[str, Any]) -> bool:
        """Whether a task is the one on record; secrets in it and in the inputs are taken for those of the record."""
        past = self._claims.past(run_id)
        self._claims.align(past, task, inputs)
        return past.top is not None and past.top.body["task"] == self._claims.secrets.hide(task)

    def fork(
        self,
        run_id: str,
        *,
        at_step: int,
        model: Any = None,
        edit: Mapping[str, str] | None = None,
        new_id: str | None = None,
        budget: Budget | None = None,
        deadline_s: float | None = None,
    ) -> RecordedRun:
        """A new run that shares the first steps of another by reference, then goes on live: its tools act.

        Args:
            at_step: Actions that are shared; 0: only the task.
            model: What the agent – not its members – goes on with; default: its own.
            edit: `observation`: what the last shared action saw instead; `plan`: the plan that is in force then.
            new_id: The new run's id.

        Raises:
            NotFound: No such run.
            BadInput: No such step, or nothing of that kind to edit.
        """
        agent = self.agent
        if model is not None:
            agent = copy.copy(agent)
            agent.model = model
        chosen = checked_id(new_id) if new_id is not None else self._claims.new_id(self._name, self._new_suffix)
        limits = replace(self._limits, budget=budget or self._limits.budget, deadline_s=deadline_s)
        task, inputs = self._asked(run_id, self._claims.beginning(run_id)[0])
        source = self._source(run_id, inputs, agent)
        after = self._claims.found(run_id).request.get("after")
        frame = self._claims.fork(
            run_id,
            chosen,
            at_step=at_step,
            edit=edit or {},
            made_of=self._recorder.made_of(agent, self._pruning),
            request={**self._request, **({"after": after} if after else {})},
            limits=limits,
            in_flight=self._in_flight,
            owner=self,
        )
        self._told(frame)
        return self._kept(
            frame, self._recorder.run(frame, source, task, pruning=self._pruning, place=self._place, **inputs)
        )

    def interrupt(self, reason: str = "interrupted") -> bool:
        """Asks the runs of this agent, its members included, to end before their next call; from any thread. A hanging
        model call is left behind where the agent was attached with `model_timeout_s`. False: nothing runs."""
        return self._claims.stop(reason, of=self)

    def perform(
        self,
        task: str,
        *,
        run_id: str,
        limits: Limits | None = None,
        accept_changes: bool = False,
        **inputs: Any,
    ) -> tuple[Frame, Ending]:
        """Like `run`, of a run that is new or not finished; returns how it ended, whatever that is."""
        source = self._source(run_id if self._claims.has(run_id) else None, inputs)
        frame = self._opened(run_id, task, inputs, limits or self._limits, accept_changes)
        return frame, self._recorder.run(frame, source, task, pruning=self._pruning, place=self._place, **inputs)

    # -- within ----------------------------------------------------------------------------------------

    def _started(
        self, run_id: str, task: str, inputs: dict[str, Any], limits: Limits, *, stream: bool, accept: bool
    ) -> Any:
        if self._claims.has(run_id) and self._claims.found(run_id).status in FINISHED:
            return self._as_recorded(run_id, task, stream=stream)
        if stream:
            return self._streamed(run_id, task, inputs, limits, accept)
        return self._kept(*self.perform(task, run_id=run_id, limits=limits, accept_changes=accept, **inputs))

    def _opened(self, run_id: str, task: str, inputs: Mapping[str, Any], limits: Limits, accept_changes: bool) -> Frame:
        options: dict[str, Any] = {"limits": limits, "in_flight": self._in_flight, "owner": self}
        if self._claims.has(run_id):
            made_of = self._recorder.made_of(self.agent, self._pruning)
            frame = self._claims.reopen(
                run_id, task=task, inputs=inputs, made_of=made_of, accept_changes=accept_changes, **options
            )
        else:
            after = {"after": self._latest} if inputs.get("reset") is False and self._latest else {}
            frame = self._claims.claim(run_id, self._name, request={**self._request, **after}, **options)
        self._told(frame)
        return frame

    def _told(self, frame: Frame) -> None:
        try:
            self._on_open(frame)
        except BaseException:
            self._claims.abandon(frame)
            raise

    def _streamed(
        self, run_id: str, task: str, inputs: Mapping[str, Any], limits: Limits, accept_changes: bool
    ) -> RecordedStream:
        """The run is opened when its first step is asked for: a stream that nobody reads is none."""
        results: list[RecordedRun] = []

        def steps() -> Iterator[Any]:
            source = self._source(run_id if self._claims.has(run_id) else None, inputs)
            frame, ending = self._opened(run_id, task, inputs, limits, accept_changes), Ending()
            try:
                yield from self._recorder.stream(frame, source, task, ending, pruning=self._pruning, **inputs)
            except LimitReached:  # said in the result
                pass
            except Exception as failure:
                failure.add_note(_on_record(frame))
                raise
            results.append(self._kept(frame, ending))

        return RecordedStream(steps(), results)

    def _source(
        self, run_id: str | None, inputs: Mapping[str, Any], agent: MultiStepAgent | None = None
    ) -> MultiStepAgent:
        """The agent that is copied: for a conversation, as the run before left it."""
        if inputs.get("reset", True):
            return agent or self.agent
        if run_id is None:
            return self._conversation
        before = self._claims.found(run_id).request.get("after")
        if before is None:
            return agent or self.agent
        if not self._claims.has(before):
            raise BadInput(
                f"run {run_id!r} goes on with the conversation of run {before!r}, which is not in this store"
            )
        frame = self._claims.shadow(before)
        task, given = self._asked(before, frame.run.past.top)
        self._recorder.run(frame, self._source(before, given), task, pruning=self._pruning, **given)
        return as_it_ended(agent or self.agent, frame)

    def _asked(
        self, run_id: str, top: Event | None, given: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Task and inputs on record."""
        if top is None:
            raise BadInput(f"run {run_id!r} did not begin; run its task again under this id")
        inputs = dict(given) if given else unpacked("inputs", top.body)
        if isinstance(inputs, LostText):
            raise BadInput(
                f"the inputs of run {run_id!r} hold a {inputs.kind}, which a journal cannot; give them again: "
                f"run(task, run_id={run_id!r}, additional_args=…)"
            )
        return top.body["task"], inputs

    def _as_recorded(self, run_id: str, task: str, *, stream: bool) -> Any:
        """The answer of a run that finished."""
        past = self._claims.past(run_id)
        top, ended = past.top, past.ended
        if top is None or ended is None:
            raise BadInput(f"run {run_id!r} has no journal, so its answer is not known; give another run_id")
        if top.body["task"] != self._claims.secrets.hide(task):
            raise BadInput(f"run {run_id!r} exists, and answered another task; give another run_id")
        spent, body = past.spent(), ended.body
        result = RecordedRun(
            output=unpacked("output", body),
            run_id=run_id,
            trace_id=top.body["trace"],
            status=body["status"],
            usage=spent.usage,
            model_calls=spent.model_calls,
            prompt_chars=spent.prompt_chars,
            error=body["error"],
            tokens_saved=spent.tokens_saved,
        )
        return RecordedStream(iter((FinalAnswerStep(result.output),)), [result]) if stream else result

    def _kept(self, frame: Frame, ending: Ending) -> RecordedRun:
        if ending.failure is not None:
            ending.failure.add_note(_on_record(frame))
            raise ending.failure
        if ending.status in FINISHED:
            self._conversation, self._latest = as_it_ended(self.agent, frame), frame.run.id
        return self.result(frame, ending)

    def result(self, frame: Frame, ending: Ending) -> RecordedRun:
        """What a run came to."""
        spent = frame.run.spent
        return RecordedRun(
            output=ending.output,
            run_id=frame.run.id,
            trace_id=frame.trace_id,
            status=ending.status,
            usage=spent.usage,
            model_calls=spent.model_calls,
            prompt_chars=spent.prompt_chars,
            error=ending.error,
            tokens_saved=spent.tokens_saved,
            _frame=frame,
            _pruning_limits=self._recorder.pruning_limits,
        )


def _on_record(frame: Frame) -> str:
    return (
        f"run {frame.run.id} is on record: dionysus traces show {frame.trace_id}; "
        f"run(task, run_id={frame.run.id!r}) goes on with it"
    )


def _all(frame: Frame) -> Iterator[Frame]:
    yield frame
    for child in frame.children:
        yield from _all(child)


def _prunable(frame: Frame, limits: PruningLimits) -> int:
    agent = frame.agent
    if agent is None or frame.spent.chars_saved:
        return 0
    return prunable_tokens(frame, agent.memory.system_prompt.system_prompt, str(agent.task or ""), limits)
