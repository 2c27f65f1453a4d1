"""What reflex knows of each kind of finding: where it is shown, what it is worth, what it calls for."""

from dataclasses import dataclass

RESULT = "result"
"""The kind given to lines of a tool that does not speak the line grammar."""


@dataclass(frozen=True)
class Kind:
    """What the report knows of a kind of finding."""

    section: str | None
    """The title it stands under; None: it is not shown."""
    weight: float
    """How much it deserves attention; the live display shows a step's weightiest line."""
    advice: str = ""
    """What it calls for: {0}, {1} are its identifiers, {goal}, {number}, {note}, {intention} what it
    says of one. Empty: nothing."""
    mark: str = ""
    """Set before the line."""


BEFORE, PLACE, CHANGED, TOLD, RUNS = "Last time", "Where it is", "Changed", "Told", "Runs"
GOALS, EXPECTED, TOGETHER, REMEMBERED, RULES = "Goals", "Expected", "Together", "Remembered", "House rule"
FOUND = "Found"

SECTIONS = {
    FOUND: 8, BEFORE: 1, PLACE: 5, CHANGED: 6, TOLD: 20, RUNS: 2,
    GOALS: 4, EXPECTED: 4, TOGETHER: 2, REMEMBERED: 4, RULES: 2,
}  # fmt: skip
"""The sections in order, and how many lines each may have."""

# Within a section, lines stand in the order of this table.
KINDS = {
    RESULT: Kind(FOUND, 0.1),
    "before": Kind(BEFORE, 2.0, "{intention}"),
    # the place
    "place": Kind(PLACE, 0.4),
    "broken": Kind(PLACE, 6.0, "Mend the link from {0} to {1}", "! "),
    "untested": Kind(PLACE, 3.5, "Write a test for {0}"),
    "left": Kind(PLACE, 3.0, "Settle the marker in {0}"),
    "risk": Kind(PLACE, 2.5, "Read {0} closely: fixes keep coming back to it"),
    "large": Kind(PLACE, 2.5, "Look for the second idea in {0}"),
    "rewritten": Kind(PLACE, 1.0),
    "commits": Kind(PLACE, 0.3),
    "recent": Kind(PLACE, 0.3),
    "unreadable": Kind(PLACE, 0.3),
    # what happened
    "dangling": Kind(CHANGED, 9.5, "Repair the uses of {0}: it was removed but is still named elsewhere", "! "),
    "marker": Kind(CHANGED, 5.0, "Settle the marker in {0}"),
    "modified": Kind(CHANGED, 0.9),
    "added": Kind(CHANGED, 0.9),
    "removed": Kind(CHANGED, 0.9),
    "commit": Kind(CHANGED, 0.8),
    "more": Kind(CHANGED, 0.1),
    "note": Kind(TOLD, 5.5, "Take up {note}"),
    "run": Kind(RUNS, 4.5, "Look at the failed run: dionysus traces show {0}"),
    # goals
    "reached": Kind(GOALS, 5.0, "Mark {number} as done: it is said to be reached", "✓ "),
    "due": Kind(GOALS, 6.5, "Finish {goal}"),
    "goal": Kind(GOALS, 3.0, "Go on with {goal}"),
    "nogoal": Kind(GOALS, 1.0, 'Set a first goal: dionysus goals add "…"'),
    # expectations
    "missing": Kind(EXPECTED, 7.0, "Look whether {1} needs to follow {0}", "! "),
    "failed": Kind(EXPECTED, 6.5, "Look whether {1} was forgotten when {0} changed", "✗ "),
    "gap": Kind(EXPECTED, 6.0, "Write a test for the new {0}", "! "),
    "quiet": Kind(EXPECTED, 4.0, "Check that this copy is current: it has been quiet for unusually long", "! "),
    "held": Kind(EXPECTED, 0.7, mark="✓ "),
    "missed": Kind(EXPECTED, 0.6),
    "expect": Kind(EXPECTED, 0.5, mark="→ "),
    "open": Kind(EXPECTED, 0.4, mark="… "),
    "learned": Kind(EXPECTED, 0.4),
    "gist": Kind(TOGETHER, 1.0),
    # memory
    "origin": Kind(REMEMBERED, 0.8),
    "says": Kind(REMEMBERED, 0.9),
    "spot": Kind(REMEMBERED, 0.9),
    "fresh": Kind(REMEMBERED, 0.7),
    "memory": Kind(REMEMBERED, 0.6),
    "fix": Kind(REMEMBERED, 0.5),
    "theme": Kind(REMEMBERED, 0.3),
    "with": Kind(REMEMBERED, 0.3),
    "principle": Kind(RULES, 0.9),
    "model": Kind(RULES, 0.5),
    # not shown in the report; the first is its head
    "beat": Kind(None, 0.2),
    "progress": Kind(None, 0.5),
    "done": Kind(None, 0.5),
    "captured": Kind(None, 0.2),
    "tree": Kind(None, 0.1),
    "machine": Kind(None, 0.1),
    "idle": Kind(None, 0.1),
}
UNKNOWN = Kind(None, 0.0)
PLACE_OF = {kind: i for i, kind in enumerate(KINDS)}


def section_of(kind: str) -> str | None:
    """The title of the section that shows a kind of finding; None: none does."""
    return KINDS.get(kind, UNKNOWN).section


def weight_of(kind: str) -> float:
    """How much a kind of finding deserves attention; 0 for unknown ones."""
    return KINDS.get(kind, UNKNOWN).weight
