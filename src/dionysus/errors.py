"""Everything that Dionysus raises on purpose.

DionysusError                 your fault, or the surroundings': one line, and what to do about it
├── BadInput                  a value that cannot be used
│   ├── WatchError            the watched folder cannot be observed
│   ├── NotFound              no run, trace, goal or memory of that id
│   ├── RunHeld               another process works on this run
│   └── RunChanged            what would go on with this run is not what began it
├── StoreError                the store cannot be opened, read or written
│   ├── StoreTooNew           … because a newer Dionysus wrote it
│   ├── Damaged               a journal or cassette can be read only up to some event
│   ├── EntryDamaged          one entry of the store cannot be read; the others can
│   └── GraphError            Neo4j did not do what it was asked
│       ├── GraphDown         … it cannot be reached, or does not answer in time
│       ├── GraphRefused      … it lets us not in, or is not what we need
│       └── DataRefused       … it does not take this data
├── ModelError                a model cannot be opened, or did not answer
├── EmbedderError             what makes vectors of texts failed, or gave what is none
├── MissingExtra              an optional dependency is not installed
├── ToolRefused               raised by a ToolCall callback: this call must not be made
├── CallUncertain             a call may or may not have happened before its process died
├── ReplayDiverged            a run, made again, does something else than what is on record
└── CallbackFailed            a callback that was registered as required raised

RunInterrupted, RunAborted,   signals, not errors: BaseExceptions, so that no agent takes them for
LimitReached, RecordEnded     the failure of a tool and goes on
"""

from typing import Literal


class DionysusError(Exception):
    """Base of all errors a user can mend; `exit_code` is what the command line ends with."""

    exit_code = 1


class BadInput(DionysusError):
    """A value that cannot be used."""

    exit_code = 2


class WatchError(BadInput):
    """The watched folder cannot be observed."""


class NotFound(BadInput):
    """No record of that id."""

    def __init__(self, kind: str, wanted: object, *, see: str) -> None:
        super().__init__(f"no {kind} {wanted!r}; {see} shows what there is")
        self.kind, self.wanted = kind, wanted


class RunHeld(BadInput):
    """Another process works on this run."""


class RunChanged(BadInput):
    """What would go on with a run is not what began it: `differences`, one line each."""

    def __init__(self, run_id: str, differences: list[str]) -> None:
        super().__init__(
            f"run {run_id!r} was begun with something else: {'; '.join(differences)}. Go on with what it was begun "
            "with; or take the changes along (accept_changes=True, --accept-changes: recorded answers count as long as "
            "the prompts stay the same); or fork it where the change should begin"
        )
        self.differences = differences


class StoreError(DionysusError):
    """The store cannot be opened, read or written."""

    exit_code = 3


class StoreTooNew(StoreError):
    """A newer Dionysus wrote this store."""

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            f"the store {where!r} has schema {found}, this Dionysus knows up to {known}; "
            "update dionysus-agents, or name another store with --store"
        )
        self.found, self.known = found, known


class Damaged(StoreError):
    """A journal or cassette can be read only up to some event; nothing of it was changed."""

    def __init__(self, what: str, *, usable: int, steps: int, reason: str, cure: str) -> None:
        super().__init__(f"{what} is damaged after event {usable} (whole steps before that: {steps}): {reason}; {cure}")
        self.usable, self.steps = usable, steps


class EntryDamaged(StoreError):
    """One entry of the store cannot be read; the others can."""


class GraphError(StoreError):
    """Neo4j did not do what it was asked; nothing is lost, for all that it has is in the store, too."""


class GraphDown(GraphError):
    """Neo4j cannot be reached, or does not answer in time: later it may."""


class GraphRefused(GraphError):
    """Neo4j lets us not in, or is not what we need: a person must do something."""


class DataRefused(GraphError):
    """Neo4j does not take this data; it may take other."""


class ModelError(DionysusError):
    """A model cannot be opened, or did not answer."""

    exit_code = 4


class EmbedderError(DionysusError):
    """What makes vectors of texts failed, or gave what is none; memories are kept without, and recalled by their
    words."""

    def __init__(self, embedder: str, what: str) -> None:
        super().__init__(f"the embedder {embedder}: {what}")


class MissingExtra(DionysusError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'dionysus-agents[{extra}]'")
        self.extra = extra


class ToolRefused(DionysusError):
    """Raise it in a ToolCall callback's `before` phase: the call is not made, and the agent is told why."""


class CallUncertain(DionysusError):
    """A call had begun when its process died: it may or may not have happened."""


class ReplayDiverged(DionysusError):
    """A run, made again, does something else than what is on record."""

    def __init__(self, position: str, what: str, *, difference: str = "", lost: list[str] | None = None) -> None:
        parts = [f"{position}: {what}"]
        if lost:
            parts.append(f"the journal cannot hold {', '.join(dict.fromkeys(lost))}; let tools return plain data")
        super().__init__("; ".join(parts) + (f"\n{difference}" if difference else ""))
        self.position, self.what, self.difference = position, what, difference


class CallbackFailed(DionysusError):
    """A callback that was registered as required raised; the run was stopped."""


class RunInterrupted(BaseException):
    """The run was asked to stop and did so at a safe point: all finished calls are recorded, and it can go on."""

    run_id: str | None = None


class RunAborted(BaseException):
    """The run must end now, whatever agent it is in: the journal cannot be written, or a required callback failed.

    Who started the run gets `cause`.
    """

    def __init__(self, cause: DionysusError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class LimitReached(BaseException):
    """A limit that was set for the run was reached; all finished calls are recorded, and the run can be taken up."""

    def __init__(self, status: Literal["budget_exhausted", "interrupted", "incoherent"], reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RecordEnded(BaseException):
    """A replay came to the end of what is on record of a run that did not finish."""
