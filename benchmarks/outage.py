"""Beats while Neo4j is killed, frozen and restarted at random: does all of it arrive, once, and as it was?

Four processes at a time beat over folders that change, two to a store, and are followed by others when they end; all
ship to one server. When all have beaten the server is left alone and what waits is shipped; then every trace with its
steps, basins and memories is read back from the graph and held against its store.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from ci.bolt import BoltServer, server_for
from dionysus.runtime import Runtime
from dionysus.settings import load_settings
from dionysus.stores import Store, open_store
from dionysus.stores.codec import to_us
from dionysus.stores.neo4j import Graph, GraphTraces

WORKERS, STORES = 4, 2
BEATS_A_PROCESS = 10
_LASTS_S = 25.0
"""At least so long it goes on, so that a server that takes seconds to start is killed more than once."""
_WORDS = [f"{a}{b}" for a in ("tide", "wind", "light", "harbour", "rope") for b in ("s", "-table", "-keeper", "-log")]
_WORKER = """
import json, random, sys, time
from pathlib import Path
from dionysus import Runtime
given = json.loads(sys.argv[1])
chance, lines = random.Random(given["seed"]), Path(given["lines"]).read_text(errors="replace").splitlines()
folder = Path(given["folder"])
with Runtime(store=given["store"]) as runtime:
    for number in range(given["beats"]):
        time.sleep(chance.uniform(0, given["pause_s"]))
        (folder / f"page-{number % 7}.md").write_text("\\n".join(chance.choices(lines, k=5)))
        report = runtime.beat(folder)
        print(report.status, flush=True)
"""


def run(*, short: bool, seed: int, data: Path | None, beats: int | None = None) -> dict[str, Any]:
    """What arrived of it.

    Args:
        data: A text; its lines are written into the folders.
        beats: Default: 1000, short: 50.
    """
    wanted = beats if beats is not None else 50 if short else 1000
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        lines = root / "lines"
        made_up = "\n".join(" ".join(chance.choices(_WORDS, k=8)) for _ in range(200))
        lines.write_text(data.read_text(errors="replace") if data else made_up)
        server = server_for(root / "server")
        server.start()
        try:
            return _measured(server, root, lines, wanted, chance)
        finally:
            server.kill()


def _measured(server: BoltServer, root: Path, lines: Path, wanted: int, chance: random.Random) -> dict[str, Any]:
    graph = Graph(server.uri, user=server.user, password=server.password, database="neo4j")
    graph.initialise()
    stores = [f"sqlite:///{root}/store-{number}.db" for number in range(STORES)]
    began = time.perf_counter()
    trouble = _Trouble(server, random.Random(chance.random()))
    trouble.start()
    statuses = Counter[str]()
    workers = [
        threading.Thread(target=_beat_on, args=(number, wanted, stores, root, lines, chance.random(), server, statuses))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    trouble.end()
    waiting = 0
    shipping = time.perf_counter()
    for url in stores:
        with Runtime(settings=load_settings(store=url, **_settings(server))) as runtime:
            waiting += sum(runtime.shipper.backlog().waiting.values())
            runtime.shipper.ship()
    shipped_s = time.perf_counter() - shipping
    opened = [open_store(url) for url in stores]
    found = [compared(store, graph) for store in opened]
    for store in opened:
        store.close()
    doubles = duplicates(graph)
    graph.close()
    return {
        "server": server.name,
        "beats": sum(statuses.values()),
        "beats_that_failed": {status: count for status, count in statuses.items() if status != "success"},
        "processes": -(-wanted // (WORKERS * BEATS_A_PROCESS)) * WORKERS,
        "stores": STORES,
        "kills": trouble.kills,
        "freezes": trouble.freezes,
        "seconds": round(took, 1),
        "server_down_s": round(trouble.down_s, 1),
        "changes_left_at_the_end": waiting,
        "shipped_in_s": round(shipped_s, 1),
        "traces_in_graph": doubles.pop("traces"),
        "duplicates": sum(doubles.values()),
        **{name: sum(one[name] for one in found) for name in found[0]},
    }


def _settings(server: BoltServer) -> dict[str, str]:
    return {
        "neo4j_uri": server.uri,
        "neo4j_username": server.user,
        "neo4j_password": server.password,
    }


def _beat_on(
    number: int,
    wanted: int,
    stores: list[str],
    root: Path,
    lines: Path,
    seed: float,
    server: BoltServer,
    statuses: Counter[str],
) -> None:
    """One process after another, until this worker's share of the beats is done."""
    left = wanted // WORKERS + (number < wanted % WORKERS)
    folder = root / f"folder-{number}"
    folder.mkdir()
    while left:
        beats = min(left, BEATS_A_PROCESS)
        given = {
            "seed": seed + left,
            "lines": str(lines),
            "folder": str(folder),
            "beats": beats,
            "pause_s": 2 * max(1.0, _LASTS_S * WORKERS / wanted),
        }
        done = subprocess.run(
            [sys.executable, "-c", _WORKER, json.dumps({**given, "store": stores[number % STORES]})],
            env={**os.environ, **server.environment, "DIONYSUS_NEO4J_DRAIN_S": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"a beat failed while Neo4j was disturbed: {done.stderr[-2000:]}")
        for status in done.stdout.split():
            statuses[status] += 1
        left -= beats


class _Trouble(threading.Thread):
    """Kills and freezes a server at random instants, and brings it back."""

    def __init__(self, server: BoltServer, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = self.freezes = 0
        self.down_s = 0.0
        self._server, self._chance = server, chance
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._chance.uniform(5, 12)):
            began = time.perf_counter()
            if self._chance.random() < 0.7:
                self._server.kill()
                self.kills += 1
                self._over.wait(self._chance.uniform(0, 3))
                self._server.start()
            else:
                self._server.freeze()
                self.freezes += 1
                self._over.wait(self._chance.uniform(0.5, 4))
                self._server.thaw()
            self.down_s += time.perf_counter() - began

    def end(self) -> None:
        """Leaves the server alone, and up."""
        self._over.set()
        self.join()


def compared(store: Store, graph: Graph) -> dict[str, int]:
    """A store held against the graph: how much it has, and of how much the graph has something else."""
    there = GraphTraces(graph, store_id=store.outbox.store_id)
    counts = dict.fromkeys(("traces", "steps", "plans", "basin_links", "recalls", "memories", "differing"), 0)
    for trace in store.records.traces(limit=-1):
        pairs = (
            ("traces", [trace], [there.trace(trace.id)]),
            ("steps", store.records.steps(trace.id), there.steps(trace.id)),
            ("basin_links", store.records.basin_links(trace.id), there.basin_links(trace.id)),
            ("recalls", store.records.recalled_memories(trace.id), there.recalled_memories(trace.id)),
            ("memories", store.records.created_memories(trace.run_id), there.created_memories(trace.run_id)),
        )
        for name, here, shipped in pairs:
            counts[name] += len(here)
            counts["differing"] += list(here) != list(shipped)
            if name == "steps":
                counts["plans"] += sum(step.step_type == "planning" for step in store.records.steps(trace.id))
    counts["differing"] += _minds_differ(store, graph)
    return counts


def _minds_differ(store: Store, graph: Graph) -> int:
    """Basins, memories, and the links of both that are read by nobody but the graph's own questions."""
    own = store.outbox.store_id
    basins, memories = store.mind.basins(), store.memories.newest(limit=-1)
    traces = {trace.id: trace for trace in store.records.traces(limit=-1)}
    tops = {trace.run_id: trace.id for trace in traces.values() if trace.parent_trace_id is None}
    here: dict[str, list[Any]] = {
        "MATCH (b:AttractorBasin {store: $own}) WHERE b.name IS NOT NULL "
        "RETURN b.number, b.name, b.opened_at, b.closed_at, b.activation, b.habituation, b.activated_at": [
            [
                b.id,
                b.name,
                *(_us(at) for at in (b.opened_at, b.closed_at)),
                b.activation,
                b.habituation,
                _us(b.activated_at),
            ]
            for b in basins
        ],
        "MATCH (m:AgentMemory {store: $own}) WHERE m.source IS NOT NULL "
        "RETURN m.number, m.kind, m.text, m.at, m.source, m.place, m.run_id, m.step": [
            [m.id, m.kind, m.text, _us(m.at), m.source, m.place, m.run_id, m.step] for m in memories
        ],
        "MATCH (m:AgentMemory {store: $own})-[:LIES_IN]->(b) RETURN m.number, b.number": [
            [m.id, m.basin_id] for m in memories if m.basin_id is not None
        ],
        "MATCH (t {store: $own})-[c:CREATED_MEMORY]->(m) RETURN t.id, m.number, c.at_step": [
            [tops[m.run_id], m.id, m.step] for m in memories if m.run_id in tops
        ],
        "MATCH (t {store: $own})-[d:DELEGATED_FROM]->(p) RETURN t.id, p.id, d.at_step": [
            [t.id, t.parent_trace_id, t.parent_step] for t in traces.values() if t.parent_trace_id in traces
        ],
    }
    differing = 0
    for query, rows in here.items():
        there = graph.read(lambda tx, q=query: tx.run(q, own=own).values())  # type: ignore[misc]
        differing += sorted(map(repr, there)) != sorted(map(repr, rows))
    return differing


def _us(at: datetime | None) -> int | None:
    return None if at is None else to_us(at)


def duplicates(graph: Graph) -> dict[str, int]:
    """Traces in the graph, and what is there more than once: nodes by id, links by what they link."""
    queries = {
        "traces": "MATCH (t:AgentExecutionTrace) RETURN count(t) AS n",
        "steps": "MATCH (t)-[h:HAS_STEP]->() WITH t, h.order AS o, count(*) AS c WHERE c > 1 RETURN count(*) AS n",
        "links": "MATCH (t)-[l:ACTIVATED_BASIN|RECALLED|CREATED_MEMORY]->(x) "
        "WITH t, type(l) AS kind, x, l.at_step AS s, count(*) AS c WHERE c > 1 RETURN count(*) AS n",
        "places": "MATCH (m:AgentMemory)-[l:LIES_IN]->() WITH m, count(*) AS c WHERE c > 1 RETURN count(*) AS n",
    }
    return {name: graph.read(lambda tx, q=query: tx.run(q).data()[0]["n"]) for name, query in queries.items()}  # type: ignore[misc]
