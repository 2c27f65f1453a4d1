"""A run: a tree of agents under one id, and what they share – journal, past, spending, limits, the wish to stop."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, Literal

from smolagents import ChatMessage

from dionysus.errors import BadInput, LimitReached, ModelError, RunAborted, RunInterrupted
from dionysus.journal.budget import Budget
from dionysus.journal.events import Journal
from dionysus.journal.replaying import Past
from dionysus.journal.secrets import Secrets
from dionysus.stores.contract import DaySpending, Usage

Meter = Callable[[Any, ChatMessage, int], Usage]
"""(model, its answer, characters sent) → usage."""
InFlight = Literal["report", "fail", "retry"]
"""What to do about a call that had begun when the process died, and that may not simply be made again."""
_LOOK_UP_S = 0.05
"""How often a wait looks up whether the run should stop."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends a run before its time."""

    budget: Budget = field(default_factory=Budget)
    """Over the whole run, what it took before it was taken up again included."""
    daily: Budget = field(default_factory=Budget)
    """Over all runs of a UTC day, in all processes that share the store."""
    deadline_s: float | None = None
    """Seconds from now."""
    model_timeout_s: float | None = None
    """Seconds that one model call may take; one that takes longer is left behind."""

    def __post_init__(self) -> None:
        for name in ("deadline_s", "model_timeout_s"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise BadInput(f"{name} {value!r} is not a number of seconds > 0")


class Run:
    """A tree of agents under one id: what they share."""

    def __init__(
        self,
        run_id: str,
        journal: Journal,
        *,
        secrets: Secrets,
        meter: Meter,
        is_priced: Callable[[Any], bool] = lambda model: True,
        past: Past | None = None,
        live: bool = True,
        limits: Limits | None = None,
        in_flight: InFlight = "report",
        owner: object = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            is_priced: Whether the price of a model's calls is known.
            past: What is on record already, and answers instead of models and tools.
            live: False: nothing but the past answers, and nothing is written.
            owner: Who may interrupt it together with its other runs.
        """
        self.id, self.owner = run_id, owner
        self.journal, self.secrets, self.meter = journal, secrets, meter
        self.past = past or Past()
        self.live, self.in_flight = live, in_flight
        self.limits = limits or Limits()
        self.spent = self.past.spent()
        """Over all agents of the run, since it began."""
        self.stop_reason: str | None = None
        """Why the run was asked to stop."""
        self.is_closed = False
        """Its end is on record: what still works in threads of its own writes nothing more."""
        self.lock = threading.Lock()
        self._is_priced, self._timer = is_priced, timer
        self._began = timer()
        self._over: BaseException | None = None

    # -- ending it early -------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Asks the run to end before its next call; safe from a signal handler or another thread."""
        self.stop_reason = reason

    def end(self, signal: BaseException) -> BaseException:
        """Ends the run at once, whichever of its agents sees it first; returns the signal, to be raised."""
        if self._over is None:
            self._over = signal
        return self._over

    @property
    def is_over(self) -> bool:
        """Whether no more calls will be made."""
        return self._over is not None or self.stop_reason is not None

    def check(self) -> None:
        """The safe point before each call.

        Raises:
            RunInterrupted: The run was asked to stop, or is over.
            LimitReached: Its deadline passed.
        """
        if self._over is not None:
            raise self._over
        if self.stop_reason is not None:
            raise RunInterrupted(self.stop_reason)
        deadline = self.limits.deadline_s
        if deadline is not None and self.live and self._timer() - self._began >= deadline:
            raise self.end(LimitReached("interrupted", f"the deadline of {deadline:g} s passed"))

    @property
    def seconds(self) -> float:
        """Time worked, before it was taken up again included."""
        return self.past.seconds + self._timer() - self._began

    def know_secrets_of(self, tool: str, arguments: Any) -> None:
        """A tool is about to be called: the secrets among its arguments are at hand.

        Raises:
            RunAborted: They were met before the run was taken up, and this process does not know them.
        """
        if not self.past.hidden:
            return
        missing = self.secrets.placeholders(arguments, known=False) & self.past.hidden
        if missing:
            cause = BadInput(
                f"the call of {tool} needs {', '.join(sorted(missing))}, which the process that began the run knew and "
                "this one does not: set it in an environment variable whose name ends in KEY, TOKEN, SECRET or "
                "PASSWORD, hand it to Runtime(secrets=…), or give task and inputs again: run(task, run_id=…)"
            )
            raise self.end(RunAborted(cause))

    # -- spending --------------------------------------------------------------------------------------

    def reserve(self, model: Any) -> None:
        """Counts a model call that is about to begin, for the run and for the day. Call it in the transaction that
        writes its beginning: so no other process begins one at the same time.

        Raises:
            LimitReached: A budget is used up; the whole run ends.
            RunAborted: A budget in USD, and the model's price is not known.
        """
        self.check()
        budget, daily = self.limits.budget, self.limits.daily
        if (budget.usd is not None or daily.usd is not None) and not self._is_priced(model):
            name = getattr(model, "model_id", None) or type(model).__name__
            cause = BadInput(
                f"the price of {name!r} is not known, so no budget in USD can be kept; limit tokens or calls"
            )
            raise self.end(RunAborted(cause))
        with self.lock:
            spent = self.spent
            reached = budget.reached(
                calls=spent.model_calls,
                tokens=spent.usage.input_tokens + spent.usage.output_tokens,
                usd=spent.usage.cost_usd or 0.0,
                seconds=self.seconds,
            )
            if reached:
                raise self.end(LimitReached("budget_exhausted", f"the run's budget is used up: {reached}"))
            if not daily.is_unlimited:
                day = self.journal.spent_today()
                reached = daily.reached(calls=day.calls, tokens=day.input_tokens + day.output_tokens, usd=day.cost_usd)
                if reached:
                    raise self.end(LimitReached("budget_exhausted", f"today's budget (UTC) is used up: {reached}"))
            self.journal.spend(DaySpending(calls=1))
            spent.model_calls += 1

    def give_back(self) -> None:
        """The beginning of a call could not be written: it was not made."""
        with self.lock:
            self.spent.model_calls -= 1

    # -- waiting ---------------------------------------------------------------------------------------

    def awaited(self, make: Callable[[], Iterable[Any]]) -> Iterator[Any]:
        """What a model yields. Where the run has limits in time, it works in a thread of its own: one that hangs is
        left behind.

        Raises:
            ModelError: It took longer than a model call may.
            RunInterrupted, LimitReached: As `check`.
        """
        timeout, budget = self.limits.model_timeout_s, self.limits.budget.seconds
        if timeout is None and budget is None and self.limits.deadline_s is None:
            yield from make()
            return
        came: Queue[tuple[str, Any]] = Queue()
        left_behind = False

        def work() -> None:
            try:
                for item in make():
                    came.put(("item", item))
                    if left_behind:
                        return
                came.put(("end", None))
            except BaseException as error:  # noqa: BLE001 – raised again where it is awaited
                came.put(("error", error))

        began = self._timer()
        threading.Thread(target=copy_context().run, args=(work,), daemon=True, name=f"{self.id} model").start()
        try:
            while True:
                self.check()
                if budget is not None and self.seconds >= budget:
                    said = f"the run's budget is used up: {budget:g} seconds, within a model call"
                    raise self.end(LimitReached("budget_exhausted", said))
                if timeout is not None and self._timer() - began >= timeout:
                    raise ModelError(f"the model did not answer within {timeout:g} s; the call was left behind")
                try:
                    kind, value = came.get(timeout=_LOOK_UP_S)
                except Empty:
                    continue
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            left_behind = True
