"""Faults, caused for real: kill -9 in mid-beat, Ctrl-C, a store that fails under way."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import Repository
from dionysus import Runtime

# A beat on a model that stops at its n-th call, says so, and waits to be killed.
STUCK = """
import sys, time
from pathlib import Path
from typing import Any
from dionysus import Runtime
from dionysus.models.reflex import Reflex

class Stuck(Reflex):
    calls = 0
    def generate(self, *args, **options):
        self.calls += 1
        if self.calls == int(sys.argv[3]):
            Path(sys.argv[4]).touch()
            time.sleep(600)
        return super().generate(*args, **options)

with Runtime(store=sys.argv[1], model=Stuck()) as runtime:
    runtime.beat(sys.argv[2])
"""


def wait_for(path: Path, process: "subprocess.Popen[Any]") -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the beat ended before it was stuck"
        assert time.monotonic() < until
        time.sleep(0.02)


def stuck_beat(store: str, watch: Path, call: int, flag: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", STUCK, store, str(watch), str(call), str(flag)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    wait_for(flag, process)
    return process


@pytest.mark.parametrize("call", [1, 3, 5, 9, 14])
def test_kill_9_leaves_the_trace_up_to_the_last_finished_call(
    tmp_path: Path, repository: Repository, call: int
) -> None:
    store = f"sqlite:///{tmp_path}/mind.db"
    process = stuck_beat(store, repository.path, call, tmp_path / "stuck")
    with Runtime(store=store) as other:  # while it lives, it is running
        (trace,) = other.traces.list_traces()
        assert trace.status == "running"
    process.kill()
    process.communicate()

    with Runtime(store=store) as runtime:
        (trace,) = runtime.traces.list_traces()
        assert (trace.status, trace.success) == ("interrupted", False)
        assert trace.completed_at is not None
        full = runtime.traces.get_trace(trace.id)
        assert trace.model_calls == sum(len(s.model_calls) for s in full.steps) == call  # the one in flight included
        uses = [use for s in full.steps for use in s.tool_calls]
        assert all(use.completed_at and use.result for use in uses)
        planned = {1: 0, 3: 1, 5: 3, 9: 6, 14: 9}
        assert len(uses) == planned[call]
        # nothing is lost: the next beat sees what this one saw, and that it failed
        report = runtime.beat(repository.path)
        assert report.status == "success"
        assert report.reasons[0] == "first look"
    with sqlite3.connect(tmp_path / "mind.db") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    assert list((tmp_path / "mind.db-locks").iterdir()) == []


def test_a_later_beat_reports_the_killed_one(tmp_path: Path, repository: Repository) -> None:
    store = f"sqlite:///{tmp_path}/mind.db"
    with Runtime(store=store) as runtime:
        runtime.beat(repository.path)
    (repository.path / "src/agents.py").write_text("def run():\n    return 2\n")
    process = stuck_beat(store, repository.path, 5, tmp_path / "stuck")
    process.kill()
    process.communicate()
    with Runtime(store=store) as runtime:
        report = runtime.beat(repository.path)
    assert report.reasons == ("1 file changed", "1 failed run")
    assert "interrupted" in report.text


SLOW = """
import sys, time
from dionysus import cli
from dionysus.models.reflex import Reflex
before = Reflex.generate
def generate(self, *args, **options):
    time.sleep(0.3)
    return before(self, *args, **options)
Reflex.generate = generate
sys.argv = ["dionysus", "beat"]
cli.main()
"""


def test_ctrl_c_stops_at_the_next_safe_point(repository: Repository) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        cwd=repository.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert process.stdout is not None
    while "list_goals" not in (line := process.stdout.readline()) or "→" in line:
        assert line, "the beat ended before Ctrl-C"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    with Runtime(store=f"sqlite:///{repository.path}/.dionysus/mind.db") as runtime:
        (trace,) = runtime.traces.list_traces()
        last = err.splitlines()[-1]
        assert last.startswith("dionysus: stopped (SIGINT); what was finished is on record; ")
        assert f"runs resume {trace.run_id} goes on" in last
        assert (trace.status, trace.error_message) == ("interrupted", "SIGINT")
        steps = runtime.traces.get_trace(trace.id).steps
        assert all(use.completed_at for s in steps for use in s.tool_calls)
        assert all(s.model_calls for s in steps)  # no step is made of nothing
        assert trace.step_count + trace.planning_count == len(steps)


def test_a_full_disk_is_one_clear_line_and_the_store_stays_whole(tmp_path: Path, repository: Repository) -> None:
    store = tmp_path / "mind.db"
    with Runtime(store=f"sqlite:///{store}") as runtime:
        runtime.beat(repository.path)
        before = len(runtime.traces.list_traces())
    (repository.path / "src/agents.py").write_text("def run():\n    return 2\n")
    size = store.stat().st_size // 1024 + 40
    limited = f'ulimit -f {size}; exec "$0" -m dionysus beat -q --store sqlite:///{store}'
    done = subprocess.run(
        ["bash", "-c", limited, sys.executable], cwd=repository.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "the store" in done.stderr.strip().splitlines()[-1]
    with sqlite3.connect(store) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    with Runtime(store=f"sqlite:///{store}") as runtime:
        assert len(runtime.traces.list_traces()) >= before
        assert all(t.status != "running" for t in runtime.traces.list_traces())
        assert "1 file changed" in runtime.beat(repository.path).reasons


def test_two_beats_at_once_both_end_well(tmp_path: Path, repository: Repository) -> None:
    command = [sys.executable, "-m", "dionysus", "beat", "--json", "--store", f"sqlite:///{tmp_path}/mind.db"]
    beats = [subprocess.Popen(command, cwd=repository.path, stdout=subprocess.PIPE) for _ in range(3)]
    reports = [json.loads(b.communicate(timeout=120)[0]) for b in beats]
    assert {r["status"] for r in reports} <= {"success", "idle"}
    assert len({r["number"] for r in reports}) == 3
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        assert {t.status for t in runtime.traces.list_traces()} == {"success"}


# One cycle whose second recall is never over.
CYCLE = """
import sys, time
from pathlib import Path
from typing import Any
from smolagents.memory import ToolCall
from dionysus import Runtime

def stay(event):
    if event.phase == "after" and event.name == "semantic_recall":
        Path(sys.argv[3]).touch()
        time.sleep(600)

with Runtime(store=sys.argv[1]) as runtime:
    runtime.callbacks.register(ToolCall, stay)
    runtime.ask("What is there?", sys.argv[2])
"""


def test_kill_9_within_a_member_leaves_both_traces(tmp_path: Path, repository: Repository) -> None:
    store, flag = f"sqlite:///{tmp_path}/mind.db", tmp_path / "flag"
    process = subprocess.Popen([sys.executable, "-c", CYCLE, store, str(repository.path), str(flag)])
    wait_for(flag, process)
    with Runtime(store=store) as meanwhile:
        assert {t.status for t in meanwhile.traces.list_traces()} == {"running"}
        assert [t.step_count for t in meanwhile.traces.list_traces(agent_name="perception")] == [2]
    process.kill()
    process.wait()
    with Runtime(store=store) as runtime:
        manager, member = sorted(runtime.traces.list_traces(), key=lambda t: t.parent_trace_id is not None)
        assert (manager.status, member.status) == ("interrupted", "interrupted")
        assert member.parent_trace_id == manager.id
        done = [use for s in runtime.traces.get_trace(member.id).steps for use in s.tool_calls]
        assert [(use.name, use.completed_at is not None) for use in done] == [
            ("observe_environment", True),
            ("semantic_recall", True),
        ]
        waiting = [use for s in runtime.traces.get_trace(manager.id).steps for use in s.tool_calls]
        assert [(use.name, use.completed_at) for use in waiting] == [("perception", None)]
