"""The composition root: opens store and model, builds the services, and has the verbs."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from smolagents import MultiStepAgent

from dionysus.agents.tools import Senses
from dionysus.attached import Attached, RecordedRun, RecordedStream
from dionysus.callbacks.pruning import Rule
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.errors import BadInput
from dionysus.heart import BeatReport, Heart, Waking
from dionysus.journal.secrets import Secrets, named_secrets
from dionysus.memory.basins import Basins
from dionysus.memory.goals import Goals
from dionysus.memory.semantic import SemanticMemory
from dionysus.models import open_model
from dionysus.ooda import Answer, Mind
from dionysus.recorder import Recorder
from dionysus.settings import Settings, load_settings
from dionysus.stores import open_store
from dionysus.traces import ExecutionTraceService
from dionysus.watching import Watch

_NOTE_CHARS = 100_000


class Runtime:
    """Everything one process needs to run agents on the record; a context manager."""

    def __init__(
        self,
        store: str | None = None,
        model: str | Any | None = None,
        *,
        settings: Settings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(3),
    ) -> None:
        """
        Args:
            store: A store's URL; default: the settings'.
            model: A model's spec, or a smolagents `Model`; default: the settings'.
            settings: Default: from the environment.
            clock: The time, in UTC.
            new_suffix: What makes run ids unique across stores.

        Raises:
            DionysusError: Store or model cannot be opened.
        """
        self.settings = settings or load_settings()
        self.clock = clock
        self._given_model = model if model is not None else self.settings.model
        self._model: Any = None
        self._key = self.settings.api_key.get_secret_value() if self.settings.api_key else None
        known = [*named_secrets(os.environ), *([self._key] if self._key else [])]
        self._secrets = Secrets(known, tag=f"{secrets.token_hex(2)}-")
        self._new_suffix = new_suffix
        self._store = open_store(store or self.settings.store)
        try:
            self._build(clock, new_suffix)
        except BaseException:
            self._store.close()
            raise

    def _build(self, clock: Callable[[], datetime], new_suffix: Callable[[], str]) -> None:
        """The services over the store, and the rooms over them."""
        mind, hide = self._store.mind, self._secrets.hide
        self.traces = ExecutionTraceService(self._store.records, clock=clock)
        self.basins = Basins(mind, clock=clock)
        self.memory = SemanticMemory(mind, self.basins, clock=clock, hide=hide)
        self.goals = Goals(mind, clock=clock, hide=hide)
        self._recorder = Recorder(
            self._store, self.settings, memory=self.memory, basins=self.basins, secrets=self._secrets, clock=clock
        )
        self._watch = watch = Watch(
            self._store,
            memory=self.memory,
            basins=self.basins,
            goals=self.goals,
            own_files=self._own_files(),
            clock=clock,
        )
        self._mind = Mind(
            self._store,
            self._recorder,
            watch,
            basins=self.basins,
            planning=self.settings.planning,
            clock=clock,
            new_suffix=new_suffix,
        )
        self._heart = Heart(
            self._store,
            self._recorder,
            watch,
            memory=self.memory,
            basins=self.basins,
            goals=self.goals,
            planning=self.settings.planning,
            hide=hide,
            clock=clock,
            new_suffix=new_suffix,
        )
        self._recorder.mark_interrupted()
        self._heart.mark_interrupted()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of store and locks."""
        self._recorder.close()
        self._store.close()

    @property
    def callbacks(self) -> CallbackRegistry:
        """Your own callbacks, fired for every agent after the built-in ones and before the trace is sealed."""
        return self._recorder.callbacks

    @property
    def model(self) -> Any:
        """The model that agents think with, opened at first use."""
        if self._model is None:
            given = self._given_model
            self._model = (
                open_model(
                    given,
                    api_base=self.settings.api_base,
                    api_key=self._key,
                    timeout_s=self.settings.model_timeout_s,
                )
                if isinstance(given, str)
                else given
            )
        return self._model

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
            self.basins.close(senses.basin_id)

    def attach(self, agent: MultiStepAgent, *, pruning: Rule = "off") -> Attached:
        """Any smolagents agent, with its managed agents, on the record: `attach(agent).run(task)`.

        The agent is left as it was. Its runs carry the built-in callbacks and those of `callbacks`.

        Args:
            pruning: `see-once` or `window` shortens what was seen; this adds a tool `recall_observation` and one line
                to the system prompt. `off`: each result says what see-once would have saved.

        Raises:
            BadInput: Not a smolagents agent, or no such rule.
        """
        if not isinstance(agent, MultiStepAgent):
            raise BadInput(f"cannot attach {type(agent).__name__}: it is no smolagents MultiStepAgent")
        if pruning not in get_args(Rule):
            raise BadInput(f"pruning {pruning!r} is not one of {', '.join(get_args(Rule))}")
        return Attached(agent, self._recorder, self._store, pruning=pruning, new_suffix=self._new_suffix)

    def stop(self, reason: str = "interrupted") -> bool:
        """Asks what runs now to end before its next call; safe from a signal handler. False: nothing runs."""
        return self._recorder.stop(reason)

    def tell(self, text: str) -> int:
        """Leaves a note that the next beat takes up; returns its number.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self._store.mind.add_note(self._secrets.hide(checked_text("note", text)), self.clock())

    def remember(self, text: str) -> int:
        """Keeps a fact; returns the memory's id.

        Raises:
            BadInput: The text is empty, too long, or not text.
        """
        return self.memory.remember(checked_text("memory", text))

    def _own_files(self) -> list[Path]:
        path = self._store.path
        mine = [] if path is None else [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-locks")]
        return [*mine, *([self.settings.audit] if self.settings.audit else [])]


def checked_text(what: str, text: str) -> str:
    """Text that a person gave, if it is text.

    Raises:
        BadInput: It is empty, too long, or holds NUL bytes or bytes that are not UTF-8.
    """
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


__all__ = ["Answer", "Attached", "BeatReport", "RecordedRun", "RecordedStream", "Runtime", "Waking", "checked_text"]
