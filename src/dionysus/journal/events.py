"""What a journal holds, and the one place that writes it.

Kinds: `run_started`, `model_called`, `tool_started`, `tool_finished`, `effect`, `step_finished`, `run_finished`.
An *effect* is a value from outside the transcript that ends up inside it (a coherence score, activated basins).
Each body names its `trace`; those within a step name the `step` (`planning.4`, `action.4`, `final.11`).
"""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Literal, Protocol

from dionysus.journal.secrets import Secrets
from dionysus.stores.contract import Event
from dionysus.stores.records import Records

Kind = Literal[
    "run_started",
    "model_called",
    "tool_started",
    "tool_finished",
    "effect",
    "step_finished",
    "run_finished",
]
Clock = Callable[[], datetime]
_DEEPEST = 40
"""Levels of nested values that are kept as such; what lies deeper – or refers to itself – is kept as text."""
_BITS = 4096
"""Greater integers are kept as text: Python does not print them."""
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


class Projecting(Protocol):
    """Who is handed each event, in the transaction that appends it."""

    def __call__(self, event: Event) -> None: ...
    def forget(self, run_id: str) -> None: ...


class Journal:
    """Appends events and hands each, in the same transaction, to the projection."""

    def __init__(self, records: Records, project: Projecting | None, clock: Clock) -> None:
        self._records, self._project = records, project
        self._last: dict[str, int] = {}
        self._lock = threading.Lock()
        self.clock = clock

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
    ) -> Event:
        """Writes one event; when this returns it is in the store.

        Args:
            secrets: What they know is replaced in every text of the body.
            durable: Wait for the disk; False survives a killed process but not a power cut.

        Raises:
            StoreError: It could not be written; nothing of it was.
        """
        with self._lock:
            try:
                with self._records.transaction(durable=durable):
                    last = self._last.get(run_id)
                    event = Event(
                        run_id=run_id,
                        seq=(self._records.last_seq(run_id) if last is None else last) + 1,
                        kind=kind,
                        position=position,
                        at=self.clock(),
                        digest=digest,
                        body=secrets.hide_in_plain(body),
                    )
                    self._records.append(event)
                    if self._project is not None:
                        self._project(event)
            except BaseException:
                self.forget(run_id)
                raise
            self._last[run_id] = event.seq
        return event

    def forget(self, run_id: str) -> None:
        """Lets go of what is known of a run that is over."""
        self._last.pop(run_id, None)
        if self._project is not None:
            self._project.forget(run_id)


def digest_of(value: Any) -> str:
    """16 hex digits that equal plain values share."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: images as PNG, bytes as base64; anything else becomes its type's name and its text.

    Never fails, whatever a tool returned: a text that cannot be had is said to be missing.
    """
    return _plain(value, ())


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _BITS else {"object": "builtins.int", "text": hex(value)}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        if isinstance(value, bytes | bytearray):
            return _plain_bytes(value)
        if len(within) < _DEEPEST and id(value) not in within:
            inside = (*within, id(value))
            if isinstance(value, Mapping):
                return {str(k): _plain(v, inside) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [_plain(v, inside) for v in value]
        if hasattr(value, "save") and hasattr(value, "getbands"):
            return {"type": "image", "png": _png(value)}
        return {"object": kind, "text": str(value)}
    except Exception as error:  # noqa: BLE001 – the code of a foreign object ran, and what it did is said
        return {"object": kind, "text": f"(no text: {type(error).__name__}: {error})"}


def _plain_bytes(value: bytes | bytearray) -> dict[str, str]:
    """As text where they are text, so that secrets in them are found."""
    try:
        return {"type": "bytes", "text": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"type": "bytes", "base64": base64.b64encode(value).decode()}


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


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGBA")).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
