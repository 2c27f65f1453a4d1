"""What a recorded copy of an agent is made of: its callbacks, its executor, what it remembers from call to call."""

import copy
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from smolagents import ActionStep, CodeAgent, LocalPythonExecutor, MultiStepAgent, PlanningStep
from smolagents.local_python_executor import ExecutionTimeoutError
from smolagents.memory import CallbackRegistry as TheirCallbacks
from smolagents.remote_executors import RemotePythonExecutor

from dionysus.agents.tools import RecallObservation
from dionysus.callbacks.pruning import show_whole, steps_of_this_run
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.errors import BadInput
from dionysus.journal import Frame, RecordedExecutor
from dionysus.journal.values import digest_of, name_of, plain

log = logging.getLogger("dionysus")


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
    """Adds the tool that brings back what pruning cut; its description is what tells an agent of stubs."""
    name = RecallObservation.name
    if name in tools or name in clone.managed_agents:
        raise BadInput(f"pruning adds a tool {name!r}, but {frame.agent_name!r} has one of that name; rename yours")
    return {**tools, name: RecallObservation(frame)}


class _RecordedLocalExecutor(LocalPythonExecutor):
    """smolagents' own, where code that took too long when it was recorded is given up again, however long it takes."""

    frame: Frame

    def __call__(self, code_action: str) -> Any:
        said = self.frame.timed_out_then()
        if said is None:
            return super().__call__(code_action)
        unhurried = copy.copy(self)
        unhurried.__class__ = LocalPythonExecutor
        unhurried.timeout_seconds = None
        try:
            unhurried(code_action)  # its thread went on, and so did its calls
        except Exception:  # it was given up before it failed: neither agent nor record saw that then
            log.debug("code that was given up failed", exc_info=True)
        raise ExecutionTimeoutError(said)


def own_executor(executor: Any, frame: Frame) -> Any:
    """An executor for one run, with the variables of the given one; None: there can be no second one."""
    if isinstance(executor, RemotePythonExecutor):
        return None
    if isinstance(executor, LocalPythonExecutor):
        own = copy.copy(executor)
        own.state, own.custom_tools = dict(executor.state), dict(executor.custom_tools)
        if type(own) in (LocalPythonExecutor, _RecordedLocalExecutor):
            own.__class__ = _RecordedLocalExecutor
            own.frame = frame
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
    if frame.kept_out:
        whole = {done.number: done for done in frame.finished if done.step_type == "action"}
        for step in steps_of_this_run(ran):
            if step.step_number in whole:
                show_whole(step, whole[step.step_number])
    return going_on


_HARMLESS = {
    "bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "queue", "random", "re", "stat",
    "statistics", "string", "textwrap", "time", "typing", "unicodedata", "zoneinfo",
}  # fmt: skip
"""Modules that compute, and reach neither files nor network nor processes."""


def reaching_imports(agent: MultiStepAgent) -> list[str]:
    """What the code of an agent, and of its members, may import that can reach outside the process."""
    found = {
        name
        for name in (agent.additional_authorized_imports if isinstance(agent, CodeAgent) else ())
        if name.partition(".")[0] not in _HARMLESS
    }
    members = [member for member in agent.managed_agents.values() if isinstance(member, MultiStepAgent)]
    return sorted(found.union(*map(reaching_imports, members)))


def made_of(agent: MultiStepAgent) -> dict[str, Any]:
    """What an agent is made of, as far as its runs depend on it: kind, model, prompts, tools and their code, members.

    Plain, so that two can be compared by `differences`. Code is compared by what Python compiled of it.
    """
    return {
        "python": ".".join(map(str, sys.version_info[:2])),
        "kind": name_of(type(agent)),
        "model": str(getattr(agent.model, "model_id", None) or type(agent.model).__name__),
        "prompts": digest_of(plain([agent.prompt_templates, agent.instructions])),
        "planning_interval": agent.planning_interval,
        "max_steps": agent.max_steps,
        "stream_outputs": bool(getattr(agent, "stream_outputs", False)),
        "tools": {name: _face(tool) for name, tool in agent.tools.items()},
        "code": {name: _code(tool) for name, tool in agent.tools.items()},
        "members": {
            name: made_of(member) if isinstance(member, MultiStepAgent) else _face(member)
            for name, member in agent.managed_agents.items()
        },
        **({"imports": sorted(agent.additional_authorized_imports)} if isinstance(agent, CodeAgent) else {}),
    }


def differences(then: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two plain values, a line each."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for name in [*then, *(n for n in now if n not in then)]:
            inner = f"{where}.{name}" if where else str(name)
            if name not in now:
                found.append(f"{inner} is gone")
            elif name not in then:
                found.append(f"{inner} is new")
            else:
                found += differences(then[name], now[name], inner)
        return found
    if then == now:
        return []
    digests = all(isinstance(value, str) and len(value) == 16 for value in (then, now))
    return [f"{where} changed" if digests else f"{where} was {then!r} and is {now!r}"]


def _face(tool: Any) -> str:
    shown = [getattr(tool, name, None) for name in ("name", "description", "inputs", "output_type")]
    return digest_of(plain(shown))


def _code(tool: Any) -> str:
    """A digest of what Python compiled of a tool's `forward`; of the same Python version only."""
    function = inspect.unwrap(getattr(tool, "forward", None) or type(tool).__call__)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return digest_of(_compiled(code)) if code is not None else ""


def _compiled(code: CodeType) -> list[Any]:
    def constant(value: Any) -> Any:
        if isinstance(value, CodeType):
            return _compiled(value)
        return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

    return [code.co_code.hex(), [constant(value) for value in code.co_consts], list(code.co_names)]
