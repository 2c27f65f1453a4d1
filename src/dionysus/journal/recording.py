"""The wrappers that put an agent's calls on the record: its model, its tools, a remote code executor.

Each is a stand-in for the original, which is left as it was.
"""

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from smolagents import ChatMessage, FinalAnswerTool, Model, Tool, ToolCallingAgent
from smolagents.local_python_executor import CodeOutput
from smolagents.models import (
    ChatMessageStreamDelta,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    agglomerate_stream_deltas,
)

from dionysus.errors import CallUncertain, ToolRefused
from dionysus.journal.frame import Frame
from dionysus.journal.values import packed, unpacked

Dress = Callable[[list[ChatMessage], Any], list[ChatMessage]]


def as_they_are(messages: list[ChatMessage], model: Any) -> list[ChatMessage]:
    """The messages of a prompt as the model is to get them: unchanged."""
    return messages


def recorded_model(
    model: Any, frame: Frame, *, within_tool: bool = False, dress: Dress = as_they_are
) -> "RecordedModel":
    """`model`, on the record; it streams if `model` does.

    Args:
        within_tool: A tool uses it: its calls belong to the step in which the tool runs.
        dress: What the model is sent instead of a prompt's messages, which are on record without it.
    """
    kind = StreamingRecordedModel if hasattr(model, "generate_stream") else RecordedModel
    return kind(model, frame, within_tool=within_tool, dress=dress)


class RecordedModel(Model):
    """A model on the record: metered, journaled before its answer is used, with deterministic call ids."""

    def __init__(self, inner: Any, frame: Frame, *, within_tool: bool, dress: Dress) -> None:
        super().__init__(model_id=getattr(inner, "model_id", None))
        self.inner, self._frame, self._within_tool, self._dress = inner, frame, within_tool, dress
        self.tool_name_key = getattr(inner, "tool_name_key", "name")
        self.tool_arguments_key = getattr(inner, "tool_arguments_key", "arguments")

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "generate_stream"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def generate(self, messages: list[ChatMessage], *args: Any, **kwargs: Any) -> ChatMessage:
        """The inner model's answer."""
        options = _options(args, kwargs)
        with self._frame.model_call(self.inner, messages, options, within_tool=self._within_tool) as called:
            if not called.is_recalled:
                dressed = self._dress(called.messages, self.inner)
                made = self._frame.run.awaited(lambda: [self.inner.generate(dressed, **options)])
                called.answer = next(made)
        return called.answer

    def parse_tool_calls(self, message: ChatMessage) -> ChatMessage:
        """The inner model's parsing, with ids that do not differ from run to run."""
        parsed = self.inner.parse_tool_calls(message)
        for call in parsed.tool_calls or ():
            call.id = self._frame.call_id()
            call.function.arguments = self._frame.run.secrets.hide_in(call.function.arguments)
        return parsed


class StreamingRecordedModel(RecordedModel):
    """A recorded model that streams. Deltas pass as they come; the call is written when the last one has."""

    def generate_stream(
        self, messages: list[ChatMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatMessageStreamDelta]:
        """The inner model's deltas."""
        options = _options(args, kwargs)
        deltas: list[ChatMessageStreamDelta] = []
        with self._frame.model_call(self.inner, messages, options, within_tool=self._within_tool) as called:
            if called.answer is not None:
                yield _as_delta(called.answer)
                return
            dressed = self._dress(called.messages, self.inner)
            for delta in self._frame.run.awaited(lambda: self.inner.generate_stream(dressed, **options)):
                deltas.append(delta)
                yield delta
            called.answer = _put_together(deltas)


def _as_delta(answer: ChatMessage) -> ChatMessageStreamDelta:
    """A whole answer in one piece."""
    calls = []
    for i, call in enumerate(answer.tool_calls or ()):
        arguments = call.function.arguments
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)  # pieces of streams are texts
        function = ChatMessageToolCallFunction(name=call.function.name, arguments=text)
        calls.append(ChatMessageToolCallStreamDelta(index=i, id=call.id, type=call.type, function=function))
    return ChatMessageStreamDelta(content=answer.content, tool_calls=calls or None, token_usage=answer.token_usage)


def _options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """smolagents' arguments after the messages, by name."""
    return dict(zip(("stop_sequences", "response_format", "tools_to_call_from"), args, strict=False)) | kwargs


def _put_together(deltas: list[ChatMessageStreamDelta]) -> ChatMessage:
    """The whole answer; without usage where none was streamed, so that it counts as estimated."""
    answer = agglomerate_stream_deltas(deltas)
    reported = [delta.token_usage for delta in deltas if delta.token_usage]
    if not reported:
        answer.token_usage = None
    details = {
        name: sum(getattr(usage, name, 0) for usage in reported) for name in ("cached_tokens", "cache_write_tokens")
    }
    answer.raw = {"usage": {"prompt_tokens_details": details}}
    return answer


def recorded_tool(tool: Any, frame: Frame) -> Any:
    """A copy of `tool`, on the record; the tool itself is left as it was.

    A refused call, or one that may or may not have happened, is an observation: a text where the agent reads texts,
    else an error.
    """
    recorded = copy.copy(tool)
    if isinstance(tool, Tool) and type(tool).__call__ is Tool.__call__:
        recorded.is_initialized = True
        recorded.forward = partial(_use, tool, frame, _signature(tool), tool.forward)
        return recorded

    def whole(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _use(tool, frame, None, tool, *args, **kwargs)

    recorded.__class__ = type(type(tool).__name__, (type(tool),), {"__call__": whole})
    return recorded


def _use(
    tool: Any, frame: Frame, signature: inspect.Signature | None, do: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    restore = frame.run.secrets.restore_in

    def call(position: str) -> Any:
        if do is not tool and not tool.is_initialized:
            tool.setup()
        return do(*restore(args), **restore(kwargs))

    idempotent = isinstance(tool, FinalAnswerTool) or bool(getattr(tool, "idempotent", False))
    try:
        named = _named(signature, args, kwargs)
        named.pop("sanitize_inputs_outputs", None)
        return frame.tool_call(tool.name, named, call, idempotent=idempotent)
    except (ToolRefused, CallUncertain) as refused:
        said = str(refused)
        if isinstance(refused, ToolRefused):
            said = f"The call of {tool.name} was refused and not made: {refused}"
        reads = isinstance(frame.agent, ToolCallingAgent) and getattr(tool, "output_type", "any") not in (
            "image",
            "audio",
        )
        if reads and tool.name != "final_answer":
            return said
        raise type(refused)(said) from refused


def _signature(tool: Tool) -> inspect.Signature | None:
    """What the tool takes; that of a function made a tool by `@tool` has a `self` too many."""
    try:
        signature = inspect.signature(tool.forward)
    except (TypeError, ValueError):  # a builtin
        return None
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "self"])


def _named(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, as far as the tool's signature tells them."""
    if signature is None or not args:
        return {**({"args": args} if args else {}), **kwargs}
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself says what is wrong with it
        return {"args": args, **kwargs}
    named: dict[str, Any] = {}
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return named


class RecordedExecutor:
    """A remote code executor on the record: each execution is one call, since its tools run out of reach."""

    def __init__(self, inner: Any, frame: Frame) -> None:
        self.inner, self._frame = inner, frame

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def send_variables(self, variables: dict[str, Any]) -> None:
        """As the executor has it; nothing is sent where only the record answers."""
        if self._frame.run.live:
            self.inner.send_variables(variables)

    def send_tools(self, tools: dict[str, Any]) -> None:
        """As the executor has it; nothing is sent where only the record answers."""
        if self._frame.run.live:
            self.inner.send_tools(tools)

    def __call__(self, code_action: str) -> Any:
        """What the code printed and returned."""
        made = self._frame.tool_call(
            "python_interpreter",
            {"code": code_action},
            lambda position: self.inner(code_action),
            idempotent=False,
            kept=lambda out: {**packed("output", out.output), "logs": out.logs, "final": out.is_final_answer},
        )
        if isinstance(made, CodeOutput):
            return made
        return CodeOutput(output=unpacked("output", made), logs=made["logs"], is_final_answer=made["final"])
