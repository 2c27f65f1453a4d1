"""Where independent sources meet: the extractive form of synthesis, without an LLM."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dionysus.findings import Finding, parse
from dionysus.words import stem, stems, words

_GROUPS = {
    "change": ("modified", "added", "removed", "marker", "dangling", "commit"),
    "note": ("note",),
    "goal": ("goal", "due", "reached"),
    "expectation": ("missing", "failed", "held", "gap", "expect"),
    "memory": ("memory", "origin", "fix", "spot", "before"),
    "place": ("risk", "broken", "untested", "large"),
}
_GROUP_OF = {kind: group for group, kinds in _GROUPS.items() for kind in kinds}
_COMMIT = re.compile(r"\d{4}-\d\d-\d\d (?:commit )?([0-9a-f]{7,8})\b")
_KINDS = 3
"""Kinds of evidence that must meet."""
_WORDS = 2
"""Words that two pieces of evidence must share."""
_MOST = 2
_OWN_WORDS = frozenset(stems("goal note commit beat due touched reached step test file line"))
"""Words of the tools' own sentences: sharing them says nothing."""


@dataclass(frozen=True)
class _Evidence:
    group: str
    name: str
    identifiers: frozenset[str]
    stems: frozenset[str]


def synthesize(information: str) -> list[Finding]:
    """What three kinds of evidence point at together: a name that all mention, or words that all share."""
    evidence = [e for finding in parse(information) if (e := _read(finding)) is not None]
    by_words = list(_by_words(evidence, information))
    told = {name for meeting in by_words for name in meeting.identifiers}
    by_name = [meeting for meeting in _by_name(evidence) if not told & set(meeting.identifiers)]
    found = [*by_words, *by_name][:_MOST]
    return found or [Finding("nothing", "no three kinds of evidence speak of the same thing")]


def _read(finding: Finding) -> _Evidence | None:
    group = _GROUP_OF.get(finding.kind)
    if group is None:
        return None
    first = finding.text.split(",")[0].split(" is ")[0].split(" (")[0]
    numbered = group in ("goal", "note") and first.partition(" ")[0] in ("goal", "note")
    identifiers = finding.identifiers
    sha = _COMMIT.match(finding.text) if finding.kind in ("commit", "memory", "fix") else None
    name = first if numbered else f"commit {sha[1]}" if sha else f"`{identifiers[0]}`" if identifiers else None
    if name is None:
        return None
    return _Evidence(group, name, frozenset(identifiers), frozenset(stems(finding.text)) - _OWN_WORDS)


def _by_words(evidence: list[_Evidence], information: str) -> Iterator[Finding]:
    """An anchor – a change or a note – and at least two other kinds that share two of its words."""
    count: dict[str, int] = {}
    for piece in evidence:
        for word in piece.stems:
            count[word] = count.get(word, 0) + 1
    rare = {word for word, n in count.items() if n <= max(4, len(evidence) / 2)}
    surface = {stem(word): word for word in reversed(words(information))}
    meetings = []
    for anchor in evidence:
        if anchor.group not in ("change", "note"):
            continue
        partners = [e for e in evidence if e.group != anchor.group and len(e.stems & anchor.stems & rare) >= _WORDS]
        groups = {anchor.group, *(e.group for e in partners)}
        if len(groups) >= _KINDS:
            told = len(groups & {"goal", "note"})
            meetings.append((-len(groups), -told, len(partners), anchor, partners))
    used: set[str] = set()
    for _, _, _, anchor, partners in sorted(meetings, key=lambda m: m[:3]):
        names = list(dict.fromkeys([anchor.name, *(e.name for e in partners)]))
        if used & set(names) or len(names) < _KINDS:
            continue
        used |= set(names)
        common = [w for w in sorted(anchor.stems & rare) if sum(w in e.stems for e in partners) >= _WORDS]
        shared = ", ".join(surface.get(w, w) for w in sorted(common, key=lambda w: (-count[w], w))[:4])
        if len(common) >= _WORDS:
            yield Finding("gist", f"{', '.join(names[:4])} speak of the same: {shared}")


def _by_name(evidence: list[_Evidence]) -> Iterator[Finding]:
    groups: dict[str, set[str]] = {}
    for piece in evidence:
        for name in piece.identifiers:
            groups.setdefault(name, set()).add(piece.group)
    for name in sorted(groups, key=lambda n: (-len(groups[n]), n)):
        if len(groups[name]) >= _KINDS:
            yield Finding("gist", f"`{name}` is where evidence meets: {', '.join(sorted(groups[name]))}")
