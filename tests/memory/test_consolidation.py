"""What idle beats do with memories: joining, promoting, forgetting; and forgetting on request, everywhere."""

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import START, Clock
from dionysus import Runtime
from dionysus.errors import BadInput, NotFound
from dionysus.memory.consolidation import PATTERN
from dionysus.memory.semantic import Told
from dionysus.settings import Settings, load_settings
from dionysus.stores.contract import Filter, MentalModel


@pytest.fixture
def mind(tmp_path: Path, clock: Clock) -> Runtime:
    return Runtime(f"sqlite:///{tmp_path}/mind.db", clock=clock)


def told_daily(mind: Runtime, clock: Clock, *texts: str) -> list[int]:
    ids = []
    for text in texts:
        clock.now += timedelta(days=1)
        ids.append(mind.remember(text))
    return ids


def test_duplicates_are_one_memory_that_knows_where_it_was_told(mind: Runtime, clock: Clock) -> None:
    first, _, other = told_daily(mind, clock, "Bread needs salt", "bread  needs SALT", "Bread needs time")
    assert mind.consolidation.run().joined == 1
    hits = mind.memory.recall("bread salt")
    assert [hit.memory.id for hit in hits][:1] == [first]
    assert len(mind._store.memories.retold([first])[first]) == 1
    assert mind.consolidation.run().looked_at == 0
    assert {m.id for m in mind._store.memories.newest()} == {first, other}


def test_what_is_said_in_the_course_of_a_talk_is_never_joined(mind: Runtime) -> None:
    told = [Told(text="Yes, please!", actor="Ann", session="talk", source=f"turn {n}") for n in range(3)]
    mind.remember_all(told)
    assert mind.consolidation.run().joined == 0
    assert mind.memory.size().memories == 3


def test_what_is_told_on_three_days_becomes_a_pattern_with_its_evidence(mind: Runtime, clock: Clock) -> None:
    ids = told_daily(mind, clock, "The build fails when the cache is stale", "Build fails: the cache is stale again")
    mind.remember("The build fails when the cache is stale!")  # the same day tells nothing new
    assert mind.consolidation.run().promoted == ()
    ids += told_daily(mind, clock, "build fails, stale cache")
    (pattern,) = mind.consolidation.run().promoted
    (kept,) = mind._store.memories.get([pattern])
    assert kept.kind == PATTERN
    assert "cache" in kept.text
    assert set(ids) <= set(mind._store.memories.evidence_of(pattern))
    told_daily(mind, clock, "The build fails, the cache is stale")
    assert mind.consolidation.run().promoted == (pattern,)
    assert [m.id for m in mind._store.memories.newest(Filter(kinds=(PATTERN,)))] == [pattern]


def test_forgetting_takes_words_vectors_notes_and_patterns_with_it(mind: Runtime, clock: Clock, tmp_path: Path) -> None:
    ids = told_daily(mind, clock, *["The vault code is xylophone seven"] * 3, "Bread needs salt")
    mind.consolidation.run()
    assert [m.kind for m in mind._store.memories.newest()] == [PATTERN, "fact", "fact"]
    assert mind.forget([ids[0]]) == 2
    assert mind.memory.recall("xylophone") == []
    assert [m.text for m in mind._store.memories.newest()] == ["Bread needs salt"]
    mind.close()
    with sqlite3.connect(tmp_path / "mind.db") as db:
        db.execute("VACUUM")
    assert b"xylophon" not in (tmp_path / "mind.db").read_bytes()


def test_who_names_what_is_not_there_forgets_nothing(mind: Runtime) -> None:
    number = mind.remember("Bread needs salt")
    for wrong in (number + 1, -1, 2**63):
        with pytest.raises(NotFound, match="dionysus recall"):
            mind.forget([number, wrong])
    assert mind.memory.size().memories == 1


def test_a_policy_forgets_what_is_older(tmp_path: Path, clock: Clock) -> None:
    settings = Settings(keep_memories="fact=30, step=7")
    with Runtime(f"sqlite:///{tmp_path}/mind.db", settings=settings, clock=clock) as mind:
        old, beat = mind.remember("Bread needs salt"), mind.remember("The beat went on", kind="beat")
        clock.now += timedelta(days=29)
        new = mind.remember("Time heals")
        assert mind.consolidation.run().forgotten == 0
        clock.now += timedelta(days=2)
        assert mind.consolidation.run().forgotten == 1
        assert {m.id for m in mind._store.memories.newest()} == {beat, new}
        assert old not in {m.id for m in mind._store.memories.newest()}


@pytest.mark.parametrize("policy", ["fact", "fact=", "fact=0", "fact=-3", "fact=soon", "=3", "a b=3"])
def test_a_policy_that_cannot_be_read_is_said(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIONYSUS_KEEP_MEMORIES", policy)
    with pytest.raises(BadInput, match="KIND=DAYS"):
        load_settings()


def test_beliefs_that_failed_more_often_than_they_held_are_named(mind: Runtime) -> None:
    for held, failed, prediction in ((5, 2, "b.py"), (1, 2, "c.py"), (2, 3, "d.py")):
        model = MentalModel(
            id=0, place="/p", kind="together", subject="a.py", prediction=prediction, held=held, failed=failed
        )
        mind._store.mind.save_mental_model(model)
    assert [m.prediction for m in mind.consolidation.run(place="/p").contradicted] == ["d.py"]


def test_an_idle_beat_consolidates_and_calls_no_model(mind: Runtime, clock: Clock, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    assert mind.beat(folder, git=False).status == "success"
    told_daily(mind, clock, "Bread needs salt", "Bread needs salt")
    report = mind.beat(folder, git=False)
    assert report.status == "idle"
    assert report.consolidated is not None
    assert report.consolidated.joined == 1
    assert report.model_calls == 0


_LOOP = """
import sys
from datetime import timedelta
from dionysus import Runtime
with Runtime(sys.argv[1]) as mind:
    print("open", flush=True)
    while True:
        done = mind.consolidation.run(limit=20)
        print(done.looked_at, flush=True)
        if not done.looked_at:
            break
"""


def test_killed_while_it_consolidates_nothing_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mind.db"
    with Runtime(url) as mind:
        mind.remember_all(
            [
                Told(text=f"fact number {n % 40} about bread", source=f"s{n}", at=START + timedelta(days=n))
                for n in range(160)
            ]
        )
    for steps in (1, 2, 3):
        process = subprocess.Popen([sys.executable, "-c", _LOOP, url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(steps):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with Runtime(url) as mind:
        while mind.consolidation.run().looked_at:
            pass
        memories = mind._store.memories.newest(Filter(kinds=("fact",)), limit=-1)
        retold = mind._store.memories.retold([m.id for m in memories])
        assert sorted([m.source for m in memories] + [s for some in retold.values() for s, _ in some]) == sorted(
            f"s{n}" for n in range(160)
        )
        assert len(memories) == 40
        before = _index(tmp_path)
        mind._store.memories.rebuild_index()
    assert before == _index(tmp_path)


def _index(folder: Path) -> list[tuple[str, int, bytes]]:
    with sqlite3.connect(folder / "mind.db") as db:
        rows = db.execute("SELECT term, block, entries FROM postings").fetchall()
    return sorted((t, b, b"".join(sorted(e[n : n + 5] for n in range(0, len(e), 5)))) for t, b, e in rows)
