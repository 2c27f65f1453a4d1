"""Which process works on a run: it holds a lock file, and the operating system frees that when it dies.

Only for stores on disk; runs of a store in memory die with it.
"""

import os
import secrets
import socket
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from dionysus.errors import StoreError


class Holder:
    """This process's claim on the runs that it started."""

    def __init__(self, store: Path | None) -> None:
        """No file is made before `claim`."""
        self.id = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(6)}"
        self._folder = store.with_name(store.name + "-locks") if store else None
        self._lock: FileLock | None = None
        self._claiming = threading.Lock()

    def claim(self) -> str:
        """Takes the lock, once; returns the holder's id, to be kept with the run.

        Raises:
            StoreError: The lock file cannot be made.
        """
        with self._claiming:
            if self._folder is not None and self._lock is None:
                try:
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    lock = FileLock(self._folder / f"{self.id}.lock", thread_local=False)
                    lock.acquire(timeout=0)
                except OSError as error:
                    raise StoreError(f"cannot make a lock file in {str(self._folder)!r}: {error.strerror}") from error
                self._lock = lock
        return self.id

    def is_alive(self, holder: str | None) -> bool:
        """Whether the process that claimed under this id still lives."""
        if holder == self.id:
            return True
        path = self._folder / f"{holder}.lock" if self._folder and holder else None
        if path is None or not path.exists():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False

    def in_words(self, holder: str | None) -> str:
        """Who that is."""
        if holder == self.id:
            return "this process"
        host, _, rest = str(holder).rpartition(".")[0].rpartition(".")
        return f"process {rest} on {host}" if host else "another process"

    def release(self) -> None:
        """Gives the lock up and removes its file."""
        if self._lock is not None and self._folder is not None:
            self._lock.release()
            (self._folder / f"{self.id}.lock").unlink(missing_ok=True)
            self._lock = None
