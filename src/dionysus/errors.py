"""Everything that Dionysus raises on purpose.

DionysusError                 your fault, or the surroundings': one line, and what to do about it
├── BadInput                  a value that cannot be used
│   ├── WatchError            the watched folder cannot be observed
│   └── NotFound              no trace, goal or memory of that id
├── StoreError                the store cannot be opened, read or written
│   └── StoreTooNew           … because a newer Dionysus wrote it
├── ModelError                a model cannot be opened, or did not answer
├── MissingExtra              an optional dependency is not installed
├── ToolRefused               raised by a ToolCall callback: this call must not be made
└── CallbackFailed            a callback that was registered as required raised

RunInterrupted, RunAborted    signals, not errors: BaseExceptions, so that no agent takes them for
                              the failure of a tool and goes on
"""


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


class ModelError(DionysusError):
    """A model cannot be opened, or did not answer."""

    exit_code = 4


class MissingExtra(DionysusError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'dionysus-agents[{extra}]'")
        self.extra = extra


class ToolRefused(DionysusError):
    """Raise it in a ToolCall callback's `before` phase: the call is not made, and the agent is told why."""


class CallbackFailed(DionysusError):
    """A callback that was registered as required raised; the run was stopped."""


class RunInterrupted(BaseException):
    """The run was asked to stop and did so at a safe point: all finished calls are recorded."""


class RunAborted(BaseException):
    """The run must end now, whatever agent it is in: the journal cannot be written, or a required callback failed.

    Who started the run gets `cause`.
    """

    def __init__(self, cause: DionysusError) -> None:
        super().__init__(str(cause))
        self.cause = cause
