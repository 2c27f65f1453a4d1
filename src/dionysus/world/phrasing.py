"""Turns of phrase that several findings share."""

import re
from collections.abc import Sequence
from datetime import datetime

from dionysus.findings import code, quoted
from dionysus.world.repository import Commit

_FIX = re.compile(r"(?i)\b(fix(es|ed)?|bug|revert|regression|hotfix)\b")
_TRIFLE = re.compile(
    r"(?i)\bfix(es|ed)?:? (?:(?:a|an|some|the|more|minor|small) )*(?:typo|lint|format|style|spelling|docs?\b|ci\b)"
)


def is_fix(commit: Commit) -> bool:
    """Whether a subject speaks of a repair, other than of wording or form."""
    return bool(_FIX.search(_TRIFLE.sub("", commit.subject)))


def day(at: float) -> str:
    """The local day of a time in Unix seconds."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d}"


def listed(paths: Sequence[str], most: int = 3) -> str:
    """``a, b, c +2`` with each path in backticks."""
    more = f" +{len(paths) - most}" if len(paths) > most else ""
    return ", ".join(map(code, paths[:most])) + more


def headline(commit: Commit, limit: int, most: int = 3) -> str:
    """Day, id, subject and files of a commit.

    Args:
        limit: Characters of the subject.
        most: Files that are named.
    """
    where = f" ({listed(commit.files, most)})" if commit.files else ""
    return f"{day(commit.at)} {commit.sha} {quoted(commit.subject, limit)}{where}"
