"""Ships what is written to a graph, in a thread of its own: no agent waits for it, and what waits is in the store.

Whoever has the lease – one process at a time for each store – ships until the graph lacks nothing, in parcels that are
the same when they come twice. A graph that cannot be reached is tried again, later and later; what is left when a
process ends goes with the next one.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from dionysus.errors import DataRefused, DionysusError, EntryDamaged, GraphDown, GraphRefused, MissingExtra, StoreError
from dionysus.stores import Store, open_store
from dionysus.stores.contract import Backlog, ChangeKind
from dionysus.stores.neo4j import Graph, GraphTraces

log = logging.getLogger("dionysus")
_MOST = 500
"""Changes in a parcel."""
_POLL_S = 0.5
_GATHER_S = 1.0
"""What is written within this time goes together; at the end of a process nothing is waited for."""
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 10.0
_AFTER_REFUSAL_S = 60.0
"""Until a graph that a person must see to is tried again; wrong passwords in a row would lock the account."""
_SHORT_LIFE_S = 1.0
"""A process that ends sooner, and has written nothing, leaves what waits to others."""
_PATIENCE = timedelta(seconds=30)
"""A process that ends so soon after a failure does not wait for the graph."""


class Shipper:
    """Brings the changes of one store to one graph."""

    def __init__(
        self,
        store: Store,
        graph: Graph,
        *,
        drain_s: float,
        warn: Callable[[str], None] = log.warning,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            store: The store; where it is a file, the shipper opens it for itself.
            drain_s: Seconds that `close` waits for what is not shipped yet.
            warn: Told, once, that the graph cannot be had, and what waits when it ends.
        """
        self.graph = graph
        self._watched, self._clock, self._drain_s, self._warn = store, clock, drain_s, warn
        self._store = store if store.path is None else open_store(f"sqlite:///{store.path.absolute()}")
        self._outbox = self._store.outbox
        self._traces = GraphTraces(graph, store_id=self._outbox.store_id)
        self._lease = None if store.path is None else FileLock(lease_of(store.path), thread_local=False)
        self._wake, self._closing, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._starting, self._busy = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._failure: DionysusError | None = None
        self._graph_id: str | None = None
        self._most = _MOST
        self._heard_at = 0.0
        """When the graph last answered."""
        self._is_left_to_others = False
        self._has_written = self._has_ended = self._is_abandoned = False
        store.tell_of_commits(self._committed)
        if self.backlog().waiting:
            self._go()

    def backlog(self, graph_id: str | None = None) -> Backlog:
        """What the graph lacks.

        Args:
            graph_id: The one that is there; None: the one that was met last.
        """
        return self._outbox.backlog(self.graph.target, graph_id)

    # -- shipping --------------------------------------------------------------------------------------

    def initialise(self) -> tuple[list[str], list[str]]:
        """Sets the graph up; see `Graph.initialise`. What failed before counts no longer."""
        found = self.graph.initialise()
        self._outbox.met(self.graph.required(), self.graph.target, self._clock())
        self._go()
        return found

    def ship(
        self,
        *,
        again: Literal["refused", "everything"] | None = None,
        on_parcel: Callable[[int], None] = lambda changes: None,
    ) -> int:
        """Ships until the graph lacks nothing; returns how many changes that were.

        Args:
            again: Also what the graph refused; or everything, since it may have lost some.
            on_parcel: Told how many changes came through, after each parcel.

        Raises:
            GraphDown: The graph cannot be reached, or does not answer in time.
            GraphRefused: It lets us not in, or is not set up.
            MissingExtra: The driver is not installed.
        """
        shipped = 0
        with self._leased() as has_lease:
            if not has_lease:
                return 0
            graph_id = self._graph_id = self.graph.required()
            self._outbox.met(graph_id, self.graph.target, self._clock())
            self._heard_at = time.monotonic()
            if again == "everything":
                self._outbox.start_over(graph_id)
            if again is not None:
                self._outbox.try_refused_again(graph_id)
            while not self._is_abandoned:
                changes, upto = self._outbox.next_changes(graph_id, at_most=self._most)
                if not changes:
                    break
                try:
                    taken = self._deliver(graph_id, changes)
                except GraphDown:
                    self._most = max(1, self._most // 4)  # a slow server may get through with less
                    raise
                self._most = min(_MOST, self._most * 2)
                self._outbox.arrived(graph_id, upto, self._clock())
                self._heard_at = time.monotonic()
                shipped += taken
                on_parcel(taken)
        return shipped

    def _deliver(self, graph_id: str, changes: Sequence[tuple[ChangeKind, str]]) -> int:
        """Takes changes to the graph; what it does not take is set aside, with the reason. Returns how many it took."""
        try:
            self._traces.put(self._outbox.packed(changes), graph_id=graph_id)
            if self._outbox.has_refusals(graph_id):
                self._outbox.taken(graph_id, changes)
            return len(changes)
        except (DataRefused, EntryDamaged) as error:
            if len(changes) > 1:
                half = len(changes) // 2
                return self._deliver(graph_id, changes[:half]) + self._deliver(graph_id, changes[half:])
            self.graph.check_writable(graph_id)  # a server that takes nothing now is down, not choosy
            log.info("Neo4j does not take %s %s: %s", *changes[0], error)
            self._outbox.refuse(graph_id, changes[0], str(error), self._clock())
            return 0

    @contextmanager
    def _leased(self) -> Iterator[bool]:
        """Whether this process may ship now; False: it ends, and another one ships."""
        while not self._busy.acquire(timeout=_POLL_S):
            if self._closing.is_set():
                yield False
                return
        try:
            while self._lease is not None and not self._lease.is_locked:
                try:
                    self._lease.acquire(timeout=_POLL_S)
                except Timeout:
                    if self._closing.is_set():
                        self._is_left_to_others = True
                        yield False
                        return
                except OSError as error:
                    cure = "make it writable, or remove what is there"
                    raise StoreError(f"cannot lock {self._lease.lock_file!r}: {error.strerror}; {cure}") from error
            yield True
        finally:
            if self._lease is not None:
                self._lease.release()
            self._busy.release()

    # -- in the background -----------------------------------------------------------------------------

    def _committed(self) -> None:
        """Something was written, by this process."""
        self._has_written = True
        self._go()

    def _go(self) -> None:
        self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._run, name="dionysus-shipper", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        try:
            if not self._has_written and self._closing.wait(_SHORT_LIFE_S) and not self._has_written:
                return  # a process that only reads, and is over
            wait_s = self._still_to_wait()
            if not (wait_s and self._closing.wait(wait_s)):
                self._ship_on()
        except Exception as error:  # what nobody thought of must not be silent
            log.exception("shipping to %s ended", self.graph.target)
            self._failed(StoreError(f"shipping ended: {type(error).__name__}: {error}"), 0)
        finally:
            with self._starting:
                self._has_ended = True
                if self._is_abandoned:
                    self._let_go()

    def _ship_on(self) -> None:
        failures = 0
        while True:
            self._wake.wait()
            self._wake.clear()
            is_last = self._closing.wait(_GATHER_S)
            try:
                if self._is_behind():
                    self.ship()
            except DionysusError as error:
                failures += 1
                wait_s = _wait_after(error, failures)
                self._failed(error, wait_s)
                if isinstance(error, MissingExtra) or self._closing.wait(wait_s):
                    return
                self._wake.set()
                continue
            failures = 0
            self._recovered()
            if is_last:
                return

    def _is_behind(self) -> bool:
        if self._graph_id is None:
            return bool(self.backlog().waiting)
        return self._outbox.is_behind(self._graph_id)

    def _still_to_wait(self) -> float:
        """Seconds until the next attempt is due; the last one that failed may have been another process's."""
        retry_at = self.backlog().retry_at
        left = 0.0 if retry_at is None else (retry_at - self._clock()).total_seconds()
        return left if 0 < left <= _AFTER_REFUSAL_S else 0.0  # more: a clock was wrong

    def _failed(self, error: DionysusError, wait_s: float) -> None:
        if self._is_abandoned:
            return
        if type(self._failure) is not type(error):
            self._warn(f"traces wait in the store: {error}")
        self._failure = error
        now = self._clock()
        try:
            self._outbox.failed(self.graph.target, str(error), now, now + timedelta(seconds=wait_s))
        except StoreError as also:  # that it was said is what counts
            log.info("that shipping failed cannot be noted: %s", also)

    def _recovered(self) -> None:
        if self._failure is not None:
            log.info("traces go to %s again", self.graph.target)
        self._failure = None

    def close(self) -> None:
        """Ships what is left, for a bounded time, and lets go. What is not shipped stays in the store."""
        with self._starting:
            is_first = not self._closing.is_set()
            self._closing.set()
        if not is_first:
            self._closed.wait(self._drain_s)
            return
        self._watched.tell_of_commits(lambda: None)
        self._wake.set()
        try:
            if self._thread is not None:
                began, wait_s = time.monotonic(), 0.0 if self._is_hopeless() else self._drain_s
                self._thread.join(wait_s)
                if wait_s and self._thread.is_alive() and self._failure is None and self._heard_at < began:
                    self._failed(GraphDown(f"Neo4j at {self.graph.uri} said nothing for {wait_s:g} s"), 0)
            if self._has_written and self._failure is None and not self._is_left_to_others:
                self._say_what_waits()
        finally:  # also where Ctrl-C ends the wait
            with self._starting:
                self._is_abandoned = True
                if self._thread is None or self._has_ended:
                    self._let_go()
            self._closed.set()

    def _is_hopeless(self) -> bool:
        """Whether an attempt failed just now."""
        try:
            failed_at = self.backlog().failed_at
        except StoreError as error:  # whoever closes has other worries then
            log.info("what waits for %s cannot be read: %s", self.graph.target, error)
            return True
        return failed_at is not None and timedelta(0) <= self._clock() - failed_at < _PATIENCE

    def _say_what_waits(self) -> None:
        try:
            left = self.backlog()
        except StoreError as error:
            log.info("what waits for %s cannot be read: %s", self.graph.target, error)
            return
        waiting = sum(left.waiting.values())
        if waiting:
            why = f": {left.failure}" if left.failure else ""
            self._warn(f"{waiting} changes wait in the store for {self.graph.target}{why}")

    def _let_go(self) -> None:
        self.graph.close()
        if self._store is not self._watched:
            self._store.close()


def lease_of(store: Path) -> Path:
    """The file that is locked by who ships from a store."""
    return store.absolute().with_name(store.name + "-shipping")


def _wait_after(error: DionysusError, failures: int) -> float:
    """Seconds until the next attempt; not the same for all who wait for one server."""
    wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 1.5 ** min(failures - 1, 20))
    return _AFTER_REFUSAL_S if isinstance(error, GraphRefused) else wait * random.uniform(0.8, 1.2)
