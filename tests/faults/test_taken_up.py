"""Runs that real faults cut off, taken up again: kill -9, a full disk, two processes at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from smolagents import ActionStep

from conftest import Repository
from dionysus import Runtime
from dionysus.errors import RunInterrupted
from faults.test_faults import CYCLE, stuck_beat, wait_for

# Reads pages; the third one is never over where a flag is named. Says how many calls were really made.
READER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from smolagents import Tool
from dionysus import Runtime
from dionysus.errors import RunHeld
from transcripts import act, agent_of, answer, call

class Read(Tool):
    name = "read"
    description = "Reads."
    inputs = {{"page": {{"type": "integer", "description": "Which."}}}}
    output_type = "string"
    idempotent = True
    def forward(self, page: int) -> str:
        with open(sys.argv[2], "a") as log:
            log.write(f"{{page}}\\n")
        if page == 3 and sys.argv[3]:
            Path(sys.argv[3]).touch()
            time.sleep(600)
        time.sleep(0.2)
        return "x" * 3000

turns = (*(act(call("read", page=i)) for i in range(1, 6)), answer("five pages"))
with Runtime(store=sys.argv[1]) as runtime:
    try:
        print(runtime.attach(agent_of(turns, [Read()])).run("the task", run_id="r1").output)
    except RunHeld as held:
        print("held:", held)
"""
TESTS = str(Path(__file__).parents[1])


def reader(folder: Path, flag: Path | str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", READER.format(tests=TESTS), f"sqlite:///{folder}/mind.db", str(folder / "log")]
    return subprocess.Popen([*command, str(flag)], stdout=subprocess.PIPE, text=True)


def resumed(store: str, run: str, cwd: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "dionysus", "runs", "resume", run, "--json", "--store", store]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=120)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("call", [1, 4, 9, 14])
def test_a_killed_beat_goes_on(tmp_path: Path, repository: Repository, call: int) -> None:
    store = f"sqlite:///{tmp_path}/mind.db"
    process = stuck_beat(store, repository.path, call, tmp_path / "stuck")
    process.kill()
    process.communicate()
    report = resumed(store, "beat-1", repository.path)
    assert (report["status"], report["number"], report["model_calls"]) == ("success", 1, 15)
    assert report["text"].startswith("Beat 1")
    with Runtime(store=store) as runtime:
        assert runtime.beat(repository.path).status == "idle"
        assert runtime.replay("beat-1").status == "success"


def test_a_question_killed_within_a_member_goes_on(tmp_path: Path, repository: Repository) -> None:
    store, flag = f"sqlite:///{tmp_path}/mind.db", tmp_path / "flag"
    process = subprocess.Popen([sys.executable, "-c", CYCLE, store, str(repository.path), str(flag)])
    wait_for(flag, process)
    process.kill()
    process.wait()
    answer = resumed(store, "ask", repository.path)
    assert answer["status"] == "success"
    assert [source["status"] for source in answer["sources"]] == ["success"] * 4
    with Runtime(store=store) as runtime:
        assert {t.status for t in runtime.traces.list_traces()} == {"success"}
        assert runtime.replay(answer["run_id"]).output == answer["text"]


def test_of_two_processes_one_goes_on_and_the_other_says_who_does(tmp_path: Path) -> None:
    first = reader(tmp_path, tmp_path / "stuck")
    wait_for(tmp_path / "stuck", first)
    held, _ = reader(tmp_path).communicate(timeout=60)
    assert held.startswith("held: run 'r1' is under way: process ")
    assert f"process {first.pid} on " in held
    first.kill()
    first.communicate()
    both = [reader(tmp_path) for _ in range(2)]  # a dead holder is replaced at once, by one of them
    said = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert said[0] == "five pages"
    assert said[1].startswith("held: ") or said[1] == "five pages"  # it may come when the answer is there
    assert (tmp_path / "log").read_text().split() == ["1", "2", "3", "3", "4", "5"]


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    first = reader(tmp_path, tmp_path / "stuck")
    wait_for(tmp_path / "stuck", first)
    first.kill()
    first.communicate()
    store = tmp_path / "mind.db"
    size = max(file.stat().st_size for file in tmp_path.iterdir() if file.name.startswith("mind.db")) // 1024 + 4
    script = READER.format(tests=TESTS)
    limited = f'ulimit -f {size}; exec "$0" -c "$1" sqlite:///{store} {tmp_path}/log ""'
    done = subprocess.run(["bash", "-c", limited, sys.executable, script], capture_output=True, text=True, check=False)
    assert "StoreError" in done.stderr
    with Runtime(store=f"sqlite:///{store}") as runtime:
        assert runtime.runs.found("r1").status in ("interrupted", "error")
    said, _ = reader(tmp_path).communicate(timeout=60)
    assert said.strip() == "five pages"
    pages = (tmp_path / "log").read_text().split()
    assert sorted(set(pages)) == ["1", "2", "3", "4", "5"]
    assert (pages.count("1"), pages.count("2")) == (1, 1)


def test_a_holder_that_only_sleeps_still_holds(tmp_path: Path) -> None:
    """SIGSTOP is not death."""

    first = reader(tmp_path, tmp_path / "stuck")
    wait_for(tmp_path / "stuck", first)
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(0.1)
    said, _ = reader(tmp_path).communicate(timeout=60)
    assert said.startswith("held: ")
    first.kill()
    first.communicate()


def test_a_beat_that_goes_on_keeps_to_its_basin(repository: Repository) -> None:
    """Also where it had kept its memory before it was stopped; what was told lies with it."""
    store = f"sqlite:///{repository.path}/mind.db"
    with Runtime(store=store) as runtime:
        runtime.tell("the tides follow the moon")
        runtime.callbacks.register(ActionStep, lambda step: runtime.stop() if step.step_number == 9 else None)
        with pytest.raises(RunInterrupted) as stopped:
            runtime.beat(repository.path)
    with Runtime(store=store) as runtime:
        assert runtime.resume(str(stopped.value.run_id)).status == "success"
        basins = [basin for basin, _ in runtime.basins.landscape() if basin.name == "beat 1"]
        assert [basin.closed_at is not None for basin in basins] == [True]
        (note,) = runtime.memory.recall("tides and moon", limit=1)
        assert note.memory.basin_id == basins[0].id
        with runtime.senses(repository.path):
            pass
        assert not [basin for basin, _ in runtime.basins.landscape() if basin.name.startswith("look")]
