"""A model that plays a script: for tests and examples of agents, without an LLM."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from smolagents import ChatMessage, Model
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus.errors import BadInput, ModelError

Turn = Mapping[str, Any] | str | Callable[[Sequence[Any]], Any]
_KEYS = {"plans", "actions", "final"}


class ScriptedModel(Model):
    """Answers in turn: plans when a plan is asked for, actions else, `final` when the steps are used up.

    An action is a text, or `{"thought": …, "calls": [{"name": …, "arguments": {…}}], "usage": {"input_tokens": …,
    "output_tokens": …}}`, or `{"error": …}` (the call fails), or a function of the messages that returns one of
    these. When the plans are used up the last one is repeated; when the actions are, the call fails.
    """

    free = True

    def __init__(
        self,
        actions: Sequence[Turn],
        *,
        plans: Sequence[Turn] = ("1. Go on.",),
        final: Turn = "The steps are used up.",
        model_id: str = "scripted",
    ) -> None:
        super().__init__(model_id=model_id)
        self.spec = model_id
        self._actions, self._plans, self._final = list(actions), list(plans), final
        self.prompts: list[Sequence[Any]] = []
        """What was asked, call by call."""
        self._acted = self._planned = 0

    @classmethod
    def from_file(cls, path: Path) -> "ScriptedModel":
        """Reads a YAML or JSON file with `actions`, and optionally `plans` and `final`.

        Raises:
            BadInput: It cannot be read, or is not of that form.
        """
        try:
            script = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise BadInput(f"cannot read the script {str(path)!r}: {error}") from error
        if not isinstance(script, dict) or not set(script) <= _KEYS or not isinstance(script.get("actions"), list):
            raise BadInput(f"the script {str(path)!r} needs a list `actions`, and may have `plans` and `final`")
        made = cls(script["actions"], **{k: script[k] for k in ("plans", "final") if k in script}, model_id="scripted")
        made.spec = f"scripted:{path}"
        return made

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """The next turn of the script.

        Raises:
            ModelError: The script is used up, or the turn says so.
        """
        self.prompts.append(list(messages))
        if "<end_plan>" in (stop_sequences or ()):
            turn = self._plans[min(self._planned, len(self._plans) - 1)]
            self._planned += 1
        elif not stop_sequences and not tools_to_call_from:
            turn = self._final
        elif self._acted < len(self._actions):
            turn = self._actions[self._acted]
            self._acted += 1
        else:
            raise ModelError(f"the script is used up after {self._acted} actions")
        return _message(turn(messages) if callable(turn) else turn, self._acted)


def _message(turn: Any, number: int) -> ChatMessage:
    if isinstance(turn, ChatMessage):
        return turn
    if isinstance(turn, str):
        turn = {"thought": turn}
    if turn.get("error"):
        raise ModelError(str(turn["error"]))
    calls = [
        ChatMessageToolCall(
            id=f"call_{number}_{i}",
            type="function",
            function=ChatMessageToolCallFunction(name=call["name"], arguments=call.get("arguments", {})),
        )
        for i, call in enumerate(turn.get("calls", ()), 1)
    ]
    usage = turn.get("usage", {"input_tokens": 0, "output_tokens": 0})
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        content=turn.get("thought", ""),
        tool_calls=calls or None,
        token_usage=TokenUsage(**usage) if usage else None,
    )
