"""Cassettes: one run in one file – gzip'd JSON lines: a head, the events in order, an end with their number and digest.

Texts stand in it once each: prompts are journaled as what is new in them. What a fork shares is in it as its own.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from dionysus.errors import BadInput, Damaged, StoreError
from dionysus.journal.budget import Budget
from dionysus.journal.events import Kind
from dionysus.stores.codec import from_us, to_us
from dionysus.stores.contract import Event, RunRecord, Status
from dionysus.stores.records import under_name

_FORMAT = 1
_MAGIC = "dionysus-cassette"


@dataclass(kw_only=True)
class Cassette:
    """A run as a file has it."""

    run: RunRecord
    events: list[Event] = field(default_factory=list)
    damage: Damaged | None = None
    """Why this is not all of it."""


_RUN_ID = re.compile(r"[\w.:@+~-]{1,120}")


def checked_id(run_id: Any) -> str:
    """A run's id.

    Raises:
        BadInput: It is none that can be.
    """
    if not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
        raise BadInput(f"run_id {run_id!r} must be 1 to 120 letters, digits or any of _ . : @ + ~ -")
    return run_id


def write_cassette(path: Path, run: RunRecord, events: Iterable[Event], *, overwrite: bool = False) -> int:
    """Writes a run into a file, whole or not at all; returns the number of events.

    Raises:
        BadInput: The file is there.
        StoreError: It cannot be written.
    """
    if path.is_dir():
        raise BadInput(f"{str(path)!r} is a folder; name a file")
    if path.exists() and not overwrite:
        raise BadInput(f"{str(path)!r} exists and is left as it is; name another file, or say --force")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with gzip.GzipFile(part, "wb", mtime=0) as file:  # no time in it: the same run is the same file
            digest, count = hashlib.sha256(), 0
            for line in _lines(run, events):
                digest.update(line)
                file.write(line)
                count += 1
            file.write(_line({"end": count - 1, "sha256": digest.hexdigest()}))
        part.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write the cassette {str(path)!r}: {error.strerror}; name another place") from error
    finally:
        part.unlink(missing_ok=True)
    return count - 1


def read_cassette(path: Path) -> Cassette:
    """Reads a run from a file, as far as it is whole: what is missing is said in `damage`.

    Raises:
        BadInput: It cannot be read, is no cassette, or a newer one than this version knows.
        Damaged: Not even its head is whole.
    """
    lines = _read(path)
    digest = hashlib.sha256()
    made: Cassette | None = None
    reason = "it ends too early"
    try:
        for raw in lines:
            entry = json.loads(raw)
            if made is None:
                made = Cassette(run=_run_of(path, entry))
            elif "end" in entry:
                if entry["end"] == len(made.events) and entry["sha256"] == digest.hexdigest():
                    return made
                reason = "its digest is not that of its events"
                break
            else:
                made.events.append(_event_of(made.run.run_id, entry, after=len(made.events)))
            digest.update(raw)
    except BadInput:
        raise
    except (EOFError, OSError, zlib.error) as error:
        reason = f"it cannot be unpacked: {error}"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"an entry is not as it was written: {type(error).__name__}: {error}"
    cure = "import what is whole with --partial, as a run that was interrupted"
    if made is None:
        raise BadInput(f"{str(path)!r} is no cassette: {reason}")
    top = made.events[0].body["trace"] if made.events else ""
    steps = sum(
        event.kind == "step_finished" and event.body["trace"] == top and event.body["step"].startswith("action")
        for event in made.events
    )
    made.damage = Damaged(f"the cassette {str(path)!r}", usable=len(made.events), steps=steps, reason=reason, cure=cure)
    return made


def renamed(cassette: Cassette, run_id: str) -> Cassette:
    """The same run under another id, its traces' ids included."""
    old = cassette.run.run_id

    events = [under_name(event, old, run_id) for event in cassette.events]
    return replace(cassette, run=replace(cassette.run, run_id=run_id), events=events)


def _lines(run: RunRecord, events: Iterable[Event]) -> Iterator[bytes]:
    yield _line(
        {
            _MAGIC: _FORMAT,
            "run": run.run_id,
            "agent": run.agent_name,
            "status": run.status,
            "started_at": to_us(run.started_at),
            "request": run.request,
        }
    )
    for event in events:
        yield _line(
            {
                "kind": event.kind,
                "seq": event.seq,
                "position": event.position,
                "at": to_us(event.at),
                "digest": event.digest,
                "body": event.body,
            }
        )


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry, separators=(",", ":")) + "\n").encode()


def _read(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except gzip.BadGzipFile as error:
        raise BadInput(f"{str(path)!r} is no cassette: {error}") from error
    except OSError as error:
        if error.strerror is None:
            raise
        raise BadInput(f"cannot read the cassette {str(path)!r}: {error.strerror}") from error


def _run_of(path: Path, head: Any) -> RunRecord:
    version = head.get(_MAGIC) if isinstance(head, dict) else None
    if version is None:
        raise BadInput(f"{str(path)!r} is no cassette")
    if version != _FORMAT:
        raise BadInput(
            f"the cassette {str(path)!r} has format {version!r}, this Dionysus knows {_FORMAT}; update dionysus-agents"
        )
    if head["status"] not in get_args(Status):
        raise ValueError(f"status {head['status']!r}")
    request = dict(head["request"])
    Budget(**(request.get("budget") or {}))
    needed = {"watch": str, "git": bool, **({"question": str} if request.get("verb") == "ask" else {})}
    if request.get("verb") in ("beat", "ask", "fork") and request.get("of") != "attached":
        for name, kind in needed.items():
            if not isinstance(request.get(name), kind):
                raise ValueError(f"a request without {name!r}")
    return RunRecord(
        run_id=checked_id(head["run"]),
        agent_name=str(head["agent"]),
        status=head["status"],
        started_at=from_us(head["started_at"]),
        request=request,
    )


def _event_of(run_id: str, entry: dict[str, Any], *, after: int) -> Event:
    if entry["seq"] != after + 1:
        raise ValueError(f"event {entry['seq']} comes after event {after}")
    body, texts = entry["body"], (entry["kind"], entry["position"], entry["digest"] or "", entry["body"]["trace"])
    if entry["kind"] not in get_args(Kind) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"event {entry['seq']} is of no kind that there is")
    for name in ("trace", "parent"):
        if str(body.get(name) or run_id).partition("/")[0] != run_id:
            raise ValueError(f"event {entry['seq']} is of another run: {body[name]!r}")
    return Event(
        run_id=run_id,
        seq=entry["seq"],
        kind=entry["kind"],
        position=entry["position"],
        at=from_us(entry["at"]),
        digest=entry["digest"],
        body=entry["body"],
    )
