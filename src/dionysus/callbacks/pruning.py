"""Applies a rule of pruning to an agent's memory: what is cut now is a stub in the very next prompt.

smolagents calls back before it appends the step that ended, so a cut that is decided here is in place in time. It is
decided from the steps as they are on record – sealed, with what other callbacks made of them, and the same whenever the
run is made again – and from nothing else. The journal notes it for the trace. Nothing is lost: the record has each step
as it was, and `recall_observation` brings that back.
"""

import re
from collections.abc import Iterator, Sequence
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
    """The pruning of one agent's run; its callbacks come after the one that seals the step."""

    def __init__(self, rule: Rule, *, window: int = 3, limits: Limits | None = None) -> None:
        """
        Args:
            window: Actions kept whole under the window rule; 999 turns it off.
        """
        self._limits = limits or Limits()
        self._rule = rule_of(rule, window=window, limits=self._limits)
        self._read = 0

    def memory_pruning_callback(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """An action ended: decides, and cuts. One that was cut off itself decides nothing: it is made again. Behind the
        one that ends the run there is no prompt."""
        if self._rule is None or frame.is_leaving or step.is_final_answer:
            return
        _forget_task_images(step, agent)
        if not self._read:
            self._rule.read(agent.memory.system_prompt.system_prompt, str(agent.task or ""))
        self._rule.read(*(done.plan or "" for done in frame.finished[self._read :]))
        self._read = len(frame.finished)
        cuts = self._rule.acted(_acted(frame.finished[-1]))
        steps = {earlier.step_number: earlier for earlier in [*steps_of_this_run(agent), step]}
        shown = [cut for cut in cuts if cut.step in steps]  # a callback may have taken a step out of the memory
        if shown:
            frame.note("pruned", [asdict(cut) for cut in shown])
        for cut in shown:
            _show(steps[cut.step], cut, frame)

    def plan_callback(self, step: PlanningStep, agent: Any, frame: Frame) -> None:
        """smolagents writes the whole task into each later plan, which every prompt then holds once more."""
        task = f"```\n{agent.task}\n```"
        if self._rule is None or len(task) < self._limits.least or task not in step.plan:
            return
        before, step.plan = step.plan, step.plan.replace(task, _TASK_ABOVE, 1)
        counted = count(before) - count(step.plan) if frame.counts else 0
        frame.kept_out["plan"] += KeptOut(chars=len(before) - len(step.plan), counted=counted)


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
            for cut in rule.acted(_acted(done)):
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


def _acted(done: FinishedStep) -> Acted:
    return Acted(
        number=done.number,
        thought=done.thought or "",
        calls=_said_in(done.calls),
        tools=_tools(done.calls),
        observation=done.observation or "",
        error=done.error or "",
    )


def _said_in(calls: Sequence[tuple[str, Any]]) -> str:
    """Names and arguments of calls, without the escapes that Python or JSON would write."""
    found: list[str] = []
    waiting: list[Any] = [part for call in calls for part in call]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
        else:
            found.append(str(part))
    return "\n".join(found)


def _tools(calls: Sequence[tuple[str, Any]]) -> frozenset[str]:
    """The tools that a step called; of code, all that it calls."""
    code = [str(arguments) for name, arguments in calls if name == "python_interpreter"]
    return frozenset([name for name, _ in calls] + [name for text in code for name in _CALL.findall(text)])


def _show(step: ActionStep, cut: Cut, frame: Frame) -> None:
    if cut.part == "observation":
        before, step.observations = step.observations or "", cut.stub
    elif cut.part == "thought":
        before, step.model_output = str(step.model_output or ""), cut.stub
    else:
        before = str(step.error)
        _say(step.error, cut.stub)
    counted = count(before) - count(cut.stub) if frame.counts else 0
    frame.kept_out[cut.part] += KeptOut(chars=cut.chars_saved, counted=counted)


def _say(error: Any, message: str) -> None:
    error.message, error.args = message, (message,)
