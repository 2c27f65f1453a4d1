"""The records that stores keep – plain frozen data – and what every store of traces can do with them.

Instants are `datetime` in UTC with microseconds. Texts are kept whole; a store keeps equal texts once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")

Status = Literal["running", "success", "max_steps", "error", "interrupted", "budget_exhausted", "incoherent"]
FINISHED: tuple[Status, ...] = ("success", "max_steps")
"""A run of one of these has its answer; any other that no process works on can go on."""
StepType = Literal["planning", "action", "final"]
Per = Literal["agent", "run", "day"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one model call, or a sum over calls."""

    input_tokens: int = 0
    """All prompt tokens, cached ones included."""
    cached_tokens: int = 0
    """Of these, read from the provider's prefix cache."""
    cache_write_tokens: int = 0
    """Of the input tokens, those that were written to that cache, where the provider charges for it."""
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    """None: the price is not known (never shown as zero)."""
    estimated: bool = False
    """The provider reported nothing: counted by us from characters."""
    mended: int = 0
    """Answers that were no valid call as they first came: repaired, or asked for once more."""
    tokens_per_s: float | None = None
    """How fast the answer was written, as the server measured it; of one call, not of a sum."""

    def __add__(self, other: "Usage") -> "Usage":
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=(self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            estimated=self.estimated or other.estimated,
            mended=self.mended + other.mended,
        )


# -- journal ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of the journal."""

    run_id: str
    seq: int
    """1, 2, 3 … within the run, in the order of writing."""
    kind: str
    """One of `dionysus.journal.events`' kinds."""
    position: str
    """Where in the run: agent path, step, kind, name, arguments' digest, how many times before."""
    at: datetime
    digest: str | None = None
    """Of the request, for calls: the same position with the same digest is the same call."""
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run: a tree of agents under one id."""

    run_id: str
    agent_name: str
    status: Status
    started_at: datetime
    holder: str | None = None
    """Which process works on it; its lock file tells whether that process lives."""
    request: dict[str, Any] = field(default_factory=dict)
    """What was asked for, so that it can be taken up again: `verb`, `budget` …"""
    parent: str | None = None
    """The run that it was forked from; its events up to `parent_seq` are its own beginning."""
    parent_seq: int | None = None


@dataclass(frozen=True, kw_only=True)
class CoherenceRecord:
    """What an agent's finished runs of one family of tasks said of how coherent they usually are."""

    agent_name: str
    family: str
    detector: int
    """Which version of the monitor measured them."""
    calibrated_at: datetime
    runs: int
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DaySpending:
    """What model calls took on one UTC day, over all runs and processes."""

    calls: int = 0
    """Begun, whether they were answered or not."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    """Calls whose price is not known; they are not in `cost_usd`."""


# -- traces -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """One call of the model within a step."""

    position: str
    model: str
    started_at: datetime
    completed_at: datetime | None = None
    """None: no answer is on record."""
    usage: Usage = Usage()
    prompt_chars: int = 0
    """Characters of text that were sent."""
    pruned_chars: int = 0
    """Characters that pruning kept out of this prompt."""
    counted_by: str = ""
    """What we counted of the prompt: `tekken`, `characters`; empty: nothing."""
    counted: int = 0
    """Its length."""
    counted_pruned: int = 0
    """The same of what pruning kept out."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """One tool call within a step."""

    position: str
    name: str
    arguments: Any
    started_at: datetime
    completed_at: datetime | None = None
    """None: started and not (yet) finished."""
    result: Any = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class CallbackFailure:
    """A callback that raised; the run went on."""

    callback: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What later prompts show in place of a step's observation."""

    before_step: int
    """The first action whose prompt shows the stub."""
    stub: str
    """All stubs of the step, one below the other."""
    chars_saved: int
    stubs: dict[str, str] = field(default_factory=dict)
    """By part: `observation`, `thought`, `error`; empty in old records, which have only observations cut."""


@dataclass(frozen=True, kw_only=True)
class AgentExecutionStep:
    """One step of an agent's run: a plan, an action, or the forced answer after the last allowed step."""

    id: str
    trace_id: str
    order: int
    """1, 2, 3 … over plans and actions together."""
    step_number: int
    """smolagents' number of the action; a plan has the number of the action that it precedes."""
    step_type: StepType
    started_at: datetime
    completed_at: datetime | None = None
    """None: the run ended or was killed within this step."""
    plan: str | None = None
    thought: str | None = None
    tool_calls: tuple[ToolUse, ...] = ()
    observation: str | None = None
    error: str | None = None
    model_calls: tuple[ModelCall, ...] = ()
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    coherence: float | None = None
    """In [0, 1]; None where nothing was assessed."""
    pruned: Pruned | None = None
    callback_failures: tuple[CallbackFailure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BasinLink:
    """ACTIVATED_BASIN: a basin that a step of a trace activated."""

    basin_id: int
    name: str
    strength: float
    """In [0, 1]: the activation after the step."""
    at_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class CreatedMemory:
    """CREATED_MEMORY: a memory that a step of a run kept."""

    memory_id: int
    source: str
    at_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class RecalledMemory:
    """RECALLED: a memory that a tool of a step brought back."""

    memory_id: int
    source: str
    score: float
    """Above 0; comparable within one query only."""
    at_step: int


@dataclass(frozen=True, kw_only=True)
class AgentExecutionTrace:
    """The log of one agent's run (not a trajectory in a state space; see docs/TERMINOLOGY.md)."""

    id: str
    agent_name: str
    run_id: str
    status: Status
    started_at: datetime
    completed_at: datetime | None = None
    task: str | None = None
    model: str | None = None
    summary: str | None = None
    """The final answer."""
    success: bool | None = None
    error_message: str | None = None
    step_count: int = 0
    planning_count: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    usage_estimated: bool = False
    mended_calls: int = 0
    """Answers that were no valid call as they first came; see `Usage`."""
    tokens_saved: int = 0
    """What pruning saved, estimated: our count of what it kept out × how many of the provider's tokens one of ours
    stands for in this run (`dionysus.counting.Calibration`)."""
    coherence_min: float | None = None
    parent_trace_id: str | None = None
    """DELEGATED_FROM: the trace of the agent that handed this work on."""
    parent_step: int | None = None
    forked_from: str | None = None
    """The run whose first steps this one shares."""


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """Token statistics over many traces: of one agent, one run, one day, or of all."""

    agent_name: str | None = None
    """None: all agents together."""
    run_id: str | None = None
    """Of a sum over the agents of one run."""
    day: str | None = None
    """Of a sum over what began on one UTC day: `2026-11-21`."""
    newest: datetime | None = None
    """When the newest of the traces began."""
    traces: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    """All prompt tokens, cached ones included."""
    cached_tokens: int = 0
    """Of these, read from the provider's prefix cache."""
    cache_write_tokens: int = 0
    """Of the input tokens, those that were written to that cache, where the provider charges for it."""
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    """None: the price of some of it is not known."""
    tokens_saved: int = 0
    """Input tokens that pruning saved, estimated; see `AgentExecutionTrace`."""
    unpriced: int = 0
    """Traces with calls whose price is not known."""
    estimated: int = 0
    """Traces with calls whose tokens were counted by us, because the provider reported none."""


# -- mind ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A text with where it comes from."""

    id: int
    kind: str
    """`beat`, `note`, `commit`, `fact`, `principle` …"""
    text: str
    at: datetime
    source: str
    """Where it comes from, unique in its place: `commit 1a2b3c4d`, `note 3`."""
    place: str = ""
    """The watched folder it belongs to; empty: everywhere."""
    basin_id: int | None = None
    run_id: str | None = None
    step: int | None = None
    actor: str = ""
    """Who says it, or whose it is: a person, an agent; empty: nobody in particular."""
    tags: tuple[str, ...] = ()
    turn: int | None = None
    """Its place in the course of a session, from 0; None: it stands alone."""


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """A memory to be kept; fields as in `Memory`."""

    kind: str
    text: str
    at: datetime
    source: str
    place: str = ""
    basin_id: int | None = None
    run_id: str | None = None
    step: int | None = None
    actor: str = ""
    tags: tuple[str, ...] = ()
    in_turn: bool = False
    """It follows the last one of its basin: who finds one of them may find the other."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which memories count; what is left empty lets all pass."""

    kinds: tuple[str, ...] = ()
    place: str | None = None
    """Of this place, or of none."""
    actors: tuple[str, ...] = ()
    """In any case."""
    run_id: str | None = None
    tags: tuple[str, ...] = ()
    """All of them."""
    since: datetime | None = None
    until: datetime | None = None
    """Before it."""
    without: frozenset[str] = frozenset()
    """Sources to leave out."""

    @property
    def lets_all_pass(self) -> bool:
        """Whether nothing is left out."""
        return self == Filter()


@dataclass(frozen=True, kw_only=True)
class Basin:
    """An attractor basin: the memories of one episode."""

    id: int
    name: str
    place: str
    opened_at: datetime
    closed_at: datetime | None = None
    activation: float = 0.0
    """In [0, 1) at `activated_at`; decays from then on."""
    habituation: float = 1.0
    """In (0, 1]: how strongly the next drive still acts."""
    activated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class CoActivation:
    """Two basins that were active together."""

    a: int
    b: int
    """a < b."""
    weight: float
    """In [0, 1) at `at`; it decays from then on."""
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a person told."""

    id: int
    text: str
    at: datetime
    read_in: int | None = None
    """The beat that took it up."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An aim, with the progress noted so far."""

    id: int
    text: str
    status: Literal["open", "done", "dropped"]
    created_at: datetime
    due_at: datetime | None = None
    progress: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MentalModel:
    """A belief with a prediction, and how often it held."""

    id: int
    place: str
    kind: Literal["together", "cadence"]
    subject: str
    """together: the path whose change predicts; cadence: the commit that was newest."""
    prediction: str
    """together: the path that should change too; cadence: empty."""
    held: int
    failed: int
    deadline_at: datetime | None = None
    settled: bool = False

    @property
    def is_contradicted(self) -> bool:
        """It failed three times at least, and more often than it held."""
        return self.failed >= 3 and self.failed > self.held


@dataclass(frozen=True, kw_only=True)
class Beat:
    """One heartbeat over one folder."""

    number: int
    place: str
    """The watched folder, absolute."""
    status: Literal["running", "done", "idle", "failed", "interrupted"]
    started_at: datetime
    run_id: str | None = None
    reasons: tuple[str, ...] = ()
    report: str = ""
    next_action: str | None = None
    snapshot: dict[str, Any] | None = None
    """What the folder looked like; only beats that were carried through have one."""


# -- stores of traces ---------------------------------------------------------------------------------


class TraceStore(Protocol):
    """The verbs on traces that every backend has. All raise `StoreError` where the backend fails."""

    def atomically(self, work: Callable[[], T]) -> T:
        """What `work` does with these verbs, all or nothing; called again where others were in the way."""

    def add_trace(self, trace: AgentExecutionTrace) -> bool:
        """Adds a trace; False: there is one of that id."""

    def save_trace(self, trace: AgentExecutionTrace) -> None:
        """Adds a trace, or replaces the one of that id."""

    def trace(self, trace_id: str) -> AgentExecutionTrace | None:
        """The trace of that id."""

    def trace_ids(self, prefix: str) -> list[str]:
        """Ids that begin so, newest first, at most 20."""

    def traces(
        self,
        *,
        agent_name: str | None = None,
        status: Status | None = None,
        success: bool | None = None,
        run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: tuple[datetime, str] | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 20,
    ) -> list[AgentExecutionTrace]:
        """Traces, newest first; those of one instant by id, downwards.

        Args:
            since, until: When they began: at the first or later, before the second.
            before: (started_at, id) of a trace: only what comes behind it in this order.
            after: The same: only what comes ahead of it, and the nearest of that.
        """

    def save_step(self, step: AgentExecutionStep) -> None:
        """Adds a step to a trace that there is (HAS_STEP), or replaces the one at its place."""

    def step(self, step_id: str) -> AgentExecutionStep | None:
        """The step of that id."""

    def steps(self, trace_id: str, *, after: int = 0, limit: int = -1) -> list[AgentExecutionStep]:
        """A trace's steps in order: those behind an order, at most so many; -1: all."""

    def next_order(self, trace_id: str) -> int:
        """The order of the step that comes next; within `atomically` nobody else gets it."""

    def save_basin_link(self, trace_id: str, basin_id: int, strength: float, at_step: int | None) -> None:
        """A step of a trace that there is activated a basin (ACTIVATED_BASIN); once for each step."""

    def basin_links(self, trace_id: str) -> list[BasinLink]:
        """The basins that a trace activated, in order of steps, strongest first."""

    def save_recall(self, trace_id: str, memory_id: int, score: float, at_step: int) -> None:
        """A tool of a step of a trace that there is brought a memory back (RECALLED); once for each step."""

    def recalled_memories(self, trace_id: str) -> list[RecalledMemory]:
        """The memories that a trace recalled, in order of steps, best first."""

    def created_memories(self, run_id: str) -> list[CreatedMemory]:
        """The memories that a run kept (CREATED_MEMORY), in order of steps."""

    def token_usage(
        self,
        *,
        by: Per = "agent",
        agent_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = -1,
    ) -> list[TokenUsage]:
        """Sums over traces that do not run: per agent, by name, or per run or UTC day, newest first. A sum with an
        unknown price has no price."""


ChangeKind = Literal["trace", "step", "activation", "recall", "basin", "memory"]
CHANGE_KINDS: tuple[ChangeKind, ...] = ("trace", "step", "activation", "recall", "basin", "memory")


@dataclass(frozen=True, kw_only=True)
class Edge:
    """ACTIVATED_BASIN or RECALLED, from a trace to the basin or memory of that number."""

    trace_id: str
    number: int
    weight: float
    """Strength, or score."""
    at_step: int | None


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Changes of a store on their way to a graph, with all that they hang on: whole by itself."""

    traces: tuple[AgentExecutionTrace, ...] = ()
    steps: tuple[AgentExecutionStep, ...] = ()
    basins: tuple[Basin, ...] = ()
    memories: tuple[Memory, ...] = ()
    activations: tuple[Edge, ...] = ()
    recalls: tuple[Edge, ...] = ()
    forgotten: tuple[int, ...] = ()
    """Memories that are no longer there."""
    dissolved: tuple[int, ...] = ()
    """Basins that are no longer there."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A change that a graph did not take."""

    kind: ChangeKind
    key: str
    reason: str
    refused_at: datetime


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """How far a store's changes have come on their way to a graph."""

    target: str
    """URI and database, without user and password."""
    waiting: dict[ChangeKind, int]
    """Changes that the graph lacks, by kind."""
    shipped: int
    """Changes that it has."""
    refusals: int = 0
    """Changes that it did not take."""
    refused: tuple[Refusal, ...] = ()
    """The first of them, 1,000 at most."""
    shipped_at: datetime | None = None
    """When the last ones came through; None: none did."""
    failure: str | None = None
    """Why the last attempt failed; None: it went well."""
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    """No process tries again before that."""
