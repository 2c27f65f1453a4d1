"""What a transcript shows was called, and what came of it: so that a model is not asked for the same again.

Calls stand in it as smolagents writes them, as code, and in the answers of a constrained model.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smolagents import ChatMessage
from smolagents.models import MessageRole

from dionysus.models.offered import FAILED, NEW_TASK, called_in, role_of, text_of

ACTION = "\nAction:\n"
"""Between thought and call, as smolagents' own prompts for tool calls have it."""


@dataclass
class Done:
    """What was called since the task was set."""

    made: list[tuple[str, str]] = field(default_factory=list)
    """Names and arguments, in order. A call that failed for the first time is not among them: it may be made again."""
    steps: int = 0
    """Observations and errors that the transcript shows."""
    failures: int = 0
    used: bool = False
    """Whether a call came back with something else than an error."""
    _used_before: bool = False
    _failed: set[tuple[str, str]] = field(default_factory=set)
    _last: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, messages: Sequence[Any]) -> "Done":
        done, last = cls(), None
        for message in messages:
            role, text = role_of(message), text_of(message)
            if role == MessageRole.USER and text.startswith(NEW_TASK):
                done = cls()
            elif role == MessageRole.ASSISTANT:
                done._used_before, done._last = done.used, []
                if action := action_in(text):
                    done._call(key_of(action[1]["name"], action[1]["arguments"]))
            elif role == MessageRole.TOOL_CALL:
                if last != MessageRole.ASSISTANT:  # a step whose model said nothing beside its calls
                    done._used_before, done._last = done.used, []
                for call in called_in(text):
                    for key in _keys_of(*call):
                        done._call(key)
            elif role == MessageRole.TOOL_RESPONSE:
                failed = FAILED.match(text)
                if failed and not failed[1] and last == MessageRole.TOOL_RESPONSE:  # nor is its call shown
                    done._used_before, done._last = done.used, []
                done._answered(failed=failed is not None)
            last = role
        return done

    def _call(self, key: tuple[str, str]) -> None:
        if key not in self._last:  # an answer of ours says it, and smolagents again
            self._last.append(key)
            self.made.append(key)

    def _answered(self, *, failed: bool) -> None:
        self.steps += 1
        self.used = self._used_before or not failed  # what a step printed before it failed is no use
        if failed:
            self.failures += 1
            for key in self._last:
                if key not in self._failed:
                    del self.made[self._last_of(key)]
            self._failed.update(self._last)

    def forbids(self, key: tuple[str, str]) -> bool:
        """Whether a call was made, and nothing new since: a file may be read again once something was done to it."""
        if key not in self.made:
            return False
        last = self._last_of(key)
        return all(self.made.index(since) < last for since in self.made[last + 1 :])

    def _last_of(self, key: tuple[str, str]) -> int:
        return len(self.made) - 1 - self.made[::-1].index(key)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.made}


def as_answered(messages: Sequence[Any]) -> list[Any]:
    """A transcript in which the model's calls are the JSON that it answered, without smolagents' second copy of them.

    So it is shown the form that is asked for, and most of what it generated is found in the prefix cache.
    """
    shown: list[Any] = []
    answered = False
    for message in messages:
        action = action_in(text_of(message)) if role_of(message) == MessageRole.ASSISTANT else None
        if action is not None:
            said = json.dumps({"thought": action[0], "action": action[1]}, ensure_ascii=False)
            mark = {name: value for name, value in _last_part(message).items() if name == "cache_control"}
            shown.append(ChatMessage(role=MessageRole.ASSISTANT, content=[{"type": "text", "text": said, **mark}]))
        elif not (answered and role_of(message) == MessageRole.TOOL_CALL):
            shown.append(message)
        answered = action is not None
    return shown


def _last_part(message: Any) -> dict[str, Any]:
    content = message.get("content") if isinstance(message, dict) else message.content
    return content[-1] if isinstance(content, list) and content and isinstance(content[-1], dict) else {}


def action_in(text: str) -> tuple[str, dict[str, Any]] | None:
    """Thought and call of an answer as a constrained model writes it; None: it is none."""
    thought, found, action = text.rpartition(ACTION)
    if not found:
        return None
    try:
        said = json.loads(action)
    except (ValueError, RecursionError):
        return None
    is_call = isinstance(said, dict) and said.keys() == {"name", "arguments"}
    return (
        (thought, said) if is_call and isinstance(said["name"], str) and isinstance(said["arguments"], dict) else None
    )


def key_of(name: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """What makes two calls the same."""
    try:
        return name, json.dumps(arguments, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError):  # keys that JSON has not, from code of the model's own
        return name, repr(arguments)


def _keys_of(name: str, arguments: Any) -> Iterator[tuple[str, str]]:
    """Of a call; of code, of each call in it whose arguments are all named and literal."""
    if not isinstance(arguments, str):
        yield key_of(name, arguments)
        return
    try:
        calls = [node for node in ast.walk(ast.parse(arguments)) if isinstance(node, ast.Call) and not node.args]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for call in calls:
        if isinstance(call.func, ast.Name) and (given := _given_in(call)) is not None:
            yield key_of(call.func.id, given)


def _given_in(call: ast.Call) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    try:
        for word in call.keywords:
            value = ast.literal_eval(word.value)
            given |= value if word.arg is None else {word.arg: value}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # no literal
        return None
    return given
