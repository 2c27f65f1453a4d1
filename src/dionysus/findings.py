"""The line grammar that tools, people, LLMs and rules all read: ``- [kind] text``.

Every tool answers in such lines; identifiers (paths, names) stand in backticks. Text that comes from outside
– notes, commit subjects, file contents – goes through `quoted` first, so that it can never forge a line, an
identifier or a step mark.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LINE = re.compile(r"^- \[([a-z]+)\] (.+)$", re.M)
_IDENTIFIER = re.compile(r"`([^`]+)`")
_MARKS = str.maketrans({"⟨": "‹", "⟩": "›"})
_FORGERY = {**_MARKS, ord("`"): "'"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


@dataclass(frozen=True)
class Finding:
    """One thing that a tool found."""

    kind: str
    """What sort of thing, one lower-case word: `modified`, `note`, `due` …"""
    text: str
    """One line; identifiers in backticks."""

    def __str__(self) -> str:
        return f"- [{self.kind}] {self.text}"

    @property
    def identifiers(self) -> list[str]:
        """The names in backticks, in order."""
        return _IDENTIFIER.findall(self.text)


def quoted(text: str, limit: int | None = None) -> str:
    """Outside text on one line: white space and control characters folded, marks of the grammar replaced.

    Args:
        limit: Cut at this many characters, with "…" at the end; None keeps all.
    """
    flat = _CONTROL.sub(" ", text.translate(_FORGERY)).strip()
    flat = flat.encode("utf-8", "replace").decode("utf-8")
    return flat if limit is None or len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def outside(text: str) -> str:
    """Outside text with its lines: none of them can be taken for a finding, or for a step mark."""
    return re.sub(r"(?m)^([^\S\n]*)- \[", r"\1– [", text).translate(_MARKS)


def code(name: str) -> str:
    """`name` as an identifier."""
    return f"`{quoted(name)}`"


def render(findings: Iterable[Finding]) -> str:
    """The findings as the text of an observation."""
    return "\n".join(map(str, findings))


def parse(text: str) -> list[Finding]:
    """The findings in `text`, in order; other lines are passed over."""
    return [Finding(kind, rest) for kind, rest in _LINE.findall(text)]


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`3 files`, `1 file`.

    Args:
        nouns: The plural, where it does not end in s.
    """
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def ago(then_s: float, now_s: float) -> str:
    """The time between two instants (Unix seconds), in words: `5 min ago`, `3 d ago`."""
    days = max(0.0, now_s - then_s) / 86400
    if days < 1 / 24:
        return f"{days * 1440:.0f} min ago"
    if days < 1:
        return f"{days * 24:.0f} h ago"
    return f"{days:.0f} d ago" if days < 60 else f"{days / 30.44:.0f} months ago"
