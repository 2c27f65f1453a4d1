"""Applies a rule of pruning to an agent's memory, on the record: what is cut now is a stub in the very next prompt.

smolagents calls back before it appends the step that ended, so a cut that is decided here is in place in time. Nothing
is lost: the journal has each step as it was when it ended, and `recall_observation` brings that back.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from smolagents import ActionStep, PlanningStep, TaskStep

from dionysus.callbacks.see_once import Acted, Cut, Limits, Rule, SeeOnce, rule_of
from dionysus.counting import count
from dionysus.journal import FinishedStep, Frame
from dionysus.journal.spending import KeptOut

_TASK_ABOVE = "(the task above)"
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


class MemoryPruning:
    """The pruning of one agent's run: what an agent calls at the end of each plan and each action."""

    def __init__(self, rule: Rule, *, window: int = 3, limits: Limits | None = None) -> None:
        """
        Args:
            window: Actions kept whole under the window rule; 999 turns it off.
        """
        self._limits = limits or Limits()
        self._rule = rule_of(rule, window=window, limits=self._limits)
        self._read = 0
        self._arriving: list[dict[str, Any]] = []

    def memory_pruning_callback(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """Before the step is on record: decides, and cuts what was seen."""
        _forget_task_images(step, agent)
        rule = self._rule
        if rule is None:
            return
        if not self._read:
            rule.read(agent.memory.system_prompt.system_prompt, str(agent.task or ""))
        rule.read(*(done.plan or "" for done in frame.finished[self._read :]))
        self._read = len(frame.finished)
        cuts = rule.acted(_acted(step))
        if not cuts:
            return
        taken = frame.effect("pruned", lambda: [asdict(cut) for cut in cuts], pure=True)
        self._arriving = [cut for cut in taken if cut["step"] == step.step_number]
        steps = {earlier.step_number: earlier for earlier in steps_of_this_run(agent)}
        for cut in taken:
            if cut["step"] in steps:
                _show(steps[cut["step"]], cut, frame)

    def plan_callback(self, step: PlanningStep, agent: Any, frame: Frame) -> None:
        """smolagents writes the whole task into each later plan, which every prompt then holds once more."""
        task = f"```\n{agent.task}\n```"
        if self._rule is None or len(task) < self._limits.least or task not in step.plan:
            return
        before, step.plan = step.plan, step.plan.replace(task, _TASK_ABOVE, 1)
        counted = count(before) - count(step.plan) if frame.counts else 0
        frame.kept_out["plan"] += KeptOut(chars=len(before) - len(step.plan), counted=counted)

    def arrival_callback(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """After the step is on record: shows the ends of an observation that is too large to be shown at all."""
        for cut in self._arriving:
            _show(step, cut, frame)
        self._arriving = []


def prunable_tokens(frame: Frame, system_prompt: str, task: str, limits: Limits) -> int:
    """What see-once would have kept out of the prompts of a run that it was not applied to.

    Estimated by characters, per call: reported input tokens × characters left out ÷ characters sent.
    """
    rule = SeeOnce(limits)
    rule.read(system_prompt, task)
    total, saved, thoughts = 0.0, 0, 0
    for done in frame.finished:
        out = saved + (0 if done.step_type == "planning" else thoughts)
        for tokens, chars in frame.sent.get(done.key, ()):
            total += tokens * out / chars if chars else 0.0
        rule.read(done.plan or "")
        if done.step_type == "action":
            for cut in rule.acted(_done(done)):
                saved += 0 if cut.part == "thought" else cut.chars_saved
                thoughts += cut.chars_saved if cut.part == "thought" else 0
    return round(total)


def steps_of_this_run(agent: Any) -> list[ActionStep]:
    """The actions since the task was set: smolagents numbers them from 1 again when a conversation goes on."""
    return [step for step in _since_the_task(agent) if isinstance(step, ActionStep)][::-1]


def show_whole(step: ActionStep, done: FinishedStep) -> None:
    """A step as it was when it ended."""
    step.observations, step.model_output = done.observation, done.thought
    if step.error is not None and done.error is not None:
        _say(step.error, done.error)


def _since_the_task(agent: Any) -> Iterator[Any]:
    """What was done since the task was set, newest first; the task itself last."""
    for step in reversed(agent.memory.steps):
        yield step
        if isinstance(step, TaskStep):
            return


def _forget_task_images(step: ActionStep, agent: Any) -> None:
    """smolagents hands the task's images to every step, so prompts hold them once more each; the task keeps them."""
    for earlier in _since_the_task(agent):
        if isinstance(earlier, TaskStep) and earlier.task_images and step.observations_images is earlier.task_images:
            step.observations_images = None


def _acted(step: ActionStep) -> Acted:
    calls = [(call.name, call.arguments) for call in step.tool_calls or ()]
    return Acted(
        number=step.step_number,
        thought=step.model_output if isinstance(step.model_output, str) else str(step.model_output or ""),
        calls=_said_in(calls),
        tools=_tools(calls),
        observation=step.observations or "",
        error=str(step.error or ""),
    )


def _done(done: FinishedStep) -> Acted:
    return Acted(
        number=done.number,
        thought=done.thought or "",
        calls=_said_in(done.calls),
        tools=_tools(done.calls),
        observation=done.observation or "",
        error=done.error or "",
    )


def _said_in(calls: Any) -> str:
    """Names and arguments of calls, without the escapes that Python or JSON would write."""
    found: list[str] = []
    waiting = [part for call in calls for part in call]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
        else:
            found.append(str(part))
    return "\n".join(found)


def _tools(calls: Any) -> frozenset[str]:
    """The tools that a step called; of code, all that it calls."""
    code = [str(arguments) for name, arguments in calls if name == "python_interpreter"]
    return frozenset([name for name, _ in calls] + [name for text in code for name in _CALL.findall(text)])


def _show(step: ActionStep, cut: dict[str, Any], frame: Frame) -> None:
    part, stub = cut.get("part", "observation"), cut["stub"]
    if part == "observation":
        before, step.observations = step.observations or "", stub
    elif part == "thought":
        before, step.model_output = str(step.model_output or ""), stub
    elif step.error is not None:
        before = str(step.error)
        _say(step.error, stub)
    else:
        return
    counted = count(before) - count(stub) if frame.counts else 0
    frame.kept_out[part] += KeptOut(chars=cut["chars_saved"], counted=counted)


def _say(error: Any, message: str) -> None:
    error.message, error.args = message, (message,)


__all__ = ["Cut", "Limits", "MemoryPruning", "Rule", "prunable_tokens", "show_whole", "steps_of_this_run"]
