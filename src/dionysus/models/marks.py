"""Marks where a provider's prompt cache should end, for those that cache nothing unless they are told: Anthropic's.

Others – OpenAI, DeepSeek, Gemini, llama.cpp – find the common prefix themselves. Marks go with the request only:
neither the journal nor the digest of a prompt knows of them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from smolagents import LiteLLMModel, OpenAIModel
from smolagents.models import MessageRole, tool_role_conversions

_WANTS = re.compile(r"anthropic|claude", re.I)
MARK = {"type": "ephemeral"}


def marked(messages: Sequence[Any], model: Any) -> list[Any]:
    """The messages, marked behind the system prompt and before the newest observation, if the provider wants it.

    Behind the newest observation there is none: see-once cuts it after the next prompt, and to have it written to the
    cache costs a quarter more than to have it read. Marks are set on the first message of those that smolagents joins
    because their roles are the same: what it joins to that keeps the mark at the end.
    """
    if not _wants_marks(model):
        return list(messages)
    roles = getattr(model, "custom_role_conversions", None) or tool_role_conversions
    groups = [
        [place for place, _ in group]
        for _, group in groupby(enumerate(messages), key=lambda item: roles.get(_role(item[1]), _role(item[1])))
    ]
    before_newest = groups[-2][0] if len(groups) > 1 else 0
    system = [group[0] for group in groups if _role(messages[group[0]]) == MessageRole.SYSTEM]
    places = {*system[:1], before_newest}
    return [_with_mark(message) if place in places else message for place, message in enumerate(messages)]


def _wants_marks(model: Any) -> bool:
    inner = getattr(model, "inner", model)  # a constrained model passes messages on
    takes = isinstance(inner, OpenAIModel | LiteLLMModel) and not getattr(inner, "flatten_messages_as_text", False)
    return takes and _WANTS.search(str(inner.model_id)) is not None


def _role(message: Any) -> Any:
    return message["role"] if isinstance(message, dict) else message.role


def _with_mark(message: Any) -> Any:
    content = message["content"] if isinstance(message, dict) else message.content
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not content or not isinstance(content[-1], dict) or content[-1].get("type") != "text":
        return message
    marked_ = [*content[:-1], {**content[-1], "cache_control": MARK}]
    return {**message, "content": marked_} if isinstance(message, dict) else replace(message, content=marked_)
