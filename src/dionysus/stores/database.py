"""One SQLite file: opening, migrating, transactions, and how records become rows.

Several processes may work on the file at once (WAL, 30 s busy timeout, `BEGIN IMMEDIATE`). A transaction is on
disk when it returns (`synchronous=FULL`) unless it was asked to be only crash-safe. All of `sqlite3`'s errors
leave here as `StoreError`, with what to do about them.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

from dionysus.errors import EntryDamaged, StoreError, StoreTooNew
from dionysus.stores.codec import CONVERTER, as_unicode, column_of, dumps, record_of, structured

Record = TypeVar("Record")
_APPLICATION = 0x44494F4E
"""`DION`, in the file's header."""
_INLINE_CHARS = 512
"""Longer strings within JSON are kept in `texts`, once each."""

_REMEMBERED_TEXTS = 10_000


class Database:
    """A connection to one SQLite file, shared by the threads of this process."""

    def __init__(self, path: Path | None) -> None:
        """Opens and migrates the file at `path` (None: in memory).

        Raises:
            StoreError: It cannot be opened, written or migrated.
            StoreTooNew: A newer Dionysus wrote it.
        """
        self.path = path
        self.where = str(path) if path else ":memory:"
        self._lock = threading.RLock()
        self._depth = 0
        self._durable = True
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each transaction that was committed, in the thread that did it."""
        self._texts: set[str] = set()
        """Digests that are in `texts` for sure."""
        with self._mapped():
            if path is not None:
                self._prepare(path)
            self._connection = sqlite3.connect(self.where, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                self._configure()
                self._file = _identity(path)
                self._migrate()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Closes the connection; what was written stays."""
        with self._lock:
            self._connection.close()

    def check(self) -> None:
        """
        Raises:
            StoreError: The file was moved, deleted or replaced since it was opened.
        """
        if _identity(self.path) != self._file:
            raise StoreError(f"the store {self.where!r} is not the file that was opened: it was moved; start again")

    # -- reading and writing ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing; nests (the outermost one counts).

        Args:
            durable: Wait for the disk. False still survives a killed process, but not a power cut.
        """
        with self._lock, self._mapped():
            if self._depth == 0:
                if durable is not self._durable:
                    self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._roll_back()
                raise
            self._depth -= 1
            if self._depth == 0:
                try:
                    self._connection.execute("COMMIT")
                except sqlite3.Error:
                    self._roll_back()
                    raise
                self.on_commit()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that may still be rolled back."""
        return self._depth > 0

    def _roll_back(self) -> None:
        self._texts.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Executes one statement in a transaction; returns the last row id."""
        with self._lock:
            if self._depth:  # ours: who has the lock has the transaction
                return self._connection.execute(sql, _bindable(parameters)).lastrowid or 0
            with self.transaction():
                return self._connection.execute(sql, _bindable(parameters)).lastrowid or 0

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, self._mapped():
            return self._connection.execute(sql, _bindable(parameters)).fetchall()

    # -- records ---------------------------------------------------------------------------------------

    def pack(self, value: Any) -> str:
        """JSON text of a record or plain value; long strings go to `texts`. Call it inside a transaction."""
        return self.pack_plain(CONVERTER.unstructure(value))

    def pack_plain(self, value: Any) -> str:
        """`pack`, for what JSON can hold as it is."""
        text = dumps(value)
        short = len(text) <= _INLINE_CHARS and '"$' not in text  # then no string is long, and no key needs care
        return text if short else dumps(self._outline(value))

    def unpack(self, text: str) -> Any:
        """The plain value that `pack` took.

        Raises:
            StoreError: It is not as it was written.
        """
        try:
            return self._inline(json.loads(text))
        except ValueError as error:
            raise EntryDamaged(f"the store {self.where!r} is damaged: an entry is no JSON; restore a copy") from error

    def unpack_as(self, kind: type[Record], text: str) -> Record:
        """The record that `pack` took."""
        return structured(kind, self.unpack(text))

    def insert(self, table: str, record: Any, *, leave_out: frozenset[str] = frozenset()) -> int:
        """Inserts a record whose fields are the table's columns; returns the row id."""
        names = [f.name for f in fields(record) if f.name not in leave_out]
        values = [self._column(getattr(record, name)) for name in names]
        return self.write(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values)

    def record(self, kind: type[Record], row: sqlite3.Row) -> Record:
        """The record of a row whose columns are the record's fields."""
        return self.from_columns(kind, dict(zip(row.keys(), row, strict=True)))

    def from_columns(self, kind: type[Record], columns: dict[str, Any]) -> Record:
        """The record of these column values."""
        return record_of(kind, columns, unpack=self.unpack)

    def _column(self, value: Any) -> Any:
        return column_of(value, pack=self.pack)

    def _outline(self, value: Any) -> Any:
        if isinstance(value, str):
            return value if len(value) <= _INLINE_CHARS else {"$text": self._keep(value)}
        if isinstance(value, list | tuple):
            return [self._outline(v) for v in value]
        if isinstance(value, dict):
            plain = {str(k): self._outline(v) for k, v in value.items()}
            return {"$dict": plain} if "$text" in plain or "$dict" in plain else plain
        return value

    def _inline(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._inline(v) for v in value]
        if isinstance(value, dict):
            if len(value) == 1 and "$text" in value:
                return self._kept(value["$text"])
            inner = value["$dict"] if len(value) == 1 and "$dict" in value else value
            return {k: self._inline(v) for k, v in inner.items()}
        return value

    def _keep(self, text: str) -> str:
        body = text.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        if digest not in self._texts:
            self.write("INSERT OR IGNORE INTO texts (digest, body) VALUES (?, ?)", (digest, body))
            if len(self._texts) >= _REMEMBERED_TEXTS:
                self._texts.clear()
            self._texts.add(digest)
        return digest

    def _kept(self, digest: str) -> str:
        found = self.rows("SELECT body FROM texts WHERE digest = ?", (digest,))
        if not found:
            raise EntryDamaged(f"the store {self.where!r} is damaged: text {digest} is missing; restore a copy")
        return cast(bytes, found[0]["body"]).decode("utf-8", "surrogatepass")

    # -- opening ---------------------------------------------------------------------------------------

    def _prepare(self, path: Path) -> None:
        """Makes the file private to its owner; one missing folder level is created."""
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700)
                if path.parent.name == ".dionysus":
                    (path.parent / ".gitignore").write_text("*\n")
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            elif not path.is_file():
                raise StoreError(f"the store {str(path)!r} is not a file; name another one with --store")
        except OSError as error:
            raise StoreError(
                f"cannot create the store {str(path)!r}: {error.strerror}; "
                "name a writable place with --store sqlite:///PATH"
            ) from error

    def _configure(self) -> None:
        execute = self._connection.execute
        self._connection.row_factory = sqlite3.Row
        if self.path is not None and self.path.stat().st_size == 0:
            execute("PRAGMA page_size=16384")
        for attempt in range(100):  # the switch to WAL does not wait for other processes by itself
            try:
                execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError:
                if attempt == 99:
                    raise
                time.sleep(0.05)
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA foreign_keys=ON")

    def _migrate(self) -> None:
        scripts = sorted(
            (f for f in files("dionysus.stores").joinpath("schema").iterdir() if f.name.endswith(".sql")),
            key=lambda f: f.name,
        )
        version = self.rows("PRAGMA user_version")[0][0]
        tables = self.rows("SELECT count(*) FROM sqlite_master")[0][0]
        ours = self.rows("PRAGMA application_id")[0][0] == _APPLICATION
        if tables and not ours:
            raise StoreError(f"{self.where!r} is a database of another program; name another one with --store")
        if version > len(scripts):
            raise StoreTooNew(self.where, version, len(scripts))
        if version == len(scripts):
            return
        with self.transaction():
            version = self.rows("PRAGMA user_version")[0][0]  # another process may have been faster
            for number, script in enumerate(scripts[version:], version + 1):
                for statement in _statements(script.read_text("utf-8")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={number}")
            self._connection.execute(f"PRAGMA application_id={_APPLICATION}")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.where!r}: {error}; {_cure(str(error))}") from error


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Which file lies at a path; None: none."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None


def _cure(message: str) -> str:
    if "full" in message:
        return "free some disk space, then run again"
    if "readonly" in message or "unable to open" in message:
        return "make it writable, or name another place with --store sqlite:///PATH"
    if "locked" in message:
        return "another process holds it; wait for that one to end, then run again"
    if "not a database" in message or "malformed" in message:
        return "it is damaged or not a Dionysus store; restore a copy, or name another one with --store"
    return "run `dionysus doctor` to check the store"


def _bindable(parameters: Sequence[Any]) -> list[Any]:
    """SQLite's texts are UTF-8. JSON and `texts` keep lone surrogates."""
    return [as_unicode(p) if isinstance(p, str) else p for p in parameters]


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
