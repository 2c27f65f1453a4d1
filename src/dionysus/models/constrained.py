"""Tool calls that cannot be malformed: a model's answers held to a JSON schema of what its agent may do next.

Small models forget the form of a call, invent tools, answer before they looked, and repeat themselves. Here they
choose among what is offered: a short thought, then one call of one tool with arguments of its types; `final_answer`
only once a tool was used; the same call again only after something new; plans as lists of tools. It works with every
model that enforces `response_format`: llama.cpp in this process, and OpenAI-compatible servers that do. Why each rule:
docs/decisions/0016.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import Any

from smolagents import ChatMessage, Model
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus.models.call_schemas import arguments_of, cleaned, is_strict, object_of, string_of, understood
from dionysus.models.called import ACTION, Done, as_answered, key_of
from dionysus.models.metering import cached_in, field_of
from dionysus.models.offered import (
    END_OF_PLAN,
    FENCED_TASK,
    RECALL,
    STUB,
    Offered,
    closing_tag,
    functions_in,
    members_in,
    role_of,
    tags_of,
    text_of,
    tools_listed_in,
)

_FINAL = "final_answer"
_THOUGHT, _WHY, _KNOWN = 200, 120, 300
"""Characters of a thought, of a plan's reason, of what a plan says is known – where the answer has room for them."""
_PLAN_LINES = 4
_FAILURES = 2
"""Steps that failed before an agent may give up without having used a tool."""
_TOKENS_A_LINE = 40
"""Of a plan: so many lines as the answer has room for."""
_CHARS_PER_TOKEN = 2
"""What the strings of a call may have together for each token of the answer: most texts have twice as many."""
_USUAL_TOKENS = 1024
"""Of one answer, where nothing is said."""
_MOST_ASKED = 3
_TIGHT = 8
"""Divides the bound of strings, when an answer was cut off and is asked for again."""

_NOTE_CALL = (
    'Answer with one JSON object: {"thought": "why, in a few words", "action": {"name": "a tool", "arguments": {…}}}.'
)
_NOTE_CODE = f"{_NOTE_CALL} The call is written as code for you."
_NOTE_PLAN = 'Answer with one JSON object: {"steps": [{"name": "a tool", "why": "a few words"}, …]}.'
_NOTE_KNOWN = (
    'Answer with one JSON object: {"known": "a line", "steps": [{"name": "a tool", "why": "a few words"}, …]}.'
)


@dataclass
class Counts:
    """How calls came out."""

    calls: int = 0
    """Answers that were asked for, plans included."""
    repaired: int = 0
    """Not valid as they came, but what was meant could be read."""
    retried: int = 0
    """Asked for once more: cut off, not readable, or the same call again."""
    given_up: int = 0
    """Not valid the second time either; the agent is told, and goes on."""


@dataclass
class _Ask:
    """A call that is asked for: what may be called, and how the answer is said to the agent."""

    offered: Sequence[Offered]
    done: Done
    room: int
    """Characters that the strings of a call share."""
    tags: tuple[str, str] | None = None
    """Of code blocks; None: the agent calls tools."""
    as_json: bool = False
    """Code within JSON, as smolagents' structured outputs have it."""
    without: frozenset[str] = frozenset()
    """Tools that may not be called this time."""

    @property
    def choices(self) -> list[Offered]:
        """What may be called: `final_answer` only once a tool was used or nothing works; if nothing is left, that."""
        left = [
            tool
            for tool in self.offered
            if tool.name not in self.without
            and (tool.inputs or not self.done.forbids(key_of(tool.name, {})))
            and (tool.name != _FINAL or self.done.used or self.done.failures >= _FAILURES)
        ]
        return left or [tool for tool in self.offered if tool.name == _FINAL] or list(self.offered)

    def schema(self) -> dict[str, Any]:
        actions = [
            object_of(
                {"name": {"type": "string", "enum": [tool.name]}, "arguments": arguments_of(tool.inputs, self.room)}
            )
            for tool in self.choices
        ]
        return object_of({"thought": string_of(min(_THOUGHT, self.room // 2)), "action": {"anyOf": actions}})

    def read(self, said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and arguments, as the tool takes them."""
        name = said["action"]["name"]
        tool = next(tool for tool in self.offered if tool.name == name)
        return name, cleaned(said["action"]["arguments"], tool.inputs)

    def repeats(self, said: dict[str, Any]) -> bool:
        """Whether nothing would come of it but the same; an answer that was refused may be given again."""
        name, arguments = self.read(said)
        return name != _FINAL and self.done.forbids(key_of(name, arguments))

    def message(self, said: dict[str, Any]) -> ChatMessage:
        """The answer in the form that the agent expects."""
        name, arguments = self.read(said)
        thought = said["thought"].strip()
        if self.tags is not None:
            return _message(self._as_code(thought, name, arguments))
        action = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id=f"call_{self.done.steps + 1}", type="function", function=function)
        return _message(f"{thought}{ACTION}{action}", [call])

    def again(self, said: dict[str, Any] | None) -> "_Ask":
        """The same, so that what came cannot come again: no valid call, or one that was made before."""
        if said is None:
            return replace(self, room=self.room // _TIGHT)
        more = self.done.names if self.without else {said["action"]["name"]}
        return replace(self, without=self.without | more)

    def _as_code(self, thought: str, name: str, arguments: dict[str, Any]) -> str:
        given = [
            f"{key}={_literal(value)}"
            if key.isidentifier() and not iskeyword(key)
            else f"**{{{_literal(key)}: {_literal(value)}}}"
            for key, value in arguments.items()
        ]
        call = f"{name}({', '.join(given)})"
        code = call if name == _FINAL else f"print({call})"
        if self.as_json:
            return json.dumps({"thought": thought, "code": code}, ensure_ascii=False)
        opening, closing = self.tags or ("", "")
        return f"{_without(thought, (opening, closing))}\n{opening}\n{code}\n{closing}"


@dataclass
class _Answers:
    """What the model was asked for one answer, once or more."""

    raws: list[Any] = field(default_factory=list)
    used: list[TokenUsage | None] = field(default_factory=list)

    def finish(self, message: ChatMessage, *, mended: bool) -> ChatMessage:
        """`message`, with the usage of all."""
        reported = [usage for usage in self.used if usage is not None]
        cached = sum(cached_in(raw) for raw in self.raws)
        message.raw = {
            "usage": {"prompt_tokens_details": {"cached_tokens": cached}},
            "timings": field_of(self.raws[-1], "timings"),
            "mended": int(mended),
        }
        if len(reported) == len(self.used):
            message.token_usage = TokenUsage(
                input_tokens=sum(usage.input_tokens for usage in reported),
                output_tokens=sum(usage.output_tokens for usage in reported),
            )
        return message


class ConstrainedModel(Model):
    """A model whose agents get nothing but valid calls.

    It keeps no state but its counts: what was called is read from the transcript, so that a run that is resumed goes on
    as it would have. Prompts for other things than calls, code and plans go to the model as they are.
    """

    def __init__(self, inner: Any, *, max_tokens: int | None = None) -> None:
        """
        Args:
            inner: A model that enforces a `response_format` of type `json_schema`.
            max_tokens: Of one answer; strings are bounded accordingly. Default: the model's.
        """
        super().__init__(model_id=inner.model_id)
        self.inner = inner
        self._max_tokens = max_tokens
        self._room = _CHARS_PER_TOKEN * (max_tokens or _USUAL_TOKENS)
        self.counts = Counts()

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "generate_stream"):  # a call is valid as a whole only: it is not streamed
            raise AttributeError(name)
        return getattr(self.inner, name)

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, Any] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """A call, a block of code that makes one call, a plan; or what the model says.

        Returns:
            `raw` has the cached tokens of all that was asked for, and `mended`: 1 where the answer was not usable as it
            first came. An answer that is no valid call the second time either is handed on as text: the agent is told.
        """
        if self._max_tokens is not None:
            kwargs.setdefault("max_tokens", self._max_tokens)
        stops = stop_sequences or ()
        if tools_to_call_from:
            offered = [Offered.of(tool) for tool in tools_to_call_from]
            ask = _Ask(_usable(offered, messages), Done.of(messages), self._room)
            return self._call(ask, as_answered(messages), _NOTE_CALL, kwargs)
        if END_OF_PLAN in stops and (offered := _usable(_in_plan(messages), messages)):
            return self._plan(offered, messages, kwargs)
        if messages and (closing := closing_tag(stops)) is not None:
            ask = _Ask(
                _usable(_in_code(text_of(messages[0])), messages),
                Done.of(messages),
                self._room,
                tags=tags_of(closing),
                as_json=response_format is not None,
            )
            return self._call(ask, messages, _NOTE_CODE, kwargs)
        answer: ChatMessage = self.inner.generate(
            messages, stop_sequences=stop_sequences, response_format=response_format, **kwargs
        )
        return answer

    def _call(self, ask: _Ask, messages: Sequence[Any], note: str, options: dict[str, Any]) -> ChatMessage:
        told = _with_note(messages, note, at=MessageRole.SYSTEM)
        self.counts.calls += 1
        answers = _Answers()
        mended, invalid = False, 0
        while True:
            text, said, repaired = self._ask(ask.schema(), "tool_call", told, options, answers)
            mended |= repaired
            if said is not None and not ask.repeats(said):
                return answers.finish(ask.message(said), mended=mended)
            invalid += said is None
            if invalid > 1 or len(answers.raws) > _MOST_ASKED:
                self.counts.given_up += 1
                return answers.finish(_message(_no_call(text, ask.tags)), mended=True)
            self.counts.retried += len(answers.raws) == 1
            mended, ask = True, ask.again(said)

    def _plan(self, offered: Sequence[Offered], messages: Sequence[Any], options: dict[str, Any]) -> ChatMessage:
        """Lines that begin with the name of a tool; of a later plan, what is known before them."""
        later = any(role_of(message) == MessageRole.TOOL_CALL for message in messages)
        most = max(1, min(_PLAN_LINES, self._room // (_CHARS_PER_TOKEN * _TOKENS_A_LINE)))
        schema = _plan_of([tool.name for tool in offered], most, self._room, later=later)
        told = _with_note(messages, _NOTE_KNOWN if later else _NOTE_PLAN, at=None)
        self.counts.calls += 1
        answers = _Answers()
        for _ in range(2):
            text, said, repaired = self._ask(schema, "plan", told, options, answers)
            if said is not None:
                lines = [f"Known: {said['known'].strip()}"] if later else []
                lines += [f"{i}. {step['name']} – {step['why'].strip()}" for i, step in enumerate(said["steps"], 1)]
                return answers.finish(_message("\n".join(lines)), mended=repaired or len(answers.raws) > 1)
            self.counts.retried += len(answers.raws) == 1
            schema = _plan_of([tool.name for tool in offered], 1, self._room // _TIGHT, later=later)
        self.counts.given_up += 1
        return answers.finish(_message(text), mended=True)

    def _ask(
        self, schema: dict[str, Any], name: str, messages: Sequence[Any], options: dict[str, Any], answers: _Answers
    ) -> tuple[str, dict[str, Any] | None, bool]:
        """What was said; as it is meant, if it can be read; and whether it had to be repaired for that."""
        form = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": is_strict(schema)}}
        answer = self.inner.generate(list(messages), response_format=form, **options)
        answers.raws.append(answer.raw)
        answers.used.append(answer.token_usage)
        text = text_of(answer)
        said, repaired = understood(text, schema, cut_off=_is_cut_off(answer.raw))
        self.counts.repaired += repaired
        return text, said, repaired


# -- what is offered ----------------------------------------------------------------------------------


def _usable(offered: Sequence[Offered], messages: Sequence[Any]) -> list[Offered]:
    """Without the members' optional argument for variables, which nothing but code can give, and without recall where
    nothing was cut."""
    is_cut = any(
        role_of(message) in (MessageRole.TOOL_RESPONSE, MessageRole.ASSISTANT) and STUB.search(text_of(message))
        for message in messages
    )
    return [
        replace(
            tool,
            inputs={
                name: spec
                for name, spec in tool.inputs.items()
                if name != "additional_args" or not spec.get("nullable")
            },
        )
        for tool in offered
        if is_cut or tool.name != RECALL
    ]


def _in_code(system: str) -> list[Offered]:
    """What code may call, as the system prompt lists it."""
    members = [replace(member, inputs={"task": {"type": "string"}}) for member in members_in(system)]
    final = Offered(name=_FINAL, inputs={"answer": {"type": "any"}})
    return [*members, *(tool for tool in functions_in(system) if tool.name != _FINAL), final]


def _in_plan(messages: Sequence[Any]) -> list[Offered]:
    text = FENCED_TASK.sub("", text_of(messages[-1])) if messages else ""
    return [*tools_listed_in(messages), *members_in(text), *functions_in(text)]


# -- answers ------------------------------------------------------------------------------------------


def _plan_of(names: list[str], most: int, room: int, *, later: bool) -> dict[str, Any]:
    """The schema of a plan: so many lines, and what is known before them."""
    why, known = min(_WHY, room // (2 * most)), min(_KNOWN, room // 4)
    line = object_of({"name": {"type": "string", "enum": names}, "why": string_of(why)})
    steps = {"type": "array", "items": line, "minItems": 1, "maxItems": most}
    return object_of({"known": string_of(known), "steps": steps} if later else {"steps": steps})


def _is_cut_off(raw: Any) -> bool:
    choices = field_of(raw, "choices")
    return bool(choices) and field_of(choices[0], "finish_reason") == "length"


def _literal(value: Any) -> str:
    """A Python literal in which nothing looks like the tag of a code block, nor like an assignment to `final_answer`,
    which smolagents would rename."""
    literal = repr(value)
    for character in "<`":
        literal = literal.replace(character, f"\\x{ord(character):02x}")
    return literal.replace(_FINAL, f"\\x{ord(_FINAL[0]):02x}{_FINAL[1:]}")


def _without(text: str, tags: Sequence[str]) -> str:
    """A text without tags, also those that taking one out would leave."""
    while any(tag in text for tag in tags):
        for tag in tags:
            text = text.replace(tag, "")
    return text


def _no_call(text: str, tags: tuple[str, str] | None) -> str:
    """An answer that was no call, so that smolagents does not take it for one but tells the agent."""
    shown = _without(text, ["```", *(tags or ())]).replace("{", "(").replace("}", ")")
    return f"The answer was no valid call: {shown}"


def _message(text: str, calls: list[ChatMessageToolCall] | None = None) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text, tool_calls=calls)


def _with_note(messages: Sequence[Any], note: str, *, at: MessageRole | None) -> list[Any]:
    """The messages, with a note at the end of the first of a role, or of the last one."""
    index = next((i for i, message in enumerate(messages) if role_of(message) == at), len(messages) - 1)
    if not messages:
        return [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": note}])]
    told = list(messages)
    noted = messages[index]
    content = noted.get("content") if isinstance(noted, dict) else noted.content
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    told[index] = ChatMessage(role=role_of(noted), content=[*parts, {"type": "text", "text": note}])
    return told
