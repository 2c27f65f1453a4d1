"""Every test has a home of its own, no keys, no network beyond loopback."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from smolagents import MultiStepAgent

from ci.bolt import BoltServer, OneOfYourOwn, server_for
from dionysus.callbacks.registry import CallbackRegistry
from dionysus.errors import ModelError
from dionysus.journal import Frame, Journal, Run
from dionysus.journal.secrets import Secrets
from dionysus.journal.values import digest_of, plain
from dionysus.models.metering import measure
from dionysus.models.weights import get_weights, weights_folder
from dionysus.recorder import Ending, Recorder
from dionysus.stores import Store, open_store
from dionysus.stores.neo4j import Graph
from dionysus.traces import ExecutionTraceService, Projection

# A busy machine is slow; that is no failure.
settings.register_profile("dionysus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dionysus")

START = datetime(2026, 11, 21, 3, 58, tzinfo=UTC)
_LEFT_OUT = ("OPENAI_", "DIONYSUS_", "AGENT_", "GIT_", "NEO4J_")
_STAYS = ("GIT_CONFIG_NOSYSTEM", "NEO4J_TEST_SERVER")


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path_factory.mktemp("home"))


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A home of its own, and nothing of ours in the environment; for fixtures that outlive a test."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in list(os.environ):
        if name.startswith(_LEFT_OUT) and name not in _STAYS:
            monkeypatch.delenv(name)


_WEIGHTS = weights_folder()
"""Where the weights of local models are kept from one test run to the next: outside of the homes of tests."""


@pytest.fixture(scope="session")
def _smollm2() -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIONYSUS_MODELS", str(_WEIGHTS))
        try:
            return get_weights("smollm2")
        except ModelError as error:
            if "CI" in os.environ:
                raise
            pytest.skip(f"no weights: {error}")


@pytest.fixture
def smollm2(_smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of a real language model; `local:smollm2` finds them."""
    monkeypatch.setenv("DIONYSUS_MODELS", str(_WEIGHTS))
    return _smollm2


class Clock:
    """A clock that goes on by a second with each look, and by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(autouse=True)
def _replayed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run that a test makes is replayed from its record: it must come to the same.

    A test marked `not_replayed` says why its runs cannot be.
    """
    if request.node.get_closest_marker("not_replayed"):
        return
    made = Recorder.run

    def run(self: Recorder, frame: Frame, agent: MultiStepAgent, task: str, **options: Any) -> Ending:
        ending = made(self, frame, agent, task, **options)
        if frame.run.live:
            user_callbacks, self.callbacks = self.callbacks, CallbackRegistry()
            try:
                again = made(self, self.claims.shadow(frame.run.id), agent, task, **options)
            finally:
                self.callbacks = user_callbacks
            stopped = ("budget_exhausted", "interrupted", "incoherent")
            if ending.status not in stopped or again.status not in stopped:
                assert (again.status, digest_of(plain(again.output))) == (
                    ending.status,
                    digest_of(plain(ending.output)),
                )
        return ending

    monkeypatch.setattr(Recorder, "run", run)


@pytest.fixture(scope="session")
def bolt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoltServer]:
    """A server that speaks Bolt: NEO4J_TEST_URI's, a Neo4j, or ArcadeDB."""
    own = os.environ.get("NEO4J_TEST_URI")
    server = OneOfYourOwn(own) if own else server_for(tmp_path_factory.mktemp("bolt"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def graph(bolt: BoltServer) -> Iterator[Graph]:
    """An empty graph that is set up for traces."""
    bolt.empty()
    opened = graph_on(bolt)
    opened.initialise()
    yield opened
    opened.close()


def graph_on(server: BoltServer) -> Graph:
    """The server's graph."""
    return Graph(server.uri, user=server.user, password=server.password, database="neo4j")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def traces(store: Store, clock: Clock) -> ExecutionTraceService:
    return ExecutionTraceService(store.records, clock=clock, journal=store.records)


@pytest.fixture(params=["sqlite", "bolt"])
def backend(request: pytest.FixtureRequest, store: Store) -> Any:
    """Each backend of `TraceStore` in turn; see `backends`."""
    from backends import Embedded, Graphed

    return Embedded(store) if request.param == "sqlite" else Graphed(request.getfixturevalue("graph"))


@pytest.fixture
def frame(store: Store, clock: Clock) -> Frame:
    """A frame that records into `store`, with its trace `run-1` projected."""
    journal = Journal(store.records, Projection(store.records), clock)
    run = Run("run-1", journal, secrets=Secrets(), meter=measure)
    return Frame(run=run, agent_name="tester", trace_id="run-1", path="tester")


class Repository:
    """A git repository to watch, with fixed dates and authors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._at = START - timedelta(days=30)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        date = self._at.isoformat()
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.path),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_AUTHOR_NAME": "Ada",
                "GIT_AUTHOR_EMAIL": "ada@example.org",
                "GIT_COMMITTER_NAME": "Ada",
                "GIT_COMMITTER_EMAIL": "ada@example.org",
                "GIT_AUTHOR_DATE": date,
                "GIT_COMMITTER_DATE": date,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def commit(self, message: str, files: dict[str, str], *, after_days: float = 1.0) -> None:
        self.write(files)
        self._at += timedelta(days=after_days)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)


MONITORING = '''"""Counts tokens."""


class Monitor:
    """Token totals of a run."""

    def update(self, step):
        """Adds a step's tokens."""
        self.total += step.tokens
'''


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return small_project(tmp_path / "project")


def small_project(path: Path) -> Repository:
    """Two modules that move together, tests, a rule, a few fixes."""
    made = Repository(path)
    made.commit(
        "Start the project",
        {
            "README.md": "# Project\n",
            "AGENTS.md": "# Rules\n\n- Write unit tests for new functionality.\n- Keep token totals exact.\n",
            ".gitignore": "build/\n",
            "src/monitoring.py": MONITORING,
            "src/agents.py": "def run():\n    return 1\n",
            "tests/test_monitoring.py": "def test_monitor():\n    pass\n",
            "tests/test_agents.py": "def test_run():\n    pass\n",
        },
    )
    for i in range(8):
        made.commit(
            f"Fix token totals of the monitor ({i})" if i % 2 else f"Count more ({i})",
            {"src/monitoring.py": MONITORING + f"# {i}\n", "tests/test_monitoring.py": f"def test_{i}(): pass\n"},
        )
    return made
