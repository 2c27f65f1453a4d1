"""Memory at scale: telling and recalling at 1,000 to 1,000,000 memories, beside SQLite's FTS5 and brute force.

Memories are sentences of 8 to 24 words, drawn by a Zipf law from the words of `--data` (default: this project's own
texts), told in sessions of 20 through the public API in batches of 500; a query is four to eight words of one memory.
At each size the same queries are asked of all: `recall` (the default install, limit 10), `fts5` (a table of the same
stems, `ORDER BY rank LIMIT 10`), `numpy` (the averaged vectors of the same static table, all cosines). Each asks in
turn, query by query, so that a busy machine slows all. `found`: how often the memory that the query was drawn from is
among the ten. RAM is what the process holds beyond what it held when the store was opened, without this benchmark's
own texts and vectors; bytes are of the store's
file.
"""

import os
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from dionysus import Runtime
from dionysus.memory.semantic import Told
from dionysus.settings import Settings
from dionysus.words import stems

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_BATCH = 500
_QUERIES = 60


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Times, RAM and bytes at each size."""
    import numpy as np

    from dionysus.memory.embeddings import StaticTokens

    vocabulary = words_of(data)
    rng = random.Random(seed)
    sizes = SIZES[:2] if short else SIZES
    static = StaticTokens()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mind.db"
        with Runtime(f"sqlite:///{path}", settings=Settings()) as runtime:
            fts = sqlite3.connect(Path(folder) / "fts.db", isolation_level=None)
            fts.execute("CREATE VIRTUAL TABLE m USING fts5(terms)")
            vectors = np.zeros((sizes[-1], 256), np.float32)
            told, texts, makes = 0, list[str](), _sentences(vocabulary, rng)
            before = _resident()
            runtime.remember("what is to be loaded once")
            runtime.memory.recall("loaded once")
            for size in sizes:
                began, spent = time.perf_counter(), {"tell": 0.0, "fts5": 0.0, "numpy": 0.0}
                while told < size:
                    some = list(islice(makes, min(_BATCH, size - told)))
                    batch = [_told(text, told + n) for n, text in enumerate(some)]
                    spent["tell"] += _timed(lambda batch=batch: runtime.remember_all(batch))  # type: ignore[misc]
                    spent["fts5"] += _timed(lambda some=some, told=told: _add_to_fts(fts, some, told))  # type: ignore[misc]
                    spent["numpy"] += _timed(lambda some=some, told=told: _add_vectors(vectors, static, some, told))  # type: ignore[misc]
                    texts += some
                    told += len(some)
                grown = size - (rows[-1]["memories"] if rows else 0)
                chosen = [rng.randrange(size) for _ in range(_QUERIES // (4 if short else 1))]
                queries = [
                    " ".join(rng.sample(words, min(len(words), rng.randint(4, 8))))
                    for words in (texts[n].split() for n in chosen)
                ]
                asked = _ask(runtime, fts, vectors[:size], static, queries)
                by = {
                    name: {
                        "p50_ms": round(1000 * median(times), 2),
                        "p95_ms": round(1000 * quantiles(times, n=20)[-1], 2),
                        "found": round(sum(n in ids for n, ids in zip(chosen, found, strict=True)) / len(chosen), 3),
                    }
                    for name, (times, found) in asked.items()
                }
                rows.append(
                    {
                        "memories": size,
                        "told_per_s": {name: round(grown / seconds) for name, seconds in spent.items()},
                        "recall": by,
                        "ram_mib": round((_resident() - before - _own(texts, vectors[:size])) / 2**20),
                        "store_bytes_a_memory": round(_size_of(path) / size),
                        "vector_bytes_a_memory": round(
                            sum(n for _, n in runtime.memory.size().vectors.values()) / size
                        ),
                        "seconds": round(time.perf_counter() - began, 1),
                    }
                )
            fts.close()
    return {"data": data.name if data else "this project's own words", "sizes": rows}


def words_of(data: Path | None) -> list[str]:
    """Words by how often they come, most frequent first."""
    if data is None:
        root = Path(__file__).parent.parent
        texts = [
            p.read_text("utf-8")
            for p in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("src/**/*.py")])
        ]
    else:
        texts = [data.read_text("utf-8", errors="replace")]
    counts: dict[str, int] = {}
    for word in re.findall(r"[^\W\d_]{3,}", " ".join(texts).lower()):
        counts[word] = counts.get(word, 0) + 1
    found = sorted(counts, key=lambda word: (-counts[word], word))
    if len(found) < 100:
        raise SystemExit(f"{data} has {len(found)} different words; 100 are needed")
    # ten times as many, for a store of a million memories has more words than a project
    return [*found, *(f"{a}{b}" for a, b in zip(found * 9, (found * 10)[7:], strict=False))]


def _sentences(words: Sequence[str], rng: random.Random) -> Iterator[str]:
    weights, total = list[float](), 0.0
    for rank in range(1, len(words) + 1):
        total += 1 / rank
        weights.append(total)
    while True:
        yield " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(8, 24)))


def _some_of(words: list[str], rng: random.Random) -> str:
    return " ".join(rng.sample(words, min(len(words), rng.randint(4, 8))))


def _vectors_of(runtime: Runtime) -> int:
    return sum(size for _, size in runtime.memory.size().vectors.values())


def _told(text: str, number: int) -> Told:
    at = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return Told(text=text, source=f"m{number}", at=at, actor=f"agent {number % 7}", session=f"session {number // 20}")


def _add_to_fts(fts: sqlite3.Connection, texts: Sequence[str], first: int) -> None:
    fts.execute("BEGIN")
    fts.executemany(
        "INSERT INTO m (rowid, terms) VALUES (?, ?)", [(first + n, " ".join(stems(t))) for n, t in enumerate(texts)]
    )
    fts.execute("COMMIT")


def _add_vectors(vectors: Any, static: Any, texts: Sequence[str], first: int) -> None:
    for n, text in enumerate(texts):
        mean = static.query(text).vectors.mean(0)
        vectors[first + n] = mean / ((mean @ mean) ** 0.5 or 1.0)


def _ask(
    runtime: Runtime, fts: sqlite3.Connection, vectors: Any, static: Any, queries: Sequence[str]
) -> dict[str, tuple[list[float], list[list[int]]]]:
    import numpy as np

    def by_recall(query: str) -> list[int]:
        return [int(hit.memory.source[1:]) for hit in runtime.memory.recall(query, limit=10)]

    def by_fts(query: str) -> list[int]:
        match = " OR ".join(f'"{term}"' for term in stems(query))
        return [row[0] for row in fts.execute("SELECT rowid FROM m WHERE m MATCH ? ORDER BY rank LIMIT 10", (match,))]

    def by_numpy(query: str) -> list[int]:
        cosines = vectors @ static.query(query).vectors.mean(0)
        return [int(n) for n in np.argpartition(-cosines, 10)[:10]]

    ways: dict[str, Callable[[str], list[int]]] = {"recall": by_recall, "fts5": by_fts, "numpy": by_numpy}
    asked: dict[str, tuple[list[float], list[list[int]]]] = {name: ([], []) for name in ways}
    for query in queries:
        for name, way in ways.items():
            began = time.perf_counter()
            found = way(query)
            asked[name][0].append(time.perf_counter() - began)
            asked[name][1].append(found)
    return asked


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _size_of(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.glob(path.name + "*"))


def _own(texts: Sequence[str], vectors: Any) -> int:
    return sum(map(sys.getsizeof, texts)) + int(vectors.nbytes)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
