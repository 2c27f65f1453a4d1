"""What goes over the wire: the answers that the REST endpoints and the MCP server have in common.

They are the store's records; a test holds each description against them.
"""

from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, BasinLink, CreatedMemory, TokenUsage
from dionysus.traces import Scene


class Answer(BaseModel):
    """An answer of a surface."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)

    @classmethod
    def of(cls, value: Any) -> Self:
        """The answer that a record, or a mapping, makes."""
        return cls.model_validate(as_unicode(value))


class TraceList(Answer):
    """A page of traces, newest first."""

    traces: tuple[AgentExecutionTrace, ...]
    next_cursor: str | None
    """For older traces; null: there are none."""
    previous_cursor: str | None
    """For newer traces; null: there were none."""


class TraceDetail(Answer):
    """A trace with what belongs to it."""

    trace: AgentExecutionTrace
    steps: tuple[AgentExecutionStep, ...]
    basins: tuple[BasinLink, ...]
    memories: tuple[CreatedMemory, ...]
    """What the run kept."""
    delegated: tuple[AgentExecutionTrace, ...]
    """The traces of the agents that it called."""
    next_after: int | None
    """More steps come behind this order; null: these are all."""


class TraceReplay(Answer):
    """The story of a trace; its task and its answer are the trace's `task` and `summary`."""

    trace: AgentExecutionTrace
    scenes: tuple[Scene, ...]
    next_after: int | None
    """More scenes come behind this order; null: these are all."""


class TokenReport(Answer):
    """Tokens and money, as the providers reported them; what was counted by us is marked."""

    agents: tuple[TokenUsage, ...]
    """By name of the agent."""
    runs: tuple[TokenUsage, ...]
    """Of all agents of a run, newest first; empty unless asked for."""
    days: tuple[TokenUsage, ...]
    """Of what began on a UTC day, newest first; empty unless asked for."""
    total: TokenUsage
    since: datetime | None
    until: datetime | None


def as_unicode(value: Any) -> Any:
    """The same with every text in Unicode: lone surrogates become "?"."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_unicode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {as_unicode(key): as_unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_unicode(item) for item in value]
    return value
