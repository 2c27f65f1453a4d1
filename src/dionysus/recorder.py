"""Runs agents on the record: their calls, their callbacks, their managed agents, and how they ended.

An agent is never changed. What runs is a shallow copy of it with a wrapped model, wrapped tools, and a recorded
stand-in for each of its managed agents; each call of a managed agent runs a copy of its own, in a frame of its own.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

from smolagents import ActionStep, MultiStepAgent, PlanningStep
from smolagents.memory import FinalAnswerStep, ToolCall
from smolagents.monitoring import Monitor
from smolagents.utils import AgentMaxStepsError

from dionysus.agents.managed import ManagedAgent, delegate, fresh_agent, is_built
from dionysus.assessing import Calibrations
from dionysus.callbacks.audit import Audit
from dionysus.callbacks.basins import basin_activation_callback
from dionysus.callbacks.flow import river_flow_callback
from dionysus.callbacks.iwmt import CoherenceRules, Watched, iwmt_coherence_callback, with_coherence
from dionysus.callbacks.pruning import MemoryPruning
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.callbacks.see_once import FORM, Limits, Rule
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.claims import Claims
from dionysus.copying import Calls, StepCallbacks, as_it_ended, made_of, own_executor, with_recall
from dionysus.errors import BadInput, DionysusError, LimitReached, RecordEnded, RunAborted, RunInterrupted
from dionysus.journal import Frame, RecordedExecutor, as_they_are, recorded_model, recorded_tool
from dionysus.memory.basins import Basins
from dionysus.memory.semantic import SemanticMemory
from dionysus.models.marks import marked
from dionysus.settings import Settings
from dionysus.stores.contract import Status

log = logging.getLogger("dionysus")


@dataclass(kw_only=True)
class Ending:
    """How an agent's run ended."""

    status: Status = "error"
    output: Any = None
    error: str | None = None
    """One line, where it did not succeed."""
    failure: Exception | None = None
    """What it raised."""


class Recorder:
    """What all agents of a runtime run through."""

    def __init__(
        self,
        claims: Claims,
        settings: Settings,
        *,
        memory: SemanticMemory,
        basins: Basins,
        calibrations: Calibrations,
        clock: Callable[[], datetime],
        ask: Callable[[str], str | None] | None = None,
    ) -> None:
        """
        Args:
            ask: Puts a question to a person, and gives the answer.
        """
        self.claims = claims
        self._calibrations, self._ask = calibrations, ask
        self.callbacks = CallbackRegistry()
        """The user's own, for every agent."""
        self._settings, self._memory, self._basins = settings, memory, basins
        self.pruning_limits = settings.pruning_limits
        self._audit = Audit(settings.audit, clock=clock) if settings.audit else None

    def run(
        self,
        frame: Frame,
        agent: MultiStepAgent,
        task: str,
        *,
        pruning: Rule | None = None,
        place: str = "",
        **inputs: Any,
    ) -> Ending:
        """Runs a recorded copy of an agent to its end, whatever that is; a limit that was reached is one, too.

        Args:
            pruning: Default: the settings'.
            place: The watched folder that its memories belong to.
            inputs: Further arguments of its `run()`.

        Raises:
            RunInterrupted: It was asked to stop; all that was finished is on record.
            DionysusError: The record could not be written, or a required callback failed; the run was stopped.
        """
        ending = Ending()
        try:
            with self.claims.working(frame):
                self.go(frame, self.recorded(agent, frame, pruning=pruning, place=place), task, inputs, ending)
        except (LimitReached, RecordEnded):  # said in `ending`
            log.debug("run %s stopped: %s", frame.run.id, ending.error)
        except Exception as failure:
            if failure is not ending.failure:
                raise
            log.debug("run %s failed", frame.run.id, exc_info=True)
        return ending

    def stream(
        self,
        frame: Frame,
        agent: MultiStepAgent,
        task: str,
        ending: Ending,
        *,
        pruning: Rule | None = None,
        **inputs: Any,
    ) -> Iterator[Any]:
        """Like `run`, as a generator of what the agent's `run(stream=True)` yields; `ending` is filled in at its end.

        What the agent raises is raised; a stream that is closed before its end ends the run as interrupted.
        """
        with self.claims.working(frame):
            clone = self.recorded(agent, frame, pruning=pruning)
            with self._on_record(frame, clone, task, inputs, ending):
                steps = type(agent).run(clone, self.claims.secrets.hide(task), stream=True, **frame.as_said(inputs))
                try:
                    while True:
                        frame.goes_on()
                        step = next(steps, None)
                        if step is None:
                            break
                        if isinstance(step, FinalAnswerStep):
                            ending.output = step.output
                        yield step
                except GeneratorExit:
                    frame.run.stop("the stream was closed")
                    _close(steps)
                    raise

    def recorded(
        self, agent: MultiStepAgent, frame: Frame, *, pruning: Rule | None = None, place: str = ""
    ) -> MultiStepAgent:
        """A copy of an agent whose calls go through `frame`."""
        rule = pruning or self._settings.pruning_rule
        if frame.parent is None:
            frame.made_of = self.made_of(agent, rule)
        clone = copy.copy(agent)
        frame.bind(clone)
        clone.memory = copy.copy(agent.memory)
        clone.memory.steps = list(agent.memory.steps)
        clone.state = dict(agent.state)
        dress = marked if self._settings.cache_marks else as_they_are
        clone.model = recorded_model(agent.model, frame, dress=dress)
        clone.monitor = Monitor(clone.model, agent.logger)
        tools = dict(agent.tools)
        if rule != "off":
            tools = with_recall(clone, tools, frame)
            frame.counts = True
        clone.tools = {name: recorded_tool(tool, frame) for name, tool in tools.items()}
        clone.managed_agents = {
            name: ManagedAgent(member.name, member.description, _StandIn(self, member, frame, rule, place))
            for name, member in agent.managed_agents.items()
        }
        if hasattr(agent, "python_executor"):
            clone.python_executor = None if frame.ran_code_as_a_whole else own_executor(agent.python_executor, frame)
            if clone.python_executor is None:
                if rule != "off":
                    raise BadInput(f"{frame.agent_name!r} runs code out of reach of pruning; leave pruning off")
                frame.code_as_a_whole = True
                clone.python_executor = RecordedExecutor(agent.python_executor, frame)
                clone.tools = dict(agent.tools)
        clone.step_callbacks = StepCallbacks(agent, clone, self._callbacks_for(frame, rule, place), frame)
        return clone

    def go(self, frame: Frame, clone: MultiStepAgent, task: str, inputs: Mapping[str, Any], ending: Ending) -> Any:
        """Runs a recorded copy; returns its answer, and fills in how it ended."""
        with self._on_record(frame, clone, task, inputs, ending):
            ending.output = type(clone).run(clone, self.claims.secrets.hide(task), **frame.as_said(inputs))
        return ending.output

    @contextmanager
    def _on_record(
        self, frame: Frame, clone: MultiStepAgent, task: str, inputs: Mapping[str, Any], ending: Ending
    ) -> Iterator[None]:
        """Writes that an agent began, and how it ended."""
        made_of = frame.made_of if frame.parent is None else None
        frame.max_steps = inputs.get("max_steps") or clone.max_steps
        frame.start(task, str(getattr(clone.model, "model_id", "")), inputs, made_of)
        try:
            yield
            last = clone.memory.steps[-1] if clone.memory.steps else None
            ending.status = "success"
            if isinstance(getattr(last, "error", None), AgentMaxStepsError):
                failed = f"; the forced one failed: {frame.model_error}" if frame.model_error else ""
                ending.status = "max_steps"
                ending.error = f"no final answer within {frame.max_steps} actions{failed}"
        except (RunInterrupted, KeyboardInterrupt) as stop:
            ending.status, ending.error = "interrupted", str(stop) or "interrupted"
            raise
        except LimitReached as limit:
            ending.status, ending.error = limit.status, str(limit)
            raise
        except RecordEnded as end:
            ending.status, ending.error = "interrupted", str(end)
            raise
        except RunAborted as aborted:
            ending.error = str(aborted)
            raise
        except Exception as failure:  # whatever ends an agent's run is its error, in the trace and for the caller
            ending.failure, ending.error = failure, self.claims.secrets.hide(_reason(failure))
            raise
        except BaseException as stop:  # the stream was closed, or the interpreter is on its way out
            ending.status, ending.error = "interrupted", frame.run.stop_reason or type(stop).__name__
            raise
        finally:
            frame.finish(ending.status, output=ending.output, error=ending.error)
            self.claims.ended(frame, ending.status)

    def made_of(self, agent: MultiStepAgent, rule: Rule) -> dict[str, Any]:
        """What a run of this agent depends on: the agent, and what the runtime adds to its prompts."""
        on = self._settings
        window = {"memory_window": on.memory_window} if rule == "window" else {}
        usual, limits = asdict(Limits()), asdict(self.pruning_limits)
        cuts = {name: value for name, value in limits.items() if rule != "off" and value != usual[name]}
        form = {"pruning_form": FORM} if rule != "off" else {}
        pruned = {"pruning": rule, **form, **window, **({"pruning_limits": cuts} if cuts else {})}
        rules = {"coherence_rules": asdict(on.coherence_rules)} if on.coherence and on.coherence_rules.act else {}
        ours = {"coherence": on.coherence, "flow": on.flow, "basins": on.basins, **rules, **pruned}
        return {"agent": made_of(agent), "runtime": ours}

    def _callbacks_for(self, frame: Frame, rule: Rule, place: str) -> CallbackRegistry:
        """The built-in callbacks that are switched on, the user's, the one that seals the step, and pruning."""
        on = self._settings
        registry = CallbackRegistry()
        rules = on.coherence_rules
        if on.coherence:
            frame.watched = watched = Watched(self._calibrations.of(frame.agent_name, frame.run.id))
            registry.register(
                PlanningStep, partial(iwmt_coherence_callback, watched=watched, warning_below=rules.warning_below)
            )
        if on.flow:
            registry.register(PlanningStep, river_flow_callback)
        if on.basins:
            registry.register(
                ActionStep,
                partial(basin_activation_callback, memory=self._memory, basins=self._basins, place=place),
            )
        if self._audit is not None:
            registry.register(PlanningStep, self._audit.step_callback)
            registry.register(ActionStep, self._audit.step_callback)
            registry.register(ToolCall, self._audit.tool_callback)
        registry.extend(self.callbacks)
        if on.coherence and rules.act:
            registry.register(ActionStep, CoherenceRules(rules, watched, self._ask).coherence_rules_callback)
        registry.register(PlanningStep, execution_trace_callback, required=True)
        registry.register(ActionStep, execution_trace_callback, required=True)
        if rule != "off":
            pruning = MemoryPruning(rule, window=on.memory_window or 3, limits=self.pruning_limits)
            registry.register(PlanningStep, pruning.plan_callback)
            registry.register(ActionStep, pruning.memory_pruning_callback)
        frame.on_tool = registry.tool_called
        return registry


class _StandIn:
    """What stands behind a managed agent's face: each call runs a recorded copy of it, in a frame of its own."""

    def __init__(self, recorder: Recorder, member: Any, parent: Frame, pruning: Rule, place: str) -> None:
        self._recorder, self._member, self._parent = recorder, member, parent
        self._copy = partial(recorder.recorded, pruning=pruning, place=place)
        self._calls = Calls(member)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The report; a tool call of the manager, which may be refused as any other."""
        named = dict(zip(("task", "additional_args"), args, strict=False)) | kwargs
        member = self._member
        is_agent = isinstance(member, MultiStepAgent) or (isinstance(member, ManagedAgent) and is_built(member))
        return self._parent.tool_call(
            member.name,
            named,
            lambda position: self._answer(position, *args, **kwargs),
            idempotent=is_agent or bool(getattr(member, "idempotent", False)),
            again=is_agent,
        )

    def _answer(self, position: str, task: str, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self._member, ManagedAgent):
            fresh = fresh_agent(self._member)
            if fresh is not None:
                made, frame, _ = self._recorded(fresh, position, self._parent.member_steps)
                return with_coherence(delegate(made, task, *args, **kwargs), made, frame)
        if not isinstance(self._member, MultiStepAgent):  # smolagents takes anything with a name and a call
            return self._member(task, *args, **kwargs)
        with self._calls.one() as agent:
            clone, frame, ending = self._recorded(agent, position, None)
            report = clone(task, *args, **kwargs)
            self._calls.ended(as_it_ended(self._member, frame))
        return f"{report}\n[{self._member.name}: {ending.error}]" if ending.status == "max_steps" else report

    def _recorded(
        self, agent: MultiStepAgent, position: str, most_steps: int | None
    ) -> tuple[MultiStepAgent, Frame, Ending]:
        """A copy whose `run` is on record – each time it is called, as an agent's own `__call__` may do."""
        frame = self._parent.child(self._member.name, position)
        clone = self._copy(agent, frame)
        if most_steps is not None:
            clone.max_steps = min(clone.max_steps, most_steps)
        ending = Ending()
        times = count(1)

        def run(full_task: str, **inputs: Any) -> Any:
            nth = next(times)
            if nth == 1:
                return self._recorder.go(frame, clone, full_task, inputs, ending)
            again = self._parent.child(
                self._member.name, f"{position.rpartition('#')[0]}.{nth}{position[position.rindex('#') :]}"
            )
            other = self._copy(agent, again)
            return self._recorder.go(again, other, full_task, inputs, ending)

        clone.run = run
        return clone, frame, ending


def _close(steps: Any) -> None:
    """Closes smolagents' stream, which answers with a RuntimeError: it yields once more when it is closed."""
    try:
        steps.close()
    except RuntimeError as error:
        if "generator ignored GeneratorExit" not in str(error):
            raise
    except RunInterrupted:  # it came to its next call, and stopped there
        pass


def _reason(failure: BaseException) -> str:
    """What went wrong, in one line: our own error where there is one, else the innermost cause."""
    chain = [failure]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    ours = [error for error in chain if isinstance(error, DionysusError)]
    if ours:
        return " ".join(str(ours[-1]).split())
    return " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())
