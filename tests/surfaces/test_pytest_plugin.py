"""The fixture `cassette`, in a project of its own."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ci.bolt import BoltServer
from dionysus.stores.neo4j import Graph
from surfaces.test_runs import AGENT

TEST = """
import mine

def test_it_sees(cassette):
    result = cassette("seen").run(mine.make(), "look at it")
    assert (result.output, result.model_calls) == ("seen", 2)
"""


def pytest_in(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, check=False, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "test_mine.py").write_text(TEST)
    (tmp_path / "conftest.py").write_text("")
    return tmp_path


def test_recorded_once_played_ever_after(project: Path) -> None:
    without = pytest_in(project)
    assert without.returncode == 1
    assert "record it once: pytest --record-cassettes" in without.stdout
    assert pytest_in(project, "--record-cassettes").returncode == 0
    assert [file.name for file in (project / "cassettes").iterdir()] == ["seen.cassette"]
    (project / "mine.py").write_text(AGENT.replace('return f"saw {what}"', 'raise SystemExit("a tool was called")'))
    played = pytest_in(project)
    assert played.returncode == 0, played.stdout
    (project / "mine.py").write_text(
        AGENT.replace("ToolCallingAgent([look], ", "ToolCallingAgent([look], instructions='Hurry.', model=")
    )
    changed = pytest_in(project)
    assert changed.returncode == 1
    assert "ReplayDiverged" in changed.stdout
    assert "+Hurry." in changed.stdout


def test_another_task_and_a_torn_file_are_said(project: Path) -> None:
    assert pytest_in(project, "--record-cassettes").returncode == 0
    (project / "test_mine.py").write_text(TEST.replace("look at it", "look away"))
    assert "answers another task: 'look at it'; remove it to record anew" in pytest_in(project).stdout
    file = project / "cassettes/seen.cassette"
    file.write_bytes(file.read_bytes()[:-40])
    assert "is damaged after event" in pytest_in(project).stdout


def test_a_secret_in_task_and_inputs(project: Path) -> None:
    """Recorded and played in different processes, with placeholders of different keys."""
    key = "sk-proj-" + "a1B2" * 8
    (project / "test_mine.py").write_text(
        TEST.replace('"look at it")', f'"look with {key}", additional_args={{"key": "{key}"}})')
    )
    assert pytest_in(project, "--record-cassettes").returncode == 0
    assert key.encode() not in gzip.decompress((project / "cassettes/seen.cassette").read_bytes())
    played = pytest_in(project)
    assert played.returncode == 0, played.stdout


def test_tests_leave_nothing_in_a_graph(
    project: Path, bolt: BoltServer, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**bolt.environment, "DIONYSUS_TRACES_FROM": "neo4j"}.items():
        monkeypatch.setenv(name, value)
    assert pytest_in(project, "--record-cassettes").returncode == 0
    assert pytest_in(project).returncode == 0
    assert graph.read(lambda tx: tx.run("MATCH (t:AgentExecutionTrace) RETURN count(t) AS n").data()) == [{"n": 0}]
