"""Traces as text for people: the overview that `traces show` prints, and the whole story of `traces replay`."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dionysus.findings import plural
from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace
from dionysus.traces.service import FullTrace


def overview(full: FullTrace) -> str:
    """A trace at a glance: what it was, a line per step, basins, what went wrong, the answer."""
    trace = full.trace
    lines = [*_head(full), ""]
    for step in full.steps:
        lines.append(f"  {_label(step)}  {_summary(step)}")
        lines += [f"        callback failed: {f.callback}: {_last_line(f.traceback)}" for f in step.callback_failures]
    if full.basins:
        lines += ["", "Basins activated"]
        lines += [f"  {b.strength:.2f}  {b.name}  (step {b.at_step})" for b in full.basins]
    if full.memories:
        lines += ["", "Memories kept"]
        lines += [f"  {m.source}  (step {m.at_step})" for m in full.memories]
    if trace.error_message:
        lines += ["", f"Error: {trace.error_message}"]
    if trace.summary:
        lines += ["", trace.summary]
    return "\n".join(lines)


def replay(full: FullTrace) -> str:
    """The whole story, step by step, with full texts."""
    lines = list(_head(full))
    if full.trace.task:
        lines += ["", "Task", _indented(full.trace.task)]
    for step in full.steps:
        lines += ["", f"── {_label(step).strip()} ── {_summary(step)}"]
        lines += _story(step)
        lines += [
            f"  basin activated: {b.name} ({b.strength:.2f})"
            for b in full.basins
            if b.at_step == step.step_number and step.step_type == "action"
        ]
    if full.trace.error_message:
        lines += ["", f"Error: {full.trace.error_message}"]
    if full.trace.summary:
        lines += ["", "Final answer", _indented(full.trace.summary)]
    return "\n".join(lines)


def tokens_of(trace: AgentExecutionTrace) -> str:
    """Tokens and price of a trace, in words."""
    if not trace.input_tokens and not trace.output_tokens:
        return "0 tokens"
    cached = f" ({trace.cached_tokens:,} cached)" if trace.cached_tokens else ""
    price = "price unknown" if trace.cost_usd is None else f"${trace.cost_usd:.4f}"
    estimated = ", estimated" if trace.usage_estimated else ""
    return f"{trace.input_tokens:,} tokens in{cached}, {trace.output_tokens:,} out{estimated}, {price}"


def _head(full: FullTrace) -> Iterator[str]:
    trace = full.trace
    took = f", {(trace.completed_at - trace.started_at).total_seconds():.2f} s" if trace.completed_at else ""
    yield f"trace {trace.id} · {trace.agent_name} · {trace.status} · {local(trace.started_at)}{took}"
    counts = f"{plural(trace.planning_count, 'plan')}, {plural(trace.step_count, 'action')}"
    yield f"model {trace.model or '–'} · {counts}"
    yield f"{plural(trace.model_calls, 'model call')}, {tokens_of(trace)}"
    if trace.tokens_saved:
        yield f"pruning saved about {trace.tokens_saved:,} input tokens (estimated from characters)"
    if trace.coherence_min is not None:
        yield f"lowest coherence {trace.coherence_min:.2f}"
    if trace.parent_trace_id:
        yield f"delegated from {trace.parent_trace_id}, step {trace.parent_step}"
    for child in full.delegated:
        yield f"delegated at step {child.parent_step} to {child.agent_name}: {child.status}, trace {child.id}"


def _label(step: AgentExecutionStep) -> str:
    return {"planning": "plan", "action": f"{step.step_number:>4}", "final": "last"}[step.step_type]


def _summary(step: AgentExecutionStep) -> str:
    parts = []
    if step.step_type == "planning":
        parts.append(f"before action {step.step_number}")
        if step.coherence is not None:
            parts.append(f"coherence {step.coherence:.2f}")
    else:
        names = [_call(c.name, c.completed_at, c.error) for c in step.tool_calls]
        parts.append(", ".join(names) or "no tool call")
    if step.input_tokens:
        cached = f" ({step.cached_tokens:,} cached)" if step.cached_tokens else ""
        parts.append(f"{step.input_tokens:,}{cached} + {step.output_tokens:,} tokens")
    if step.observation:
        parts.append(f"{len(step.observation):,} characters")
    if step.pruned:
        parts.append(f"a stub from action {step.pruned.before_step} on (−{step.pruned.chars_saved:,})")
    if step.error:
        parts.append("failed")
    if step.completed_at is None:
        parts.append("not finished")
    return " · ".join(parts)


def _call(name: str, completed_at: datetime | None, error: str | None) -> str:
    return name + (" (failed)" if error else " (unfinished)" if completed_at is None else "")


def _story(step: AgentExecutionStep) -> Iterator[str]:
    if step.plan:
        yield _indented(step.plan)
    if step.thought and step.step_type != "planning":
        yield "  thought"
        yield _indented(step.thought, 4)
    for call in step.tool_calls:
        yield f"  call {call.name}({_arguments(call.arguments)})"
        if call.error:
            yield _indented(call.error, 4)
    if step.observation:
        yield "  observation"
        yield _indented(step.observation, 4)
    if step.pruned:
        yield f"  shown from action {step.pruned.before_step} on as"
        yield _indented(step.pruned.stub, 4)
    if step.error:
        yield "  error"
        yield _indented(step.error, 4)
    for model_call in step.model_calls:
        if model_call.error:
            yield f"  model call failed: {model_call.error}"
    for failure in step.callback_failures:
        yield f"  callback {failure.callback} failed"
        yield _indented(failure.traceback, 4)


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, dict):
        return ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in arguments.items())
    return json.dumps(arguments, ensure_ascii=False)


def local(at: datetime) -> str:
    """An instant as the reader's clock shows it."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
