"""What a person sees: live lines while an agent runs, and the report when it is done.

Plain text where the output is not a terminal. Only the command line uses this room.
"""

import os
import re
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text
from smolagents import ActionStep, PlanningStep

from dionysus.findings import Finding, parse, plural
from dionysus.journal import Frame
from dionysus.models.reflex.kinds import weight_of
from dionysus.runtime import BeatReport, Waking

_PIPE_WIDTH = 120
_CHARS_PER_TOKEN = 4


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

    def plan(self, step: PlanningStep, agent: Any, frame: Frame) -> None:
        """`plan  a → b → c  coherence 0.90 · context ≈ 2.1k tok`"""
        steps = re.findall(r"^\s*\d+\.\s+`?(\w+)", step.plan, re.M)
        planned = " → ".join(steps) if steps else _first_line(str(step.model_output_message.content))
        coherence = _latest(frame, "coherence")
        level = f"{coherence['level']:.2f}" if coherence else "–"
        size = sum(len(str(message.content)) for message in agent.write_memory_to_messages()) / _CHARS_PER_TOKEN
        state = f"coherence {level} · context ≈ {size / 1000:.1f}k tok"
        room = self._out.width - len("plan    ") - len(state)
        if len(planned) > room:
            planned = planned[: max(0, room - 1)] + "…"
        self._line(Text.assemble(("plan", "bold cyan"), f"  {planned}  ", (state, "dim")))
        if "WARNING: coherence" in step.plan and coherence:
            self._line(Text(f"      coherence is low: {coherence['reason']}", "yellow"))

    def action(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """`  3  semantic_recall  monitor token  5 · beat 1 would have done …`"""
        if step.error and not step.tool_calls:
            self._line(Text.assemble(f"{step.step_number:>3}  ", ("error", "red"), f"  {_first_line(str(step.error))}"))
            return
        for call in step.tool_calls or ():
            line = Text.assemble(f"{step.step_number:>3}  ", (f"{call.name:<22}", "bold"))
            findings = [f for f in parse(step.observations or "") if f.kind != "basin"]
            if call.name != "final_answer" and findings:
                best = max(findings, key=lambda f: weight_of(f.kind))
                line.append(f"{len(findings):>3} · ", "dim")
                line.append(_brief(best))
            elif call.name != "final_answer" and step.observations:
                line.append(_first_line(step.observations))
            self._line(line)

    def _line(self, line: Text) -> None:
        self._out.print(line, no_wrap=True, overflow="ellipsis", soft_wrap=False)


def print_report(out: Console, report: BeatReport, *, reflex: bool, command: str | None) -> None:
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
    lines = [totals(report, reflex=reflex)]
    if reflex and report.text:
        copied = "Written by rules, not by an LLM: lines are copied from the tool results [n], shortened"
        lines.append(f"{copied}; Next is a rule's sentence.")
    if report.trace_id and command:
        lines.append(f"trace {report.trace_id} · {command} traces show {report.trace_id}")
    for line in lines:
        out.print(_fitted(line, out, indent=0), style="dim", markup=False, soft_wrap=True)


def idle_line(report: BeatReport) -> str:
    """A beat in which nothing had happened."""
    since = f" since {report.since.astimezone():%Y-%m-%d %H:%M} (beat {report.since_beat})" if report.since else ""
    due = report.next_due
    waiting = ""
    if due and due.due_at:
        word = "Next due" if due.due_at >= datetime.now(UTC) else "Overdue"
        waiting = f" {word}: goal {due.id} ({due.due_at.astimezone():%Y-%m-%d})."
    return f"idle: nothing changed{since}.{waiting} 0 model calls, {report.seconds:.2f} s"


def totals(report: BeatReport, *, reflex: bool) -> str:
    """Plans, actions, pruning, time, calls, tokens, money."""
    sent = report.prompt_chars + report.chars_saved
    share = f" (−{100 * report.chars_saved / sent:.0f} % of what would have been sent)" if report.chars_saved else ""
    usage = report.usage
    if reflex:
        spent = f"{report.model_calls} reflex calls, 0 LLM tokens (an LLM would have read ≈ {sent // 4000}k)"
    else:
        cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
        price = "price unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
        about = "estimated " if usage.estimated else ""
        spent = (
            f"{plural(report.model_calls, 'model call')}, {about}{usage.input_tokens:,} tokens in{cached}, "
            f"{usage.output_tokens:,} out, {price}"
        )
    parts = [
        f"{plural(report.plans, 'plan')}, {plural(report.actions, 'action')}",
        f"{plural(report.basins_activated, 'basin')} activated",
        f"{plural(report.observations_pruned, 'observation')} pruned{share}",
        f"{report.seconds:.1f} s",
        spent,
    ]
    return ", ".join(parts) + "."


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
