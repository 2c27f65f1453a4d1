"""Anybody's agent, on the record: `runtime.attach(agent).run(task)`.

The agent itself is left as it was: `agent.run()` stays bare. Each run works on a copy, so the same agent may be
attached twice, and run from several threads.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from smolagents import MultiStepAgent

from dionysus.callbacks.pruning import Rule, prunable_tokens
from dionysus.copying import as_it_ended
from dionysus.errors import BadInput
from dionysus.journal import Frame
from dionysus.recorder import Ending, Recorder
from dionysus.stores import Store
from dionysus.stores.contract import Status, Usage

_RUN_ID = re.compile(r"[\w.:@+-]{1,120}")


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """How an attached agent's run ended, and what it took, over all its agents, plans included."""

    output: Any
    """What `agent.run()` would have returned."""
    run_id: str
    trace_id: str
    status: Status
    usage: Usage
    """Input, cached and output tokens, and money where the price is known."""
    model_calls: int
    prompt_chars: int
    """Characters that were sent over all model calls."""
    error: str | None = None
    """Why there is no final answer of its own: the steps were used up."""
    tokens_saved: int = 0
    """What pruning kept out of prompts; estimated: reported input tokens × characters left out ÷ sent, per call."""
    _frame: Frame = field(repr=False, compare=False)

    @cached_property
    def tokens_prunable(self) -> int:
        """What see-once would have kept out where pruning is off; estimated in the same way."""
        return sum(map(_prunable, _all(self._frame)))


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
        store: Store,
        *,
        pruning: Rule,
        new_suffix: Callable[[], str],
    ) -> None:
        self.agent = agent
        self._recorder, self._store, self._pruning, self._new_suffix = recorder, store, pruning, new_suffix
        self._conversation: MultiStepAgent = agent

    def run(
        self, task: str, *, run_id: str | None = None, stream: bool = False, reset: bool = True, **inputs: Any
    ) -> Any:
        """Runs a copy of the agent; what it raises is raised, with the run's id as a note.

        Args:
            run_id: Default: the agent's name with a random suffix.
            stream: Return a `RecordedStream` instead of a `RecordedRun`.
            reset: False: go on with the conversation of the last attached run that ended (at first: the agent's own).
            inputs: Further arguments of the agent's `run()`: `images`, `additional_args`, `max_steps`.

        Raises:
            BadInput: The task is empty, or there is a run of that id.
            RunInterrupted: The run was asked to stop.
            DionysusError: The record could not be written, or a required callback failed.
        """
        if not isinstance(task, str) or not task.strip():
            raise BadInput("the task is empty; give the agent a text")
        inputs.pop("return_full_result", None)
        options = {"pruning": self._pruning, **({} if reset else {"reset": False}), **inputs}
        source = self.agent if reset else self._conversation
        name = self.agent.name or type(self.agent).__name__
        chosen = self._checked(run_id) if run_id is not None else self._recorder.new_id(name, self._new_suffix)
        if stream:
            return self._streamed(source, task, chosen, name, options)
        frame = self._claimed(chosen, name)
        ending = self._recorder.run(frame, source, task, **options)
        if ending.failure is not None:
            ending.failure.add_note(f"run {frame.run.id} is on record: dionysus traces show {frame.trace_id}")
            raise ending.failure
        self._conversation = as_it_ended(self.agent, frame)
        return self._result(frame, ending)

    def _streamed(
        self, source: MultiStepAgent, task: str, run_id: str, name: str, options: dict[str, Any]
    ) -> RecordedStream:
        """The run is opened when its first step is asked for: a stream that nobody reads is none."""
        results: list[RecordedRun] = []

        def steps() -> Iterator[Any]:
            frame, ending = self._claimed(run_id, name), Ending()
            try:
                yield from self._recorder.stream(frame, source, task, ending, **options)
            except Exception as failure:
                failure.add_note(f"run {run_id} is on record: dionysus traces show {frame.trace_id}")
                raise
            self._conversation = as_it_ended(self.agent, frame)
            results.append(self._result(frame, ending))

        return RecordedStream(steps(), results)

    def _checked(self, run_id: str) -> str:
        if not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
            raise BadInput(f"run_id {run_id!r} must be 1 to 120 letters, digits or any of _ . : @ + -")
        return run_id

    def _claimed(self, run_id: str, name: str) -> Frame:
        with self._store.transaction():
            return self._recorder.claim(run_id, name)

    def _result(self, frame: Frame, ending: Ending) -> RecordedRun:
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
        )


def _all(frame: Frame) -> Iterator[Frame]:
    yield frame
    for child in frame.children:
        yield from _all(child)


def _prunable(frame: Frame) -> int:
    agent = frame.agent
    if agent is None or frame.spent.chars_saved:
        return 0
    return prunable_tokens(frame, agent.memory.system_prompt.system_prompt, str(agent.task or ""))
