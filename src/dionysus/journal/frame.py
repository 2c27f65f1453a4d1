"""A `Frame` is one agent's part in a run: what is written, and where – and what is already on record there.

Whoever records knows its frame – no global, and but for `note_recalled` no context variable – so parallel tool calls
and the threads of a code executor record correctly. Where a frame's past has an answer, that is used, and nothing is
written.
"""

import json
import sys
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from smolagents import ActionStep, ChatMessage, CodeAgent, MultiStepAgent, PlanningStep
from smolagents.agents import RunResult
from smolagents.utils import AgentMaxStepsError

from dionysus.counting import counter
from dionysus.errors import (
    CallUncertain,
    RecordEnded,
    ReplayDiverged,
    RunAborted,
    RunInterrupted,
    StoreError,
    ToolRefused,
)
from dionysus.findings import quoted
from dionysus.journal.events import Kind, Message, role_and_content
from dionysus.journal.replaying import answer_of, error_fields, error_of, first_difference, result_of
from dionysus.journal.run import Run
from dionysus.journal.spending import KeptOut, Spent
from dionysus.journal.values import Said, change_again, changes_in, digest_of, packed, plain, said_of
from dionysus.stores.contract import DaySpending, Event, Status, StepType, Usage

_RECALLED: ContextVar[list[tuple[int, float]]] = ContextVar("recalled")
"""Where the tool that is called notes the memories that its result is made of: each call's own."""
_TIMED_OUT = "exceeded the maximum execution time"
"""How smolagents' local executor says so."""


def note_recalled(hits: Iterable[tuple[int, float]]) -> None:
    """A tool says which memories its result brings back: (id, score). They are linked to the step that called it; of a
    tool that is called off the record nothing is noted."""
    noted = _RECALLED.get(None)
    if noted is not None:
        noted += hits


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """A step as it was when it ended: full texts, whatever later prompts show of them."""

    key: str
    step_type: StepType
    number: int
    plan: str | None = None
    thought: str | None = None
    calls: tuple[tuple[str, Any], ...] = ()
    """(tool, arguments)"""
    observation: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ToolEvent:
    """What ToolCall callbacks are told, before and after each call."""

    phase: Literal["before", "after"]
    agent_name: str
    step_number: int
    position: str
    name: str
    arguments: Any
    result: Any = None
    error: str | None = None


class ModelCalled:
    """A model call under way: who makes it hands over the answer as soon as it is there."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        """What the model gets: secrets are replaced."""
        self.answer: ChatMessage | None = None
        """What it said; secrets in it are replaced before it is used."""
        self.is_recalled = False
        """The answer is on record: the call is not made."""


@dataclass(kw_only=True)
class Frame:
    """One agent's part in a run: its place, its trace, its steps."""

    run: Run
    agent_name: str
    trace_id: str
    path: str
    """The agent's place in the tree: `heartbeat`, `manager/action.1/tool:perception:3f9a01bc#1`."""
    parent: "Frame | None" = None
    on_tool: Callable[[ToolEvent, "Frame"], None] | None = None
    """Called before and after each tool call."""
    finished: list[FinishedStep] = field(default_factory=list)
    effects: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """The values of each effect so far, by name."""
    kept_out: dict[str, KeptOut] = field(default_factory=lambda: defaultdict(KeptOut))
    """What pruning keeps out of prompts as things stand, by part: `observation`, `thought`, `error`, `plan`."""
    counts: bool = False
    """Whether prompts are counted, so that what pruning saves can be told in tokens."""
    sent: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Input tokens and characters of each model call, by step."""
    children: list["Frame"] = field(default_factory=list)
    """The frames of the managed agents that it called."""
    member_steps: int | None = None
    """Actions that the next call of a managed agent may take at most; None: as many as that agent has."""
    spent: Spent = field(init=False)
    max_steps: int | None = None
    """Actions that its agent may take in this run."""
    started: bool = False
    """Whether its agent began."""
    model_error: str | None = None
    """Why the last model call failed; None: it did not."""
    tokens_per_s: float | None = None
    """How fast the last answer was written; None: its server does not say, or it comes from the record."""
    made_of: Mapping[str, Any] | None = None
    """What its agent is made of; of the agent that was run."""
    code_as_a_whole: bool = False
    """Whether each execution of its agent's code is recorded as one call, since its tools run out of reach."""
    watched: Any = None
    """What keeps an eye on its coherence."""
    lost: list[str] = field(default_factory=list)
    """Values on record that could not be made again, in words."""

    def __post_init__(self) -> None:
        self._agent: MultiStepAgent | None = None
        self._handling: BaseException | None = None
        self.spent = self.run.past.spent(self.trace_id)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._prompts: dict[str, tuple[list[Message], int | None]] = {}
        """The last prompt of each kind – smolagents shortens those for plans – and the number of its event."""
        self._ids = 0
        self._step = ""

    def child(self, name: str, position: str) -> "Frame":
        """The frame of a managed agent that is called; its place is that of the call, so that neither place nor id
        depend on chance."""
        call, _, nth = position.rpartition("#")
        step, digest = self._step.rpartition(".")[2] or "0", call.rpartition(":")[2]
        trace_id = f"{self.trace_id}/{name}.{step}.{digest}{'' if nth == '1' else f'.{nth}'}"
        made = Frame(run=self.run, agent_name=name, trace_id=trace_id, path=position, parent=self)
        self.children.append(made)
        return made

    @property
    def depth(self) -> int:
        """0 for the agent that was run, 1 for those that it calls, …"""
        return 0 if self.parent is None else self.parent.depth + 1

    # -- the agent -------------------------------------------------------------------------------------

    def bind(self, agent: MultiStepAgent) -> None:
        """Says whose frame this is; before the agent runs."""
        self._agent = agent
        self.goes_on()

    def goes_on(self) -> None:
        """The agent is about to work: an exception that is handled meanwhile outside is none of its own."""
        self._handling = sys.exc_info()[1]

    @property
    def agent(self) -> MultiStepAgent | None:
        """Whose frame this is."""
        return self._agent

    @property
    def step_number(self) -> int:
        """smolagents' number of the current action."""
        return self._agent.step_number if self._agent is not None else 0

    @property
    def is_settled(self) -> bool:
        """Whether all that its agent did is on record, failures included: nothing of it is made again."""
        return not self.run.live or (self.parent is not None and self.run.past.has("tool_finished", self.path))

    @property
    def is_leaving(self) -> bool:
        """Whether an exception ends the step under way: the model failed, or the run was stopped."""
        return sys.exc_info()[1] is not self._handling

    @property
    def ran_code_as_a_whole(self) -> bool:
        """Whether it did so when the run began."""
        began = self.run.past.find("run_started", self.path)
        return began is not None and bool(began.body.get("code_as_a_whole"))

    def timed_out_then(self) -> str | None:
        """How the current step's code was given up, where it took too long when it was recorded: now it may not."""
        known = self._recorded_step(self._step) if self._step else None
        error = known.body["error"] if known is not None else None
        return error if error and _TIMED_OUT in error else None

    def recalls(self, step: Any) -> bool:
        """Whether the end of this step is on record: the step is only made again. For callbacks with effects outside
        the run, which should have them once."""
        return isinstance(step, ActionStep | PlanningStep) and self._recorded_step(self._key(step)) is not None

    def start(
        self, task: str, model: str, inputs: Mapping[str, Any] | None = None, made_of: Mapping[str, Any] | None = None
    ) -> None:
        """The agent begins, or goes on.

        Args:
            inputs: What else its `run()` was given.
            made_of: What the agent is made of, to be held against when the run is taken up.
        """
        if self.run.past.take("run_started", self.path) is not None:
            self.started = True
            if not self.is_settled:
                self._write("run_resumed", self.path, {}, durable=self.parent is None)
            return
        self._must_be_live(self.path, f"the run of {self.agent_name}")
        parent = {"parent": self.parent.trace_id, "parent_step": self.parent.step_number} if self.parent else {}
        more: dict[str, Any] = {"made_of": made_of} if made_of is not None else {}
        more |= {"code_as_a_whole": True} if self.code_as_a_whole else {}
        body = {
            "agent": self.agent_name,
            "task": task,
            "model": model,
            **packed("inputs", dict(inputs or {})),
            "said": said_of(inputs),
            **parent,
            **more,
        }
        self._write("run_started", self.path, body, durable=self.parent is None)
        self.started = True

    def as_said(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of its agent's `run()`, of which the task says what it said when it was recorded: smolagents puts the
        text of `additional_args` into it, and the text of a set, or of an object, is not the same each time."""
        given = dict(inputs)
        began = self.run.past.find("run_started", self.path)
        text = began.body.get("said") if began is not None else None
        if text is not None and isinstance(given.get("additional_args"), dict):
            given["additional_args"] = Said(given["additional_args"], text)
        return given

    def finish(self, status: Status, *, output: Any = None, error: str | None = None) -> None:
        """The agent ended."""
        if self.is_settled:
            return
        body = {"status": status, **packed("output", answer_in(output)), "error": error}
        self._write("run_finished", self.path, body, durable=self.parent is None)

    def effect(self, name: str, compute: Callable[[], Any], *, pure: bool = False) -> Any:
        """A plain value from outside the transcript, journaled before it is used; what `compute` writes into the store
        is written together with it, or not at all.

        Args:
            pure: It follows from the transcript alone: lost, it would be the same again.
        """
        position = self._position(f"effect:{name}")
        known = self.run.past.take("effect", position)
        if known is not None:
            value = known.body["value"]
        else:
            self._must_be_live(position, f"the effect {name!r}")
            if pure:
                value = plain(compute())
                self._write("effect", position, {"name": name, "value": value}, held=True)
            else:
                with self._stored():
                    value = plain(compute())
                    self._write("effect", position, {"name": name, "value": value}, durable=False)
        self.effects[name].append(value)
        return value

    def note(self, name: str, value: Any) -> None:
        """Writes down what follows from the record alone, for whoever reads the trace. It is never read back."""
        position = self._position(f"effect:{name}")
        if self.run.live and not self.is_settled and self.run.past.take("effect", position) is None:
            self._write("effect", position, {"name": name, "value": value}, held=True)
        self.effects[name].append(value)

    def callback_failed(self, callback: str, error: BaseException) -> None:
        """A callback raised: recorded with its traceback; the run goes on."""
        text = "".join(traceback.format_exception(error))
        position = self._position(f"callback:{callback}")
        if self.run.live and self.run.past.take("effect", position) is None:
            body = {"name": "callback_failed", "value": {"callback": callback, "traceback": text}}
            self._write("effect", position, body, durable=False)

    def seal(self, step: ActionStep | PlanningStep) -> FinishedStep:
        """A step ended: its texts, as they now stand, go into the journal; where they are on record, those count.

        So what is not the same each time – addresses, the order of a set, the time – does not make a run differ.
        """
        if isinstance(step, PlanningStep):
            self._enter("planning")
        key = self._key(step)
        position = f"{self.path}/{key}"
        known = self._recorded_step(key)
        if known is not None and not self.is_leaving:
            self._put_back(step, known)
        if isinstance(step, PlanningStep):
            done = FinishedStep(key=key, step_type="planning", number=self.step_number, plan=step.plan)
        else:
            done = FinishedStep(
                key=key,
                step_type="final" if key.startswith("final") else "action",
                number=step.step_number,
                thought=_text(step.model_output),
                calls=calls_of(step),
                observation=step.observations,
                error=str(step.error) if step.error else None,
            )
        self.finished.append(done)
        cut_off_then = self.is_settled and self.run.past.has("step_finished", position)
        if known is not None or cut_off_then or (not self.run.live and self.run.is_over):
            return done
        self._must_be_live(position, "the end of this step")
        body: dict[str, Any] = {
            "step": done.key,
            "plan": done.plan,
            "thought": done.thought,
            "observation": done.observation,
            "error": done.error,
        }
        if self.is_leaving:
            body["cut"] = True
        self._write("step_finished", position, body, held=True)
        return done

    # -- calls -----------------------------------------------------------------------------------------

    def tool_call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        do: Callable[[str], Any],
        *,
        idempotent: bool,
        kept: Callable[[Any], Any] = lambda result: result,
        again: bool = False,
    ) -> Any:
        """Makes one tool call on the record; returns what `do` returns, with secrets in it replaced. A call that is
        finished on record is not made: its result is returned, or its error raised.

        Args:
            do: Makes the call; told its position.
            idempotent: It may be made again after a crash, so its start need not be on disk first.
            kept: What to write of a result, from which `RecordedExecutor` and the like make it again.
            again: It is a managed agent's: `do` is called even if the call is on record, since that agent's own past
                answers it, and its state builds up again.

        Raises:
            ToolRefused: A callback refused the call; it was not made.
            CallUncertain: It had begun when the process died, and may not be made again.
        """
        self.run.check()
        before = plain(arguments)
        shown = self.run.secrets.hide_in_plain(before)
        digest = digest_of(shown)
        position = self._position(f"tool:{name}:{digest[:8]}")
        base = {"step": self._step, "tool": name, "arguments": shown}
        known = self.run.past.take("tool_finished", position)
        if known is not None:
            change_again(arguments, known.body)
            return self._recalled(known, do if again else None)
        had_begun = self.run.past.take("tool_started", position) is not None
        self._must_be_live(position, f"the call of {name}")
        if had_begun and not idempotent and self.run.in_flight != "retry":
            raise self._uncertain(position, base, digest)
        self.run.know_secrets_of(name, shown)
        refused = self._refusal(position, name, shown)
        self._write("tool_started", position, base, digest=digest, durable=not (idempotent or refused))
        recalled: list[tuple[int, float]] = []
        noting = _RECALLED.set(recalled)
        try:
            if refused is not None:
                raise refused
            result = do(position)
        except Exception as error:
            fields = error_fields(error, self.run.secrets.hide(str(error)))
            self._write("tool_finished", position, {**base, **fields}, digest=digest)
            self._tell("after", position, name, shown, error=fields["error"])
            raise
        finally:
            _RECALLED.reset(noting)
        written = {**packed("result", kept(result)), **changes_in(arguments, before)}
        written |= {"recalled": recalled} if recalled else {}
        result = self.run.secrets.hide_in(result)
        self._write("tool_finished", position, {**base, **written}, digest=digest)
        self._tell("after", position, name, shown, result=result)
        return result

    def _recalled(self, known: Event, do: Callable[[str], Any] | None) -> Any:
        if do is not None and self.run.past.has("run_started", known.position):  # else it was refused
            with suppress(Exception):  # what it came to is on record, and follows
                do(known.position)
        if "error" in known.body:
            raise error_of(known.body)
        return result_of(known, self.lost)

    def _uncertain(self, position: str, base: dict[str, Any], digest: str) -> BaseException:
        """What to raise of a call that may or may not have happened; it is not made."""
        said = (
            f"The call of {base['tool']} had begun when the process died. It may or may not have happened, and was not "
            "made again; find out before you go on"
        )
        if self.run.in_flight == "fail":
            cause = CallUncertain(
                f"{position}: {said}. Go on with in_flight='report' (the agent is told), or 'retry' (it is made again)"
            )
            return self.run.end(RunAborted(cause))
        uncertain = CallUncertain(said)
        self._write("tool_finished", position, {**base, **error_fields(uncertain, said)}, digest=digest)
        self._tell("after", position, base["tool"], base["arguments"], error=f"CallUncertain: {said}")
        return uncertain

    @contextmanager
    def model_call(
        self, model: Any, messages: Sequence[Any], options: Mapping[str, Any], *, within_tool: bool
    ) -> Iterator[ModelCalled]:
        """One model call on the record: metered, and written before its answer is used.

        Args:
            within_tool: A tool makes it: it belongs to the step in which the tool runs.

        Raises:
            LimitReached: A budget is used up, or the deadline passed.
        """
        self.run.check()
        stops = options.get("stop_sequences") or []
        tools = [tool.name for tool in options.get("tools_to_call_from") or []]
        if not within_tool:
            used_up = self.max_steps is not None and self.step_number > self.max_steps
            self._enter("planning" if "<end_plan>" in stops else "final" if used_up else "action")
        kind = "tool" if within_tool else self._step.partition(".")[0]
        prompt, same = self._read_prompt(kind, messages)
        digest = digest_of([[m.digest for m in prompt], stops, tools, plain(options.get("response_format"))])
        position = self._position("model")
        chars = sum(m.chars for m in prompt)
        called = ModelCalled([read.as_sent(message) for read, message in zip(prompt, messages, strict=True)])
        known = self.run.past.take("model_called", position)
        if known is not None and known.digest != digest:
            raise self._diverged(position, "the prompt is not the one on record", prompt=prompt)
        if known is not None and ("answer" in known.body or self.is_settled):
            seq = self.run.past.seq_of_prompt(position)
            self._prompts[kind] = prompt, seq
            if "answer" not in known.body:
                self.model_error = known.body["error"]
                raise error_of(known.body)
            self.model_error = None
            self.sent[self._step].append((known.body["usage"]["input_tokens"], chars))
            called.answer, called.is_recalled = answer_of(known), True
            yield called
            return
        self._must_be_live(position, "a call of the model")
        kept_out = self._kept_out_of(kind)
        body: dict[str, Any] = {
            "step": self._step,
            "model": str(getattr(model, "model_id", None) or type(model).__name__),
            "prompt": {
                "like": self._prompts[kind][1] if same else None,
                "keep": same,
                "add": [m.plain for m in prompt[same:]],
            },
            "prompt_chars": chars,
            "pruned_chars": kept_out.chars,
        }
        if self.counts and not within_tool:
            counted = sum(message.counted for message in prompt)
            body["counted"] = {"by": counter(), "prompt": counted, "pruned": kept_out.counted}
        self._prompts[kind] = prompt, self._begin_model_call(model, position, body, digest)
        base = {"step": self._step, **({"within_tool": True} if within_tool else {})}
        try:
            yield called
            answer = called.answer
            if answer is None:
                raise RuntimeError(f"{type(model).__name__} gave no answer")
            usage = self.run.meter(model, answer, chars)
        except (Exception, GeneratorExit) as error:  # GeneratorExit: who read the stream went away
            said = self.run.secrets.hide(str(error) or "the stream was closed before its end")
            fields = error_fields(error, said) if isinstance(error, Exception) else {"error": f"GeneratorExit: {said}"}
            self.model_error = fields["error"]
            self._write("model_called", position, {**base, **fields}, digest=digest)
            raise
        self._hide(answer)
        written = {**base, "answer": _plain_answer(answer), "usage": _usage(usage)}
        took = DaySpending(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd or 0.0,
            unpriced=int(usage.cost_usd is None),
        )
        # On disk with the next call that cannot be undone: a killed process loses nothing, a power cut this answer.
        with self._stored():
            self._write("model_called", position, written, digest=digest, durable=False)
            self.run.journal.spend(took)
        self.model_error = None
        with self.run.lock:
            for spent in (self.spent, self.run.spent):
                spent.answered(usage, {**body, "trace": self.trace_id})
        self.sent[self._step].append((usage.input_tokens, chars))
        self.tokens_per_s = usage.tokens_per_s

    def _kept_out_of(self, kind: str) -> KeptOut:
        """Of a prompt of that kind: those for plans hold neither thoughts nor plans, those of tools nothing of it."""
        shown = {"tool": (), "planning": ("observation", "error")}.get(kind, tuple(self.kept_out))
        return sum((self.kept_out[part] for part in shown), KeptOut())

    def _begin_model_call(self, model: Any, position: str, body: dict[str, Any], digest: str) -> int:
        """Counts and writes the beginning of a call, both or neither; returns the event's number."""
        reserved = False
        try:
            with self._stored():
                self.run.reserve(model)
                reserved = True
                seq = self._write("model_started", position, body, digest=digest, durable=False).seq
        except BaseException:
            if reserved:
                self.run.give_back()
            raise
        with self.run.lock:
            self.spent.model_calls += 1
        return seq

    def call_id(self) -> str:
        """The next id for a tool call that was parsed from text: the same in every run."""
        self._ids += 1
        return f"call_{self._ids}"

    # -- within ----------------------------------------------------------------------------------------

    def _enter(self, step_type: StepType) -> str:
        self._step = f"{step_type}.{self.step_number}"
        return self._step

    def _position(self, what: str) -> str:
        key = f"{self.path}/{self._step}/{what}"
        with self._lock:
            self._seen[key] += 1
            return f"{key}#{self._seen[key]}"

    def _key(self, step: ActionStep | PlanningStep) -> str:
        if isinstance(step, PlanningStep):
            return f"planning.{self.step_number}"
        return f"{'final' if isinstance(step.error, AgentMaxStepsError) else 'action'}.{step.step_number}"

    def _recorded_step(self, key: str) -> Event | None:
        """The recorded end of a step; none where it was cut off."""
        event = self.run.past.find("step_finished", f"{self.path}/{key}")
        return event if event is not None and not event.body.get("cut") else None

    def _put_back(self, step: ActionStep | PlanningStep, known: Event) -> None:
        """The texts on record in place of those that the step has now.

        Raises:
            RunAborted: The step did something else: it failed where it had not, or did not make a call that it had.
        """
        body = known.body
        self.run.past.take("step_finished", known.position)
        for call in self.run.past.left(self.trace_id, body["step"]):
            raise self._diverged(known.position, f"{_called(call)} is on record, and was not made now")
        if isinstance(step, PlanningStep):
            step.plan = body["plan"]
            return
        step.observations = body["observation"]
        if (step.error is None) != (body["error"] is None):
            then, now = body["error"] or "went well", str(step.error or "goes well")
            raise self._diverged(known.position, "the step ends otherwise", difference=f"then: {then}\nnow: {now}")
        if step.error is not None:
            step.error.message = body["error"]
            step.error.args = (body["error"],)

    def _must_be_live(self, position: str, what: str) -> None:
        """Nothing is on record at this position: may the run go on here?

        Raises:
            RunAborted: It may not: something else is on record here.
            RecordEnded: A replay came to the end of a run that did not finish.
        """
        past = self.run.past
        if not past:
            return
        here = self._recorded_step(self._step) if self._step else None
        left = past.left(self.trace_id, self._step)
        if self.is_settled and self.run.live:
            raise self._diverged(position, f"{what} is not on record, though this agent's whole run is")
        if here is not None and position != here.position:
            raise self._diverged(position, f"{what} is not on record, though the whole step is")
        if left and isinstance(self._agent, CodeAgent):  # others call what a recorded answer says, in any order
            raise self._diverged(position, f"{what} is not on record; on record is {_called(left[0])}")
        if not self.run.live:
            raise self.run.end(RecordEnded(f"the record ends before {what} at {position}"))

    def _diverged(
        self, position: str, what: str, *, difference: str = "", prompt: Sequence[Message] | None = None
    ) -> BaseException:
        then = self.run.past.prompt_at(position) if prompt is not None else None
        if prompt is not None and then is not None:
            difference = first_difference(then, [message.plain for message in prompt])
        return self.run.end(RunAborted(ReplayDiverged(position, what, difference=difference, lost=self.lost)))

    @contextmanager
    def _stored(self) -> Iterator[None]:
        """One transaction that survives a killed process; that it fails ends the run."""
        try:
            with self.run.journal.transaction(durable=False):
                yield
        except StoreError as error:
            raise self.run.end(RunAborted(error)) from error

    def _read_prompt(self, kind: str, messages: Sequence[Any]) -> tuple[list[Message], int]:
        """A prompt, and how many messages at its beginning equal those of the last one of its kind.

        What is equal is neither read nor written again: cost and journal grow linearly with the steps.
        """
        read = self._prompts.get(kind, ([], None))[0][: len(messages)]
        raw = [role_and_content(message) for message in messages]
        before = [message.raw for message in read]
        same = len(read)
        if before != raw[:same]:  # one comparison tells it of most prompts, which only grow
            same = next(i for i, (old, new) in enumerate(zip(before, raw, strict=False)) if old != new)
        secrets = self.run.secrets
        return [*read[:same], *(Message.of(role, content, secrets) for role, content in raw[same:])], same

    def _hide(self, message: ChatMessage) -> None:
        message.content = self.run.secrets.hide_in(message.content)
        for call in message.tool_calls or ():
            call.function.arguments = self.run.secrets.hide_in(call.function.arguments)

    def _refusal(self, position: str, name: str, arguments: Any) -> ToolRefused | None:
        try:
            self._tell("before", position, name, arguments)
        except ToolRefused as refused:
            return refused
        return None

    def _tell(
        self,
        phase: Literal["before", "after"],
        position: str,
        name: str,
        arguments: Any,
        result: Any = None,
        error: str | None = None,
    ) -> None:
        if self.on_tool is not None:
            event = ToolEvent(
                phase=phase,
                agent_name=self.agent_name,
                step_number=self.step_number,
                position=position,
                name=name,
                arguments=arguments,
                result=result,
                error=error,
            )
            self.on_tool(event, self)

    def _write(
        self,
        kind: Kind,
        position: str,
        body: dict[str, Any],
        *,
        digest: str | None = None,
        durable: bool = True,
        held: bool = False,
    ) -> Event:
        if not self.run.live:
            raise self.run.end(RecordEnded(f"the record ends before {position}"))
        if self.run.is_closed:
            raise RunInterrupted("the run is over")
        full = {"trace": self.trace_id, "step": self._step, **body}
        try:
            return self.run.journal.append(
                self.run.id, kind, position, full, secrets=self.run.secrets, digest=digest, durable=durable, held=held
            )
        except StoreError as error:
            raise self.run.end(RunAborted(error)) from error


def calls_of(step: ActionStep) -> tuple[tuple[str, Any], ...]:
    """(tool, arguments) of an action; of one whose call failed, as the model asked for it, since smolagents leaves it
    out."""
    asked = step.model_output_message.tool_calls if step.model_output_message is not None else None
    if step.tool_calls:
        return tuple((call.name, call.arguments) for call in step.tool_calls)
    return tuple((call.function.name, call.function.arguments) for call in asked or ())


def answer_in(output: Any) -> Any:
    """The answer of what an agent's `run()` returned."""
    return output.output if isinstance(output, RunResult) else output


def _called(event: Event) -> str:
    """A recorded call, in words."""
    if event.kind == "model_called":
        return "a call of the model"
    return f"the call of {event.body['tool']} with {quoted(json.dumps(event.body['arguments']), 200)}"


def _plain_answer(answer: ChatMessage) -> dict[str, Any]:
    return {
        "content": plain(answer.content),
        "tool_calls": [
            {"id": c.id, "name": c.function.name, "arguments": plain(c.function.arguments)}
            for c in answer.tool_calls or ()
        ],
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        **({"cache_write_tokens": usage.cache_write_tokens} if usage.cache_write_tokens else {}),
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
        "estimated": usage.estimated,
        **({"mended": usage.mended} if usage.mended else {}),
        **({"tokens_per_s": usage.tokens_per_s} if usage.tokens_per_s is not None else {}),
    }


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    parts = [p.get("text") or "" for p in content if isinstance(p, dict)] if isinstance(content, list) else [content]
    return "\n".join(map(str, parts))
