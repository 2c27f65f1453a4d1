"""The composition root: opens store and model, builds the services, and has the verbs."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

from smolagents import Model, MultiStepAgent, ToolCallingAgent

from dionysus.agents.tools import Senses
from dionysus.assessing import Assessment, Calibrations, assessed
from dionysus.attached import Attached, RecordedRun, RecordedStream
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.callbacks.see_once import Rule
from dionysus.claims import Claims
from dionysus.copying import reaching_imports
from dionysus.cycles import Means
from dionysus.errors import BadInput
from dionysus.heart import BeatReport, Heart, Waking
from dionysus.journal import Budget, InFlight, Limits
from dionysus.journal.secrets import SHORTEST, Secrets, key_beside, named_secrets
from dionysus.mcp_tools import McpServers
from dionysus.memory.basins import Basins
from dionysus.memory.consolidation import Consolidation
from dionysus.memory.goals import Goals
from dionysus.memory.landscape import Landscape
from dionysus.memory.semantic import SemanticMemory, Told
from dionysus.models import open_model
from dionysus.ooda import Answer, Mind
from dionysus.recorder import Recorder
from dionysus.runs import Runs, RunSummary
from dionysus.settings import Settings, load_settings
from dionysus.shipping import Shipper
from dionysus.stores import open_store
from dionysus.stores.contract import FINISHED, RunRecord
from dionysus.stores.neo4j import Graph, GraphTraces
from dionysus.traces import ExecutionTraceService
from dionysus.traces.lineage import Lineage
from dionysus.watching import Watch

if TYPE_CHECKING:
    from dionysus.memory.embeddings import Embedder

log = logging.getLogger("dionysus")
_NOTE_CHARS = 100_000
_NO_NEO4J = "there is no Neo4j in the settings; set NEO4J_URI, NEO4J_USERNAME and NEO4J_PASSWORD"
_AT_ONCE = ("reflex", "scripted")
"""Models that answer at once: nothing is to be waited for."""


class Runtime:
    """Everything one process needs to run agents on the record; a context manager."""

    def __init__(
        self,
        store: str | None = None,
        model: str | Any | None = None,
        *,
        settings: Settings | None = None,
        secrets: Iterable[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_suffix: Callable[[], str] = lambda: token_hex(3),
        warn: Callable[[str], None] = log.warning,
        ask_person: Callable[[str], str | None] | None = None,
    ) -> None:
        """
        Args:
            store: A store's URL; default: the settings'.
            model: A model's spec, or a smolagents `Model`; default: the settings'.
            settings: Default: from the environment.
            secrets: Texts that must reach neither prompts nor store; those in environment variables that are named
                like secrets, and well-known kinds, are known anyway.
            clock: The time, in UTC.
            new_suffix: What makes run ids unique across stores.
            warn: Told what a person should know: that traces cannot be shipped.
            ask_person: Asked, with the setting `incoherent` on `ask`, what to do about a run that has been incoherent:
                what it gives is told to the agent, an empty text lets it go on, None stops the run.

        Raises:
            DionysusError: Store or model cannot be opened.
        """
        self.settings = settings or load_settings()
        self.clock = clock
        self._given_model = model if model is not None else self.settings.model
        self._model_was_chosen = model is not None or "model" in self.settings.model_fields_set
        self._waits = not (isinstance(self._given_model, str) and self._given_model.partition(":")[0] in _AT_ONCE)
        self._model: Any = None
        self._key = self.settings.api_key.get_secret_value() if self.settings.api_key else None
        key = [self._key] if self._key and len(self._key) >= SHORTEST else []  # shorter ones hit ordinary words
        password = self.settings.neo4j_password.get_secret_value()
        key += [password] if len(password) >= SHORTEST else []
        known = [*named_secrets(os.environ), *key, *secrets]
        self._new_suffix = new_suffix
        self._shipper: Shipper | None = None
        self._store = open_store(store or self.settings.store)
        try:
            self._secrets = Secrets(known, key=key_beside(self._store.path), pattern=self.settings.secret_pattern)
            self._build(clock, new_suffix, warn, ask_person)
        except BaseException:
            self._let_go()
            raise

    def _build(
        self,
        clock: Callable[[], datetime],
        new_suffix: Callable[[], str],
        warn: Callable[[str], None],
        ask_person: Callable[[str], str | None] | None,
    ) -> None:
        """The services over the store, and the rooms over them."""
        if self.settings.neo4j_uri is not None:
            self._shipper = Shipper(
                self._store, graph_of(self.settings), drain_s=self.settings.neo4j_drain_s, warn=warn
            )
        mind, hide = self._store.mind, self._secrets.hide
        self.traces = ExecutionTraceService(self._store.records, clock=clock, journal=self._store.records)
        self.served_traces = self._served_traces()
        """What `/api/agents` answers from."""
        self.runs = Runs(self._store, self.traces, secrets=self._secrets, clock=clock)
        self.basins = Basins(mind, self._store.memories, clock=clock)
        self.memory = SemanticMemory(
            self._store.memories,
            self.basins,
            clock=clock,
            hide=hide,
            open_embedder=self._open_embedder,
            by_activation=self.settings.recall_by_activation,
        )
        self.landscape = Landscape(mind, self._store.memories, self.basins, clock=clock)
        self.consolidation = Consolidation(
            mind, self._store.memories, self.memory, keep_for=self.settings.kept_for, clock=clock
        )
        self.goals = Goals(mind, clock=clock, hide=hide)
        on = self.settings
        self._claims = Claims(
            self._store,
            secrets=self._secrets,
            clock=clock,
            budget=_budget("DIONYSUS_BUDGET", on.budget),
            daily=_budget("DIONYSUS_DAILY_BUDGET", on.daily_budget),
            traced=on.trace,
        )
        self.coherence = Calibrations(self._store, self.traces, clock=clock)
        self._recorder = Recorder(
            self._claims,
            on,
            memory=self.memory,
            basins=self.basins,
            calibrations=self.coherence,
            clock=clock,
            ask=ask_person,
        )
        self._watch = Watch(
            self._store,
            memory=self.memory,
            basins=self.basins,
            goals=self.goals,
            own_files=self._own_files(),
            clock=clock,
            rewords=on.recall_reworded,
        )
        servers = [line for line in on.mcp_servers.splitlines() if line.strip()]
        self._servers = McpServers(servers, timeout_s=on.mcp_timeout_s)
        means = Means(
            store=self._store,
            recorder=self._recorder,
            watch=self._watch,
            planning=on.planning,
            beat_steps=on.beat_steps,
            pruning=on.pruning_rule,
            limits=Limits(model_timeout_s=on.model_timeout_s if self._waits else None),
            in_flight=on.in_flight,
            servers=self._servers,
            clock=clock,
            new_suffix=new_suffix,
        )
        self._mind = Mind(means)
        self._heart = Heart(
            means,
            memory=self.memory,
            consolidation=self.consolidation,
            coherence=self.coherence,
            goals=self.goals,
            hide=hide,
        )
        self._cycles: dict[str, Heart | Mind] = {cycle.verb: cycle for cycle in (self._heart, self._mind)}
        self.mark_interrupted()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ships what is left, for a bounded time; lets go of servers, store and locks."""
        self._servers.close()
        self._claims.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._shipper is not None:
            self._shipper.close()
        self._store.close()

    def _served_traces(self) -> ExecutionTraceService:
        if self.settings.traces_from == "store":
            return self.traces
        shipped = GraphTraces(self.shipper.graph, store_id=self._store.outbox.store_id)
        return ExecutionTraceService(shipped, clock=self.clock, journal=self._store.records)

    @property
    def shipper(self) -> Shipper:
        """What brings traces to Neo4j.

        Raises:
            BadInput: There is no Neo4j in the settings.
        """
        if self._shipper is None:
            raise BadInput(_NO_NEO4J)
        return self._shipper

    @property
    def lineage(self) -> Lineage:
        """Questions to the graph in Neo4j.

        Raises:
            BadInput: There is no Neo4j in the settings.
        """
        return Lineage(self.shipper.graph, store_id=self._store.outbox.store_id)

    @property
    def store_path(self) -> Path | None:
        """The store's file; None: it is in memory."""
        return self._store.path

    @property
    def callbacks(self) -> CallbackRegistry:
        """Your own callbacks, fired for every agent after the built-in ones and before the trace is sealed."""
        return self._recorder.callbacks

    @property
    def model(self) -> Any:
        """The model that agents think with, opened at first use."""
        if self._model is None:
            self._model = self._opened(self._given_model)
        return self._model

    def _opened(self, model: Any) -> Any:
        if not isinstance(model, str):
            return model
        on = self.settings
        return open_model(
            model,
            api_base=on.api_base,
            api_key=self._key,
            timeout_s=on.model_timeout_s,
            tool_calls=on.tool_calls,
            max_tokens=on.max_tokens,
            context=on.context,
            threads=on.threads,
        )

    def beat(
        self, watch: str | Path = ".", *, git: bool = True, on_wake: Callable[[Waking], None] | None = None
    ) -> BeatReport:
        """One heartbeat over a folder: what changed, what it recalls, what to do next.

        Looks first, without any model; where nothing happened the beat is idle and costs nothing.

        Args:
            git: False: watch it as a plain folder.
            on_wake: Told when there is something to do.

        Raises:
            WatchError: The folder cannot be observed.
            DionysusError: The store, or the model.
        """
        return self._heart.beat(Path(watch), self.model, git=git, on_wake=on_wake)

    def ask(
        self,
        question: str,
        watch: str | Path = ".",
        *,
        git: bool = True,
        on_start: Callable[[str, str], None] | None = None,
    ) -> Answer:
        """One OODA cycle: a manager hands the question to perception, reasoning and metacognition, and answers.

        The manager writes Python that smolagents' local executor runs in this process; that is no sandbox.

        Args:
            watch: The folder that the question is about.
            git: False: take it as a plain folder.
            on_start: Told folder and model before the manager runs.

        Raises:
            BadInput: The question is empty, too long, or not text.
            WatchError: The folder cannot be observed.
            DionysusError: The store, or the model.
        """
        asked = checked_text("question", question)
        return self._mind.ask(asked, Path(watch), self.model, git=git, on_start=on_start)

    @contextmanager
    def senses(self, watch: str | Path = ".", *, git: bool = True) -> Iterator[Senses]:
        """What the agents' tools work with, over a folder.

        `PerceptionAgent(PerceptionAgent.tools_over(senses), runtime.model)` is an agent that runs alone.

        Raises:
            WatchError: The folder cannot be observed.
        """
        senses = self._watch.senses(self._watch.look(Path(watch), git=git), f"look-{self._new_suffix()}")
        try:
            yield senses
        finally:
            self._watch.close(senses)

    def attach(
        self,
        agent: MultiStepAgent,
        *,
        pruning: Rule = "off",
        budget: Budget | None = None,
        in_flight: InFlight | None = None,
        model_timeout_s: float | None = None,
        family: str = "",
    ) -> Attached:
        """Any smolagents agent, with its managed agents, on the record: `attach(agent).run(task)`.

        The agent is left as it was. Its runs carry the built-in callbacks and those of `callbacks`. What is promised
        for them – no finished call is made again – goes for calls of models and tools. The code of a `CodeAgent` does
        run again when its run is taken up: what its authorised imports do outside the process happens again, and a
        warning names those that can reach outside.

        Args:
            pruning: `see-once` or `window` shortens what was seen; this adds a tool `recall_observation`. `off`:
                each result says what see-once would have saved.
            budget: Of each run; default: the settings'.
            in_flight: What to do about a tool call that had begun when the process died, where the tool does not say
                that it is `idempotent`: `report` it to the agent, `fail`, or `retry` it. Default: the settings'.
            model_timeout_s: Seconds after which a model call is left behind; default: as long as the model takes.
            family: Which kind of task it is for: coherence is calibrated by the agent's runs of that kind.

        Raises:
            BadInput: Not a smolagents agent, or no such rule.
        """
        if not isinstance(agent, MultiStepAgent):
            raise BadInput(f"cannot attach {type(agent).__name__}: it is no smolagents MultiStepAgent")
        for what, value, kinds in (("pruning", pruning, Rule), ("in_flight", in_flight, InFlight)):
            if value is not None and value not in get_args(kinds):
                raise BadInput(f"{what} {value!r} is not one of {', '.join(get_args(kinds))}")
        reaching = reaching_imports(agent)
        if reaching:
            log.warning(
                "code of %s may import %s, which can reach outside the process; when a run is resumed that code runs "
                "again, and only calls of tools are not repeated",
                agent.name or type(agent).__name__,
                ", ".join(reaching),
            )
        return Attached(
            agent,
            self._recorder,
            pruning=pruning,
            limits=Limits(budget=budget or Budget(), model_timeout_s=model_timeout_s),
            in_flight=in_flight or self.settings.in_flight,
            new_suffix=self._new_suffix,
            request={"verb": "attached", **({"family": family} if family else {})},
        )

    def assess(self, run_id: str | None = None) -> Assessment:
        """How coherent a run is, or was; default: the newest.

        Raises:
            NotFound: No such run.
            BadInput: There is no run yet.
        """
        self.mark_interrupted()
        return assessed(self.traces, self.coherence, run_id)

    # -- runs ------------------------------------------------------------------------------------------

    def resume(
        self,
        run_id: str,
        agent: MultiStepAgent | None = None,
        *,
        budget: Budget | None = None,
        deadline_s: float | None = None,
        in_flight: InFlight | None = None,
        accept_changes: bool = False,
        on_wake: Callable[[Waking], None] | None = None,
        on_start: Callable[[str, str], None] | None = None,
    ) -> Any:
        """Goes on with a run that did not finish, where it stopped: no finished call is made again.

        Args:
            agent: For runs of your own agents: the agent, as it was.
            budget: For the whole run, what it took so far included; default: the one that it had.
            deadline_s: Seconds from now.
            in_flight: See `attach`.
            accept_changes: Go on although agent, model or settings are not what they were.
            on_wake, on_start: See `beat` and `ask`.

        Returns:
            What the run's own verb returns: a `BeatReport`, an `Answer`, or a `RecordedRun`; the latter of a run that
            had finished, too.

        Raises:
            NotFound: No such run.
            BadInput: It needs an agent.
            RunHeld: Another process works on it.
            RunChanged: What would go on is not what began it; with each difference.
            ReplayDiverged: Made again up to where it stopped, the run does not do what is on record.
        """
        record = self.runs.found(run_id)
        cycle = self._cycles.get(str(record.request.get("verb")))
        policy = in_flight or self.settings.in_flight
        origin = self._cycles.get(_base_verb(record))
        if agent is None and cycle is None and origin is not None and record.status not in FINISHED:
            return origin.resume_fork(
                record,
                self._model_for(record),
                budget=budget,
                deadline_s=deadline_s,
                accept_changes=accept_changes,
            )
        if agent is not None or cycle is None or record.status in FINISHED:
            if agent is None and record.status in FINISHED:
                agent = ToolCallingAgent(tools=[], model=Model())  # stands there only: the answer is on record
            attached = self._attached_for(record, agent, in_flight=policy)
            done: RecordedRun = attached.resume(
                record.run_id, budget=budget, deadline_s=deadline_s, accept_changes=accept_changes
            )
            return done
        limits = Limits(
            budget=budget or Budget(),
            deadline_s=deadline_s,
            model_timeout_s=self.settings.model_timeout_s if self._waits else None,
        )
        model = self._model_for(record)
        if isinstance(cycle, Heart):
            return cycle.resume(record, model, limits=limits, accept_changes=accept_changes, on_wake=on_wake)
        return cycle.resume(record, model, limits=limits, accept_changes=accept_changes, on_start=on_start)

    def replay(self, run_id: str, agent: MultiStepAgent | None = None) -> RecordedRun:
        """Plays a run again from its record alone – no model, no tool, no clock – and checks that it does the same.

        So a changed agent, prompt or callback is tested against what really happened. Code that an agent wrote does
        run again.

        Args:
            agent: For runs of your own agents: the agent.

        Raises:
            NotFound: No such run.
            BadInput: It needs an agent.
            ReplayDiverged: It does something else; with the position and the first difference.
        """
        record = self.runs.found(run_id)
        cycle = self._cycles.get(_base_verb(record))
        if agent is None and cycle is not None:
            return cycle.replay(record)
        return self._attached_for(record, agent).replay(record.run_id)

    def fork(
        self,
        run_id: str,
        agent: MultiStepAgent | None = None,
        *,
        at_step: int,
        model: Any = None,
        edit: Mapping[str, str] | None = None,
        new_id: str | None = None,
        budget: Budget | None = None,
        deadline_s: float | None = None,
    ) -> RecordedRun:
        """A new run that shares the first steps of another by reference, then goes on live: its tools act.

        Args:
            agent: For runs of your own agents: the agent.
            at_step: Actions that are shared; 0: only the task.
            model: A spec, or a smolagents `Model`, to go on with; default: the run's.
            edit: `{"observation": text}` for the last shared action, `{"plan": text}` for the plan in force then.
            new_id: The new run's id; default: made from the old one's.

        Raises:
            NotFound: No such run.
            BadInput: It needs an agent; no such step, or nothing of that kind to edit.
        """
        record = self.runs.found(run_id)
        cycle = self._cycles.get(_base_verb(record))
        options: dict[str, Any] = {"at_step": at_step, "edit": edit, "budget": budget, "deadline_s": deadline_s}
        options["new_id"] = new_id or f"{record.run_id.partition('~')[0]}~{self._new_suffix()}"
        other = self._opened(model)
        if agent is None and cycle is not None:
            return cycle.fork(record, self._model_for(record) if other is None else other, **options)
        return self._attached_for(record, agent).fork(record.run_id, model=other, **options)

    def import_run(self, path: str | Path, *, as_id: str | None = None, partial: bool = False) -> str:
        """Takes a run in from a cassette that `runs.export` wrote; returns its id.

        Args:
            as_id: Under which id; default: the one it had.
            partial: Take in what is whole of a damaged cassette, as a run that was interrupted.

        Raises:
            BadInput: It is no cassette, or there is a run of that id.
            Damaged: Not all of it is whole; nothing was taken in.
        """
        record = self.runs.import_(Path(path), as_id=as_id, partial=partial)
        self._claims.mark_interrupted()
        return record.run_id

    def _attached_for(
        self, record: RunRecord, agent: MultiStepAgent | None, *, in_flight: InFlight | None = None
    ) -> Attached:
        """The agent of a run, attached as it was then."""
        if agent is None:
            raise BadInput(
                f"run {record.run_id!r} is one of an agent of yours: hand it over (agent=…, --agent MODULE:NAME)"
            )
        rule = self._claims.beginning(record.run_id)[1].get("runtime", {}).get("pruning", "off")
        return self.attach(agent, pruning=rule, in_flight=in_flight)

    def _model_for(self, record: RunRecord) -> Any:
        """The model that was asked for, else the one that a built-in run was made with."""
        then = record.request.get("model")
        return self.model if self._model_was_chosen or not isinstance(then, str) else self._opened(then)

    def mark_interrupted(self) -> None:
        """Runs, traces and beats whose process died get the status `interrupted`; done when a runtime opens, too.

        Raises:
            StoreError: As `check_store`.
        """
        self.check_store()
        self._claims.mark_interrupted()
        self._heart.mark_interrupted()

    def check_store(self) -> None:
        """For who keeps a runtime open for long.

        Raises:
            StoreError: The store's file was moved, deleted or replaced meanwhile: what is written now would be lost.
        """
        self._store.check()

    def stop(self, reason: str = "interrupted") -> bool:
        """Asks what runs now to end before its next call; safe from a signal handler. False: nothing runs."""
        return self._claims.stop(reason)

    def tell(self, text: str) -> int:
        """Leaves a note that the next beat takes up; returns its number.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self._store.mind.add_note(self._secrets.hide(checked_text("note", text)), self.clock())

    def remember(self, text: str, **told: Any) -> int:
        """Keeps a fact, or what `told` says it is – who said it, when, in which session; returns the memory's id.

        Args:
            told: Fields of `dionysus.memory.semantic.Told`.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self.memory.remember(checked_text("memory", text), **told)

    def remember_all(self, told: Sequence[Told]) -> list[int]:
        """Keeps memories, all or none: what was said by whom, when, in which session; returns their ids.

        Raises:
            BadInput: One is empty, or of an instant without time zone.
        """
        return self.memory.remember_all(told)

    def forget(self, ids: Sequence[int]) -> int:
        """Forgets memories, and all that was made of them; returns how many are gone, patterns of theirs included.

        What runs were shown stays in their record.

        Raises:
            NotFound: One of them is none; nothing is forgotten.
        """
        return self.consolidation.forget_these(ids)

    def _open_embedder(self) -> "Embedder | None":
        from dionysus.memory.embeddings import open_embedder

        on = self.settings
        return open_embedder(
            on.embedder,
            dims=on.embedder_dims,
            api_base=on.embedder_api_base or on.api_base,
            api_key=self._key,
            timeout_s=on.model_timeout_s,
        )

    def _own_files(self) -> list[Path]:
        path = self._store.path
        mine = (
            []
            if path is None
            else [
                path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-locks", "-key", "-token", "-shipping")
            ]
        )
        return [*mine, *([self.settings.audit] if self.settings.audit else [])]


def graph_of(settings: Settings) -> Graph:
    """The graph that settings name; nothing is connected yet.

    Raises:
        BadInput: They name none.
    """
    if settings.neo4j_uri is None:
        raise BadInput(_NO_NEO4J)
    return Graph(
        settings.neo4j_uri,
        user=settings.neo4j_username,
        password=settings.neo4j_password.get_secret_value(),
        database=settings.neo4j_database,
    )


def _base_verb(record: RunRecord) -> str:
    """`beat`, `ask` or `attached`, of forks too."""
    return str(record.request.get("of") or record.request.get("verb"))


def _budget(name: str, text: str | None) -> Budget:
    if text is None:
        return Budget()
    try:
        return Budget.parse(text)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def checked_text(what: str, text: object) -> str:
    """Text that a person gave, if it is text.

    Raises:
        BadInput: It is empty, too long, or holds NUL bytes or bytes that are not UTF-8.
    """
    if not isinstance(text, str):
        raise BadInput(f"the {what} is a text, not {type(text).__name__}")
    if not text.strip():
        raise BadInput(f"the {what} is empty; give it a text")
    if len(text) > _NOTE_CHARS:
        raise BadInput(f"the {what} has {len(text):,} characters, at most {_NOTE_CHARS:,} fit; put it into a file")
    if "\0" in text:
        raise BadInput(f"the {what} holds a NUL byte at character {text.index(chr(0))}; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(f"the {what} is not UTF-8 at character {error.start}; convert it first") from error
    return text


__all__ = [
    "Answer",
    "Attached",
    "BeatReport",
    "RecordedRun",
    "RecordedStream",
    "RunSummary",
    "Runtime",
    "Waking",
    "checked_text",
]
