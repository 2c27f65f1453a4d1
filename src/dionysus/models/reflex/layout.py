"""How lines are made to fit: columns of a terminal, cuts at words, base names instead of paths."""

import re
import unicodedata
from collections.abc import Iterable

WIDTH = 105
"""Columns of the report."""
INDENT = 12
"""Columns of its titles."""
CUT = "…"

_PATH = re.compile(r"`([^`\s]+/[^`\s/]+)`")
_SHORT_ENOUGH = 0.6
"""A cut at a word may cost this share of the room at most; else the cut is within the word."""
_SAYS_LITTLE = frozenset("__init__.py __main__.py mod.rs main.go index.js index.ts index.html README.md".split())
"""Base names that are everywhere: shown with their folder."""


def columns(text: str) -> int:
    """The columns that a text takes in a terminal."""
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, room: int, *, keep: str = "") -> str:
    """`text` cut at a word, with "…", so that it fits `room` columns.

    Args:
        keep: An end of `text` worth more than its middle; it stays if half of the room is left for the rest.
    """
    if columns(text) <= room:
        return text
    if keep and text.endswith(keep) and columns(keep) < room / 2:
        start = shorten(text.removesuffix(keep).rstrip(), room - columns(keep) - 1)
        return f"{start} {keep}" if start.endswith(CUT) else f"{start} {CUT}{keep}"
    fits, used = 0, columns(CUT) + 1
    for character in text:
        used += _columns_of(character)
        if used > room:
            break
        fits += 1
    start, space, _ = text[:fits].rpartition(" ")
    if not space or len(start) < _SHORT_ENOUGH * fits:
        start = text[:fits]
    if start.count("`") % 2:  # never half an identifier
        start = start.rpartition("`")[0]
    return f"{start.rstrip(' (,;:–—')} {CUT}".strip()


def wrap(text: str, room: int, most: int) -> list[str]:
    """`text` over at most `most` lines of `room` columns, the last one cut."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < most - 1 and columns(rest) > room:
        line = ""
        for word in rest.split(" "):
            if columns(f"{line} {word}") > room:
                break
            line = f"{line} {word}" if line else word
        if not line:
            break
        lines.append(line)
        rest = rest[len(line) :].strip()
    return [*lines, shorten(rest, room)] if rest else lines


class Names:
    """Paths as their base names, where no two of the paths at hand share one."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self._owner: dict[str, set[str]] = {}
        for name in identifiers:
            self._owner.setdefault(name.rpartition("/")[2], set()).add(name)

    def brief(self, text: str) -> str:
        """`text` without backticks, its paths shortened."""
        return _PATH.sub(lambda path: self._short(path[1]), text).replace("`", "")

    def _short(self, path: str) -> str:
        folder, _, base = path.rpartition("/")
        if base in _SAYS_LITTLE:
            return f"{folder.rpartition('/')[2]}/{base}"
        return base if len(self._owner.get(base, ())) <= 1 else path
