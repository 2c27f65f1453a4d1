"""Runs agents on the record: their calls, their callbacks, their managed agents, and how they ended.

An agent is never changed. What runs is a shallow copy of it with a wrapped model, wrapped tools, and a recorded
stand-in for each of its managed agents; each call of a managed agent runs a copy of its own, in a frame of its own.
"""

import copy
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

from smolagents import ActionStep, MultiStepAgent, PlanningStep
from smolagents.memory import FinalAnswerStep, ToolCall
from smolagents.monitoring import Monitor
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.utils import AgentMaxStepsError

from dionysus.agents.managed import ManagedAgent, delegate, fresh_agent, is_built
from dionysus.callbacks.audit import Audit
from dionysus.callbacks.basins import basin_activation_callback
from dionysus.callbacks.flow import river_flow_callback
from dionysus.callbacks.iwmt import iwmt_coherence_callback
from dionysus.callbacks.pruning import MemoryPruning, Rule
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.callbacks.tracing import execution_trace_callback
from dionysus.copying import Calls, StepCallbacks, as_it_ended, differences, made_of, own_executor, with_recall
from dionysus.errors import (
    BadInput,
    Damaged,
    DionysusError,
    LimitReached,
    NotFound,
    RecordEnded,
    RunAborted,
    RunChanged,
    RunHeld,
    RunInterrupted,
)
from dionysus.journal import (
    Budget,
    Frame,
    InFlight,
    Journal,
    Limits,
    Past,
    RecordedExecutor,
    Run,
    recorded_model,
    recorded_tool,
)
from dionysus.journal.holding import Holder
from dionysus.journal.replaying import RECOVERY, Branch, whole_events
from dionysus.journal.secrets import Secrets
from dionysus.journal.values import digest_of, plain
from dionysus.memory.basins import Basins
from dionysus.memory.semantic import SemanticMemory
from dionysus.models.metering import is_priced, measure
from dionysus.settings import Settings
from dionysus.stores import Store
from dionysus.stores.contract import Event, RunRecord, Status
from dionysus.traces import Projection

log = logging.getLogger("dionysus")
_DRAWN = 4
"""Random ids tried, one of which will be free."""


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
        store: Store,
        settings: Settings,
        *,
        memory: SemanticMemory,
        basins: Basins,
        secrets: Secrets,
        clock: Callable[[], datetime],
        budget: Budget,
        daily: Budget,
    ) -> None:
        """
        Args:
            budget: Of runs that are given none.
            daily: Of all runs of a UTC day.
        """
        self.callbacks = CallbackRegistry()
        """The user's own, for every agent."""
        self._store, self._settings, self._clock = store, settings, clock
        self._memory, self._basins, self.secrets = memory, basins, secrets
        self._holder = Holder(store.path)
        self._budget, self._daily = budget, daily
        self._journal = Journal(store.records, Projection(store.records) if settings.trace else None, clock)
        self._audit = Audit(settings.audit, clock=clock) if settings.audit else None
        self._running: set[Run] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Gives up the claim on this process's runs."""
        self._holder.release()

    # -- running ---------------------------------------------------------------------------------------

    def new_id(self, name: str, new_suffix: Callable[[], str]) -> str:
        """A run id that is not taken."""
        tried = [f"{name}-{new_suffix()}" for _ in range(_DRAWN)]
        return next((drawn for drawn in tried if self._store.records.run(drawn) is None), tried[0])

    def claim(
        self,
        run_id: str,
        agent_name: str,
        *,
        request: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        in_flight: InFlight = "report",
        owner: object = None,
    ) -> Frame:
        """Opens a run that this process holds; returns its agent's frame.

        Args:
            request: What was asked for, so that the run can be taken up.
            owner: Whose `stop` ends it.

        Raises:
            BadInput: There is a run of that id.
        """
        set_limits = self._limits(limits)
        with self._store.transaction():
            if self._store.records.run(run_id) is not None:
                raise BadInput(f"run {run_id!r} exists; give another run_id")
            self._store.records.save_run(
                RunRecord(
                    run_id=run_id,
                    agent_name=agent_name,
                    status="running",
                    started_at=self._clock(),
                    holder=self._holder.claim(),
                    request=self.secrets.hide_in({**(request or {}), "budget": set_limits.budget.as_plain()}),
                )
            )
            frame = self._top_frame(run_id, agent_name, Past(), set_limits, in_flight, owner)
            self._running.add(frame.run)
        return frame

    def abandon(self, frame: Frame) -> None:
        """A run that was opened is not run after all."""
        self._running.discard(frame.run)
        self._store.records.set_run_status(frame.run.id, "interrupted")

    def reopen(
        self,
        run_id: str,
        *,
        task: str,
        inputs: Mapping[str, Any],
        made_of: Mapping[str, Any],
        accept_changes: bool = False,
        limits: Limits | None = None,
        in_flight: InFlight = "report",
        owner: object = None,
    ) -> Frame:
        """Takes a run up that is not finished; this process holds it from now on. Returns its agent's frame.

        Args:
            task, inputs, made_of: What would go on with it, to be held against what began it.
            accept_changes: Go on whatever differs.
            limits: Without a budget, the run's own one stays.

        Raises:
            NotFound: No such run.
            RunHeld: Another process works on it.
            RunChanged: What would go on is not what began it.
            Damaged: Not all of its journal can be read.
        """
        records = self._store.records
        with self._store.transaction():
            record = self.found(run_id)
            mine = record.holder == self._holder.id and not any(run.id == run_id for run in self._running)
            if record.status == "running" and not mine and self._holder.is_alive(record.holder):
                raise RunHeld(f"run {run_id!r} is under way: {self._holder.in_words(record.holder)} works on it")
            past = self.past(run_id)
            found = self._changes(past, task, inputs, made_of)
            if found and not accept_changes:
                raise RunChanged(run_id, found)
            chosen = self._limits(limits)
            if limits is None or limits.budget.is_unlimited:
                chosen = replace(chosen, budget=Budget(**record.request.get("budget", {})))
            request = {**record.request, "budget": chosen.budget.as_plain()}
            records.save_run(replace(record, status="running", holder=self._holder.claim(), request=request))
            frame = self._top_frame(run_id, record.agent_name, past, chosen, in_flight, owner)
            self._running.add(frame.run)
        return frame

    def fork(
        self,
        run_id: str,
        new_id: str,
        *,
        at_step: int,
        edit: Mapping[str, str],
        made_of: Mapping[str, Any],
        request: Mapping[str, Any],
        limits: Limits | None = None,
        in_flight: InFlight = "report",
        owner: object = None,
    ) -> Frame:
        """Opens a run that shares the first steps of another by reference; returns its agent's frame.

        Args:
            at_step: Actions that are shared.
            edit: `observation` of the last of them, or `plan` that is in force then, in other words.
            made_of: What the agent is made of that goes on.

        Raises:
            NotFound: No such run.
            BadInput: No such step, nothing of that kind to edit, or a run of the new id.
        """
        parent = self.found(run_id)
        branch = Branch(self._store.records, run_id, at_step, edit)
        chosen = self._limits(limits)
        with self._journal.transaction():
            if self._store.records.run(new_id) is not None:
                raise BadInput(f"run {new_id!r} exists; give another id")
            self._store.records.save_run(
                RunRecord(
                    run_id=new_id,
                    agent_name=parent.agent_name,
                    status="running",
                    started_at=self._clock(),
                    holder=self._holder.claim(),
                    request=self.secrets.hide_in({**request, "budget": chosen.budget.as_plain(), "at_step": at_step}),
                    parent=run_id,
                    parent_seq=branch.seq,
                )
            )
            forked = {"trace": new_id, "from": run_id, "at_step": at_step, "made_of": made_of}
            self._journal.append(new_id, "run_forked", parent.agent_name, forked, secrets=self.secrets)
            for edited in branch.edited:
                self._journal.append(
                    new_id, "step_finished", edited.position, {**edited.body, "trace": new_id}, secrets=self.secrets
                )
            frame = self._top_frame(new_id, parent.agent_name, self.past(new_id), chosen, in_flight, owner)
            self._running.add(frame.run)
        return frame

    def shadow(self, run_id: str) -> Frame:
        """The frame of a run that is only played again: nothing but its record answers, and nothing is written.

        Raises:
            NotFound, Damaged: As `reopen`.
        """
        record, past = self.found(run_id), self.past(run_id)
        if not past:
            raise BadInput(f"run {run_id!r} did not begin: there is nothing to replay")
        run = Run(run_id, self._journal, secrets=self.secrets, meter=measure, past=past, live=False)
        return Frame(run=run, agent_name=record.agent_name, trace_id=run_id, path=record.agent_name)

    def found(self, run_id: str) -> RunRecord:
        """The run of that id.

        Raises:
            NotFound: There is none.
        """
        record = self._store.records.run(run_id)
        if record is None:
            raise NotFound("run", run_id, see="`dionysus runs list`")
        return record

    def align(self, past: Past, task: str, inputs: Mapping[str, Any]) -> None:
        """Secrets in a task and inputs that are given again are those that a record from another store has there."""
        if past.top is not None:
            self.secrets.align([past.top.body["task"], past.top.body["inputs"]], [task, plain(inputs)])

    def beginning(self, run_id: str) -> tuple[Event | None, Mapping[str, Any]]:
        """How a run began, and what the agent was made of that went on last; read as far as its journal can be."""
        top, made_of = None, dict[str, Any]()
        with suppress(Damaged):
            for event in whole_events(self._store.records, run_id):
                top = top or (event if event.kind == "run_started" else None)
                made_of = event.body.get("made_of", made_of)
        return top, made_of

    def past(self, run_id: str) -> Past:
        """What is on record of a run.

        Raises:
            Damaged: Not all of it can be read.
        """
        return Past(whole_events(self._store.records, run_id))

    def _top_frame(
        self, run_id: str, name: str, past: Past, limits: Limits, in_flight: InFlight, owner: object
    ) -> Frame:
        run = Run(
            run_id,
            self._journal,
            secrets=self.secrets,
            meter=measure,
            is_priced=is_priced,
            past=past,
            limits=limits,
            in_flight=in_flight,
            owner=owner,
        )
        return Frame(run=run, agent_name=name, trace_id=run_id, path=name)

    def _changes(self, past: Past, task: str, inputs: Mapping[str, Any], made_of: Mapping[str, Any]) -> list[str]:
        """What is not as it was when the run began, a line each."""
        if past.top is None:
            return []
        then = past.top.body
        self.align(past, task, inputs)
        now = self.secrets.hide_in(plain(inputs))
        found = [] if then["task"] == self.secrets.hide(task) else ["the task is another one"]
        if digest_of(then["inputs"]) != digest_of(now):
            found += differences(then["inputs"], now, "inputs")
        return found + differences(past.made_of, made_of)

    def _limits(self, given: Limits | None) -> Limits:
        """The given limits; the settings' budgets where those have none."""
        limits = given or Limits()
        budget = self._budget if limits.budget.is_unlimited else limits.budget
        return replace(limits, budget=budget, daily=self._daily if limits.daily.is_unlimited else limits.daily)

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
            with self.top(frame):
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
        with self.top(frame):
            clone = self.recorded(agent, frame, pruning=pruning)
            with self._on_record(frame, clone, task, inputs, ending):
                steps = type(agent).run(clone, self.secrets.hide(task), stream=True, **frame.as_said(inputs))
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

    def has(self, run_id: str) -> bool:
        """Whether there is a run of that id."""
        return self._store.records.run(run_id) is not None

    def transaction(self) -> AbstractContextManager[None]:
        """Several verbs on the store, all or nothing."""
        return self._store.transaction()

    def stop(self, reason: str, *, of: object = None) -> bool:
        """Asks what runs now to end before its next call; safe from a signal handler. False: nothing runs.

        Args:
            of: Only the runs of this owner.
        """
        running = [run for run in list(self._running) if of is None or run.owner is of]
        for run in running:
            run.stop(reason)
        return bool(running)

    def mark_interrupted(self) -> None:
        """Runs whose process died, and their traces, get the status `interrupted`."""
        records = self._store.records
        for run in records.runs("running"):
            if self._holder.is_alive(run.holder):
                continue
            with self._journal.transaction():
                now = records.run(run.run_id)
                if now is None or (now.status, now.holder) != (run.status, run.holder):
                    continue  # another thread or process saw it first, or took it up
                for trace in records.traces(run_id=run.run_id, status="running", limit=1000):
                    error = "its process ended without finishing it"
                    body = {"trace": trace.id, "status": "interrupted", "output": None, "error": error}
                    self._journal.append(run.run_id, "run_finished", RECOVERY, body, secrets=self.secrets)
                records.set_run_status(run.run_id, "interrupted")
            self._journal.forget(run.run_id)

    def is_held(self, run_id: str) -> bool:
        """Whether the process that works, or worked, on a run still lives."""
        record = self._store.records.run(run_id)
        return record is not None and self._holder.is_alive(record.holder)

    @contextmanager
    def top(self, frame: Frame) -> Iterator[None]:
        """What goes for a run as a whole, beside what goes for each of its agents."""
        self._running.add(frame.run)
        try:
            yield
        except RunAborted as aborted:
            raise aborted.cause from aborted.cause.__cause__
        except RunInterrupted as stop:
            stop.run_id = frame.run.id
            raise
        except BaseException:
            if not frame.started and frame.run.live:  # nothing of it is on record
                self._store.records.set_run_status(frame.run.id, "error")
            raise
        finally:
            self._running.discard(frame.run)
            frame.run.stop("the run is over")  # what still runs in threads of its own ends at its next call …
            frame.run.is_closed = True  # … and writes nothing
            if frame.run.live:
                self._journal.forget(frame.run.id)

    # -- one agent -------------------------------------------------------------------------------------

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
        clone.model = recorded_model(agent.model, frame)
        clone.monitor = Monitor(clone.model, agent.logger)
        tools = dict(agent.tools)
        if rule != "off":
            if isinstance(getattr(agent, "python_executor", None), RemotePythonExecutor):
                raise BadInput(f"{frame.agent_name!r} runs code remotely, out of reach of pruning; leave pruning off")
            tools = with_recall(clone, tools, frame)
        clone.tools = {name: recorded_tool(tool, frame) for name, tool in tools.items()}
        clone.managed_agents = {
            name: ManagedAgent(member.name, member.description, _StandIn(self, member, frame, rule, place))
            for name, member in agent.managed_agents.items()
        }
        if hasattr(agent, "python_executor"):
            clone.python_executor = None if frame.ran_code_as_a_whole else own_executor(agent.python_executor, frame)
            if clone.python_executor is None:
                frame.code_as_a_whole = True
                clone.python_executor = RecordedExecutor(agent.python_executor, frame)
                clone.tools = dict(agent.tools)
        clone.step_callbacks = StepCallbacks(agent, clone, self._callbacks_for(frame, rule, place), frame)
        return clone

    def go(self, frame: Frame, clone: MultiStepAgent, task: str, inputs: Mapping[str, Any], ending: Ending) -> Any:
        """Runs a recorded copy; returns its answer, and fills in how it ended."""
        with self._on_record(frame, clone, task, inputs, ending):
            ending.output = type(clone).run(clone, self.secrets.hide(task), **frame.as_said(inputs))
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
            ending.failure, ending.error = failure, self.secrets.hide(_reason(failure))
            raise
        except BaseException as stop:  # the stream was closed, or the interpreter is on its way out
            ending.status, ending.error = "interrupted", frame.run.stop_reason or type(stop).__name__
            raise
        finally:
            frame.finish(ending.status, output=ending.output, error=ending.error)
            if frame.parent is None and frame.run.live:
                self._store.records.set_run_status(frame.run.id, ending.status)

    def made_of(self, agent: MultiStepAgent, rule: Rule) -> dict[str, Any]:
        """What a run of this agent depends on: the agent, and what the runtime adds to its prompts."""
        on = self._settings
        window = {"memory_window": on.memory_window} if rule == "window" else {}
        ours = {"coherence": on.coherence, "flow": on.flow, "basins": on.basins, "pruning": rule, **window}
        return {"agent": made_of(agent), "runtime": ours}

    def _callbacks_for(self, frame: Frame, rule: Rule, place: str) -> CallbackRegistry:
        """The built-in callbacks that are switched on, then the user's, then the one that seals the step."""
        on = self._settings
        registry = CallbackRegistry()
        if on.coherence:
            registry.register(PlanningStep, partial(iwmt_coherence_callback, warning_below=on.coherence_warning))
        if on.flow:
            registry.register(PlanningStep, river_flow_callback)
        if on.basins:
            registry.register(
                ActionStep,
                partial(basin_activation_callback, memory=self._memory, basins=self._basins, place=place),
            )
        if rule != "off":
            pruning = MemoryPruning(rule, window=on.memory_window or 3)
            registry.register(ActionStep, pruning.memory_pruning_callback)
        if self._audit is not None:
            registry.register(PlanningStep, self._audit.step_callback)
            registry.register(ActionStep, self._audit.step_callback)
            registry.register(ToolCall, self._audit.tool_callback)
        registry.extend(self.callbacks)
        registry.register(PlanningStep, execution_trace_callback, required=True)
        registry.register(ActionStep, execution_trace_callback, required=True)
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
                made = self._recorded(fresh, position, self._parent.member_steps)[0]
                return delegate(made, task, *args, **kwargs)
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
