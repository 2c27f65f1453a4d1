"""A trace told again for readers: what was planned, thought, called, seen, cut, activated and delegated, in order.

`render` prints it; programs get it as it is.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, BasinLink, CreatedMemory, StepType
from dionysus.traces.service import ExecutionTraceService, FullTrace, TraceTree

MomentKind = Literal[
    "plan", "thought", "call", "observation", "pruned", "error", "model_error", "callback_error", "basin", "memory"
]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One thing that happened within a step."""

    kind: MomentKind
    title: str
    """In a line."""
    text: str | None = None
    """The whole of it, where there is more to read: the plan, the observation, the stub that later prompts show."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One step, as it can be read."""

    order: int
    """1, 2, 3 … over plans and actions together."""
    step_number: int
    step_type: StepType
    title: str
    """In a line: tools, tokens, sizes, what went wrong."""
    started_at: datetime
    seconds: float | None
    """None: it was not finished."""
    coherence: float | None
    """In [0, 1]; None where nothing was assessed."""
    chars_pruned: int
    """Characters that later prompts show less of its observation."""
    moments: tuple[Moment, ...]
    delegated: tuple["Replay", ...] = ()
    """What the agents did that this step called."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The story of a trace. Its task and its answer are the trace's `task` and `summary`."""

    trace: AgentExecutionTrace
    scenes: tuple[Scene, ...]
    next_after: int | None = None
    """More scenes come behind this order; None: these are all."""


def retold(
    traces: ExecutionTraceService, trace_id: str, *, exact: bool = False, after: int = 0, limit: int | None = None
) -> Replay:
    """The story of a trace, with the stories of the agents that its steps called.

    Args:
        exact: The id is whole, not a beginning.
        after: Only steps behind this order.
        limit: At most so many scenes of it, and of each agent that it called.

    Raises:
        NotFound: No such trace.
        BadInput: Several begin so.
    """
    return _retold(traces.get_tree(trace_id, exact=exact, after=after, limit=limit))


def line_of(step: AgentExecutionStep) -> str:
    """A step in a line."""
    return " · ".join(_parts(step))


def _retold(tree: TraceTree) -> Replay:
    members = {trace_id: _retold(member) for trace_id, member in tree.members.items()}
    return Replay(
        trace=tree.full.trace,
        scenes=tuple(_scene(tree.full, step, members) for step in tree.full.steps),
        next_after=tree.full.next_after,
    )


def _scene(full: FullTrace, step: AgentExecutionStep, members: Mapping[str, Replay]) -> Scene:
    acted = step.step_type != "planning"
    called = [
        child.id for child in full.delegated if acted and child.parent_step == step.step_number and child.id in members
    ]
    return Scene(
        order=step.order,
        step_number=step.step_number,
        step_type=step.step_type,
        title=line_of(step),
        started_at=step.started_at,
        seconds=(step.completed_at - step.started_at).total_seconds() if step.completed_at else None,
        coherence=step.coherence,
        chars_pruned=step.pruned.chars_saved if step.pruned else 0,
        moments=(
            *_moments(step),
            *(_basin(link) for link in full.basins if acted and link.at_step == step.step_number),
            *(_memory(kept) for kept in full.memories if _kept_by(step, kept)),
        ),
        delegated=tuple(members[trace_id] for trace_id in called),
    )


def _parts(step: AgentExecutionStep) -> Iterator[str]:
    if step.step_type == "planning":
        yield f"before action {step.step_number}"
        if step.coherence is not None:
            yield f"coherence {step.coherence:.2f}"
    else:
        yield ", ".join(_called(c.name, c.completed_at, c.error) for c in step.tool_calls) or "no tool call"
    if step.input_tokens:
        cached = f" ({step.cached_tokens:,} cached)" if step.cached_tokens else ""
        yield f"{step.input_tokens:,}{cached} + {step.output_tokens:,} tokens"
    if step.observation:
        yield f"{len(step.observation):,} characters"
    if step.pruned:
        yield f"a stub from action {step.pruned.before_step} on (−{step.pruned.chars_saved:,})"
    if step.error:
        yield "failed"
    if step.completed_at is None:
        yield "not finished"


def _called(name: str, completed_at: datetime | None, error: str | None) -> str:
    return name + (" (failed)" if error else " (unfinished)" if completed_at is None else "")


def _moments(step: AgentExecutionStep) -> Iterator[Moment]:
    if step.plan:
        yield Moment(kind="plan", title="plan", text=step.plan)
    if step.thought and step.step_type != "planning":
        yield Moment(kind="thought", title="thought", text=step.thought)
    for call in step.tool_calls:
        yield Moment(kind="call", title=f"call {call.name}({_arguments(call.arguments)})", text=call.error)
    if step.observation:
        yield Moment(kind="observation", title="observation", text=step.observation)
    if step.pruned:
        yield Moment(kind="pruned", title=f"shown from action {step.pruned.before_step} on as", text=step.pruned.stub)
    if step.error:
        yield Moment(kind="error", title="error", text=step.error)
    for model_call in step.model_calls:
        if model_call.error:
            yield Moment(kind="model_error", title=f"model call failed: {model_call.error}")
    for failure in step.callback_failures:
        yield Moment(kind="callback_error", title=f"callback {failure.callback} failed", text=failure.traceback)


def _basin(link: BasinLink) -> Moment:
    return Moment(kind="basin", title=f"basin activated: {link.name} ({link.strength:.2f})")


def _kept_by(step: AgentExecutionStep, kept: CreatedMemory) -> bool:
    """Whether this step kept a memory of its run; a run's agents number their steps each for itself."""
    captured = any(call.name == "mosaeic_capture" for call in step.tool_calls)
    return captured and kept.at_step == step.step_number


def _memory(kept: CreatedMemory) -> Moment:
    return Moment(kind="memory", title=f"memory kept: {kept.source}")


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, dict):
        return ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in arguments.items())
    return json.dumps(arguments, ensure_ascii=False)
