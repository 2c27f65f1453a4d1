"""A connection to a graph: transactions with retries and bounded waits, errors in words, and the schema.

The driver waits as long as a server is mute. So each transaction runs in a thread of its own, and who waits for it
stops waiting at a deadline; a transaction that was given up is never committed afterwards.
"""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from dionysus.errors import BadInput, DataRefused, DionysusError, GraphDown, GraphRefused, MissingExtra, StoreTooNew

if TYPE_CHECKING:
    from neo4j import Driver, ManagedTransaction

T = TypeVar("T")
Work = Callable[["ManagedTransaction"], T]
SCHEMES = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
NAME = "agent_execution_trace"
_CONNECT_S = 5.0
_RETRY_S = 5.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
log = logging.getLogger("dionysus")


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What a graph that answers is like."""

    server: str
    """What it says it is."""
    graph_id: str | None
    """Made by `initialise`; None: it was not set up."""
    version: int = 0
    """Of its schema."""
    missing: tuple[str, ...] = ()
    """Names of constraints, without which nothing is written."""
    missing_indexes: tuple[str, ...] = ()
    """Names of indexes, without which it is slow."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    name: str
    label: str
    properties: tuple[str, ...]
    statement: str
    is_constraint: bool


class Graph:
    """One database of a Neo4j server. Nothing is connected before the first call."""

    def __init__(self, uri: str, *, user: str, password: str, database: str, timeout_s: float = 20.0) -> None:
        """
        Args:
            timeout_s: Seconds that a transaction may take before nobody waits for it.

        Raises:
            BadInput: The URI is none of Neo4j's.
        """
        self.uri = checked_uri(uri)
        self.database = database
        self.target = f"{self.uri}/{database}"
        """URI and database."""
        self._auth = (user, password)
        self._timeout_s = timeout_s
        self._driver: Driver | None = None
        self._lock = threading.Lock()

    @property
    def is_exposed(self) -> bool:
        """Whether password and data travel in the clear to another machine."""
        parts = urlsplit(self.uri)
        return "+" not in parts.scheme and (parts.hostname or "") not in _LOOPBACK

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    # -- transactions ----------------------------------------------------------------------------------

    def read(self, work: Work[T], *, timeout_s: float | None = None) -> T:
        """What `work` reads, in one transaction; it is called again where the server asks for that.

        Raises:
            GraphDown: The server cannot be reached, or does not answer in time.
            GraphRefused: It lets us not in, or is not what we need.
            DataRefused: Anything else that it says.
            MissingExtra: The driver is not installed.
        """
        return self._transaction("execute_read", work, timeout_s or self._timeout_s)

    def write(self, work: Work[T], *, timeout_s: float | None = None) -> T:
        """`read`, for work that writes: committed when it returns, all or nothing."""
        return self._transaction("execute_write", work, timeout_s or self._timeout_s)

    def _transaction(self, kind: str, work: Work[T], timeout_s: float) -> T:
        import_driver()
        from neo4j import unit_of_work

        def attempt(is_given_up: Callable[[], bool]) -> T:
            @unit_of_work(timeout=timeout_s)
            def guarded(tx: "ManagedTransaction") -> T:
                done = work(tx)
                if is_given_up():
                    raise GraphDown("given up")
                return done

            with self._opened().session(database=self.database) as session:
                found: T = getattr(session, kind)(guarded)
                return found

        return self._bounded(attempt, timeout_s)

    def _statement(self, cypher: str, **parameters: Any) -> None:
        """One statement in a transaction of its own, as changes of the schema must be."""

        def attempt(is_given_up: Callable[[], bool]) -> None:
            with self._opened().session(database=self.database) as session:
                session.run(cypher, **parameters).consume()

        self._bounded(attempt, 3 * self._timeout_s)

    def _opened(self) -> "Driver":
        from neo4j import GraphDatabase

        if self._driver is not None:
            return self._driver
        driver = GraphDatabase.driver(
            self.uri,
            auth=self._auth,
            connection_timeout=_CONNECT_S,
            connection_acquisition_timeout=2 * _CONNECT_S,
            connection_write_timeout=self._timeout_s,
            max_transaction_retry_time=_RETRY_S,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
            user_agent="dionysus-agents",
        )
        try:
            with driver.session(database=self.database) as session:
                session.run("RETURN 1").consume()  # unlike a transaction it is tried once, where nobody listens
        except BaseException:
            driver.close()
            raise
        with self._lock:
            kept = self._driver = self._driver or driver
        if kept is not driver:  # another thread was faster
            driver.close()
        return kept

    def _bounded(self, attempt: Callable[[Callable[[], bool]], T], timeout_s: float) -> T:
        """What an attempt returns or raises, if it does so in time."""
        results: list[T] = []
        failures: list[BaseException] = []
        left: list[Driver | None] = []
        given_up = threading.Event()

        def run() -> None:
            try:
                results.append(attempt(given_up.is_set))
            except BaseException as error:  # noqa: BLE001 – handed to who waits
                failures.append(error)
            if given_up.is_set():
                log.debug("a call of %s that was given up ended: %s", self.target, failures)
                _close(left)

        thread = threading.Thread(target=run, name="dionysus-neo4j", daemon=True)
        thread.start()
        try:
            thread.join(timeout_s)
        finally:  # also where Ctrl-C ends the wait
            if thread.is_alive():
                left.append(self._driver)  # its other connections may hang, too; it is closed when the call ends
                self._driver = None
                given_up.set()
                if not thread.is_alive():
                    _close(left)
        if given_up.is_set():
            raise GraphDown(f"Neo4j at {self.uri} does not answer: nothing came within {timeout_s:g} s")
        if failures:
            raise self._in_words(failures[0]) from failures[0]
        return results[0]

    def _in_words(self, error: BaseException) -> BaseException:
        """An error of the driver as one of ours."""
        from neo4j import exceptions as told

        if isinstance(error, DionysusError):
            return error
        code = getattr(error, "code", None) or type(error).__name__
        said = " ".join(str(getattr(error, "message", None) or error).split())
        where = f"Neo4j at {self.uri}"
        if isinstance(error, told.UnsupportedServerProduct) or "does not support communication" in said:
            return GraphRefused(f"{where} is too old, or no Neo4j: {said}; Dionysus needs Neo4j 5")
        if "AuthenticationRateLimit" in code:
            return GraphRefused(
                f"{where} takes no password for a while after wrong ones; wait, then check NEO4J_PASSWORD"
            )
        if "CredentialsExpired" in code:
            return GraphRefused(
                f"{where} wants a new password for user {self._auth[0]!r} first; set one, then try again"
            )
        if isinstance(error, told.AuthError):
            return GraphRefused(f"{where} refuses user {self._auth[0]!r}; check NEO4J_USERNAME and NEO4J_PASSWORD")
        if "DatabaseNotFound" in code:
            return GraphRefused(f"{where} has no database {self.database!r}; check NEO4J_DATABASE")
        if isinstance(error, told.Forbidden):
            return GraphRefused(f"{where} does not allow user {self._auth[0]!r} what is needed: {said}")
        if isinstance(error, told.ConfigurationError):
            return GraphRefused(f"{where} cannot be used: {said}; check NEO4J_URI")
        if _is_too_much(code):
            return DataRefused(f"{where} has no memory for this: {said}")
        if isinstance(error, told.DriverError | told.TransientError | OSError):
            return GraphDown(f"{where} cannot be reached: {_shortest(said)}")
        if isinstance(error, told.Neo4jError | ValueError | TypeError | OverflowError):
            return DataRefused(f"{where} says {code}: {said}")
        return error

    # -- schema ----------------------------------------------------------------------------------------

    def readiness(self) -> Readiness:
        """What the graph is like; its server answers."""

        def look(tx: "ManagedTransaction") -> Readiness:
            result = tx.run(
                "MATCH (g:DionysusGraph {name: $name}) RETURN g.graph_id AS id, g.version AS version", name=NAME
            )
            found = result.data()
            server = str(result.consume().server.agent)
            _check_age(server, self.uri)
            there = {
                (tuple(row["labels"] or ()), tuple(row["properties"] or ()))
                for row in tx.run(
                    "SHOW CONSTRAINTS YIELD type, labelsOrTypes AS labels, properties "
                    "WHERE type CONTAINS 'UNIQUE' RETURN labels, properties"
                )
            }
            indexed = {
                (tuple(row["labels"] or ()), tuple(row["properties"] or ()))
                for row in tx.run("SHOW INDEXES YIELD labelsOrTypes AS labels, properties RETURN labels, properties")
            }
            lacks = [
                wanted
                for wanted in schema()[1]
                if ((wanted.label,), wanted.properties) not in (there if wanted.is_constraint else indexed)
            ]
            return Readiness(
                server=server,
                graph_id=found[0]["id"] if found else None,
                version=found[0]["version"] if found else 0,
                missing=tuple(wanted.name for wanted in lacks if wanted.is_constraint),
                missing_indexes=tuple(wanted.name for wanted in lacks if not wanted.is_constraint),
            )

        return self.read(look)

    def required(self) -> str:
        """The graph's id; it can take traces in.

        Raises:
            GraphRefused: It was not set up, or lacks a constraint.
            StoreTooNew: A newer Dionysus set it up.
        """
        found = self.readiness()
        known = schema()[0]
        if found.graph_id is None:
            raise GraphRefused(f"the graph {self.target} is not set up for traces; `dionysus store init` does that")
        if found.version > known:
            raise StoreTooNew(self.target, found.version, known)
        if found.version < known or found.missing:
            what = f"lacks the constraint {found.missing[0]}" if found.missing else f"has schema {found.version}"
            raise GraphRefused(f"the graph {self.target} {what}; `dionysus store init` mends that")
        return found.graph_id

    def check_writable(self, graph_id: str) -> None:
        """
        Raises:
            GraphError: The graph takes nothing at all now.
        """
        self.write(
            lambda tx: tx.run(
                "MATCH (g:DionysusGraph {graph_id: $id}) SET g.locked = true REMOVE g.locked", id=graph_id
            ).consume()
        )

    def initialise(self) -> tuple[list[str], list[str]]:
        """Makes what is missing of the schema; again it changes nothing.

        Returns:
            The names of what was made, and of what was there.

        Raises:
            DataRefused: What is in the graph already violates a constraint.
            StoreTooNew: A newer Dionysus set it up.
        """
        found = self.readiness()
        version, wanted = schema()
        if found.version > version:
            raise StoreTooNew(self.target, found.version, version)
        lacks = {*found.missing, *found.missing_indexes}
        for one in wanted:
            if one.name in lacks:
                try:
                    self._statement(one.statement)
                except DataRefused as error:
                    raise DataRefused(
                        f"cannot make {one.name} in {self.target}: several :{one.label} have the same "
                        f"{'.'.join(one.properties)}, or something else has that name; remove what is in the way, then "
                        f"run `dionysus store init` again. {error}"
                        if one.is_constraint
                        else f"cannot make {one.name} in {self.target}: {error}"
                    ) from error
        if found.graph_id is None or found.version < version:
            self.write(
                lambda tx: tx.run(
                    "MERGE (g:DionysusGraph {name: $name}) ON CREATE SET g.graph_id = $id SET g.version = $version",
                    name=NAME,
                    id=uuid4().hex,
                    version=version,
                ).consume()
            )
        return [one.name for one in wanted if one.name in lacks], [one.name for one in wanted if one.name not in lacks]


@cache
def schema() -> tuple[int, tuple[_Wanted, ...]]:
    """The version of the schema, and what it consists of."""
    text = files("dionysus.stores").joinpath("schema/agent_execution_trace.cypher").read_text("utf-8")
    version = re.match(r"// version: (\d+)\n", text)
    assert version is not None, "the schema names its version in the first line"
    statements = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE).split(";")
    return int(version[1]), tuple(_wanted(statement.strip()) for statement in statements if statement.strip())


def _wanted(statement: str) -> _Wanted:
    found = re.match(
        r"CREATE (CONSTRAINT|INDEX) (\w+) IF NOT EXISTS\s+FOR \(\w+:(\w+)\) (?:REQUIRE|ON) (.+?)(?: IS UNIQUE)?$",
        statement,
    )
    assert found is not None, f"the schema has a statement of another kind: {statement}"
    return _Wanted(
        name=found[2],
        label=found[3],
        properties=tuple(re.findall(r"\w+\.(\w+)", found[4])),
        statement=statement,
        is_constraint=found[1] == "CONSTRAINT",
    )


def checked_uri(uri: str) -> str:
    """A URI of Neo4j's, without a "/" at its end.

    Raises:
        BadInput: It is none, or holds a password; the message does not.
    """
    if "@" in uri or "%40" in uri:
        raise BadInput("NEO4J_URI holds a user; write that into NEO4J_USERNAME and NEO4J_PASSWORD")
    try:
        parts = urlsplit(uri)
        is_one = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
        more = parts.path.strip("/") or parts.query or parts.fragment
    except ValueError:
        is_one, more = False, ""
    if not is_one or more:
        # not what it is: who mistypes it may have put the password there
        raise BadInput("NEO4J_URI is none of Neo4j's; write bolt://HOST:7687, or neo4j+s://HOST where it is encrypted")
    return uri.rstrip("/")


def import_driver() -> None:
    """
    Raises:
        MissingExtra: The driver is not installed.
    """
    try:
        import neo4j  # noqa: F401 – whether it is there
    except ImportError as error:
        raise MissingExtra("Neo4j", "neo4j") from error


def _close(drivers: "list[Driver | None]") -> None:
    while drivers:
        driver = drivers.pop()
        if driver is not None:
            driver.close()


def _check_age(server: str, uri: str) -> None:
    version = re.match(r"Neo4j/(\d+)\.", server)
    if version is not None and int(version[1]) < 5:
        raise GraphRefused(f"Neo4j at {uri} is {server}, which is too old; Dionysus needs Neo4j 5")


def _is_too_much(code: str) -> bool:
    return any(part in code for part in ("MemoryPoolOutOfMemory", "TransactionOutOfMemory", "OutOfMemoryError"))


def _shortest(said: str) -> str:
    """What the system said, where it said something; else all."""
    if "handshake" in said:
        return "it takes connections, and says nothing"
    found = re.findall(r"\[Errno -?\d+\] ([^)]+)", said)
    return found[-1].strip() if found else said
