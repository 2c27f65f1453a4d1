"""What a recorded copy of an agent is made of: its callbacks, its executor, what it remembers from call to call."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from smolagents import ActionStep, LocalPythonExecutor, MultiStepAgent, PlanningStep
from smolagents.memory import CallbackRegistry as TheirCallbacks
from smolagents.remote_executors import RemotePythonExecutor

from dionysus.agents.tools import RecallObservation
from dionysus.callbacks.pruning import steps_of_this_run
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.errors import BadInput
from dionysus.journal import Frame, RecordedExecutor

RECALL_LINE = (
    "An observation that begins with `[cut N chars; recall_observation(STEP)]` was shown to you before and is kept in "
    "short; recall_observation(STEP) brings the whole text back."
)
"""What pruning adds to the system prompt of an agent that does not say it already."""


class Calls:
    """The calls of one managed agent within one run: one after the other they go on with what the last one left, as
    bare ones do; one that begins while another is under way does not meet it."""

    def __init__(self, member: Any) -> None:
        self._latest, self._under_way, self._lock = member, 0, threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A call; gives the agent to copy for it."""
        with self._lock:
            self._under_way += 1
            agent = self._latest
        try:
            yield agent
        finally:
            with self._lock:
                self._under_way -= 1

    def ended(self, left: Any) -> None:
        """What the call under way left, which the next one goes on with – if it was alone."""
        with self._lock:
            if self._under_way == 1:
                self._latest = left


class StepCallbacks:
    """What smolagents calls after each step: the agent's own callbacks, then ours; secrets are replaced before."""

    def __init__(self, agent: MultiStepAgent, clone: MultiStepAgent, ours: CallbackRegistry, frame: Frame) -> None:
        self._theirs = TheirCallbacks()
        for step_type, callbacks in agent.step_callbacks._callbacks.items():
            for callback in callbacks:
                of_monitor = getattr(callback, "__self__", None) is agent.monitor
                self.register(step_type, getattr(clone.monitor, callback.__name__) if of_monitor else callback)
        self._ours = ours.get_registry(frame.agent_name, frame)
        self._hide = frame.run.secrets.hide_in
        self._previous: Any = None

    def register(self, step_cls: type, callback: Callable[..., Any]) -> None:
        """As smolagents has it."""
        self._theirs.register(step_cls, callback)

    def callback(self, step: Any, **kwargs: Any) -> None:
        """A step ended."""
        if isinstance(step, ActionStep):
            self._clean(step)
        ours = self._ours.get(type(step))
        try:
            self._theirs.callback(step, **kwargs)
        finally:
            if ours is not None:
                ours(step, **kwargs)
        self._forget_prompt_before(step)

    def _forget_prompt_before(self, step: Any) -> None:
        """smolagents keeps the prompt with every step, which grows quadratically; the journal has what was new."""
        if isinstance(self._previous, ActionStep):
            self._previous.model_input_messages = None
        elif isinstance(self._previous, PlanningStep):
            self._previous.model_input_messages = []  # its dict() takes no None
        self._previous = step

    def _clean(self, step: ActionStep) -> None:
        """Secrets that printing or streaming brought into the transcript."""
        step.observations = self._hide(step.observations)
        step.model_output = self._hide(step.model_output)
        for call in step.tool_calls or ():
            call.arguments = self._hide(call.arguments)
        if step.error is not None:
            step.error.message = self._hide(step.error.message)
            step.error.args = tuple(self._hide(list(step.error.args)))


def with_recall(clone: MultiStepAgent, tools: dict[str, Any], frame: Frame) -> dict[str, Any]:
    """Adds what brings pruned observations back: a tool, and a line of the system prompt."""
    name = RecallObservation.name
    if name in tools or name in clone.managed_agents:
        raise BadInput(f"pruning adds a tool {name!r}, but {frame.agent_name!r} has one of that name; rename yours")
    said = clone.initialize_system_prompt

    def with_line() -> str:
        prompt = str(said())
        return prompt if f"{name}(STEP)" in prompt else f"{prompt}\n\n{RECALL_LINE}"

    clone.initialize_system_prompt = with_line
    return {**tools, name: RecallObservation(frame)}


def own_executor(executor: Any) -> Any:
    """An executor for one run, with the variables of the given one; None: there can be no second one."""
    if isinstance(executor, RemotePythonExecutor):
        return None
    if isinstance(executor, LocalPythonExecutor):
        own = copy.copy(executor)
        own.state, own.custom_tools = dict(executor.state), dict(executor.custom_tools)
        return own
    try:
        return copy.deepcopy(executor)
    except Exception:  # noqa: BLE001 – whatever it holds that cannot be copied, it is then recorded as a whole
        return None


def as_it_ended(agent: MultiStepAgent, frame: Frame) -> MultiStepAgent:
    """A copy of `agent` with memory and variables as the run left them, observations whole again."""
    ran = frame.agent
    going_on = copy.copy(agent)
    if ran is None:
        return going_on
    going_on.memory, going_on.state = ran.memory, ran.state
    if hasattr(agent, "python_executor"):
        executor = ran.python_executor
        going_on.python_executor = executor.inner if isinstance(executor, RecordedExecutor) else executor
    if frame.pruned_chars:
        whole = {done.number: done.observation for done in frame.finished if done.step_type == "action"}
        for step in steps_of_this_run(ran):
            step.observations = whole.get(step.step_number, step.observations)
    return going_on
