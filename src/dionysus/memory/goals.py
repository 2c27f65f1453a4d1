"""Goals: what is wanted, what touches it, what reached it.

A goal is *touched* by a change whose wording shares two of its words, and *reached* where a commit or a note says
so in plain words ("closes goal 3", "goal 3 is done").
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from dionysus.errors import BadInput, NotFound
from dionysus.stores.contract import Goal
from dionysus.stores.mind import Mind
from dionysus.words import stem, stems, words

SOON = timedelta(days=3)
"""A goal counts as due from this long before its date."""
_DONE = r"(?:close[sd]?|finish(?:e[sd])?|complete[sd]?|reach(?:e[sd])?|resolve[sd]?|fix(?:e[sd])?)"
_REACHED = re.compile(rf"(?i)\b{_DONE}\s+goal\s+#?(\d+)|\bgoal\s+#?(\d+)\s+(?:is\s+)?(?:done|reached|{_DONE})\b")


@dataclass(frozen=True, kw_only=True)
class Touch:
    """A change that a goal has words in common with."""

    by: str
    """The key of the wording: a path, or `commit 1a2b3c4d`."""
    words: tuple[str, ...]
    """The goal's own words that it shares."""


class Goals:
    """The goals of one store."""

    def __init__(self, mind: Mind, *, clock: Callable[[], datetime], hide: Callable[[str], str]) -> None:
        self._mind, self._clock, self._hide = mind, clock, hide

    def add(self, text: str, *, due_at: datetime | None = None) -> Goal:
        """Opens a goal.

        Raises:
            BadInput: The text is empty.
        """
        text = " ".join(self._hide(text).split())
        if not text:
            raise BadInput("a goal needs a text")
        return self.get(self._mind.add_goal(text, self._clock(), due_at))

    def get(self, goal_id: int) -> Goal:
        """The goal of that id.

        Raises:
            NotFound: There is none.
        """
        goal = self._mind.goal(goal_id) if 0 <= goal_id < 2**63 else None
        if goal is None:
            raise NotFound("goal", goal_id, see="`dionysus goals`")
        return goal

    def listed(self, *, status: str | None = "open") -> list[Goal]:
        """Goals, the earliest due first; None: of any status."""
        return self._mind.goals(status=status)

    def due(self, now: datetime) -> list[Goal]:
        """Open goals that are overdue or due soon."""
        return [g for g in self.listed() if g.due_at is not None and g.due_at < now + SOON]

    def update(
        self,
        goal_id: int,
        *,
        progress: str | None = None,
        status: Literal["open", "done", "dropped"] | None = None,
    ) -> Goal:
        """Notes progress on a goal, or closes or reopens it; returns it as it now is.

        Raises:
            NotFound: There is none of that id.
            BadInput: The status is none of the three.
        """
        if status not in (None, "open", "done", "dropped"):
            raise BadInput(f"status {status!r} is not one of open, done, dropped")
        with self._mind.transaction():
            goal = self.get(goal_id)
            notes = (*goal.progress, self._hide(progress)) if progress else goal.progress
            goal = replace(goal, progress=notes, status=status or goal.status)
            self._mind.update_goal(goal)
        return goal


def touched(goal: Goal, wording: Mapping[str, str]) -> Touch | None:
    """The change nearest to a goal, where one shares two of its words.

    Args:
        wording: The text of each change, by path or commit.
    """
    wanted = set(stems(goal.text))
    shared = {key: wanted & set(stems(f"{key} {text}")) for key, text in wording.items()}
    key = max(shared, key=lambda k: (len(shared[k]), k), default=None)
    if key is None or len(shared[key]) < 2:
        return None
    own = dict.fromkeys(w for w in words(goal.text) if stem(w) in shared[key])
    return Touch(by=key, words=tuple(own)[:4])


def reached(wording: Mapping[str, str]) -> dict[int, str]:
    """The goals that a text says are done: number → key of the text."""
    found: dict[int, str] = {}
    for key, text in wording.items():
        for match in _REACHED.finditer(text):
            found.setdefault(int(match[1] or match[2]), key)
    return found
