"""Which runs there are, which of them this process works on, and the frames that they are run in.

A run is opened new (`claim`), taken up (`reopen`), shared from another (`fork`), or only played again (`shadow`); the
recorder runs agents in the frames that these return.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from dionysus.callbacks.see_once import FORM
from dionysus.copying import differences
from dionysus.errors import BadInput, Damaged, NotFound, RunAborted, RunChanged, RunHeld, RunInterrupted
from dionysus.journal import Budget, Frame, InFlight, Journal, Limits, Past, Run
from dionysus.journal.holding import Holder
from dionysus.journal.replaying import RECOVERY, Branch, whole_events
from dionysus.journal.secrets import Secrets
from dionysus.journal.values import digest_of, plain
from dionysus.models.metering import is_priced, measure
from dionysus.stores import Store
from dionysus.stores.contract import Event, RunRecord, Status
from dionysus.traces import Projection

_DRAWN = 4
"""Random ids tried, one of which will be free."""


class Claims:
    """The runs of one store, as one process works on them."""

    def __init__(
        self,
        store: Store,
        *,
        secrets: Secrets,
        clock: Callable[[], datetime],
        budget: Budget,
        daily: Budget,
        traced: bool,
    ) -> None:
        """
        Args:
            budget: Of runs that are given none.
            daily: Of all runs of a UTC day.
            traced: Write execution traces.
        """
        self._store, self._clock, self.secrets = store, clock, secrets
        self._holder = Holder(store.path)
        self._budget, self._daily = budget, daily
        self._journal = Journal(store.records, Projection(store.records) if traced else None, clock)
        self._running: set[Run] = set()

    def close(self) -> None:
        """Gives up the claim on this process's runs."""
        self._holder.release()

    # -- opening ---------------------------------------------------------------------------------------

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
                    request=self.secrets.hide_in_body({**(request or {}), "budget": set_limits.budget.as_plain()}),
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
            _can_be_made_again(run_id, past.made_of)
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
        if at_step:
            _can_be_made_again(run_id, self.beginning(run_id)[1])
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
                    request=self.secrets.hide_in_body(
                        {**request, "budget": chosen.budget.as_plain(), "at_step": at_step}
                    ),
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
        _can_be_made_again(run_id, past.made_of)
        run = Run(run_id, self._journal, secrets=self.secrets, meter=measure, past=past, live=False)
        return Frame(run=run, agent_name=record.agent_name, trace_id=run_id, path=record.agent_name)

    # -- what is on record -----------------------------------------------------------------------------

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

    # -- what runs -------------------------------------------------------------------------------------

    def ended(self, frame: Frame, status: Status) -> None:
        """An agent's run came to its end; where it was not called by another one, so did the run."""
        if frame.parent is None and frame.run.live:
            self._store.records.set_run_status(frame.run.id, status)

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
    def working(self, frame: Frame) -> Iterator[None]:
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


def _can_be_made_again(run_id: str, made_of: Mapping[str, Any]) -> None:
    """
    Raises:
        BadInput: An earlier Dionysus pruned it by other rules, so its prompts would not be the same again.
    """
    then = made_of.get("runtime", {})
    if then.get("pruning", "off") != "off" and then.get("pruning_form") != FORM:
        raise BadInput(
            f"run {run_id!r} was pruned by rules of an earlier version, so its prompts cannot be made again: its "
            "traces and its answer can be read; to do it again, begin anew, or fork it at step 0"
        )
