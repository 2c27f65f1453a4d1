"""What a folder shows when it is looked at for the first time: its extent, its history, where fixes keep coming."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from dionysus.findings import Finding, ago, code, plural, quoted
from dionysus.world.folder import Snapshot
from dionysus.world.phrasing import day, headline, is_fix
from dionysus.world.repository import HISTORY, Commit
from dionysus.world.survey import is_source, is_test

RECENT = 200
"""Newest commits in which hot spots are looked for."""
_MONTH_S = 30 * 86400
_FIXES, _CHANGES = 3, 8
"""A file with fewer fixes or changes is no hot spot."""


def at_first_sight(snapshot: Snapshot, history: Sequence[Commit]) -> list[Finding]:
    """The place, the last month of its history, its hot spots, its newest commits."""
    found = [_place(snapshot, history)]
    if len(history) > 1:
        newest = history[0].at
        month = sum(c.at > newest - _MONTH_S for c in history)
        up_to = f"in the 30 days up to the newest, {day(newest)} ({ago(newest, snapshot.taken_at)})"
        found.append(Finding("commits", f"{plural(month, 'commit')} {up_to}"))
    found += _hot_spots(snapshot, history[:RECENT])
    return found + [Finding("recent", headline(c, 80, 2)) for c in history[:2]]


def _place(snapshot: Snapshot, history: Sequence[Commit]) -> Finding:
    kinds = Counter(PurePosixPath(p).suffix.lower() or "other" for p in snapshot.files)
    common = ", ".join(f"{n} {quoted(kind, 20)}" for kind, n in kinds.most_common(3))
    text = plural(len(snapshot.files), "file") + (f" ({common})" if common else "")
    if not history:
        return Finding("place", f"{text}, no git history")
    count = f"more than {HISTORY} commits" if len(history) == HISTORY else plural(len(history), "commit")
    people = len({c.author for c in history})
    by = f" by {people} people" if people > 1 else ""
    return Finding("place", f"{text}, {count}{by} since {day(history[-1].at)}")


def _hot_spots(snapshot: Snapshot, newest: Sequence[Commit]) -> list[Finding]:
    touched = Counter(f for c in newest for f in c.files)
    fixed = Counter(f for c in newest if is_fix(c) for f in c.files)
    hot = [
        p
        for p in touched
        if p in snapshot.files and is_source(p) and not is_test(p) and fixed[p] >= _FIXES and touched[p] >= _CHANGES
    ]
    hot.sort(key=lambda p: (-fixed[p] * fixed[p] / touched[p], p))  # by share and by number
    over = f"in the last {len(newest)} commits"
    return [Finding("risk", f"{code(p)}: {fixed[p]} fixes among its {touched[p]} changes {over}") for p in hot[:3]]
