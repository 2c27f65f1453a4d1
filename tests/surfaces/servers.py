"""Servers as a person starts them: a process, its first lines, its end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    """Without path."""
    token: str
    lines: str
    """What it printed when it began."""
    process: "subprocess.Popen[str]"
    cwd: Path

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self) -> httpx.Client:
        """A client that may ask."""
        return httpx.Client(base_url=self.url, headers=self.authorization, timeout=30)


@contextmanager
def served(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """`dionysus` with these arguments, at a free port; ended by SIGTERM, which it must take for the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dionysus", *arguments, "--port", "0"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = process.stdout.readline()
        address = re.search(r"http://\S+?:\d+", first)
        if address is None:
            process.wait(10)
            raise AssertionError(f"{first}{process.stderr.read()}")
        token = cwd / ".dionysus/mind.db-token"
        given = (environment or {}).get("DIONYSUS_TOKEN")
        kept = token.read_text().strip() if token.exists() else ""
        yield Served(address[0], given or kept, first, process, cwd)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
