"""What the history says of one file: how often it was touched, with what, by whom, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dionysus.findings import Finding, code, plural, quoted
from dionysus.words import words
from dionysus.world.phrasing import day, is_fix
from dionysus.world.repository import Commit
from dionysus.world.sight import RECENT

_SMALL = 12
"""Larger commits say nothing about which files belong together."""
_OFTEN = 3
"""Fewer common commits, or commits with a word, say nothing."""


def past_of(path: str, history: Sequence[Commit], *, here: Mapping[str, object], own: str) -> list[Finding]:
    """What commits tell of a path; at least one must have touched it.

    Args:
        here: The files there are now, by path.
        own: Words that say nothing new about it, such as its name.
    """
    mine = [c for c in history if path in c.files]
    return [_spot(path, mine, history[:RECENT]), *_company(path, mine, here), *_theme(mine, own)]


def fixes_of(path: str, history: Sequence[Commit]) -> list[Finding]:
    """The newest two repairs of a path."""
    fixes = [c for c in history if path in c.files and is_fix(c)][:2]
    return [Finding("fix", f"{day(c.at)} {c.sha} {quoted(c.subject, 80)} ({code(path)})") for c in fixes]


def origin_of(path: str, lines: Mapping[str, int], history: Sequence[Commit]) -> list[Finding]:
    """Who wrote the lines that are being changed, and why.

    Args:
        lines: Short commit id → how many of the lines come from it.
    """
    known = {c.sha: c for c in history}
    writers = [known[sha] for sha, _ in Counter(lines).most_common() if sha in known][:2]
    said = [f"{c.sha} {day(c.at)} {quoted(c.subject, 80)} ({quoted(c.author, 40)})" for c in writers]
    return [Finding("origin", f"the lines changed in {code(path)} come from {text}") for text in said]


def _spot(path: str, mine: Sequence[Commit], recent: Sequence[Commit]) -> Finding:
    fixes = sum(map(is_fix, mine))
    fixed = f", {fixes} {'fix' if fixes == 1 else 'fixes'} among them" if fixes else ""
    (author, wrote), *others = Counter(c.author for c in mine).most_common()
    who = f"; {quoted(author, 40)} wrote {wrote}" if others else ""
    churn = [p for p, _ in Counter(f for c in recent for f in c.files).most_common()]
    place = churn.index(path) + 1 if path in churn else len(churn)
    rank = f"; rank {place} of {len(churn)} in churn" if len(mine) > 2 and place <= len(churn) / 5 else ""
    last = f"last {day(mine[0].at)} ({quoted(mine[0].subject, 60)})"
    return Finding("spot", f"{code(path)}: {plural(len(mine), 'commit')}{fixed}, {last}{who}{rank}")


def _company(path: str, mine: Sequence[Commit], here: Mapping[str, object]) -> list[Finding]:
    small = [c for c in mine if len(c.files) <= _SMALL]
    shared = Counter(f for c in small for f in c.files if f != path and f in here)
    often = [f"{code(f)} ({n} of {len(small)})" for f, n in shared.most_common(3) if n >= _OFTEN]
    return [Finding("with", f"{code(path)} usually moves with {', '.join(often)}")] if often else []


def _theme(mine: Sequence[Commit], own: str) -> list[Finding]:
    counts = Counter(w for c in mine for w in set(words(c.subject)) - set(words(own)) if w.isalpha())
    shared = [w for w, n in counts.most_common(5) if n >= _OFTEN]
    return [Finding("theme", f"its commits speak of {', '.join(shared)}")] if shared else []
