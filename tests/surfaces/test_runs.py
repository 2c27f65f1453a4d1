"""`dionysus runs`: as a person uses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Repository
from surfaces.test_cli import dionysus, one_line

AGENT = """
from smolagents import ToolCallingAgent, tool
from dionysus.models.scripted import ScriptedModel

@tool
def look(what: str) -> str:
    \"\"\"Looks.

    Args:
        what: What at.
    \"\"\"
    return f"saw {what}"

def make():
    turns = [{"thought": "so", "calls": [{"name": "look", "arguments": {"what": "it"}}]},
             {"thought": "so", "calls": [{"name": "final_answer", "arguments": {"answer": "seen"}}]}]
    return ToolCallingAgent([look], ScriptedModel(turns))

not_an_agent = 3
"""


def runs(cwd: Path) -> list[str]:
    return [entry["run"]["run_id"] for entry in json.loads(dionysus("runs", "list", "--json", cwd=cwd).out)]


def test_a_beat_is_listed_replayed_forked_compared_and_carried(repository: Repository) -> None:
    cwd = repository.path
    assert dionysus("runs", "list", cwd=cwd).out.startswith("no runs yet")
    report = json.loads(dionysus("beat", "--json", cwd=cwd).out)
    (run,) = runs(cwd)
    heading, line = dionysus("runs", "list", cwd=cwd).out.splitlines()
    assert heading.split()[:3] == ["started", "run", "status"]
    assert line.split()[2:7] == [run, "success", "1", "10", "14"]
    assert len(line) <= 80
    played = dionysus("runs", "replay", run, cwd=cwd)
    assert played.out.startswith(report["text"])
    assert "14 model calls answered from the record, none made; it ended success, as then" in played.out
    again = dionysus("runs", "resume", "beat", cwd=cwd)
    assert again.out.startswith(report["text"])
    fork = dionysus("runs", "fork", run, "--at", "3", "--observation", "-", "--as", "other", cwd=cwd, stdin=b"nothing")
    assert "other" in fork.out
    assert f"from {run} at step 3" in fork.out
    apart = dionysus("runs", "diff", run, "other", cwd=cwd).out
    assert "then action 3 (observation):" in apart
    assert "+nothing" in apart
    assert "They are the same" in dionysus("runs", "diff", run, run, cwd=cwd).out
    assert "events in it.cassette" in dionysus("runs", "export", run, "it.cassette", cwd=cwd).out
    assert "is left as it is" in one_line(dionysus("runs", "export", run, "it.cassette", cwd=cwd))
    assert dionysus("runs", "import", "it.cassette", "--as", "copy", cwd=cwd).out == "run copy is taken in\n"
    assert dionysus("runs", "replay", "copy", cwd=cwd).out.startswith(report["text"])
    assert set(runs(cwd)) == {run, "other", "copy"}


def test_a_budget_stops_a_question_and_a_larger_one_goes_on(repository: Repository) -> None:
    cwd = repository.path
    stopped = dionysus("ask", "what is there?", "-q", "--budget", "calls=5", cwd=cwd)
    assert stopped.returncode == 4
    assert "status budget_exhausted: the run's budget is used up: 5 of 5 model calls" in stopped.err
    (run,) = runs(cwd)
    assert f"runs resume {run} --budget calls=N (more than before) goes on with it" in stopped.err
    assert dionysus("runs", "resume", run, "-q", cwd=cwd).returncode == 4
    done = dionysus("runs", "resume", run, "--json", "--budget", "calls=50", cwd=cwd)
    assert (done.returncode, json.loads(done.out)["status"]) == (0, "success")
    assert "write calls=N" in one_line(dionysus("ask", "x", "--budget", "penny", cwd=cwd))
    wrong = dionysus("beat", cwd=cwd, environment={"DIONYSUS_DAILY_BUDGET": "a lot"})
    assert one_line(wrong).startswith("dionysus: DIONYSUS_DAILY_BUDGET: budget 'a lot'")


def test_an_agent_of_ones_own_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(AGENT)
    code = "import mine\nfrom dionysus import Runtime\nwith Runtime() as r: r.attach(mine.make()).run('t', run_id='r1')"
    (tmp_path / "go.py").write_text(code)
    subprocess.run([sys.executable, "go.py"], cwd=tmp_path, check=True, capture_output=True)
    assert "hand it over (agent=…, --agent MODULE:NAME)" in one_line(dionysus("runs", "replay", "r1", cwd=tmp_path))
    assert dionysus("runs", "replay", "r1", "--agent", "mine:make", cwd=tmp_path).out.startswith("seen\n")
    for wrong, said in (
        ("mine", "write MODULE:NAME"),
        ("none:x", "No module named 'none'"),
        ("mine:nothing", "has no attribute"),
        ("mine:not_an_agent", "no smolagents MultiStepAgent"),
    ):
        assert said in one_line(dionysus("runs", "replay", "r1", "--agent", wrong, cwd=tmp_path))
    (tmp_path / "mine.py").write_text(AGENT.replace("Looks.", "Looks twice."))
    diverged = dionysus("runs", "replay", "r1", "--agent", "mine:make", cwd=tmp_path)
    assert diverged.returncode == 1
    assert "ToolCallingAgent/action.1/model#1: the prompt is not the one on record" in diverged.err
    assert "+" in diverged.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resume", "none"), "no run 'none'; `dionysus runs list` shows what there is"),
        (("replay", "none"), "no run 'none'"),
        (("fork", "none", "--at", "1"), "no run 'none'"),
        (("diff", "none", "other"), "no run 'none'"),
        (("export", "none", "x"), "no run 'none'"),
        (("import", "none"), "cannot read the cassette 'none'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in one_line(dionysus("runs", *arguments, cwd=tmp_path))
