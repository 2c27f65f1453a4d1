"""Running an agent on the record: the wrapped model, the wrapped tools, and the run that they belong to.

A `Run` is a tree of agents under one id; a `Frame` is one agent's part in it. Wrappers know their frame – no
context variable, no global – so parallel tool calls and the threads of a code executor record correctly.
"""

import copy
import inspect
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from smolagents import ActionStep, ChatMessage, Model, MultiStepAgent, PlanningStep, Tool
from smolagents.utils import AgentMaxStepsError

from dionysus.errors import RecordLost, RunInterrupted, StoreError
from dionysus.journal.events import Journal, Kind, digest_of, plain, plain_messages, text_chars
from dionysus.journal.secrets import Secrets
from dionysus.stores.contract import Event, Status, StepType, Usage

Meter = Callable[[Any, ChatMessage, int], Usage]
"""(model, its answer, characters sent) → usage."""


class Run:
    """A tree of agents under one id: what they share."""

    def __init__(self, run_id: str, journal: Journal, *, secrets: Secrets, meter: Meter) -> None:
        self.id = run_id
        self.journal, self.secrets, self.meter = journal, secrets, meter
        self.stop_reason: str | None = None
        """Why the run was asked to stop."""

    def stop(self, reason: str) -> None:
        """Asks the run to end before its next call; safe from a signal handler or another thread."""
        self.stop_reason = reason

    def check(self) -> None:
        """The safe point before each call.

        Raises:
            RunInterrupted: The run was asked to stop.
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


@dataclass(kw_only=True)
class Frame:
    """One agent's part in a run: its place, its trace, its wrapped model and tools."""

    run: Run
    agent_name: str
    trace_id: str
    path: str
    """The agent's place in the tree: `heartbeat`, `manager/perception#1`."""
    parent: "Frame | None" = None
    on_tool: Callable[[ToolEvent, "Frame"], None] | None = None
    """Called before and after each tool call."""
    finished: list[FinishedStep] = field(default_factory=list)
    effects: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """The values of each effect so far, by name."""
    pruned_chars: int = 0
    """Characters that pruning keeps out of each prompt as things stand."""
    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    prompt_chars: int = 0
    """Characters sent, over all calls."""
    chars_saved: int = 0
    """Characters that pruning kept out, over all calls."""

    def __post_init__(self) -> None:
        self._agent: MultiStepAgent | None = None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._prompt: list[dict[str, Any]] = []
        self._prompt_seq: int | None = None
        self._ids = 0
        self._step = ""

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

    def start(self, task: str, model: str) -> None:
        """The agent begins."""
        parent = {"parent": self.parent.trace_id, "parent_step": self.parent.step_number} if self.parent else {}
        body = {"agent": self.agent_name, "task": task, "model": model, **parent}
        self._write("run_started", self.path, body)

    def finish(self, status: Status, *, output: Any = None, error: str | None = None) -> None:
        """The agent ended."""
        self._write("run_finished", self.path, {"status": status, "output": plain(output), "error": error})

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

    # -- wrappers --------------------------------------------------------------------------------------

    def model(self, model: Model, *, within_tool: bool = False) -> "RecordedModel":
        """`model`, on the record.

        Args:
            within_tool: A tool uses it: its calls belong to the step in which the tool runs.
        """
        return RecordedModel(model, self, within_tool=within_tool)

    def tool(self, tool: Tool) -> Tool:
        """A copy of `tool`, on the record; the tool itself is left as it was."""
        recorded = copy.copy(tool)
        recorded.is_initialized = True
        signature = inspect.signature(tool.forward)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._use(tool, dict(signature.bind(*args, **kwargs).arguments))

        recorded.forward = forward
        return recorded

    def _use(self, tool: Tool, arguments: dict[str, Any]) -> Any:
        self.run.check()
        if not tool.is_initialized:
            tool.setup()
        shown = plain(arguments)
        digest = digest_of(shown)
        position = self._position(f"tool:{tool.name}:{digest[:8]}")
        base = {"step": self._step, "tool": tool.name, "arguments": shown}
        self._tell("before", position, tool.name, shown)
        idempotent = bool(getattr(tool, "idempotent", False))
        self._write("tool_started", position, base, digest=digest, durable=not idempotent)
        try:
            result = tool.forward(**self.run.secrets.restore_in(arguments))
        except Exception as error:
            text = f"{type(error).__name__}: {self.run.secrets.hide(str(error))}"
            self._write("tool_finished", position, {**base, "error": text}, digest=digest)
            self._tell("after", position, tool.name, shown, error=text)
            raise
        if isinstance(result, str):
            result = self.run.secrets.hide(result)
        self._write("tool_finished", position, {**base, "result": plain(result)}, digest=digest)
        self._tell("after", position, tool.name, shown, result=result)
        return result

    def generate(self, model: Model, messages: Sequence[Any], *, within_tool: bool, **options: Any) -> ChatMessage:
        """One model call on the record; see `RecordedModel`."""
        self.run.check()
        stops = options.get("stop_sequences") or []
        tools = options.get("tools_to_call_from") or []
        if not within_tool:
            self._enter("planning" if "<end_plan>" in stops else "action" if stops or tools else "final")
        prompt = plain_messages(messages)
        digest = digest_of(
            [[digest_of(m) for m in prompt], stops, [t.name for t in tools], options.get("response_format")]
        )
        position = self._position("model")
        started_at = self.run.journal.clock()
        chars = text_chars(prompt)
        body = {
            "step": self._step,
            "model": str(getattr(model, "model_id", None) or type(model).__name__),
            "started_at": started_at.isoformat(),
            "prompt": self._delta(prompt),
            "prompt_chars": chars,
            "pruned_chars": self.pruned_chars,
        }
        try:
            message = model.generate(list(messages), **options)
        except Exception as error:
            text = f"{type(error).__name__}: {self.run.secrets.hide(str(error))}"
            self._write("model_called", position, {**body, "error": text}, digest=digest)
            self.model_calls += 1
            raise
        usage = self.run.meter(model, message, chars)
        self._hide(message)
        answer = {
            "content": plain(message.content),
            "tool_calls": [
                {"id": c.id, "name": c.function.name, "arguments": plain(c.function.arguments)}
                for c in message.tool_calls or ()
            ],
        }
        event = self._write("model_called", position, {**body, "answer": answer, "usage": _usage(usage)}, digest=digest)
        self._prompt, self._prompt_seq = prompt, event.seq
        self.usage += usage
        self.model_calls += 1
        self.prompt_chars += chars
        self.chars_saved += self.pruned_chars
        return message

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

    def _delta(self, prompt: list[dict[str, Any]]) -> dict[str, Any]:
        """A prompt as what is new against this frame's last one: a journal grows linearly with its steps."""
        same = 0
        for new, old in zip(prompt, self._prompt, strict=False):
            if new != old:
                break
            same += 1
        return {"like": self._prompt_seq if same else None, "keep": same, "add": prompt[same:]}

    def _hide(self, message: ChatMessage) -> None:
        message.content = self.run.secrets.hide_in(message.content)
        for call in message.tool_calls or ():
            call.function.arguments = self.run.secrets.hide_in(call.function.arguments)

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
            raise RecordLost(error) from error


class RecordedModel(Model):
    """A model on the record: metered, journaled before its answer is used, with deterministic call ids."""

    def __init__(self, inner: Model, frame: Frame, *, within_tool: bool = False) -> None:
        super().__init__(model_id=getattr(inner, "model_id", None))
        self.inner, self._frame, self._within_tool = inner, frame, within_tool
        self.tool_name_key = getattr(inner, "tool_name_key", "name")
        self.tool_arguments_key = getattr(inner, "tool_arguments_key", "arguments")

    def generate(self, messages: list[ChatMessage], **options: Any) -> ChatMessage:
        """The inner model's answer."""
        return self._frame.generate(self.inner, messages, within_tool=self._within_tool, **options)

    def parse_tool_calls(self, message: ChatMessage) -> ChatMessage:
        """The inner model's parsing, with ids that do not differ from run to run."""
        parsed = self.inner.parse_tool_calls(message)
        for call in parsed.tool_calls or ():
            call.id = self._frame.call_id()
            call.function.arguments = self._frame.run.secrets.hide_in(call.function.arguments)
        return parsed


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
