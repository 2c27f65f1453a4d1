"""Servers that speak Bolt, for tests and benchmarks: a process each, on loopback, that can be killed and come back.

`Neo4j` is the real one, from jars that `make neo4j` fetches; `ArcadeDB` comes with the development dependencies and
takes its place where there are none. `server_for` chooses.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from neo4j import Driver, GraphDatabase
from neo4j.exceptions import DriverError, Neo4jError

JARS = Path(__file__).parent / "neo4j" / "lib"
PASSWORD = "of-the-tests-on-loopback"
_UP_S = 60.0
_OPENED = ("java.base/java.nio", "java.base/java.io", "java.base/sun.nio.ch", "java.base/java.util.concurrent")
_ARCADE = """
import sys, time
from pathlib import Path
from arcadedb_embedded.server import ArcadeDBServer
port, password, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
server = ArcadeDBServer(folder, root_password=password, config={
    "http_port": int(sys.argv[4]), "host": "127.0.0.1", "bolt_port": port,
    "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin"})
server.start()
if not (Path(folder) / "databases" / "neo4j").exists():
    server.create_database("neo4j")
while True:
    time.sleep(60)
"""


class BoltServer:
    """A server in a folder of its own; what it has outlives its process."""

    name: str
    user: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"bolt://127.0.0.1:{self.port}"
        self.password = PASSWORD
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What names it in the environment."""
        return {"NEO4J_URI": self.uri, "NEO4J_USERNAME": self.user, "NEO4J_PASSWORD": self.password}

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), cwd=self.folder, stdout=log, stderr=log)
        try:
            self._wait_until_up(self.password)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends it without a warning, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It hangs: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def driver(self) -> Driver:
        """A driver of one's own, to look at what is there."""
        return GraphDatabase.driver(
            self.uri, auth=(self.user, self.password), notifications_min_severity="OFF", telemetry_disabled=True
        )

    def empty(self) -> None:
        """Removes all data; the schema stays."""
        with self.driver() as driver:
            while driver.execute_query(
                "MATCH (n) WITH n LIMIT 5000 DETACH DELETE n RETURN count(*) AS n", database_="neo4j"
            ).records[0]["n"]:
                pass

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _probe(self, driver: Driver) -> None:
        """Raises until it is up."""
        driver.execute_query("RETURN 1", database_="neo4j")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def _wait_until_up(self, password: str) -> None:
        until = time.monotonic() + _UP_S
        while True:
            assert self._process is not None
            try:
                with GraphDatabase.driver(
                    self.uri, auth=(self.user, password), telemetry_disabled=True, max_transaction_retry_time=0
                ) as driver:
                    self._probe(driver)
                    return
            except (DriverError, Neo4jError, OSError):
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError(
                        f"{self.name} does not start: {(self.folder / 'log').read_text()[-2000:]}"
                    ) from None
                time.sleep(0.2)


class Neo4j(BoltServer):
    """Neo4j 5.26, Community."""

    name = "Neo4j 5.26"
    user = "neo4j"

    def start(self) -> None:
        """Starts it; the first time it gets its password."""
        first = not (self.folder / "data").exists()
        if first:
            (self.folder / "conf").mkdir()
            (self.folder / "conf" / "neo4j.conf").write_text(
                "server.default_listen_address=127.0.0.1\n"
                f"server.bolt.listen_address=127.0.0.1:{self.port}\n"
                "server.http.enabled=false\n"
                "server.https.enabled=false\n"
                "server.memory.pagecache.size=128m\n"
                "dbms.usage_report.enabled=false\n"
            )
            self.password = "neo4j"
        try:
            super().start()
        finally:
            self.password = PASSWORD
        if first:
            with GraphDatabase.driver(self.uri, auth=("neo4j", "neo4j"), telemetry_disabled=True) as driver:
                driver.execute_query(
                    "ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO $new", new=PASSWORD, database_="system"
                )

    def _probe(self, driver: Driver) -> None:
        if self.password == PASSWORD:
            super()._probe(driver)
        else:  # before it has its own password it answers no query
            driver.verify_connectivity()

    def _command(self) -> list[str]:
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
        folders = [f"--home-dir={self.folder}", f"--config-dir={self.folder / 'conf'}"]
        main = "org.neo4j.server.CommunityEntryPoint"
        return ["java", "-Xmx768m", *opened, "-cp", f"{JARS}/*", main, *folders, "--console-mode"]


class ArcadeDB(BoltServer):
    """ArcadeDB, which speaks Bolt and most of Neo4j's Cypher."""

    name = "ArcadeDB"
    user = "root"

    def _command(self) -> list[str]:
        numbers = [str(self.port), self.password, str(self.folder / "databases"), str(free_port())]
        return [sys.executable, "-c", _ARCADE, *numbers]


class OneOfYourOwn(BoltServer):
    """A server that runs anyway: its data is removed, and it is neither started nor ended."""

    name = "your own"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.user = os.environ.get("NEO4J_TEST_USERNAME", "neo4j")
        self.password = os.environ.get("NEO4J_TEST_PASSWORD", "")

    def start(self) -> None:
        """Looks whether it is empty.

        Raises:
            RuntimeError: It is not, and what is there would be removed.
        """
        with self.driver() as driver:
            count = driver.execute_query("MATCH (n) RETURN count(n) AS n", database_="neo4j").records[0]["n"]
        if count:
            raise RuntimeError(f"NEO4J_TEST_URI={self.uri}: it holds {count} nodes, and the tests remove all there is")

    def stop(self) -> None:
        """Leaves it as it was."""
        self.empty()


def server_for(folder: Path) -> BoltServer:
    """A server to kill: Neo4j where its jars are, else ArcadeDB. With NEO4J_TEST_SERVER=neo4j nothing takes its place.

    Raises:
        RuntimeError: Neo4j is demanded, and is not there.
    """
    there = (JARS / ".complete").exists() and shutil.which("java") is not None
    if not there and os.environ.get("NEO4J_TEST_SERVER") == "neo4j":
        raise RuntimeError("NEO4J_TEST_SERVER=neo4j, but there is no Java, or no Neo4j: run `make neo4j`")
    return Neo4j(folder) if there else ArcadeDB(folder)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
