"""Traces as text for people: the overview that `traces show` prints, and the whole story of `traces replay`."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from dionysus.findings import plural
from dionysus.stores.contract import AgentExecutionStep, AgentExecutionTrace, Per, TokenUsage
from dionysus.traces.retelling import Replay, Scene, line_of
from dionysus.traces.service import FullTrace


def overview(full: FullTrace) -> str:
    """A trace at a glance: what it was, a line per step, basins, what went wrong, the answer."""
    trace = full.trace
    lines = [*_head(full), ""]
    for step in full.steps:
        lines.append(f"  {_label(step)}  {line_of(step)}")
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


def replay(story: Replay) -> str:
    """The whole story, step by step, with full texts; what other agents did for a step stands within it."""
    trace = story.trace
    lines = list(_head_of(trace))
    if trace.task:
        lines += ["", "Task", _indented(trace.task)]
    for scene in story.scenes:
        lines += ["", f"── {_label(scene).strip()} ── {scene.title}"]
        for moment in scene.moments:
            if moment.kind == "plan":
                lines.append(_indented(moment.text or ""))
                continue
            lines.append(f"  {moment.title}")
            lines += [_indented(moment.text, 4)] if moment.text else []
        for member in scene.delegated:
            lines += ["", _indented(replay(member), 4)]
    if story.next_after is not None:
        lines += ["", f"more steps come behind number {story.next_after}"]
    if trace.error_message:
        lines += ["", f"Error: {trace.error_message}"]
    if trace.summary:
        lines += ["", "Final answer", _indented(trace.summary)]
    return "\n".join(lines)


def tokens_of(trace: AgentExecutionTrace) -> str:
    """Tokens and price of a trace, in words."""
    if not trace.input_tokens and not trace.output_tokens:
        return "0 tokens"
    parts = [f"{trace.cached_tokens:,} cached"] if trace.cached_tokens else []
    parts += [f"{trace.cache_write_tokens:,} written to the cache"] if trace.cache_write_tokens else []
    cached = f" ({', '.join(parts)})" if parts else ""
    price = "price unknown" if trace.cost_usd is None else f"${trace.cost_usd:.4f}"
    estimated = ", estimated" if trace.usage_estimated else ""
    return f"{trace.input_tokens:,} tokens in{cached}, {trace.output_tokens:,} out{estimated}, {price}"


def usage_table(sums: Sequence[TokenUsage], by: Per) -> str:
    """Sums of tokens and money, a line each."""
    names = [str(usage.agent_name or usage.run_id or usage.day) for usage in sums]
    width = max([14, *map(len, names)]) + 1
    counted = (("calls", 7), ("input", 12), ("cached", 12), ("written", 8), ("output", 8), ("saved≈", 9), ("USD", 8))
    lines = [f"{by:<{width}}" + "".join(f"{name:>{room}}" for name, room in counted)]
    for name, u in zip(names, sums, strict=True):
        cost = "unknown" if u.cost_usd is None else f"{u.cost_usd:.4f}"
        counts = (u.model_calls, u.input_tokens, u.cached_tokens, u.cache_write_tokens, u.output_tokens, u.tokens_saved)
        shown = [*(f"{count:,}" for count in counts), cost]
        lines.append(f"{name:<{width}}" + "".join(f"{v:>{room}}" for v, (_, room) in zip(shown, counted, strict=True)))
    return "\n".join(lines)


def _head(full: FullTrace) -> Iterator[str]:
    yield from _head_of(full.trace)
    for child in full.delegated:
        yield f"delegated at step {child.parent_step} to {child.agent_name}: {child.status}, trace {child.id}"


def _head_of(trace: AgentExecutionTrace) -> Iterator[str]:
    took = f", {(trace.completed_at - trace.started_at).total_seconds():.2f} s" if trace.completed_at else ""
    yield f"trace {trace.id} · {trace.agent_name} · {trace.status} · {local(trace.started_at)}{took}"
    counts = f"{plural(trace.planning_count, 'plan')}, {plural(trace.step_count, 'action')}"
    yield f"model {trace.model or '–'} · {counts}"
    mended = f", {plural(trace.mended_calls, 'answer')} mended" if trace.mended_calls else ""
    yield f"{plural(trace.model_calls, 'model call')}{mended}, {tokens_of(trace)}"
    if trace.tokens_saved:
        yield f"pruning saved about {trace.tokens_saved:,} input tokens (estimated)"
    if trace.coherence_min is not None:
        yield f"lowest coherence {trace.coherence_min:.2f}"
    if trace.parent_trace_id:
        yield f"delegated from {trace.parent_trace_id}, step {trace.parent_step}"


def _label(step: AgentExecutionStep | Scene) -> str:
    return {"planning": "plan", "action": f"{step.step_number:>4}", "final": "last"}[step.step_type]


def local(at: datetime) -> str:
    """An instant as the reader's clock shows it."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
