"""What a journal holds, and the one place that writes it.

Kinds: `run_started`, `model_started`, `model_called`, `tool_started`, `tool_finished`, `effect`, `step_finished`,
`run_finished`; `run_resumed` where an agent goes on, `run_forked` where a run parts from the one it shares events with.
An *effect* is a value from outside the transcript that ends up inside it (a coherence score, activated basins).
Each body names its `trace`; those within a step name the `step` (`planning.4`, `action.4`, `final.11`).
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from typing import Any, Literal, Protocol

from dionysus.counting import count, frame
from dionysus.journal.secrets import Secrets
from dionysus.journal.values import digest_of, plain
from dionysus.stores.contract import DaySpending, Event
from dionysus.stores.records import Records

Kind = Literal[
    "run_started",
    "run_resumed",
    "run_forked",
    "model_started",
    "model_called",
    "tool_started",
    "tool_finished",
    "effect",
    "step_finished",
    "run_finished",
]
Clock = Callable[[], datetime]


class Projecting(Protocol):
    """Who is handed each event, in the transaction that appends it."""

    def __call__(self, event: Event) -> None: ...
    def forget(self, run_id: str) -> None: ...


class Journal:
    """Appends events and hands each, in the same transaction, to the projection."""

    def __init__(self, records: Records, project: Projecting | None, clock: Clock) -> None:
        self._records, self._project = records, project
        self._last: dict[str, int] = {}
        self._held: dict[str, list[Event]] = defaultdict(list)
        """Events that are written together with the next one of their run."""
        self._lock = threading.RLock()
        self._touched: set[str] = set()
        self._depth = 0
        self.clock = clock

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Several events, and what else is written meanwhile, all or nothing.

        Args:
            durable: Wait for the disk; False survives a killed process but not a power cut.
        """
        with self._lock:
            self._depth += 1
            try:
                with self._records.transaction(durable=durable):
                    yield
            except BaseException:
                for run_id in self._touched:
                    self.forget(run_id)
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._touched.clear()

    def append(
        self,
        run_id: str,
        kind: Kind,
        position: str,
        body: dict[str, Any],
        *,
        secrets: Secrets,
        digest: str | None = None,
        durable: bool = True,
        held: bool = False,
    ) -> Event:
        """Writes one event; when this returns it is in the store, or in the transaction around it.

        Args:
            secrets: What they know is replaced in every text of the body; `hides` names what stands for it.
            durable: See `transaction`.
            held: Write it together with the next one: for what a run that is made again makes again, and that nobody
                outside has seen before that.

        Raises:
            StoreError: It could not be written; nothing of it was.
        """
        hidden = secrets.hide_in_body(body)
        if hidden is not body:
            hidden = {**hidden, "hides": sorted(secrets.placeholders(hidden, known=True))}
        if held:
            with self._lock:
                event = self._next(run_id, kind, position, hidden, digest)
                self._held[run_id].append(event)
            return event
        with self.transaction(durable=durable):
            self._touched.add(run_id)
            event = self._next(run_id, kind, position, hidden, digest)
            for each in (*self._held.pop(run_id, ()), event):
                self._records.append(each)
                if self._project is not None:
                    self._project(each)
        return event

    def _next(self, run_id: str, kind: Kind, position: str, body: dict[str, Any], digest: str | None) -> Event:
        last = self._last.get(run_id)
        seq = (self._records.last_seq(run_id) if last is None else last) + 1
        self._last[run_id] = seq
        return Event(run_id=run_id, seq=seq, kind=kind, position=position, at=self.clock(), digest=digest, body=body)

    def forget(self, run_id: str) -> None:
        """Lets go of what is known of a run that is over."""
        self._last.pop(run_id, None)
        self._held.pop(run_id, None)
        if self._project is not None:
            self._project.forget(run_id)

    # -- spending --------------------------------------------------------------------------------------

    def spent_today(self) -> DaySpending:
        """What model calls took on this UTC day, in all runs of the store."""
        return self._records.spent_on(self._today())

    def spend(self, more: DaySpending) -> None:
        """Adds to it."""
        self._records.spend(self._today(), more)

    def _today(self) -> str:
        return self.clock().astimezone(UTC).date().isoformat()


@dataclass(frozen=True)
class Message:
    """A chat message as it is written."""

    plain: dict[str, Any]
    """`role`, `content`; images as PNG."""
    digest: str
    chars: int
    """Characters of text."""
    raw: tuple[str, Any]
    """What an equal message has as role and content; of images, what is written of them, so that none is equal."""

    shown: Any = None
    """The content without its secrets, where it has some."""

    @cached_property
    def counted(self) -> int:
        """Its length by `dionysus.counting`, its frame included."""
        content = self.plain["content"]
        parts = [{"text": content}] if isinstance(content, str) else content or []
        return frame() + sum(count(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))

    @classmethod
    def of(cls, role: str, content: Any, secrets: Secrets) -> "Message":
        """Reads a message."""
        read = {"role": role, "content": plain(content)}
        written = secrets.hide_in_plain(read)
        parts = [{"text": content}] if isinstance(content, str) else written["content"] or []
        chars = sum(len(part.get("text") or "") for part in parts if isinstance(part, dict))
        shown = None if written is read else secrets.hide_in(content)
        return cls(written, digest_of(written), chars, (role, read["content"]), shown)

    def as_sent(self, message: Any) -> Any:
        """The message that a model gets: the given one, unless it holds secrets."""
        if self.shown is None:
            return message
        if isinstance(message, dict):
            return {**message, "content": self.shown}
        return replace(message, content=self.shown)


def role_and_content(message: Any) -> tuple[str, Any]:
    """Of one of smolagents' messages, whichever form it has."""
    if isinstance(message, dict):
        role, content = message["role"], message["content"]
    else:
        role, content = message.role, message.content
    return (role.value if isinstance(role, Enum) else str(role)), content
