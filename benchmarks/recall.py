"""What recall finds: memories told one by one through the public API into a fresh store, then asked for.

`--data` takes two kinds of files, as JSON lines, gzip or not:

* conversations as LoCoMo has them (Maharana et al. 2024, arXiv 2402.17753): each turn a memory, each session an
  episode, each question that is not adversarial (category 5) asked; gold are the turns that hold its evidence. A turn
  that shows a photo is told with the photo's caption;
* recorded runs of agents: each step a memory – thought, action, observation – and each later thought, from the twelfth
  step on, asked; gold are the earlier steps whose observation holds an identifier that its action uses and the task
  does not hold.

Without it, a run that reads this project's own files.

Methods: `bm25` (bm25s and PyStemmer, texts prefixed with their day), `embedding` (MiniLM's vectors, averaged), `rrf`
and `zsum` of these two, and recall as it is: `lexical`, `static` (the default install) and `ours` (`[minilm]`, or what
`--embedder` names). Recall at k is the share of a question's gold among the first k, `recall_all` whether all are;
`mrr` of the first gold, 0 beyond the fiftieth. Intervals are bootstrapped over questions, 95 %. `ablation` leaves out
one feature of `ours` at a time, on the same stores (conversations only).
`held_out`: the weights, which are fitted on the five conversations that docs/decisions/0018 names, fitted again
without the one that is asked.
"""

import gzip
import json
import logging
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.recorded import reading_this_project, runs_in
from dionysus import Runtime
from dionysus.callbacks.see_once import identifiers
from dionysus.memory.ranking import Weights
from dionysus.memory.semantic import Hit, Told
from dionysus.settings import Settings

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
_DEEP = 50
_WARM_UP = 11
_STEP_CHARS = 4_000
_RUNS = 40
_BOOTSTRAP = 1_000


@dataclass(frozen=True)
class Question:
    """What is asked, when so much has been told, and which of it is the answer."""

    text: str
    after: int
    """It is asked when so many memories have been told."""
    gold: frozenset[str]
    """Sources."""
    category: str


@dataclass(frozen=True)
class Episode:
    """A conversation or a run."""

    name: str
    memories: Sequence[Told]
    questions: Sequence[Question]


def run(
    *, short: bool, seed: int, data: Path | None, embedder: str = "minilm", limit: int | None = None
) -> dict[str, Any]:
    """Methods side by side, by category; `ablation` of the best one."""
    told = _read(data, limit)
    if short:
        told = [replace(one, questions=one.questions[:40]) for one in told[: 1 if data and _is_chat(told) else 3]]
    asks = [(one, question) for one in told for question in one.questions]
    rng = random.Random(seed)
    rows, ablation, seconds = [], [], {}
    ranks: dict[str, list[list[str]]] = defaultdict(list)
    pooled = _ranked_by_baselines(told)
    ranks |= pooled
    for method, spec in {"lexical": "lexical", "static": "static", "ours": embedder}.items():
        began, count = time.perf_counter(), 0
        for one in told:
            with _runtime(spec) as runtime:
                ranks[method] += _asked(runtime, one)
                count += len(one.memories) + len(one.questions)
        seconds[method] = round((time.perf_counter() - began) / max(count, 1), 4)
    for method, ranked in ranks.items():
        rows += _rows(method, asks, ranked, rng)
    held_out = {}
    if not short and _is_chat(told):
        held_out = {name: _held_out(told, spec) for name, spec in (("static", "static"), ("ours", embedder))}
        ablation = _ablation(told, asks, embedder)
    return {
        "data": data.name if data else "this project, read by a played run",
        "embedder": embedder,
        "told": {"episodes": len(told), "memories": sum(len(one.memories) for one in told), "questions": len(asks)},
        "seconds_a_verb": seconds,
        "rows": rows,
        "ablation": ablation,
        "held_out": held_out,
    }


# -- what is told and asked ------------------------------------------------------------------------------


def _is_chat(told: Sequence[Episode]) -> bool:
    return any(question.category in CATEGORIES.values() for one in told for question in one.questions)


def _read(data: Path | None, limit: int | None) -> list[Episode]:
    if data is None:
        return [_of_run(reading_this_project(40, start)) for start in (0, 40, 80)]
    try:
        with gzip.open(data, "rt") if data.suffix == ".gz" else data.open() as lines:
            records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"{data} cannot be read: {error}") from error
    if len(records) == 1 and isinstance(records[0], list):
        records = records[0]  # as LoCoMo comes: one array
    if all(isinstance(one, dict) and "conversation" in one and "qa" in one for one in records) and records:
        return [_of_conversation(one) for one in records[:limit]]
    return [_of_run(one) for one in runs_in(data, limit or _RUNS)]


def _of_conversation(record: Mapping[str, Any]) -> Episode:
    memories, number = list[Told](), 1
    said = record["conversation"]
    while f"session_{number}" in said:
        at = datetime.strptime(said[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for turn in said[f"session_{number}"]:
            photo = f" [photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            memories.append(
                Told(
                    text=f"{turn['text']}{photo}".strip() or "(nothing)",
                    kind="turn",
                    source=turn["dia_id"],
                    at=at,
                    actor=turn["speaker"],
                    session=f"session {number}",
                )
            )
        number += 1
    known = {memory.source for memory in memories}
    questions = []
    for asked in record["qa"]:
        gold = frozenset(g for text in asked.get("evidence", ()) for g in re.findall(r"D\d+:\d+", text)) & known
        if asked["category"] in CATEGORIES and gold:
            questions.append(Question(asked["question"], len(memories), gold, CATEGORIES[asked["category"]]))
    return Episode(str(record.get("sample_id", "")), memories, questions)


def _of_run(record: Mapping[str, Any]) -> Episode:
    memories, questions = list[Told](), list[Question]()
    began = datetime(2026, 1, 1, tzinfo=UTC)
    task = names_in(" ".join(m["content"] for m in record["prefix"]))
    held: list[set[str]] = []
    for number, step in enumerate(record["steps"]):
        needed = names_in(step["action"]) - task
        gold = frozenset(f"step {n}" for n, names in enumerate(held) if names & needed)
        if number >= _WARM_UP and gold and step["thought"].strip():
            questions.append(Question(step["thought"], number, gold, "episode"))
        held.append(names_in(step["obs"]))
        text = "\n".join(filter(None, (step["thought"], step["action"], step["obs"][:_STEP_CHARS])))
        memories.append(
            Told(
                text=text.strip() or "(nothing)",
                kind="step",
                source=f"step {number}",
                at=began + timedelta(minutes=number),
                actor="agent",
                session=str(record["id"]),
                step=number,
            )
        )
    return Episode(str(record["id"]), memories, questions)


def names_in(text: str) -> set[str]:
    """Identifiers, as see-once's stubs keep them."""
    return set(identifiers(text))


# -- asking ----------------------------------------------------------------------------------------------


@contextmanager
def _runtime(embedder: str) -> Iterator[Runtime]:
    logging.getLogger("dionysus").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as folder,
        Runtime(f"sqlite:///{folder}/mind.db", settings=Settings(embedder=embedder)) as runtime,
    ):
        yield runtime


def _asked(runtime: Runtime, told: Episode) -> list[list[str]]:
    found, position = [], 0
    for question in told.questions:
        while position < question.after:
            runtime.remember_all([told.memories[position]])
            position += 1
        found.append(_ranked(runtime, question))
    return found


def _ranked(runtime: Runtime, question: Question) -> list[str]:
    return [hit.memory.source for hit in runtime.memory.recall(question.text, limit=_DEEP)]


def _ablation(told: Sequence[Episode], asks: Sequence[tuple[Episode, Question]], spec: str) -> list[dict[str, Any]]:
    """`ours` without one feature at a time."""
    ranks: dict[str, list[list[str]]] = defaultdict(list)
    if not all(question.after == len(one.memories) for one, question in asks):
        return []  # questions between memories are asked once
    for one in told:
        with _runtime(spec) as runtime:
            ranks["nothing"] += _asked(runtime, one)
            embedder: Any = runtime.memory.embedder
            if embedder is None:
                return []
            whole: Weights = embedder.weights
            for feature in fields(Weights):
                if getattr(whole, feature.name):
                    embedder.weights = replace(whole, **{feature.name: 0.0})
                    ranks[feature.name] += [_ranked(runtime, question) for question in one.questions]
            embedder.weights = whole
    figures = {name: _figures(asks, ranked) for name, ranked in ranks.items()}
    best = figures["nothing"]["recall_at_10"]
    return [
        {"without": name, **theirs, "loss_at_10": round(best - theirs["recall_at_10"], 4)}
        for name, theirs in figures.items()
    ]


def _held_out(told: Sequence[Episode], spec: str) -> dict[str, Any]:
    """Weights fitted on all conversations but one – three rounds, feature by feature, from `_BEFORE` – and the figures
    of the one that was left out; all of these together."""
    features: list[tuple[int, Question, dict[str, Any]]] = []
    names: list[str] = []
    for number, one in enumerate(told):
        with _runtime(spec) as runtime:
            runtime.remember_all(one.memories)
            embedder: Any = runtime.memory.embedder
            embedder.weights = replace(embedder.weights, **dict.fromkeys(_BEFORE, 1.0))
            names = [name for name in _BEFORE if name in {f.name for f in fields(Weights)}]
            for question in one.questions:
                hits = runtime.memory.recall(question.text, limit=len(one.memories))
                sources = [hit.memory.source for hit in hits]
                features.append((number, question, {"sources": sources, "parts": _matrix(hits, names)}))
    asks = [(told[number], question) for number, question, _ in features]
    scale = 20.0 if spec == "minilm" else 0.4
    ranked: list[list[str]] = [[] for _ in features]
    for left_out in range(len(told)):
        some = [one for one in features if one[0] != left_out]
        weights = dict(_BEFORE, meaning=scale, words=1.5 if spec == "minilm" else 3.5)
        best = _worth(some, weights)
        for name in names * _ROUNDS:
            for factor in (0.5, 0.75, 1.33, 2.0):
                tried = {**weights, name: weights[name] * factor}
                worth = _worth(some, tried)
                if worth > best + 0.0005:
                    best, weights = worth, tried
        for place, (number, _, found) in enumerate(features):
            if number == left_out:
                ranked[place] = _order(found, weights)
    return _figures(asks, ranked)


_ROUNDS = 3
_BEFORE = {
    "meaning": 1.0,
    "words": 1.0,
    "actor": 1.2,
    "date": 3.5,
    "when": 2.0,
    "question": -0.5,
    "answer": 0.4,
    "opening": 0.5,
}
"""Where each fit begins."""


def _matrix(hits: Sequence[Hit], names: Sequence[str]) -> Any:
    import numpy as np

    return np.array([[hit.why.get(name, 0.0) for name in names] for hit in hits]).reshape(len(hits), len(names))


def _order(one: Mapping[str, Any], weights: Mapping[str, float]) -> list[str]:
    import numpy as np

    scores = one["parts"] @ np.array([weights[name] for name in _BEFORE])
    return [one["sources"][n] for n in np.argsort(-scores, kind="stable")]


def _worth(some: Sequence[tuple[int, Question, Mapping[str, Any]]], weights: Mapping[str, float]) -> float:
    measured = [_measures(question, _order(one, weights)) for _, question, one in some]
    at_5, at_10, whole, first = (sum(column) / len(measured) for column in zip(*measured, strict=True))
    return float(at_10 + 0.5 * whole + 0.25 * at_5 + 0.1 * first)


def _ranked_by_baselines(told: Sequence[Episode]) -> dict[str, list[list[str]]]:
    """Rankings by BM25, by averaged vectors, and by both."""
    import bm25s
    import numpy as np
    import Stemmer

    from dionysus.memory.embeddings import ContextualTokens

    stemmer, model = Stemmer.Stemmer("english"), ContextualTokens(384)

    def vector(text: str) -> Any:
        tokens = np.frombuffer(model.encode([text])[0], np.int8).reshape(-1, 384).astype(np.float32)
        mean = tokens.mean(0) if len(tokens) else np.zeros(384, np.float32)
        return mean / (np.linalg.norm(mean) + 1e-9)

    found: dict[str, list[list[str]]] = defaultdict(list)
    for one in told:
        sources = [memory.source or "" for memory in one.memories]
        said = [f"{memory.actor}: {memory.text}" for memory in one.memories]
        vectors = np.stack([vector(text) for text in said])
        dated = [f"{memory.at:%d %B %Y} {text}" for memory, text in zip(one.memories, said, strict=True)]
        index: Any = None
        indexed = -1
        for question in one.questions:
            n = question.after
            if indexed != n:
                index, indexed = bm25s.BM25(), n
                index.index(
                    bm25s.tokenize(dated[:n], stemmer=stemmer, stopwords="en", show_progress=False), show_progress=False
                )
            (tokens,) = bm25s.tokenize(
                [question.text], stemmer=stemmer, stopwords="en", show_progress=False, return_ids=False
            )
            words = index.get_scores(tokens) if tokens else np.zeros(n)
            means = vectors[:n] @ vector(question.text)
            for name, scores in {
                "bm25": words,
                "embedding": means,
                "rrf": sum(1 / (60 + np.argsort(np.argsort(-s, kind="stable"))) for s in (words, means)),
                "zsum": sum((s - s.mean()) / (s.std() + 1e-9) for s in (words, means)),
            }.items():
                found[name].append([sources[i] for i in np.argsort(-np.asarray(scores), kind="stable")[:_DEEP]])
    return dict(found)


# -- figures ---------------------------------------------------------------------------------------------


def _rows(
    method: str, asks: Sequence[tuple[Episode, Question]], ranked: Sequence[Sequence[str]], rng: random.Random
) -> list[dict[str, Any]]:
    names = ["all", *dict.fromkeys(question.category for _, question in asks)]
    rows = []
    for category in names:
        chosen = [n for n, (_, question) in enumerate(asks) if category in ("all", question.category)]
        some, theirs = [asks[n] for n in chosen], [ranked[n] for n in chosen]
        rows.append({"method": method, "category": category, **_figures(some, theirs), **_interval(some, theirs, rng)})
    return rows


def _measures(question: Question, ranked: Sequence[str]) -> tuple[float, float, float, float]:
    gold = question.gold
    first = next((place for place, source in enumerate(ranked) if source in gold), None)
    at: Callable[[int], float] = lambda k: len(gold.intersection(ranked[:k])) / len(gold)  # noqa: E731
    return at(5), at(10), float(at(10) == 1), 0.0 if first is None else 1 / (first + 1)


def _figures(asks: Sequence[tuple[Episode, Question]], ranked: Sequence[Sequence[str]]) -> dict[str, Any]:
    measured = [_measures(question, theirs) for (_, question), theirs in zip(asks, ranked, strict=True)]
    count = len(measured)
    means = [round(sum(column) / count, 4) for column in zip(*measured, strict=True)] if measured else [None] * 4
    return dict(zip(("recall_at_5", "recall_at_10", "recall_all_at_10", "mrr"), means, strict=True)) | {
        "questions": count
    }


def _interval(
    asks: Sequence[tuple[Episode, Question]], ranked: Sequence[Sequence[str]], rng: random.Random
) -> dict[str, Any]:
    values = [_measures(question, theirs)[1] for (_, question), theirs in zip(asks, ranked, strict=True)]
    if not values:
        return {}
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(_BOOTSTRAP))
    return {"recall_at_10_interval": [round(means[int(q * (_BOOTSTRAP - 1))], 4) for q in (0.025, 0.975)]}
