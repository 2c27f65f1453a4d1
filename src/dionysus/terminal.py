"""What a person sees: live lines while an agent runs, and the report when it is done.

Plain text where the output is not a terminal. Only the command line uses this room.
"""

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text
from smolagents import ActionStep, PlanningStep

from dionysus.findings import Finding, parse, plural, quoted
from dionysus.journal import Frame
from dionysus.memory.consolidation import Consolidated
from dionysus.models.reflex.kinds import weight_of
from dionysus.runtime import Answer, BeatReport, RunSummary, Waking
from dionysus.traces.lineage import Delegate

_PIPE_WIDTH = 120
_CHARS_PER_TOKEN = 4
_INDENT = 5
"""Columns by which the lines of a managed agent stand in."""


class _Output(Console):
    """A console whose reader may go away: then the rest is not shown, and the run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """A console that does not cut or colour what goes to a file or pipe."""
    tty = sys.stdout.isatty()
    return _Output(highlight=False, width=None if tty else _PIPE_WIDTH, soft_wrap=not tty)


class LiveDisplay:
    """Prints a line per plan and per action, as they happen; its methods are callbacks."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def wake(self, waking: Waking) -> None:
        """The beat found something to do."""
        name = waking.place.rstrip("/").rpartition("/")[2] or waking.place
        self._out.rule(f"[bold]beat {waking.number}[/] · {name} · model {waking.model}", align="left", style="dim")

    def ask(self, place: str, model: str) -> None:
        """A question is taken up."""
        name = place.rstrip("/").rpartition("/")[2] or place
        self._out.rule(f"[bold]ask[/] · {name} · model {model}", align="left", style="dim")

    def plan(self, step: PlanningStep, agent: Any, frame: Frame) -> None:
        """`plan  a → b → c  coherence 0.90 · context ≈ 2.1k tok`; for a managed agent with its name, indented.

        Where the model's server says how fast it writes, ` · 34 tok/s` stands behind.
        """
        steps = re.findall(r"^\s*\d+\.\s+`?(\w+)", step.plan, re.M)
        planned = " → ".join(steps) if steps else _first_line(str(step.model_output_message.content))
        coherence = _latest(frame, "coherence")
        level = f"{coherence['level']:.2f}" if coherence else "–"
        size = sum(len(str(message.content)) for message in agent.write_memory_to_messages()) / _CHARS_PER_TOKEN
        speed = f" · {frame.tokens_per_s:.0f} tok/s" if frame.tokens_per_s else ""
        state = f"coherence {level} · context ≈ {size / 1000:.1f}k tok{speed}"
        who = f"{frame.agent_name} " if frame.depth else ""
        room = self._out.width - len("plan    ") - len(state) - len(who) - _INDENT * frame.depth
        if len(planned) > room:
            planned = planned[: max(0, room - 1)] + "…"
        line = Text.assemble((who, "bold green"), ("plan", "bold cyan"), f"  {planned}  ", (state, "dim"))
        self._line(line, frame)
        if "WARNING: coherence" in step.plan and coherence:
            self._line(Text(f"      coherence is low: {coherence['reason']}", "yellow"), frame)
            if coherence.get("advice"):
                self._line(Text(f"      advice: {coherence['advice']}", "yellow"), frame)
        flow = _latest(frame, "flow")
        if flow and flow["state"] != "flowing":
            self._line(Text(f"      river: {flow['state']}", "yellow"), frame)

    def action(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """`  3  semantic_recall  monitor token  5 · beat 1 would have done …`"""
        if step.error and not step.tool_calls:
            error = f"  {_said(str(step.error))}"
            self._line(Text.assemble(f"{step.step_number:>3}  ", ("error", "red"), error), frame)
            return
        for name in _called(step, frame):
            line = Text.assemble(f"{step.step_number:>3}  ", (f"{name:<22}", "bold"))
            findings = [f for f in parse(step.observations or "") if f.kind != "basin"]
            if name != "final_answer" and findings:
                best = max(findings, key=lambda f: weight_of(f.kind))
                line.append(f"{len(findings):>3} · ", "dim")
                line.append(_brief(best))
            elif name != "final_answer" and (step.error or step.observations):
                line.append(_said(str(step.error)) if step.error else _first_line(str(step.observations)))
            self._line(line, frame)

    def _line(self, line: Text, frame: Frame) -> None:
        line = Text(" " * _INDENT * frame.depth).append_text(line)
        self._out.print(line, no_wrap=True, overflow="ellipsis", soft_wrap=False)


def print_answer(out: Console, answer: Answer, *, command: str | None) -> None:
    """The answer, what it rests on, its totals, and where its traces are."""
    out.print()
    if answer.text:
        out.print(_fitted(answer.text, out), markup=False, soft_wrap=True)
        out.print()
    lines = []
    for source in answer.sources:
        at = f"[{source.at_step}] " if source.at_step else "    "
        failed = "" if source.status == "success" else f" ({source.status})"
        lines.append(f"{at}{source.agent}{failed} · trace {source.trace_id}")
    if answer.memories:
        names = ", ".join(f"{m.id} ({quoted(m.source, 30)})" for m in answer.memories[:6])
        lines.append(f"    recalled memories {names}")
    for line in lines:
        out.print(_fitted(line, out, indent=4), style="dim", markup=False, soft_wrap=True)
    out.print()
    parts = [plural(len(answer.sources), "agent"), f"{answer.seconds:.1f} s", _spent(answer)]
    ends = [", ".join(parts) + "."]
    if answer.reflex and answer.text:
        ends.append("Written by rules, not by an LLM: lines are copied from the members' reports [n], shortened.")
    if command:
        ends.append(f"{command} traces show {answer.trace_id}")
    for line in ends:
        out.print(_fitted(line, out, indent=0), style="dim", markup=False, soft_wrap=True)


def run_table(summaries: Sequence[RunSummary]) -> str:
    """Runs, a line each, under a heading; for a terminal of 80 columns."""
    lines = [f"{'started':<11}  {'run':<22}  {'status':<16}{'agents':>7}{'actions':>8}{'calls':>6}{'KiB':>6}"]
    for summary in summaries:
        run = summary.run
        forked = f"  from {run.parent} at step {run.request.get('at_step')}" if run.parent else ""
        lines.append(
            f"{run.started_at.astimezone():%m-%d %H:%M}  {run.run_id:<22}  {run.status:<16}{summary.agents:>7}"
            f"{summary.actions:>8}{summary.model_calls:>6}{summary.own_bytes / 1024:>6,.0f}{forked}"
        )
    return "\n".join(lines)


def delegation_tree(agents: Sequence[Delegate]) -> str:
    """A tree of agents, a line each under the one that called it, with their own tokens and the sum."""
    lines = [f"{'agent':<38}{'status':<17}{'calls':>6}{'input':>10}{'output':>8}"]

    def add(agent: Delegate) -> None:
        called = f" ← action {agent.at_step}" if agent.at_step is not None else ""
        name = f"{'  ' * agent.depth}{agent.agent}{called}"
        lines.append(
            f"{name:<38}{agent.status:<17}{agent.model_calls:>6,}{agent.input_tokens:>10,}{agent.output_tokens:>8,}"
        )
        for below in agents:
            if below.parent == agent.trace:
                add(below)

    add(agents[0])
    calls, given, said = (sum(getattr(a, n) for a in agents) for n in ("model_calls", "input_tokens", "output_tokens"))
    lines.append(f"{'all':<55}{calls:>6,}{given:>10,}{said:>8,}")
    return "\n".join(lines)


def print_report(out: Console, report: BeatReport, *, command: str | None) -> None:
    """The final report, its totals, and where its trace is.

    Args:
        command: What shows the trace; None: nothing was kept.
    """
    if report.status == "idle":
        out.print(idle_line(report), markup=False, soft_wrap=True)
        return
    out.print()
    if report.text:
        out.print(_fitted(report.text, out), markup=False, soft_wrap=True)
        out.print()
    lines = [totals(report)]
    if report.reflex and report.text:
        copied = "Written by rules, not by an LLM: lines are copied from the tool results [n], shortened"
        lines.append(f"{copied}; Next is a rule's sentence.")
    if report.trace_id and command:
        lines.append(f"trace {report.trace_id} · {command} traces show {report.trace_id}")
    for line in lines:
        out.print(_fitted(line, out, indent=0), style="dim", markup=False, soft_wrap=True)


def consolidated_line(done: Consolidated) -> str:
    """What consolidation did; empty: nothing."""
    said = [
        *([plural(done.joined, "duplicate") + " joined"] if done.joined else []),
        *([f"{plural(len(done.promoted), 'pattern')} promoted"] if done.promoted else []),
        *([f"{plural(done.forgotten, 'memory', 'memories')} forgotten by policy"] if done.forgotten else []),
        *([f"{plural(done.made_up, 'memory', 'memories')} embedded"] if done.made_up else []),
        *([f"{plural(len(done.contradicted), 'belief')} contradicted"] if done.contradicted else []),
        *([done.embedder_failed] if done.embedder_failed else []),
    ]
    return ", ".join(said)


def idle_line(report: BeatReport) -> str:
    """A beat in which nothing had happened."""
    since = f" since {report.since.astimezone():%Y-%m-%d %H:%M} (beat {report.since_beat})" if report.since else ""
    due = report.next_due
    waiting = ""
    if due and due.due_at:
        word = "Next due" if due.due_at >= datetime.now(UTC) else "Overdue"
        waiting = f" {word}: goal {due.id} ({due.due_at.astimezone():%Y-%m-%d})."
    said = consolidated_line(report.consolidated) if report.consolidated else ""
    done = f"{said}. " if said else ""
    return f"idle: nothing changed{since}.{waiting} {done}0 model calls, {report.seconds:.2f} s"


def totals(report: BeatReport) -> str:
    """Plans, actions, pruning, time, calls, tokens, money."""
    share = 100 * report.chars_saved / (report.prompt_chars + report.chars_saved) if report.chars_saved else 0
    pruned = f" (−{share:.0f} % of what would have been sent)" if share else ""
    parts = [
        f"{plural(report.plans, 'plan')}, {plural(report.actions, 'action')}",
        f"{plural(report.basins_activated, 'basin')} activated",
        f"{plural(report.observations_pruned, 'observation')} pruned{pruned}",
        f"{report.seconds:.1f} s",
        _spent(report),
    ]
    return ", ".join(parts) + "."


def _spent(report: BeatReport | Answer) -> str:
    """Calls, tokens, money, and what pruning saved of them."""
    calls, usage = report.model_calls, report.usage
    if report.reflex:
        return f"{calls} reflex calls, 0 LLM tokens (an LLM would have read ≈ {report.prompt_chars // 4000}k)"
    cached = [f"{usage.cached_tokens:,} cached"] if usage.cached_tokens else []
    cached += [f"{usage.cache_write_tokens:,} written to the cache"] if usage.cache_write_tokens else []
    of_it = f" ({', '.join(cached)})" if cached else ""
    price = "price unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    about = "estimated " if usage.estimated else ""
    tokens = f"{about}{usage.input_tokens:,} tokens in{of_it}, {usage.output_tokens:,} out, {price}"
    mended = f", {plural(usage.mended, 'answer')} mended" if usage.mended else ""
    saved = f", pruning saved ≈ {report.tokens_saved:,} tokens (estimated)" if report.tokens_saved else ""
    return f"{plural(calls, 'model call')}, {tokens}{mended}{saved}"


def _called(step: ActionStep, frame: Frame) -> list[str]:
    """What an action called; of code, the members and tools that it names."""
    calls = step.tool_calls or []
    if [call.name for call in calls] != ["python_interpreter"]:
        return [call.name for call in calls]
    agent = frame.agent
    known = {**agent.tools, **agent.managed_agents} if agent is not None else {}
    named = [name for name in known if re.search(rf"\b{re.escape(name)}\(", str(calls[0].arguments))]
    return named[:1] if "final_answer" not in named else ["final_answer"] if named else ["python_interpreter"]


def _fitted(text: str, out: Console, *, indent: int = 12) -> str:
    """On a terminal, lines that are too long go on below, indented; a file or pipe gets them whole."""
    if not out.is_terminal:
        return text
    below = " " * indent
    wrapped = [textwrap.wrap(line, out.width, subsequent_indent=below) or [""] for line in text.splitlines()]
    return "\n".join(part for parts in wrapped for part in parts)


def _latest(frame: Frame, effect: str) -> Any:
    values = frame.effects.get(effect)
    return values[-1] if values else None


def _brief(finding: Finding) -> str:
    """A finding without its marks: base names, no backticks."""
    return re.sub(r"`(?:[^`\s]*/)?([^`]*)`", r"\1", finding.text)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip(" `")), "")


def _said(error: str) -> str:
    """What an error says: smolagents sets a heading with a colon before it."""
    lines = [line.strip() for line in error.splitlines() if line.strip(" `")]
    return " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else ""
