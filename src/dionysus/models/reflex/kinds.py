"""What reflex knows of each kind of finding: where the report shows it, and what it calls for.

`advice` may name the finding's first and second identifier as {0} and {1}, or its whole text as {text}.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    section: str | None
    """Where the report shows it; None: not shown."""
    weight: float = 0.0
    """How much it deserves the next action; 0: it calls for nothing."""
    advice: str = ""


KINDS: dict[str, Kind] = {
    # what calls for action, most first
    "dangling": Kind("changed", 9.5, "Repair the uses of {0}: it was removed but is still named elsewhere"),
    "missing": Kind("expected", 7.0, "Look whether {1} needs to follow {0}"),
    "due": Kind("goals", 6.5, "Finish {text}"),
    "failed": Kind("expected", 6.5, "Find out why the expectation about {0} failed"),
    "broken": Kind("place", 6.0, "Mend the link from {0} to {1}"),
    "gap": Kind("expected", 6.0, "Write a test for the new {0}"),
    "note": Kind("told", 5.5, "Take up the note: {text}"),
    "marker": Kind("changed", 5.0, "Settle the marker in {0}"),
    "run": Kind("runs", 4.5, "Look at the run that failed: dionysus traces show {0}"),
    "quiet": Kind("expected", 4.0, "Check that this copy is current: it has been quiet for unusually long"),
    "untested": Kind("place", 3.5, "Write a test for {0}"),
    "left": Kind("place", 3.0, "Settle the marker in {0}"),
    "risk": Kind("place", 2.5, "Read {0} closely: fixes keep coming back to it"),
    "large": Kind("place", 2.4, "Look for the second idea in {0}: it is by far the largest file"),
    "nogoal": Kind("goals", 1.0, 'Say what is wanted here: dionysus goals add "…"'),
    # what is shown
    "beat": Kind("head"),
    "before": Kind("before"),
    "place": Kind("place"),
    "commits": Kind("place"),
    "recent": Kind("place"),
    "rewritten": Kind("changed"),
    "modified": Kind("changed"),
    "added": Kind("changed"),
    "removed": Kind("changed"),
    "commit": Kind("changed"),
    "more": Kind("changed"),
    "unreadable": Kind("changed"),
    "goal": Kind("goals"),
    "reached": Kind("goals"),
    "done": Kind("goals"),
    "held": Kind("expected"),
    "open": Kind("expected"),
    "expect": Kind("expected"),
    "learned": Kind("expected"),
    "gist": Kind("together"),
    "origin": Kind("remembered"),
    "spot": Kind("remembered"),
    "fresh": Kind("remembered"),
    "memory": Kind("remembered"),
    "fix": Kind("remembered"),
    "with": Kind("remembered"),
    "theme": Kind("remembered"),
    "principle": Kind("rules"),
    "model": Kind("expected"),
    # what is only read
    "idle": Kind("idle"),
    "tree": Kind(None),
    "machine": Kind(None),
    "basin": Kind(None),
    "progress": Kind(None),
    "captured": Kind(None),
    "nothing": Kind(None),
}
_UNKNOWN = Kind(None)


def kind(name: str) -> Kind:
    """What is known of a kind; one that is not known is not shown."""
    return KINDS.get(name, _UNKNOWN)


def section_of(name: str) -> str | None:
    """Where the report shows a kind."""
    return kind(name).section


def weight_of(name: str) -> float:
    """How much a kind deserves the next action."""
    return kind(name).weight
