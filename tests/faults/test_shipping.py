"""Neo4j in all its moods, each of them caused: agents feel nothing of it, people get a clear line, nothing is lost."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import outage
from benchmarks.outage import compared, duplicates
from ci.bolt import ArcadeDB, BoltServer, free_port, server_for
from conftest import START, Repository, graph_on
from dionysus import Runtime, shipping
from dionysus.errors import BadInput, DataRefused, GraphDown, GraphRefused, StoreError, StoreTooNew
from dionysus.settings import load_settings
from dionysus.shipping import Shipper
from dionysus.stores import open_store
from dionysus.stores.contract import AgentExecutionTrace
from dionysus.stores.neo4j import Graph, GraphTraces
from dionysus.traces.lineage import Lineage


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoltServer]:
    """A server that tests may kill and freeze; up again for the next one."""
    server = server_for(tmp_path_factory.mktemp("fragile"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def shaky(fragile: BoltServer) -> BoltServer:
    """The same, empty and set up."""
    fragile.empty()
    opened = graph_on(fragile)
    opened.initialise()
    opened.close()
    return fragile


def runtime_on(folder: Path, server: BoltServer, **changes: Any) -> Runtime:
    """A runtime that ships to a server; `warned` of it has what a person is told."""
    settings = {
        "neo4j_uri": server.uri,
        "neo4j_username": server.user,
        "neo4j_password": server.password,
        "neo4j_drain_s": 20.0,
        **changes,
    }
    warned: list[str] = []
    runtime = Runtime(store=f"sqlite:///{folder}/mind.db", settings=load_settings(**settings), warn=warned.append)
    runtime.warned = warned  # type: ignore[attr-defined]
    return runtime


def warned_in(runtime: Runtime) -> list[str]:
    found: list[str] = runtime.warned  # type: ignore[attr-defined]
    return found


def arrived(folder: Path, graph: Graph) -> dict[str, int]:
    """What of a store is in the graph; all of it, as it is."""
    store = open_store(f"sqlite:///{folder}/mind.db")
    try:
        found = compared(store, graph)
    finally:
        store.close()
    assert found["differing"] == 0
    doubles = duplicates(graph)
    assert [name for name, count in doubles.items() if count and name != "traces"] == []
    return found


def one_trace(runtime: Runtime, name: str = "run") -> str:
    """A trace with a step, by hand."""
    trace = runtime.traces.create_trace("mine", name)
    runtime.traces.add_step(trace, {"step_number": 1, "step_type": "action", "observation": "seen"})
    runtime.traces.complete_trace(trace, True, "done")
    return trace


# -- it goes well -------------------------------------------------------------------------------------


def test_a_beat_is_in_the_graph_when_its_process_ends(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph
) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.beat(repository.path)
    found = arrived(tmp_path, graph)
    assert (found["traces"], found["plans"], found["steps"], found["memories"]) == (1, 4, 14, 1)
    assert found["basin_links"]
    assert found["recalls"]
    assert warned_in(runtime) == []


def test_what_was_there_before_is_shipped_too(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph
) -> None:
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        runtime.beat(repository.path)
    with runtime_on(tmp_path, bolt) as runtime:
        assert runtime.shipper.ship() > 14
        assert runtime.shipper.backlog().waiting == {}
        assert runtime.shipper.ship() == 0
    assert arrived(tmp_path, graph)["traces"] == 1


def test_a_question_and_its_members_are_a_tree_in_the_graph(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph
) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        answer = runtime.ask("Why do token totals of the monitor keep changing?", repository.path)
        runtime.shipper.ship()
        tree = runtime.lineage.delegation(answer.run_id)
        assert [agent.agent for agent in tree] == ["consciousness_manager", "perception", "reasoning", "metacognition"]
        assert {agent.parent for agent in tree[1:]} == {tree[0].trace}
        assert [agent.model_calls for agent in tree] == [
            runtime.traces.get_trace(agent.trace, exact=True).trace.model_calls for agent in tree
        ]
        number, causes = runtime.lineage.why(answer.run_id)
        assert causes
        assert {cause.agent for cause in causes} == {"perception"}
        assert number == runtime.traces.get_trace(answer.run_id).trace.step_count
        memory = next(cause for cause in causes if cause.link == "RECALLED")
        past = runtime.lineage.memory(memory.number)
        assert past.source == memory.what
        assert memory.trace in {use.trace for use in past.uses}
        assert runtime.lineage.why(answer.run_id, 1)[1] == []
        with pytest.raises(BadInput, match="no action"):
            runtime.lineage.why(answer.run_id, 99)
        with pytest.raises(BadInput, match="no memory 999"):
            runtime.lineage.memory(999)
    assert arrived(tmp_path, graph)["traces"] == 4


def test_every_change_is_whole_by_itself(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a parcel of its own: what it hangs on comes with it."""
    monkeypatch.setattr(shipping, "_MOST", 1)
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        runtime.ask("Why do token totals of the monitor keep changing?", repository.path)
        runtime.beat(repository.path)
    with runtime_on(tmp_path, bolt) as runtime:
        parcels = list[int]()
        runtime.shipper.ship(on_parcel=parcels.append)
    assert set(parcels) == {1}
    assert arrived(tmp_path, graph)["traces"] == 5


def test_what_changes_later_is_shipped_again(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph
) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.beat(repository.path)
        runtime.memory.remember("first", source="same")
        runtime.shipper.ship()
        arrived(tmp_path, graph)
        basin = runtime.basins.opened("", "another")
        runtime.memory.remember("second", source="same", basin_id=basin)
        for known, _ in runtime.basins.landscape():
            runtime.basins.activate_basin(known.id, 0.5)
        repository.write({"src/monitoring.py": "total = 0  # token totals\n"})
        runtime.beat(repository.path)
        runtime.shipper.ship()
    assert arrived(tmp_path, graph)["traces"] == 2


def test_what_led_to_an_action(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    """Own recalls before it, those of who handed the work down before that, those of whom it had called before it."""
    with runtime_on(tmp_path, bolt) as runtime:
        traces, records = runtime.traces, runtime._store.records
        top = traces.create_trace("top", "run", trace_id="run")
        child = traces.create_trace("child", "run", parent_trace_id=top, parent_step=3)
        early = traces.create_trace("early", "run", trace_id="early", parent_trace_id=child, parent_step=1)
        late = traces.create_trace("late", "run", trace_id="late", parent_trace_id=child, parent_step=2)
        for trace in (top, child, early, late):
            for step in range(1, 5):
                traces.add_step(trace, {"step_number": step, "step_type": "action"})
                memory = runtime.memory.remember(f"{trace} at {step}", source=f"{trace} {step}")
                records.save_recall(trace, memory, 1.0, step)
        runtime.shipper.ship()
        number, causes = runtime.lineage.why(child, 2)
    assert number == 2
    assert [cause.what for cause in causes] == [
        f"{child} 1",
        *(f"early {step}" for step in (4, 3)),
        *(what for step in (2, 1) for what in (f"run {step}", f"early {step}")),
    ]


def test_runs_that_share_a_basin_with_failures(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        storm = runtime.basins.opened("", "storm")
        calm = runtime.basins.opened("", "calm")
        for name, basin, success in (("good", storm, True), ("bad", storm, False), ("other", calm, True)):
            trace = one_trace(runtime, name)
            runtime.traces.complete_trace(trace, success)
            runtime.traces.link_basin(trace, basin, 0.5, at_step=1)
        runtime.shipper.ship()
        (found,) = runtime.lineage.shared_basins()
        assert (found.run, found.basin, found.failures, found.failed_runs) == ("good", "storm", 1, ("bad",))
        assert runtime.lineage.shared_basins("other") == []


def test_several_processes_ship_at_once(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    """Two to a store, three stores; the same basins and run names in each."""
    script = """
import sys
from dionysus import Runtime, shipping
with Runtime(store=sys.argv[1]) as runtime:
    for n in range(15):
        trace = runtime.traces.create_trace("mine", f"{sys.argv[2]}-{n}")
        runtime.traces.add_step(trace, {"step_number": 1, "step_type": "action", "observation": "x" * 1000})
        runtime.traces.link_basin(trace, runtime.basins.opened("", "shared"), 0.5, at_step=1)
        runtime.remember(f"fact {n} of {sys.argv[2]}")
"""
    environment = {**os.environ, **bolt.environment, "DIONYSUS_NEO4J_DRAIN_S": "60"}
    folders = [tmp_path / str(number) for number in range(3)]
    processes = []
    for folder in folders:
        folder.mkdir()
        for part in "ab":
            given = [f"sqlite:///{folder}/mind.db", f"run-{folder.name}-{part}"]
            processes.append(subprocess.Popen([sys.executable, "-c", script, *given], env=environment))
    assert [process.wait(120) for process in processes] == [0] * 6
    for folder in folders:
        with runtime_on(folder, bolt) as runtime:
            assert runtime.shipper.backlog().waiting == {}
        found = arrived(folder, graph)
        assert (found["traces"], found["basin_links"]) == (30, 30)
    assert duplicates(graph)["traces"] == 90


# -- it is down ---------------------------------------------------------------------------------------


def test_beats_while_the_server_is_killed_and_restarted() -> None:
    figures = outage.run(short=True, seed=7, data=None)
    assert figures["beats"] == figures["traces_in_graph"] == figures["traces"] == 50
    assert figures["beats_that_failed"] == {}
    assert figures["kills"] + figures["freezes"] >= 1
    assert figures["duplicates"] == figures["differing"] == 0
    assert (figures["steps"], figures["plans"]) == (700, 200)
    assert figures["basin_links"] > 50
    assert figures["memories"] == 50


def test_a_server_that_is_down_all_the_time_changes_nothing(
    tmp_path: Path, repository: Repository, shaky: BoltServer
) -> None:
    shaky.kill()
    try:
        with runtime_on(tmp_path, shaky) as runtime:
            report = runtime.beat(repository.path)
            assert report.status == "success"
            deadline = time.monotonic() + 20
            while not warned_in(runtime) and time.monotonic() < deadline:
                time.sleep(0.05)
        (warning,) = warned_in(runtime)
        assert warning == f"traces wait in the store: Neo4j at {shaky.uri} cannot be reached: Connection refused"
        with runtime_on(tmp_path, shaky) as runtime:
            left = runtime.shipper.backlog()
            assert left.waiting["step"] == 14
            assert left.waiting["trace"] == 1
            assert left.shipped == 0
            assert str(left.failure).endswith("cannot be reached: Connection refused")
            with pytest.raises(GraphDown):
                runtime.shipper.ship()
    finally:
        shaky.start()
    with runtime_on(tmp_path, shaky) as runtime:
        runtime.shipper.ship()
        left = runtime.shipper.backlog()
        assert (left.waiting, left.failure) == ({}, None)
    graph = graph_on(shaky)
    assert arrived(tmp_path, graph)["steps"] == 14
    graph.close()


def test_a_server_that_comes_back_gets_all_without_being_asked(tmp_path: Path, shaky: BoltServer) -> None:
    with runtime_on(tmp_path, shaky) as runtime:
        one_trace(runtime, "before")
        _until(lambda: not runtime.shipper.backlog().waiting)
        shaky.kill()
        one_trace(runtime, "meanwhile")
        _until(lambda: bool(warned_in(runtime)))
        shaky.start()
        _until(lambda: not runtime.shipper.backlog().waiting)
    graph = graph_on(shaky)
    assert arrived(tmp_path, graph)["traces"] == 2
    graph.close()


def test_a_server_that_hangs_holds_nobody_up(tmp_path: Path, repository: Repository, shaky: BoltServer) -> None:
    with runtime_on(tmp_path, shaky, neo4j_drain_s=1.0) as runtime:
        one_trace(runtime, "first")
        _until(lambda: not runtime.shipper.backlog().waiting)
        shaky.freeze()
        try:
            assert runtime.beat(repository.path).status == "success"
            began = time.monotonic()
            runtime.close()
            waited = time.monotonic() - began
        finally:
            shaky.thaw()
    assert waited < 15  # of a hang that would last for ever; the bound is 1 s
    assert any("wait in the store" in line for line in warned_in(runtime))
    with runtime_on(tmp_path, shaky) as runtime:
        runtime.shipper.ship()
    graph = graph_on(shaky)
    assert arrived(tmp_path, graph)["traces"] == 2
    graph.close()


def test_a_server_that_hangs_is_waited_for_once(tmp_path: Path, shaky: BoltServer) -> None:
    """The next process knows, and does not wait at its end."""
    shaky.freeze()
    try:
        with runtime_on(tmp_path, shaky, neo4j_drain_s=2.0) as runtime:
            one_trace(runtime)
        assert f"Neo4j at {shaky.uri} said nothing for 2 s" in warned_in(runtime)[0]
        with runtime_on(tmp_path, shaky, neo4j_drain_s=600.0) as runtime:
            one_trace(runtime, "second")
            began = time.monotonic()
        assert time.monotonic() - began < 60  # of the 600 s that it would wait
        assert "said nothing" in warned_in(runtime)[0]
    finally:
        shaky.thaw()
    with runtime_on(tmp_path, shaky) as runtime:
        runtime.shipper.ship()
    graph = graph_on(shaky)
    assert arrived(tmp_path, graph)["traces"] == 2
    graph.close()


def test_a_transaction_that_was_given_up_is_not_committed_later(shaky: BoltServer) -> None:
    graph = graph_on(shaky)
    hold = threading.Event()

    def slow(tx: Any) -> None:
        tx.run("CREATE (:AgentExecutionTrace {id: 'late'})").consume()
        hold.wait(20)

    with pytest.raises(GraphDown, match="does not answer"):
        graph.write(slow, timeout_s=0.5)
    hold.set()
    time.sleep(0.5)
    assert duplicates(graph)["traces"] == 0
    graph.close()


def test_a_mute_listener(tmp_path: Path) -> None:
    """It takes connections, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        graph = Graph(
            f"bolt://127.0.0.1:{listener.getsockname()[1]}", user="u", password="p", database="neo4j", timeout_s=2
        )
        with pytest.raises(GraphDown, match="does not answer: nothing came within 2 s"):
            graph.readiness()


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"\0\0\0\0", GraphRefused, "too old, or no Neo4j"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", (GraphRefused, GraphDown), "127.0.0.1"),
        (b"\xff\xfe\xfd\xfc", (GraphRefused, GraphDown), "127.0.0.1"),
        (b"", GraphDown, "cannot be reached"),
    ],
    ids=["a version that is not spoken", "a web server", "garbage", "hangs up"],
)
def test_something_else_at_that_port(answer: bytes, error: Any, says: str) -> None:
    with _listening(answer) as port:
        graph = Graph(f"bolt://127.0.0.1:{port}", user="u", password="p", database="neo4j", timeout_s=15)
        with pytest.raises(error, match=says):
            graph.readiness()


def test_an_old_server() -> None:
    """One that speaks our Bolt says its age in its name."""
    from dionysus.stores.neo4j import graph as room

    room._check_age("Neo4j/5.0.0", "bolt://x")
    with pytest.raises(GraphRefused, match=r"Neo4j/4.4.38, which is too old; Dionysus needs Neo4j 5"):
        room._check_age("Neo4j/4.4.38", "bolt://x")


# -- it lets us not in --------------------------------------------------------------------------------


def test_a_wrong_password(tmp_path: Path, bolt: BoltServer) -> None:
    with runtime_on(tmp_path, bolt, neo4j_password="wrong-password") as runtime:
        one_trace(runtime)
        with pytest.raises(GraphRefused, match=r"refuses user .*; check NEO4J_USERNAME and NEO4J_PASSWORD"):
            runtime.shipper.ship()
    assert "wrong-password" not in " ".join(warned_in(runtime))
    assert len(warned_in(runtime)) == 1


def test_a_wrong_database(tmp_path: Path, bolt: BoltServer) -> None:
    with (
        runtime_on(tmp_path, bolt, neo4j_database="nope") as runtime,
        pytest.raises(GraphRefused, match="no database 'nope'"),
    ):
        runtime.shipper.ship()


def test_an_unknown_host(tmp_path: Path) -> None:
    graph = Graph("bolt://nowhere.invalid:7687", user="u", password="p", database="neo4j")
    with pytest.raises(GraphDown, match="cannot be reached"):
        graph.readiness()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://127.0.0.1:7474", "write bolt://HOST:7687"),
        ("bolt://", "write bolt://HOST:7687"),
        ("bolt://host:port", "write bolt://HOST:7687"),
        ("bolt://host/database", "write bolt://HOST:7687"),
        ("bolt://neo4j:secret-in-uri@host", "NEO4J_URI holds a user"),
        ("bolt://neo4j:secret-in-uri#x@host", "NEO4J_URI holds a user"),
        ("bolt://neo4j:secret-in-uri/x@host", "NEO4J_URI holds a user"),
        ("neo4j:secret-in-uri@host", "NEO4J_URI holds a user"),
        ("bolt://[::1:7687", "write bolt://HOST:7687"),
        ("bolt://host:7687?password=secret-in-uri", "write bolt://HOST:7687"),
        ("bolt://neo4j:secret-in-uri", "write bolt://HOST:7687"),
        ("bolt://neo4j:secret-in-uri%40host", "NEO4J_URI holds a user"),
    ],
)
def test_what_is_no_uri(uri: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        Runtime(store=f"sqlite:///{tmp_path}/mind.db", settings=load_settings(neo4j_uri=uri))
    assert "secret-in-uri" not in str(refused.value)


def test_without_the_driver(tmp_path: Path, repository: Repository) -> None:
    """Beats go on; what asks for the graph says what to install."""
    blocked = tmp_path / "blocked"
    (blocked / "neo4j").mkdir(parents=True)
    (blocked / "neo4j" / "__init__.py").write_text("raise ImportError('blocked')")
    environment = {**os.environ, "PYTHONPATH": str(blocked), "NEO4J_URI": "bolt://127.0.0.1:1"}

    def dionysus(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dionysus", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    beat = dionysus("beat", "--watch", str(repository.path), "-q")
    assert beat.returncode == 0
    assert (
        "traces wait in the store: Neo4j needs an optional dependency: pip install 'dionysus-agents[neo4j]'"
        in beat.stderr
    )
    init = dionysus("store", "init")
    assert init.returncode == 1
    assert "pip install 'dionysus-agents[neo4j]'" in init.stderr


# -- what is in it ------------------------------------------------------------------------------------


def test_a_graph_that_is_not_set_up_gets_nothing(tmp_path: Path, bolt: BoltServer) -> None:
    """Who sets NEO4J_URI for something else finds nothing of ours in there."""
    bolt.empty()
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
        with pytest.raises(GraphRefused, match="is not set up for traces; `dionysus store init` does that"):
            runtime.shipper.ship()
    with bolt.driver() as driver:
        assert driver.execute_query("MATCH (n) RETURN count(n) AS n", database_="neo4j").records[0]["n"] == 0


def test_setting_up_again_changes_nothing(graph: Graph) -> None:
    before = graph.readiness()
    made, there = graph.initialise()
    assert made == []
    assert len(there) == 11
    assert graph.readiness() == before
    assert graph.required() == before.graph_id


def test_a_missing_constraint_and_a_missing_index(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    for kind, name in (("CONSTRAINT", "agent_execution_step_id"), ("INDEX", "agent_execution_trace_time")):
        with bolt.driver() as driver:
            driver.execute_query(f"DROP {kind} {name}", database_="neo4j")
    try:
        found = graph.readiness()
        assert found.missing == ("agent_execution_step_id",)
        assert found.missing_indexes == ("agent_execution_trace_time",)
        with runtime_on(tmp_path, bolt) as runtime:
            one_trace(runtime)
            with pytest.raises(
                GraphRefused, match="lacks the constraint agent_execution_step_id; `dionysus store init`"
            ):
                runtime.shipper.ship()
    finally:
        assert set(graph.initialise()[0]) == {"agent_execution_step_id", "agent_execution_trace_time"}
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.shipper.ship()
    assert arrived(tmp_path, graph)["traces"] == 1


def test_foreign_nodes_in_the_way_of_a_constraint(bolt: BoltServer, graph: Graph) -> None:
    with bolt.driver() as driver:
        driver.execute_query("DROP CONSTRAINT agent_memory_id", database_="neo4j")
        driver.execute_query("UNWIND [1, 2] AS n CREATE (:AgentMemory {id: 'twice'})", database_="neo4j")
        try:
            with pytest.raises(
                DataRefused, match=r"cannot make agent_memory_id .* several :AgentMemory have the same id"
            ):
                graph.initialise()
        finally:
            driver.execute_query("MATCH (m:AgentMemory) DETACH DELETE m", database_="neo4j")
            assert graph.initialise()[0] == ["agent_memory_id"]


def test_foreign_data_under_our_ids_is_refused_and_the_rest_arrives(
    tmp_path: Path, bolt: BoltServer, graph: Graph
) -> None:
    with bolt.driver() as driver:
        driver.execute_query(
            "CREATE (:AgentExecutionTrace {id: 'theirs/mine', store: 'another', task: 'do not touch'}) "
            "CREATE (:AgentExecutionStep {id: 'ours/mine:1', trace_id: 'elsewhere'})",
            database_="neo4j",
        )
        with runtime_on(tmp_path, bolt) as runtime:
            for name in ("first", "theirs", "ours", "last"):
                one_trace(runtime, name)
            assert runtime.shipper.ship() <= 5
            refused = {(r.kind, r.key): r.reason for r in runtime.shipper.backlog().refused}
            assert set(refused) == {("trace", "theirs/mine"), ("step", "theirs/mine:1"), ("step", "ours/mine:1")}
            assert refused["trace", "theirs/mine"] == "'theirs/mine' is in the graph already, of 'another'"
            assert refused["step", "ours/mine:1"] == "'ours/mine:1' is in the graph already, of 'elsewhere'"
            left = runtime.shipper.backlog()
            assert (left.waiting, left.refusals, left.shipped) == ({}, 3, 5)
            runtime.traces.complete_trace("theirs/mine", False)
            assert runtime.shipper.backlog().shipped == 5
            there = GraphTraces(graph)
            assert [len(there.steps(f"{name}/mine")) for name in ("first", "last")] == [1, 1]
            found = driver.execute_query(
                "MATCH (t:AgentExecutionTrace {id: 'theirs/mine'}) RETURN t.task AS task", database_="neo4j"
            )
            assert found.records[0]["task"] == "do not touch"
            driver.execute_query(
                "MATCH (n) WHERE n.id IN ['theirs/mine', 'ours/mine:1'] DETACH DELETE n", database_="neo4j"
            )
            runtime.shipper.ship(again="refused")
            assert runtime.shipper.backlog().refused == ()
    assert arrived(tmp_path, graph)["traces"] == 4


def test_a_server_that_takes_nothing_is_down_and_refuses_nothing(tmp_path: Path, bolt: BoltServer) -> None:
    """Here since another transaction holds a lock: what is refused meanwhile is no verdict on the data."""
    if isinstance(bolt, ArcadeDB):
        pytest.skip("ArcadeDB locks nothing: a write waits for no other")
    bolt.empty()
    graph = Graph(bolt.uri, user=bolt.user, password=bolt.password, database="neo4j", timeout_s=2)
    store = open_store(f"sqlite:///{tmp_path}/mind.db")
    store.records.save_trace(_trace("t"))
    shipper = Shipper(store, graph, drain_s=0)
    shipper.initialise()
    with bolt.driver() as driver, driver.session(database="neo4j") as session, session.begin_transaction() as held:
        driver.execute_query("CREATE (:AgentExecutionTrace {id: 't'})", database_="neo4j")
        held.run("MATCH (g:DionysusGraph) SET g.held = true").consume()
        with pytest.raises(GraphDown):
            shipper.ship()
        assert (shipper.backlog().refusals, shipper.backlog().waiting) == (0, {"trace": 1})
        held.rollback()
        shipper.ship()
        assert (shipper.backlog().refusals, shipper.backlog().waiting) == (1, {})
    shipper.close()
    store.close()


def test_a_node_of_nobody_is_left_alone(bolt: BoltServer, graph: Graph) -> None:
    with bolt.driver() as driver:
        driver.execute_query("CREATE (:AgentExecutionTrace {id: 't', task: 'keep'})", database_="neo4j")
        with pytest.raises(DataRefused, match="'t' is in the graph already, of nobody that we know"):
            GraphTraces(graph, store_id="here").save_trace(_trace("t"))
        found = driver.execute_query("MATCH (t:AgentExecutionTrace) RETURN t.task AS task", database_="neo4j")
        assert found.records[0]["task"] == "keep"


def test_of_two_stores_that_ship_one_id_at_once_one_is_refused(bolt: BoltServer, graph: Graph) -> None:
    """The other one's transaction is not committed yet when the second looks."""
    if isinstance(bolt, ArcadeDB):
        pytest.skip("ArcadeDB locks nothing: its second transaction fails when it is committed")
    first, second = GraphTraces(graph, store_id="first"), GraphTraces(graph, store_id="second")
    said: list[str] = []

    def late() -> None:
        try:
            second.save_trace(_trace("same", task="of the second"))
        except DataRefused as error:
            said.append(str(error))

    thread = threading.Thread(target=late)

    def early() -> None:
        first.save_trace(_trace("same", task="of the first"))
        thread.start()
        time.sleep(1)

    first.atomically(early)
    thread.join()
    assert said == ["'same' is in the graph already, of 'first'"]
    found = first.trace("same")
    assert found is not None
    assert found.task == "of the first"


def test_what_others_write_on_our_nodes_stays(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime, bolt.driver() as driver:
        trace = one_trace(runtime)
        runtime.shipper.ship()
        driver.execute_query("MATCH (t:AgentExecutionTrace) SET t.reviewed = 'yes'", database_="neo4j")
        runtime.traces.complete_trace(trace, False)
        runtime.shipper.ship()
        found = driver.execute_query("MATCH (t:AgentExecutionTrace) RETURN t.reviewed, t.success", database_="neo4j")
        assert list(found.records[0]) == ["yes", False]
    assert arrived(tmp_path, graph)["traces"] == 1


def test_an_entry_that_no_graph_takes_holds_nothing_up(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    """Damaged in the store: the others arrive, and the reason can be read."""
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        for name in ("a", "b", "c"):
            one_trace(runtime, name)
        runtime._store._database.write("UPDATE steps SET body = '{broken' WHERE trace_id = 'b/mine'")
        runtime._store._database.write("UPDATE steps SET body = '{}' WHERE trace_id = 'c/mine'")
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.shipper.ship()
        left = runtime.shipper.backlog()
        assert {(r.kind, r.key) for r in left.refused} == {("step", "b/mine:1"), ("step", "c/mine:1")}
        assert all("is damaged" in r.reason for r in left.refused)
        assert left.waiting == {}
    assert duplicates(graph)["traces"] == 3


def test_an_agent_name_that_no_index_takes(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    if isinstance(bolt, ArcadeDB):
        pytest.skip("ArcadeDB's indexes take names of any length")
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime, "short")
        runtime.traces.create_trace("n" * 20_000, "long", trace_id="long")
        one_trace(runtime, "later")
        runtime.shipper.ship()
        (refused,) = runtime.shipper.backlog().refused
        assert (refused.kind, refused.key) == ("trace", "long")
        assert runtime.shipper.backlog().waiting == {}
    assert duplicates(graph)["traces"] == 2


def test_an_emptied_graph_gets_everything_again(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
        runtime.shipper.ship()
        bolt.empty()
        one_trace(runtime, "second")
        with pytest.raises(GraphRefused, match="not set up"):
            runtime.shipper.ship()
        graph.initialise()
        runtime.shipper.ship()
    assert arrived(tmp_path, graph)["traces"] == 2


def test_what_a_graph_lost_is_shipped_again_when_asked(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime, bolt.driver() as driver:
        one_trace(runtime)
        runtime.shipper.ship()
        driver.execute_query("MATCH (n) WHERE NOT n:DionysusGraph DETACH DELETE n", database_="neo4j")
        assert runtime.shipper.ship() == 0
        assert runtime.shipper.ship(again="everything") > 0
    assert arrived(tmp_path, graph)["traces"] == 1


def test_a_newer_schema(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with bolt.driver() as driver:
        driver.execute_query("MATCH (g:DionysusGraph) SET g.version = 99", database_="neo4j")
    with pytest.raises(StoreTooNew, match="schema 99"):
        graph.required()
    with pytest.raises(StoreTooNew, match="update dionysus-agents"):
        graph.initialise()


def test_large_steps_go_in_parcels_of_their_own(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        trace = runtime.traces.create_trace("mine", "large")
        for number in range(4):
            runtime.traces.add_step(
                trace, {"step_number": number, "step_type": "action", "observation": f"{number} " * 1_500_000}
            )
        runtime.shipper.ship()
        parcels = list[int]()
        runtime.shipper.ship(again="everything", on_parcel=parcels.append)
        assert len(parcels) >= 4
    assert arrived(tmp_path, graph)["steps"] == 4


def test_setting_up_ends_the_wait(tmp_path: Path, bolt: BoltServer) -> None:
    """Runs ship at once after `store init`, whatever failed just before."""
    bolt.empty()
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
    assert "not set up" in warned_in(runtime)[0]
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.shipper.initialise()
        assert runtime.shipper.backlog().failure is None
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime, "after")
    graph = graph_on(bolt)
    assert arrived(tmp_path, graph)["traces"] == 2
    graph.close()


def test_a_new_graph_at_the_same_place_is_known_to_be_empty(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
        runtime.shipper.ship()
        assert runtime.shipper.backlog().waiting == {}
    bolt.empty()
    with runtime_on(tmp_path, bolt, neo4j_drain_s=0.0) as runtime:
        runtime.shipper.initialise()
        _until(lambda: duplicates(graph)["traces"] == 1)


def test_another_name_of_the_same_graph(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
        runtime.shipper.ship()
    with runtime_on(tmp_path, bolt, neo4j_uri=bolt.uri.replace("127.0.0.1", "localhost")) as runtime:
        assert runtime.shipper.ship() == 0
        assert runtime.shipper.backlog().waiting == {}


def test_a_clock_that_was_wrong_stops_nothing(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    ahead = datetime.now(UTC) + timedelta(days=365)
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        runtime._store.outbox.failed(f"{bolt.uri}/neo4j", "down", ahead, ahead + timedelta(seconds=10))
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
    assert arrived(tmp_path, graph)["traces"] == 1


def test_a_lease_that_cannot_be_taken(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    (tmp_path / "mind.db-shipping").mkdir()
    with runtime_on(tmp_path, bolt) as runtime:
        one_trace(runtime)
        with pytest.raises(StoreError, match=r"cannot lock .*mind\.db-shipping"):
            runtime.shipper.ship()
        _until(lambda: bool(warned_in(runtime)))
        (tmp_path / "mind.db-shipping").rmdir()
        _until(lambda: not runtime.shipper.backlog().waiting)
    assert arrived(tmp_path, graph)["traces"] == 1


def test_shared_basins_of_many_runs(bolt: BoltServer, graph: Graph) -> None:
    """One basin that 20,000 runs activated, a tenth of them in vain: as after a year of beats."""
    with bolt.driver() as driver:
        driver.execute_query(
            "CREATE (b:AttractorBasin {id: 'x/1', name: 'all', store: 'x'}) WITH b UNWIND range(1, 20000) AS n "
            "CREATE (t:AgentExecutionTrace {id: 'r' + n, run_id: 'r' + n, store: 'x', agent_name: 'a', status: 's', "
            "started_at: n, success: n % 10 <> 0})-[:ACTIVATED_BASIN {strength: 0.5, at_step: 1}]->(b)",
            database_="neo4j",
        )
    found = Lineage(graph, store_id="x").shared_basins(limit=20)
    assert [row.run for row in found] == [f"r{number}" for number in range(20_000, 19_980, -1)]
    assert (found[0].failures, found[1].failures, len(found[0].failed_runs)) == (1999, 2000, 5)


def test_a_fork_of_a_run_from_another_store_is_linked_to_nothing_here(
    tmp_path: Path, repository: Repository, bolt: BoltServer, graph: Graph
) -> None:
    """Numbers of basins and memories are a store's own."""
    (tmp_path / "there").mkdir()
    with Runtime(store=f"sqlite:///{tmp_path}/there/mind.db") as there:
        report = there.beat(repository.path)
        assert there.traces.get_trace(str(report.trace_id)).basins
        there.runs.export(str(report.run_id), tmp_path / "beat.cassette")
        own = there.fork(str(report.run_id), at_step=8)
        assert there.traces.get_trace(own.run_id).basins
    with runtime_on(tmp_path, bolt) as here:
        here.basins.opened("", "soup")
        here.remember("Nobody asked for this.")
        run_id = here.import_run(tmp_path / "beat.cassette")
        forked = here.fork(run_id, at_step=8)
        for trace_id in (run_id, forked.run_id):
            assert here.traces.get_trace(trace_id, exact=True).basins == ()
            assert here._store.records.recalled_memories(trace_id) == []


# -- a store that is shipped from ---------------------------------------------------------------------


def test_the_backlog_survives_a_kill(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    script = """
import os, signal, sys
from dionysus import Runtime, shipping
runtime = Runtime(store=sys.argv[1])
for n in range(30):
    trace = runtime.traces.create_trace("mine", f"run-{n}")
    runtime.traces.add_step(trace, {"step_number": 1, "step_type": "action"})
os.kill(os.getpid(), signal.SIGKILL)
"""
    url = f"sqlite:///{tmp_path}/mind.db"
    done = subprocess.run([sys.executable, "-c", script, url], env={**os.environ, **bolt.environment}, check=False)
    assert done.returncode == -9
    with runtime_on(tmp_path, bolt) as runtime:
        runtime.shipper.ship()
    assert arrived(tmp_path, graph)["traces"] == 30


def test_a_store_in_memory_is_shipped_too(bolt: BoltServer, graph: Graph) -> None:
    settings = load_settings(neo4j_uri=bolt.uri, neo4j_username=bolt.user, neo4j_password=bolt.password)
    with Runtime(store="sqlite://", settings=settings) as runtime:
        one_trace(runtime)
    assert duplicates(graph)["traces"] == 1


def test_one_process_at_a_time_ships_from_a_store(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        for number in range(40):
            one_trace(runtime, f"run-{number}")
    shippers = []
    for _ in range(3):
        store = open_store(f"sqlite:///{tmp_path}/mind.db")
        shippers.append(Shipper(store, graph_on(bolt), drain_s=10))
    counts: list[int] = []
    threads = [threading.Thread(target=lambda s=s: counts.append(s.ship())) for s in shippers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts)[:2] == [0, 0]
    assert arrived(tmp_path, graph)["traces"] == 40
    for shipper in shippers:
        shipper.close()
        shipper._watched.close()


def test_status_says_what_is_where(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    def dionysus(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "dionysus", *arguments],
            cwd=tmp_path,
            env={**os.environ, **bolt.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    assert dionysus("remember", "tides", NEO4J_URI=f"bolt://127.0.0.1:{free_port()}").returncode == 0
    told = dionysus("store", "status").stdout
    assert f"graph    {bolt.uri}/neo4j · Neo4j/5.26" in told
    assert "waiting  2: 1 basin, 1 memory" in told
    shipped = dionysus("store", "ship")
    assert shipped.stdout == f"2 changes shipped to {bolt.uri}/neo4j, 0 refused\n"
    status = json.loads(dionysus("store", "status", "--json").stdout)
    assert (status["waiting"], status["shipped"], status["graph"]["version"]) == ({}, 2, 1)
    assert "11 there already" in dionysus("store", "init").stdout
    bolt.empty()
    assert "waiting  2: 1 basin, 1 memory" in dionysus("store", "status").stdout
    assert "0 made" in dionysus("store", "init").stdout
    none = dionysus("store", "status", NEO4J_URI="")
    assert none.returncode == 2
    assert "set NEO4J_URI" in none.stderr
    assert dionysus("graph", "why", "--cypher").stdout.startswith("// Which memories")
    assert dionysus("store", "ship").returncode == 0
    assert "made by   no run" in dionysus("graph", "memory", "1").stdout


def _trace(name: str, **changes: Any) -> AgentExecutionTrace:
    made = AgentExecutionTrace(id=name, agent_name="a", run_id="r", status="success", started_at=START)
    return replace(made, **changes)


def _until(is_so: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@contextmanager
def _listening(answer: bytes) -> Iterator[int]:
    """A port where each connection gets the same answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_traces_of_other_stores_are_listed_from_the_graph(tmp_path: Path, bolt: BoltServer, graph: Graph) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with runtime_on(tmp_path / name, bolt) as runtime:
            one_trace(runtime, name)
    with runtime_on(tmp_path / "a", bolt, traces_from="neo4j") as runtime:
        assert [t.id for t in runtime.served_traces.list_traces()] == ["b/mine", "a/mine"]
        assert [t.id for t in runtime.traces.list_traces()] == ["a/mine"]
        found: AgentExecutionTrace = runtime.served_traces.get_trace("b/mine").trace
        assert found.summary == "done"
