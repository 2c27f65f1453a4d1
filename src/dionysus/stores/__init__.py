"""Where records are kept: in SQLite, opened by `open_store(url)`, and as a graph in Neo4j (`dionysus.stores.neo4j`).

SQL and Cypher stay in this folder.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dionysus.errors import BadInput
from dionysus.stores.database import Database
from dionysus.stores.memories import Memories
from dionysus.stores.mind import Mind
from dionysus.stores.outbox import Outbox
from dionysus.stores.records import Records

SQLITE_VERSION = sqlite3.sqlite_version


class Store:
    """An open store: the journal's and traces' `records`, the `mind`, its `memories`, and the `outbox` of what a
    graph gets."""

    def __init__(self, database: Database) -> None:
        self.path = database.path
        self.records = Records(database)
        self.mind = Mind(database)
        self.memories = Memories(database)
        self.outbox = Outbox(database)
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """Several verbs on either part, all or nothing."""
        return self._database.transaction()

    def tell_of_commits(self, told: Callable[[], None]) -> None:
        """Has someone told of each transaction that is committed through this store, in the thread that did it."""
        self._database.on_commit = told

    def damage(self) -> str:
        """What SQLite's own check finds wrong with the file; empty where nothing."""
        found = [row[0] for row in self._database.rows("PRAGMA quick_check(3)")]
        return "" if found == ["ok"] else "; ".join(found)

    def check(self) -> None:
        """
        Raises:
            StoreError: The file is no longer the one that was opened.
        """
        self._database.check()

    def close(self) -> None:
        """Closes it; what was written stays."""
        self._database.close()


def store_path(url: str) -> Path | None:
    """The file that a store's URL names; None for one in memory.

    Raises:
        BadInput: The URL names no store that there is.
    """
    if url in ("sqlite://", "sqlite:///:memory:"):
        return None
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).expanduser()
    scheme = url.partition("://")[0][:40]  # not the whole URL: it may hold a password
    raise BadInput(f"unknown store {scheme!r}; write sqlite:///PATH, or sqlite:// for one in memory")


def open_store(url: str) -> Store:
    """Opens the store, making or migrating it where needed.

    Raises:
        BadInput: The URL names no store that there is.
        StoreError: It cannot be opened or written.
        StoreTooNew: A newer Dionysus wrote it.
    """
    return Store(Database(store_path(url)))
