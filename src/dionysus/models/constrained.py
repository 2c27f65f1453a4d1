"""Tool calls that cannot be malformed: a model's answers held to a JSON schema of what its agent may do next.

Small models forget the form of a call, invent tools, answer before they looked, and repeat themselves. Here they
choose among what is offered: a short thought, then one call of one tool with arguments of its types; `final_answer`
only once a tool was tried; never the same call twice; plans as lists of tools. It works with every model that enforces
`response_format`: llama.cpp in this process, and OpenAI-compatible servers that do. Why each rule:
docs/decisions/0016.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import json_repair
from smolagents import ChatMessage, Model
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus.models.metering import cached_in, field_of
from dionysus.models.offered import (
    END_OF_PLAN,
    NEW_TASK,
    Offered,
    called_in,
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
_LIST_ITEMS = 16
_CHARS_PER_TOKEN = 2
"""What the strings of a call may have together for each token of the answer: most texts have twice as many."""
_TIGHT = 8
"""Divides the bound of strings, when an answer was cut off and is asked for again."""
_ACTION = "\nAction:\n"
"""Between thought and call, as smolagents' own prompts for tool calls have it."""
_MOST_ASKED = 3
_USUAL_TOKENS = 1024
"""Of one answer, where nothing is said."""
_EXACT = 2**53 - 1
"""Integers beyond this are not exact in JSON; a bound keeps a small model from writing digits without end."""

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
class _Done:
    """What was called since the task was set."""

    calls: set[tuple[str, str]] = field(default_factory=set)
    steps: int = 0
    """Calls and failures, of whatever tool."""

    @classmethod
    def of(cls, messages: Sequence[Any]) -> "_Done":
        done = cls()
        for message in messages:
            role, text = role_of(message), text_of(message)
            if role == MessageRole.USER and text.startswith(NEW_TASK):
                done = cls()
            elif role == MessageRole.ASSISTANT and (action := _action_in(text)):
                done.calls.add(_key(action[1]["name"], action[1]["arguments"]))
            elif role == MessageRole.TOOL_CALL:
                done.steps += 1
                done.calls.update(key for call in called_in(text) for key in _keys_of(*call))
            elif role == MessageRole.TOOL_RESPONSE:
                done.steps += 1
        return done

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.calls}


@dataclass
class _Ask:
    """A call that is asked for: what may be called, and how the answer is said to the agent."""

    offered: Sequence[Offered]
    done: _Done
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
        """What may be called: a tool without arguments once, `final_answer` after a step; if nothing is left, that."""
        left = [
            tool
            for tool in self.offered
            if tool.name not in self.without
            and (tool.inputs or _key(tool.name, {}) not in self.done.calls)
            and (tool.name != _FINAL or self.done.steps)
        ]
        return left or [tool for tool in self.offered if tool.name == _FINAL] or list(self.offered)

    def schema(self) -> dict[str, Any]:
        actions = [
            _object({"name": {"type": "string", "enum": [tool.name]}, "arguments": _arguments(tool.inputs, self.room)})
            for tool in self.choices
        ]
        return _object({"thought": _string(min(_THOUGHT, self.room // 2)), "action": {"anyOf": actions}})

    def read(self, said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and arguments; what may be left out and is null is left out."""
        name = said["action"]["name"]
        tool = next(tool for tool in self.offered if tool.name == name)
        return name, _without_nulls(said["action"]["arguments"], tool.inputs)

    def message(self, said: dict[str, Any]) -> ChatMessage:
        """The answer in the form that the agent expects."""
        name, arguments = self.read(said)
        thought = said["thought"].strip()
        if self.tags is not None:
            return _message(self._as_code(thought, name, arguments))
        action = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id=f"call_{self.done.steps + 1}", type="function", function=function)
        return _message(f"{thought}{_ACTION}{action}", [call])

    def again(self, said: dict[str, Any] | None) -> "_Ask":
        """The same, so that what came cannot come again: no valid call, or one that was made before."""
        if said is None:
            return replace(self, room=self.room // _TIGHT)
        more = self.done.names if self.without else {said["action"]["name"]}
        return replace(self, without=self.without | more)

    def _as_code(self, thought: str, name: str, arguments: dict[str, Any]) -> str:
        given = [
            f"{key}={value!r}" if key.isidentifier() else f"**{{{key!r}: {value!r}}}"
            for key, value in arguments.items()
        ]
        call = f"{name}({', '.join(given)})"
        code = call if name == _FINAL else f"print({call})"
        if self.as_json:
            return json.dumps({"thought": thought, "code": code}, ensure_ascii=False)
        opening, closing = self.tags or ("", "")
        for tag in {opening, closing}:
            thought = thought.replace(tag, tag[1:])
            code = code.replace(tag, f"\\x{ord(tag[0]):02x}{tag[1:]}")  # it stands in a literal: the same text
        return f"{thought}\n{opening}\n{code}\n{closing}"


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
            ask = _Ask(_usable(offered), _Done.of(messages), self._room)
            return self._call(ask, _as_answered(messages), _NOTE_CALL, kwargs)
        if END_OF_PLAN in stops and (offered := _in_plan(messages)):
            return self._plan(offered, messages, kwargs)
        if messages and (closing := closing_tag(stops)) is not None:
            ask = _Ask(
                _usable(_in_code(text_of(messages[0]))),
                _Done.of(messages),
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
            if said is not None and _key(*ask.read(said)) not in ask.done.calls:
                return answers.finish(ask.message(said), mended=mended)
            invalid += said is None
            if invalid > 1 or len(answers.raws) > _MOST_ASKED:
                self.counts.given_up += 1
                return answers.finish(_message(text), mended=True)
            self.counts.retried += len(answers.raws) == 1
            mended, ask = True, ask.again(said)

    def _plan(self, offered: Sequence[Offered], messages: Sequence[Any], options: dict[str, Any]) -> ChatMessage:
        """Lines that begin with the name of a tool; of a later plan, what is known before them."""
        later = any(role_of(message) == MessageRole.TOOL_CALL for message in messages)
        names = [tool.name for tool in offered]
        why, known = min(_WHY, self._room // (2 * _PLAN_LINES)), min(_KNOWN, self._room // 4)
        line = _object({"name": {"type": "string", "enum": names}, "why": _string(why)})
        steps = {"type": "array", "items": line, "minItems": 1, "maxItems": _PLAN_LINES}
        schema = _object({"known": _string(known), "steps": steps} if later else {"steps": steps})
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
        self.counts.given_up += 1
        return answers.finish(_message(text), mended=True)

    def _ask(
        self, schema: dict[str, Any], name: str, messages: Sequence[Any], options: dict[str, Any], answers: _Answers
    ) -> tuple[str, dict[str, Any] | None, bool]:
        """What was said; as it is meant, if it can be read; and whether it had to be repaired for that."""
        strict = not any("additionalProperties" in part and part["additionalProperties"] for part in _parts_of(schema))
        form = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}}
        answer = self.inner.generate(list(messages), response_format=form, **options)
        answers.raws.append(answer.raw)
        answers.used.append(answer.token_usage)
        text = text_of(answer)
        said, repaired = _understood(text, schema, cut_off=_is_cut_off(answer.raw))
        self.counts.repaired += repaired
        return text, said, repaired


# -- what is offered ----------------------------------------------------------------------------------


def _usable(offered: Sequence[Offered]) -> list[Offered]:
    """Without the arguments for variables, which nothing but code can give."""
    return [
        replace(tool, inputs={name: spec for name, spec in tool.inputs.items() if name != "additional_args"})
        for tool in offered
    ]


def _in_code(system: str) -> list[Offered]:
    """What code may call, as the system prompt lists it."""
    members = [replace(member, inputs={"task": {"type": "string"}}) for member in members_in(system)]
    final = Offered(name=_FINAL, inputs={"answer": {"type": "any"}})
    return [*members, *(tool for tool in functions_in(system) if tool.name != _FINAL), final]


def _in_plan(messages: Sequence[Any]) -> list[Offered]:
    text = text_of(messages[-1]) if messages else ""
    return [*tools_listed_in(messages), *members_in(text), *functions_in(text)]


# -- schemas ------------------------------------------------------------------------------------------


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _string(most: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": most}


def _arguments(inputs: Mapping[str, Mapping[str, Any]], room: int) -> dict[str, Any]:
    """Of all arguments; what may be left out may be null, since OpenAI's strict mode knows no optional ones."""
    properties = {}
    room //= max(1, len(inputs))
    for name, spec in inputs.items():
        bounded = _bounded(spec, room)
        properties[name] = {"anyOf": [bounded, {"type": "null"}]} if spec.get("nullable") else bounded
    return _object(properties)


def _bounded(spec: Mapping[str, Any], room: int) -> dict[str, Any]:
    """A schema of finite values within that of an argument."""
    if "enum" in spec or "const" in spec:
        return {"enum": list(spec.get("enum", [spec.get("const")]))}
    union = spec.get("anyOf") or spec.get("oneOf")
    kind = spec.get("type", "any")
    if union or isinstance(kind, list):
        return {"anyOf": [_bounded(part, room) for part in union or [{**spec, "type": one} for one in kind]]}
    if kind == "string":
        return _string(min(room, spec.get("maxLength", room)))
    if kind == "integer":
        return {"type": "integer", "minimum": spec.get("minimum", -_EXACT), "maximum": spec.get("maximum", _EXACT)}
    if kind in ("number", "boolean", "null"):
        return {"type": kind}
    if kind == "array":
        items = _bounded(spec.get("items") or {}, room)
        return {"type": "array", "items": items, "maxItems": min(_LIST_ITEMS, spec.get("maxItems", _LIST_ITEMS))}
    if kind == "object" and spec.get("properties"):
        return _arguments(_nested(spec), room)
    scalars = {"anyOf": [_string(room), {"type": "number"}, {"type": "boolean"}]}
    return {"type": "object", "additionalProperties": scalars} if kind == "object" else scalars


def _nested(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of an object, in smolagents' form: those that are not required as nullable ones."""
    required = spec.get("required", ())
    return {
        name: {**part, "nullable": part.get("nullable", False) or name not in required}
        for name, part in spec["properties"].items()
    }


def _without_nulls(given: dict[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if value is not None or not inputs[name].get("nullable")}
    for name, value in kept.items():
        if isinstance(value, dict) and inputs[name].get("properties"):
            kept[name] = _without_nulls(value, _nested(inputs[name]))
    return kept


def _parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas within."""
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _parts_of(part)


# -- answers ------------------------------------------------------------------------------------------


def _understood(text: str, schema: dict[str, Any], *, cut_off: bool) -> tuple[dict[str, Any] | None, bool]:
    """What is meant, and whether it was repaired. What was cut off is not: nobody knows how it would have ended."""
    from jsonschema import Draft202012Validator

    valid = Draft202012Validator(schema).is_valid
    try:
        said = json.loads(text)
    except ValueError:
        if cut_off:
            return None, False
        mended: Any = json_repair.loads(text)
        return (mended, True) if valid(mended) else (None, False)
    return (said, False) if valid(said) else (None, False)


def _is_cut_off(raw: Any) -> bool:
    choices = field_of(raw, "choices")
    return bool(choices) and field_of(choices[0], "finish_reason") == "length"


def _message(text: str, calls: list[ChatMessageToolCall] | None = None) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text, tool_calls=calls)


# -- transcripts --------------------------------------------------------------------------------------


def _as_answered(messages: Sequence[Any]) -> list[Any]:
    """A transcript in which the model's calls are the JSON that it answered, without smolagents' second copy of them.

    So it is shown the form that is asked for, and what it generated is found in the prefix cache.
    """
    shown: list[Any] = []
    answered = False
    for message in messages:
        action = _action_in(text_of(message)) if role_of(message) == MessageRole.ASSISTANT else None
        if action is not None:
            said = json.dumps({"thought": action[0], "action": action[1]}, ensure_ascii=False)
            shown.append(ChatMessage(role=MessageRole.ASSISTANT, content=[{"type": "text", "text": said}]))
        elif not (answered and role_of(message) == MessageRole.TOOL_CALL):
            shown.append(message)
        answered = action is not None
    return shown


def _action_in(text: str) -> tuple[str, dict[str, Any]] | None:
    """Thought and call of an answer as `_Ask.message` writes it."""
    thought, found, action = text.rpartition(_ACTION)
    if not found:
        return None
    try:
        said = json.loads(action)
    except ValueError:
        return None
    is_call = isinstance(said, dict) and said.keys() == {"name", "arguments"} and isinstance(said["arguments"], dict)
    return (thought, said) if is_call else None


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


def _key(name: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    return name, json.dumps(arguments, sort_keys=True, default=repr)


def _keys_of(name: str, arguments: Any) -> Iterator[tuple[str, str]]:
    """Of a call; of code, of each call in it whose arguments are all named and literal."""
    if not isinstance(arguments, str):
        yield _key(name, arguments)
        return
    try:
        tree = ast.parse(arguments)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            try:
                given = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
            except ValueError:
                continue
            yield _key(node.func.id, given)
