"""Whether activation and co-activation of basins earn a place in the ranking: tasks that come back over weeks.

Generated, with a seed: 40 projects of five sessions with twelve memories each. A memory has words of its project, of
its session, and words that all projects use. Over eight weeks of five days a project is worked on in bursts: each day
two projects are at work, which go on the next day with probability 0.75; who returns is drawn by how often it was
worked on before. A day asks eight questions, of two words that all projects use, of one session a half-day:
several memories fit, and gold is the one of the project at work. `scattered` is the control: each question is of a
project drawn at random, so that nothing comes back.

Each question is asked through the public API, limit 50; its first ten hits drive their basins, as `semantic_recall`
does. Then the hits are ranked again by score + a·activation + c·Σ wiring·activation, and counted. `a` and `c` are
chosen on the first four weeks of one seed and reported on the other weeks and seeds; `with` says what is switched on.
`--data FILE`: words to make them of.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.memory import words_of
from dionysus import Runtime
from dionysus.memory.basins import current_activation
from dionysus.memory.semantic import Told
from dionysus.settings import Settings

_PROJECTS, _SESSIONS, _TURNS = 40, 5, 12
_DAYS, _ASKED = 40, 8
_GRID = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
_START = datetime(2026, 1, 5, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Task:
    """A question of a day."""

    at: datetime
    day: int
    query: str
    gold: str


@dataclass(frozen=True)
class Asked:
    """What recall gave: for each hit its source, score, activation of its basin, and what its associates lend."""

    task: Task
    hits: Sequence[tuple[str, float, float, float]]


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Recall at 5 and 10, and the first gold's reciprocal rank, with each switched on and off."""
    vocabulary = words_of(data)
    seeds = [seed] if short else [seed, seed + 1, seed + 2]
    days = 12 if short else _DAYS
    asked = {
        kind: [_play(vocabulary, s, days, clustered=kind == "clustered") for s in seeds]
        for kind in ("clustered", "scattered")
    }
    fitted = [one for one in asked["clustered"][0] if one.task.day < days // 2]
    a = max(_GRID, key=lambda w: (_figures(fitted, w, 0)["mrr"], -w))
    c = max(_GRID, key=lambda w: (_figures(fitted, 0, w)["mrr"], -w))
    both = max(((x, y) for x in _GRID for y in _GRID), key=lambda w: (_figures(fitted, *w)["mrr"], -sum(w)))
    rows = []
    for kind, plays in asked.items():
        held_out = [one for n, play in enumerate(plays) for one in play if n or one.task.day >= days // 2]
        for name, weights in {
            "neither": (0.0, 0.0),
            "activation": (a, 0.0),
            "co-activation": (0.0, c),
            "both": both,
            **{f"activation at {weight}": (weight, 0.0) for weight in _GRID[1:-1]},
        }.items():
            rows.append({"tasks": kind, "with": name, "weights": weights, **_figures(held_out, *weights)})
    return {"data": data.name if data else "this project's own words", "seeds": seeds, "days": days, "rows": rows}


def _play(vocabulary: Sequence[str], seed: int, days: int, *, clustered: bool) -> list[Asked]:
    rng = random.Random(seed)
    memories, words = _memories(vocabulary, rng)
    now = _START
    asked = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Runtime(
            f"sqlite:///{folder}/mind.db", settings=Settings(recall_by_activation=0.0), clock=lambda: now
        ) as runtime,
    ):
        runtime.remember_all([memory for some in memories.values() for memory in some])
        for task in _tasks(memories, words, rng, days, clustered=clustered):
            now = task.at
            hits = runtime.memory.recall(task.query, limit=50)
            levels = {basin.id: current_activation(basin, now) for basin, _ in runtime.basins.landscape()}
            lent = _lent(runtime, levels)
            asked.append(
                Asked(
                    task,
                    [
                        (h.memory.source, h.score, levels[h.memory.basin_id or 0], lent(h.memory.basin_id or 0))
                        for h in hits
                    ],
                )
            )
            runtime.basins.activate_for([(h.memory.basin_id or 0, h.score) for h in hits[:10]])
    return asked


def _lent(runtime: Runtime, levels: dict[int, float]) -> Callable[[int], float]:
    known: dict[int, float] = {}

    def lent(basin: int) -> float:
        if basin not in known:
            known[basin] = sum(weight * levels[other] for other, weight in runtime.basins.associates(basin))
        return known[basin]

    return lent


def _memories(
    vocabulary: Sequence[str], rng: random.Random
) -> tuple[dict[tuple[int, int], list[Told]], dict[str, tuple[list[str], list[str]]]]:
    """Memories by project and session; and of each its words that all use, and of its project."""
    shared, rest = list(vocabulary[:120]), list(vocabulary[120:])
    rng.shuffle(rest)
    memories: dict[tuple[int, int], list[Told]] = {}
    words: dict[str, tuple[list[str], list[str]]] = {}
    for project in range(_PROJECTS):
        of_project = rest[project * 12 : project * 12 + 12]
        for session in range(_SESSIONS):
            first = _PROJECTS * 12 + (project * _SESSIONS + session) * 4
            of_session = rest[first : first + 4]
            for turn in range(_TURNS):
                common, own = rng.sample(shared, 5), rng.sample(of_project, 2)
                source = f"{project}/{session}/{turn}"
                said = [*common, *own, rng.choice(of_session)]
                rng.shuffle(said)
                words[source] = (common, own)
                at = _START - timedelta(days=200 - project, minutes=-turn - 60 * session)
                told = Told(text=" ".join(said), source=source, at=at, session=f"project {project}, session {session}")
                memories.setdefault((project, session), []).append(told)
    return memories, words


def _tasks(
    memories: dict[tuple[int, int], list[Told]],
    words: dict[str, tuple[list[str], list[str]]],
    rng: random.Random,
    days: int,
    *,
    clustered: bool,
) -> Iterator[Task]:
    worked = [1.0] * _PROJECTS
    at_work: list[int] = []
    for day in range(days):
        at_work = [project for project in at_work if rng.random() < 0.75]
        while len(at_work) < 2:
            project = rng.choices(range(_PROJECTS), weights=worked)[0]
            at_work += [project] if project not in at_work else []
        for project in at_work:
            worked[project] += 1
        for number in range(_ASKED):
            project = at_work[number % 2] if clustered else rng.randrange(_PROJECTS)
            session = (day + number // 4) % _SESSIONS
            gold = rng.choice(memories[project, session]).source or ""
            common, _ = words[gold]
            at = _START + timedelta(days=day + 2 * (day // 5), minutes=50 * number)
            yield Task(at, day, " ".join(rng.sample(common, 2)), gold)


def _figures(asked: Sequence[Asked], a: float, c: float) -> dict[str, Any]:
    ranks = []
    for one in asked:
        ranked = sorted(one.hits, key=lambda hit: -(hit[1] + a * hit[2] + c * hit[3]))
        ranks.append(next((n for n, hit in enumerate(ranked) if hit[0] == one.task.gold), None))
    return {
        "recall_at_5": round(mean(rank is not None and rank < 5 for rank in ranks), 4),
        "recall_at_10": round(mean(rank is not None and rank < 10 for rank in ranks), 4),
        "mrr": round(mean(0.0 if rank is None else 1 / (rank + 1) for rank in ranks), 4),
        "questions": len(ranks),
    }
