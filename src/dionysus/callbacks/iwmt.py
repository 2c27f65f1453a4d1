"""Coherence into every plan, and – where rules are switched on – into what happens next.

The text reaches the next model input: smolagents shows the model its plan. Rules act between steps: a loop is told
within the observation, and incoherence that lasts leads to an early plan, a stop, or a question to a person. What was
assessed and decided is an effect in the journal.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from smolagents import ActionStep, PlanningStep

from dionysus.coherence import DEFAULT, WARNING_BELOW, Calibration, Coherence, Monitor, Turn
from dionysus.errors import LimitReached
from dionysus.findings import outside, quoted
from dionysus.journal import FinishedStep, Frame, calls_of

log = logging.getLogger("dionysus")
Incoherent = Literal["warn", "replan", "stop", "ask"]
"""What incoherence that lasts leads to."""
_MARK = "[IWMT] "
_CODE = re.compile(r"<code>(.*?)(?:</code>|\Z)", re.S)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What coherence leads to, beyond its place in plans."""

    warning_below: float = WARNING_BELOW
    """Levels below it are warned about, and count as incoherent."""
    loops: int | None = None
    """From so many equal calls with equal results on, one after the other, the observation says so; None: never."""
    incoherent: Incoherent = "warn"
    """What incoherence leads to that lasts."""
    after: int = 3
    """Actions that it lasts, one after the other."""

    @property
    def act(self) -> bool:
        """Whether anything is to be done after actions."""
        return self.loops is not None or self.incoherent != "warn"


class Watched:
    """One agent's run, as its monitor sees it."""

    def __init__(self, calibration: Calibration = DEFAULT) -> None:
        self._calibration = calibration
        self._monitor: Monitor | None = None
        self._taken, self._ahead = 0, 0
        self.low = 0
        """Actions in a row whose level was below the threshold."""
        self.same: tuple[Turn | None, int] = None, 0
        """The newest turn, and how often its call was made in a row with the same result."""
        self.planning: tuple[int | None] | None = None
        """The agent's planning interval, while another one brings its next plan about."""

    def monitor(self, agent: Any, frame: Frame) -> Monitor:
        """The monitor, which has taken all actions that are finished."""
        if self._monitor is None:
            self._monitor = Monitor(str(agent.task or ""), self._calibration)
        for step in frame.finished[self._taken :]:
            if step.step_type == "action" and (step.calls or step.error) and step.number > self._ahead:
                self._take(turn_of(step))
        self._taken = len(frame.finished)
        return self._monitor

    def take(self, step: ActionStep, agent: Any, frame: Frame) -> Monitor:
        """The monitor, with the action that is about to be finished."""
        monitor = self.monitor(agent, frame)
        self._ahead = step.step_number
        self._take(turn_of(finished(step)))
        return monitor

    def _take(self, turn: Turn) -> None:
        if self._monitor is not None:
            self._monitor.take(turn)
        last, times = self.same
        again = last is not None and last.same == turn.same and last.seen == turn.seen
        self.same = turn, times + 1 if again else 1


def iwmt_coherence_callback(
    step: PlanningStep,
    agent: Any,
    frame: Frame,
    *,
    watched: Watched | None = None,
    warning_below: float = WARNING_BELOW,
) -> None:
    """Assesses the run so far and appends the result to the plan; a level below the threshold brings a warning.

    Args:
        watched: The agent's run, kept up from plan to plan; None: all of it is assessed anew.
    """
    watched = watched or Watched()
    if watched.planning is not None:
        (agent.planning_interval,) = watched.planning
        watched.planning = None
    coherence = watched.monitor(agent, frame).assess()
    if coherence is None:
        step.plan = f"{step.plan}\n\n{_MARK}Coherence: nothing to measure before the first action."
        log.info("%sCoherence: nothing to measure before the first action", _MARK)
        return
    value = frame.effect("coherence", lambda: asdict(coherence), pure=True)
    text = in_words(value)
    if value["level"] < warning_below:
        advice = value.get("advice") or "change course, and do not repeat what did not work"
        text += f"\nWARNING: coherence is below {warning_below:.0%}: {advice}."
        log.warning("%sCoherence: %.1f%% – %s", _MARK, 100 * value["level"], value["reason"])
    else:
        log.info("%sCoherence: %.1f%%", _MARK, 100 * value["level"])
    step.plan = f"{step.plan}\n\n{text}"


def in_words(value: dict[str, Any]) -> str:
    """`[IWMT] Coherence: 83.0% (autonomy 1.00, …; nothing stands out; steady, confidence fair)`, of an effect."""
    parts = ", ".join(f"{name} {score:.2f}" for name, score in value["components"].items())
    more = ""
    if "confidence" in value:
        more = f"; {Coherence(level=value['level'], trend=value['trend'], confidence=value['confidence']).in_words}"
    return f"{_MARK}Coherence: {value['level']:.1%} ({parts}; {value['reason']}{more})"


class CoherenceRules:
    """What happens after actions, by rules that a user switched on."""

    def __init__(self, rules: Rules, watched: Watched, ask: Callable[[str], str | None] | None = None) -> None:
        """
        Args:
            ask: Puts a question to a person, and gives the answer; None: there is nobody, or the run should stop.
        """
        self._rules, self._watched, self._ask = rules, watched, ask

    def coherence_rules_callback(self, step: ActionStep, agent: Any, frame: Frame) -> None:
        """Tells of loops within the observation; where incoherence lasts, brings about a plan, a stop or a question."""
        if frame.is_leaving:
            return
        monitor = self._watched.take(step, agent, frame)
        made = []

        def decide() -> dict[str, Any]:
            made.append(True)
            coherence = monitor.assess()
            return {**asdict(coherence), **self._decided(coherence, step)} if coherence is not None else {}

        value = frame.effect("coherence", decide, pure=True)
        if value.get("told"):
            step.observations = f"{step.observations or ''}\n{_MARK}{value['told']}".lstrip("\n")
        if value.get("led_to") == "replan":
            self._plan_next(agent, step.step_number)
        elif value.get("led_to") == "ask":
            self._put_question(value, step, frame)
        elif value.get("led_to") == "stop" and made:  # else it was stopped then, and someone wants it to go on
            self._stop(value, frame)

    def _decided(self, coherence: Coherence, step: ActionStep) -> dict[str, Any]:
        watched, rules = self._watched, self._rules
        decided: dict[str, Any] = {}
        turn, times = watched.same
        if rules.loops is not None and turn is not None and times >= rules.loops and not step.is_final_answer:
            decided["told"] = (
                f"This is call {times} in a row of {turn.in_words}, with the same result each time. "
                "Calling it again will not change that: do something else."
            )
        watched.low = watched.low + 1 if coherence.level < rules.warning_below else 0
        if rules.incoherent != "warn" and watched.low >= rules.after and not step.is_final_answer:
            watched.low = 0
            decided["led_to"] = rules.incoherent
        return decided

    def _plan_next(self, agent: Any, step_number: int) -> None:
        """smolagents plans before an action whose number, less one, its interval divides."""
        if self._watched.planning is None:
            self._watched.planning = (agent.planning_interval,)
        agent.planning_interval = step_number

    def _put_question(self, value: dict[str, Any], step: ActionStep, frame: Frame) -> None:
        asked = _incoherent(value, frame.agent_name)
        ask = self._ask
        answer = frame.effect("answer", lambda: ask(asked) if ask is not None else None)
        if answer is None:
            self._stop(value, frame)
        elif answer.strip():
            said = outside(quoted(frame.run.secrets.hide(answer)))
            step.observations = f"{step.observations or ''}\n{_MARK}A person was asked about this, and says: {said}"

    def _stop(self, value: dict[str, Any], frame: Frame) -> None:
        """Before the next call: this step is finished, and on record."""
        frame.run.end(LimitReached("incoherent", _incoherent(value, frame.agent_name)))


def _incoherent(value: dict[str, Any], agent_name: str) -> str:
    return f"{agent_name} has been incoherent, at {value['level']:.0%}: {value['reason']}"


def with_coherence(report: Any, agent: Any, frame: Frame) -> Any:
    """A member's report, and how coherent its run was: what a `ConsciousnessManager` reads. The members of other agents
    report as they do without us."""
    watched: Watched | None = frame.watched
    coherence = watched.monitor(agent, frame).assess() if watched is not None and isinstance(report, str) else None
    if coherence is None:
        return report
    why = f": {coherence.reason}" if coherence.since else ""
    return f"{report}\n[{frame.agent_name}: coherence {coherence.level:.0%}{why}]"


def turn_of(step: FinishedStep) -> Turn:
    """A finished step as the assessment sees it: what was told to the agent about it is left out.

    The action of a code agent is its code, which stands in its thought between `<code>` and `</code>`.
    """
    thought, calls = step.thought or "", tuple(step.calls)
    code = _CODE.search(thought)
    if code is not None:
        thought, calls = thought[: code.start()], (("python", code[1]),)
    seen = f"\n{step.observation or ''}".partition(f"\n{_MARK}")[0].removeprefix("\n") or step.error or ""
    return Turn(step=step.number, thought=thought, calls=calls, observation=seen, failed=step.error is not None)


def finished(step: ActionStep) -> FinishedStep:
    """An action that is about to be finished."""
    thought = step.model_output
    return FinishedStep(
        key=f"action.{step.step_number}",
        step_type="action",
        number=step.step_number,
        thought=thought if isinstance(thought, str) else str(thought or ""),
        calls=calls_of(step),
        observation=step.observations,
        error=str(step.error) if step.error else None,
    )
