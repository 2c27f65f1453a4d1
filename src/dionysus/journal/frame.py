"""A `Run` is a tree of agents under one id; a `Frame` is one agent's part in it: what is written, and where.

Whoever records knows its frame – no context variable, no global – so parallel tool calls and the threads of a code
executor record correctly.
"""

import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from smolagents import ActionStep, ChatMessage, MultiStepAgent, PlanningStep
from smolagents.agents import RunResult
from smolagents.utils import AgentMaxStepsError

from dionysus.errors import RunAborted, RunInterrupted, StoreError, ToolRefused
from dionysus.journal.events import Journal, Kind, Message, digest_of, plain, role_and_content
from dionysus.journal.secrets import Secrets
from dionysus.stores.contract import Event, Status, StepType, Usage

Meter = Callable[[Any, ChatMessage, int], Usage]
"""(model, its answer, characters sent) → usage."""


@dataclass(kw_only=True)
class Spent:
    """What model calls took."""

    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    prompt_chars: int = 0
    """Characters sent, over all calls."""
    chars_saved: int = 0
    """Characters that pruning kept out, over all calls."""
    tokens_saved: int = 0
    """Estimated per call: reported input tokens × characters kept out ÷ characters sent."""

    def call(self, usage: Usage, *, chars: int, pruned: int) -> None:
        """Adds one call."""
        self.usage += usage
        self.model_calls += 1
        self.prompt_chars += chars
        self.chars_saved += pruned
        if chars:
            self.tokens_saved += round(usage.input_tokens * pruned / chars)


class Run:
    """A tree of agents under one id: what they share."""

    def __init__(self, run_id: str, journal: Journal, *, secrets: Secrets, meter: Meter) -> None:
        self.id = run_id
        self.journal, self.secrets, self.meter = journal, secrets, meter
        self.spent = Spent()
        """Over all agents of the run."""
        self.stop_reason: str | None = None
        """Why the run was asked to stop."""
        self.lock = threading.Lock()

    def stop(self, reason: str) -> None:
        """Asks the run to end before its next call; safe from a signal handler or another thread."""
        self.stop_reason = reason

    def check(self) -> None:
        """The safe point before each call.

        Raises:
            RunInterrupted: The run was asked to stop, or is over.
        """
        if self.stop_reason is not None:
            raise RunInterrupted(self.stop_reason)


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


@dataclass(kw_only=True)
class Frame:
    """One agent's part in a run: its place, its trace, its steps."""

    run: Run
    agent_name: str
    trace_id: str
    path: str
    """The agent's place in the tree: `heartbeat`, `manager/action.1/agent:perception:3f9a01bc#1`."""
    parent: "Frame | None" = None
    on_tool: Callable[[ToolEvent, "Frame"], None] | None = None
    """Called before and after each tool call."""
    finished: list[FinishedStep] = field(default_factory=list)
    effects: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """The values of each effect so far, by name."""
    pruned_chars: int = 0
    """Characters that pruning keeps out of each prompt as things stand."""
    sent: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Input tokens and characters of each model call, by step."""
    children: list["Frame"] = field(default_factory=list)
    """The frames of the managed agents that it called."""
    member_steps: int | None = None
    """Actions that the next call of a managed agent may take at most; None: as many as that agent has."""
    spent: Spent = field(default_factory=Spent)
    max_steps: int | None = None
    """Actions that its agent may take in this run."""
    started: bool = False
    """Whether its agent began."""
    model_error: str | None = None
    """Why the last model call failed; None: it did not."""

    def __post_init__(self) -> None:
        self._agent: MultiStepAgent | None = None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._prompts: dict[str, tuple[list[Message], int | None]] = {}
        """The last prompt of each kind – smolagents shortens those for plans – and the number of its event."""
        self._ids = 0
        self._step = ""

    def child(self, name: str, task: str) -> "Frame":
        """The frame of a managed agent that is called with this task. Its place and id do not depend on chance."""
        digest = digest_of(task)
        position = self._position(f"agent:{name}:{digest[:8]}")
        short = f"{self.trace_id}/{name}.{self._step.rpartition('.')[2] or '0'}.{digest[:4]}"
        with self._lock:
            self._seen[short] += 1
            nth = self._seen[short]
        ending = "" if nth == 1 else f".{nth}"
        trace_id = f"{short}{ending}"
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

    @property
    def agent(self) -> MultiStepAgent | None:
        """Whose frame this is."""
        return self._agent

    @property
    def step_number(self) -> int:
        """smolagents' number of the current action."""
        return self._agent.step_number if self._agent is not None else 0

    def start(self, task: str, model: str, inputs: Mapping[str, Any] | None = None) -> None:
        """The agent begins.

        Args:
            inputs: What else its `run()` was given.
        """
        parent = {"parent": self.parent.trace_id, "parent_step": self.parent.step_number} if self.parent else {}
        body = {"agent": self.agent_name, "task": task, "model": model, "inputs": plain(inputs or {}), **parent}
        self._write("run_started", self.path, body, durable=self.parent is None)
        self.started = True

    def finish(self, status: Status, *, output: Any = None, error: str | None = None) -> None:
        """The agent ended."""
        answer = output.output if isinstance(output, RunResult) else output
        body = {"status": status, "output": plain(answer), "error": error}
        self._write("run_finished", self.path, body, durable=self.parent is None)

    def effect(self, name: str, compute: Callable[[], Any]) -> Any:
        """A plain value from outside the transcript, journaled before it is used."""
        value = plain(compute())
        self._write("effect", self._position(f"effect:{name}"), {"name": name, "value": value}, durable=False)
        self.effects[name].append(value)
        return value

    def callback_failed(self, callback: str, error: BaseException) -> None:
        """A callback raised: recorded with its traceback; the run goes on."""
        text = "".join(traceback.format_exception(error))
        body = {"name": "callback_failed", "value": {"callback": callback, "traceback": text}}
        self._write("effect", self._position(f"callback:{callback}"), body, durable=False)

    def seal(self, step: ActionStep | PlanningStep) -> FinishedStep:
        """A step ended: its texts, as they now stand, go into the journal."""
        if isinstance(step, PlanningStep):
            done = FinishedStep(
                key=self._enter("planning"), step_type="planning", number=self.step_number, plan=step.plan
            )
        else:
            final = isinstance(step.error, AgentMaxStepsError)
            kind: StepType = "final" if final else "action"
            done = FinishedStep(
                key=f"{kind}.{step.step_number}",
                step_type=kind,
                number=step.step_number,
                thought=_text(step.model_output),
                calls=tuple((call.name, call.arguments) for call in step.tool_calls or ()),
                observation=step.observations,
                error=str(step.error) if step.error else None,
            )
        body = {
            "step": done.key,
            "plan": done.plan,
            "thought": done.thought,
            "observation": done.observation,
            "error": done.error,
        }
        self._write("step_finished", f"{self.path}/{done.key}", body, durable=False)
        self.finished.append(done)
        return done

    # -- calls -----------------------------------------------------------------------------------------

    def tool_call(
        self, name: str, arguments: Mapping[str, Any], do: Callable[[], Any], *, idempotent: bool, kept: Any = None
    ) -> Any:
        """Makes one tool call on the record; returns what `do` returns, with secrets in it replaced.

        Args:
            do: Makes the call.
            idempotent: It may be made again after a crash, so its start need not be on disk first.
            kept: What to write of a result; default: `plain`.

        Raises:
            ToolRefused: A callback refused the call; it was not made.
        """
        self.run.check()
        shown = plain(arguments)
        digest = digest_of(shown)
        position = self._position(f"tool:{name}:{digest[:8]}")
        base = {"step": self._step, "tool": name, "arguments": shown}
        refused = self._refusal(position, name, shown)
        self._write("tool_started", position, base, digest=digest, durable=not (idempotent or refused))
        try:
            if refused is not None:
                raise refused
            result = do()
        except Exception as error:
            text = f"{type(error).__name__}: {self.run.secrets.hide(str(error))}"
            self._write("tool_finished", position, {**base, "error": text}, digest=digest)
            self._tell("after", position, name, shown, error=text)
            raise
        written = (kept or plain)(result)
        result = self.run.secrets.hide_in(result)
        self._write("tool_finished", position, {**base, "result": written}, digest=digest)
        self._tell("after", position, name, shown, result=result)
        return result

    @contextmanager
    def model_call(
        self, model: Any, messages: Sequence[Any], options: Mapping[str, Any], *, within_tool: bool
    ) -> Iterator[ModelCalled]:
        """One model call on the record: metered, and written before its answer is used.

        Args:
            within_tool: A tool makes it: it belongs to the step in which the tool runs.
        """
        self.run.check()
        stops = options.get("stop_sequences") or []
        tools = options.get("tools_to_call_from") or []
        if not within_tool:
            used_up = self.max_steps is not None and self.step_number > self.max_steps
            self._enter("planning" if "<end_plan>" in stops else "final" if used_up else "action")
        kind = "tool" if within_tool else self._step.partition(".")[0]
        prompt, same = self._read_prompt(kind, messages)
        digest = digest_of(
            [[m.digest for m in prompt], stops, [t.name for t in tools], plain(options.get("response_format"))]
        )
        position = self._position("model")
        chars = sum(m.chars for m in prompt)
        body = {
            "step": self._step,
            "model": str(getattr(model, "model_id", None) or type(model).__name__),
            "started_at": self.run.journal.clock().isoformat(),
            "prompt": {
                "like": self._prompts[kind][1] if same else None,
                "keep": same,
                "add": [m.plain for m in prompt[same:]],
            },
            "prompt_chars": chars,
            "pruned_chars": self.pruned_chars,
        }
        called = ModelCalled([read.as_sent(message) for read, message in zip(prompt, messages, strict=True)])
        try:
            yield called
            answer = called.answer
            if answer is None:
                raise RuntimeError(f"{type(model).__name__} gave no answer")
            usage = self.run.meter(model, answer, chars)
        except (Exception, GeneratorExit) as error:  # GeneratorExit: who read the stream went away
            said = str(error) or "the stream was closed before its end"
            self.model_error = f"{type(error).__name__}: {self.run.secrets.hide(said)}"
            self._write("model_called", position, {**body, "error": self.model_error}, digest=digest)
            self._count(Usage(), chars=0, pruned=0)
            raise
        self._hide(answer)
        written = {"answer": _plain_answer(answer), "usage": _usage(usage)}
        # On disk with the next call that cannot be undone: a killed process loses nothing, a power cut this answer.
        event = self._write("model_called", position, {**body, **written}, digest=digest, durable=False)
        self.model_error = None
        self._prompts[kind] = prompt, event.seq
        self._count(usage, chars=chars, pruned=self.pruned_chars)
        self.sent[self._step].append((usage.input_tokens, chars))

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

    def _count(self, usage: Usage, **chars: int) -> None:
        with self.run.lock:
            self.spent.call(usage, **chars)
            self.run.spent.call(usage, **chars)

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
    ) -> Event:
        full = {"trace": self.trace_id, "step": self._step, **body}
        try:
            return self.run.journal.append(
                self.run.id, kind, position, full, secrets=self.run.secrets, digest=digest, durable=durable
            )
        except StoreError as error:
            raise RunAborted(error) from error


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
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
        "estimated": usage.estimated,
    }


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    parts = [p.get("text") or "" for p in content if isinstance(p, dict)] if isinstance(content, list) else [content]
    return "\n".join(map(str, parts))
