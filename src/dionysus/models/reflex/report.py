"""The report: what to do next and why, then what was found, by section, each line with the step it comes from.

Extractive: every line is a finding, shortened; only the sentence under *Next* is a rule's own.
"""

import re
from collections import Counter
from dataclasses import dataclass

from dionysus.models.reflex.kinds import KINDS, section_of, weight_of
from dionysus.models.reflex.scene import Scene, Seen

_WIDTH = 105
_COLUMN = 12
SECTIONS = (
    ("before", "Last time", 1),
    ("place", "Where it is", 5),
    ("changed", "Changed", 6),
    ("told", "Told", 3),
    ("runs", "Runs", 2),
    ("goals", "Goals", 4),
    ("expected", "Expected", 4),
    ("together", "Together", 2),
    ("remembered", "Remembered", 4),
    ("rules", "House rule", 2),
)
"""(section, its title, lines shown at most)"""
_ORDER = (
    "dangling", "rewritten", "modified", "added", "removed", "marker", "more", "broken", "left", "risk",
    "untested", "place", "large", "commits", "recent", "commit", "unreadable", "reached", "due", "goal",
    "done", "missing", "failed", "gap", "held", "quiet", "open", "expect", "learned", "model", "origin",
    "memory", "spot", "fresh", "fix", "with", "theme",
)  # fmt: skip
"""Reading order within a section."""
_SIGN = {
    "held": "✓ ",
    "failed": "✗ ",
    "missing": "! ",
    "gap": "! ",
    "dangling": "! ",
    "open": "… ",
    "expect": "→ ",
}
_SUPPORT = ("gist", "goal", "note", "marker", "modified", "added", "commit", "origin", "spot")
"""Kinds that may stand as a reason beside the finding itself, best first."""


@dataclass(frozen=True)
class Candidate:
    """Something that could be done next."""

    score: float
    advice: str
    line: Seen
    about: tuple[Seen, ...]
    """Other findings that speak of the same."""


def ranked(scene: Scene) -> list[Candidate]:
    """What could be done, best first: a kind's weight, more where other kinds of evidence name the same thing."""
    closed = {m[0] for line in scene.of("reached", "done") if (m := re.match(r"goal \d+", line.text))}
    found = []
    for line in scene.seen:
        advice = _advice(line)
        subject = re.match(r"(?:goal|note) \d+", line.text)
        if advice is None or (subject and subject[0] in closed):
            continue
        about = tuple(s for s in scene.seen if s is not line and section_of(s.kind) and _same_subject(line, s))
        score = weight_of(line.kind) + 0.3 * min(4, len({s.kind for s in about}))
        score += 0.6 * sum(s.kind == "gist" for s in about) + _share(line.text)
        if line.kind == "due":
            touched = any("touched by" in s.text for s in about)
            days = re.search(r"is due in (\d+) d", line.text)
            score += 3 if "overdue" in line.text else max(0, 2 - int(days[1] if days else 0)) + 1.5 * touched
        found.append(Candidate(score, advice, line, about))
    return sorted(found, key=lambda c: -c.score)


def report(scene: Scene) -> str:
    """The final answer."""
    if idle := scene.of("idle"):
        return f"Idle: {idle[0].text}."
    short = _Short(scene)
    out = [line.text[0].upper() + line.text[1:] for line in scene.of("beat")[:1]]
    out += _next(scene, short)
    shown = 0
    for section, title, most in SECTIONS:
        lines = _section(scene, section)
        more = f" (+{len(lines) - most} more)" if len(lines) > most else ""
        for i, line in enumerate(lines[:most]):
            shown += 1
            end = f" [{line.step}]" + (more if i == min(most, len(lines)) - 1 else "")
            text = cut(_SIGN.get(line.kind, "") + short(line.text), _WIDTH - _COLUMN - len(end))
            out.append(f"{title if i == 0 else '':<{_COLUMN}}{text}{end}")
    if not shown:
        out += [cut(" ".join(text.split()), 400) for text in scene.other if text.strip()] or ["No tool gave a result."]
    if scene.failed:
        out.append(f"Did not work: {', '.join(sorted(scene.failed))}")
    return "\n".join(out)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` characters, cut at a word, with "…" where something is left out."""
    if len(text) <= width:
        return text
    short = text[: max(1, width - 2)]
    word = short.rsplit(" ", 1)[0] if " " in short[width // 2 :] else short
    return word.rstrip(" (,;:–") + " …"


class _Short:
    """Paths by their last part, where no other path that was named ends so."""

    def __init__(self, scene: Scene) -> None:
        paths = {name for line in scene.seen for name in line.finding.identifiers if " " not in name}
        self._named = Counter(path.rpartition("/")[2] for path in paths)

    def __call__(self, text: str) -> str:
        def name(match: re.Match[str]) -> str:
            last = match[1].rpartition("/")[2]
            return last if last and " " not in match[1] and self._named[last] <= 1 else match[1]

        return re.sub(r"`([^`]+)`", name, text)


def _next(scene: Scene, short: _Short) -> list[str]:
    candidates = ranked(scene)
    if not candidates:
        return [""]
    best = candidates[0]
    advice = short(best.advice)
    out = ["", f"{'Next':<{_COLUMN}}{cut(advice, _WIDTH - _COLUMN - 1)}."]
    reasons = [best.line, *sorted(best.about, key=_support)]
    if best.line.kind == "due":  # the goal's own line says more: what touched it
        goal = next((s for s in best.about if s.kind == "goal"), None)
        reasons = [s for s in reasons if s is not best.line or goal is None]
    told: list[str] = []
    for line in reasons:
        text = short(line.text)
        if _support(line) < len(_SUPPORT) or line is best.line:
            told.append(f"{cut(text, _WIDTH - _COLUMN - 4)} [{line.step}]")
    for i, text in enumerate(list(dict.fromkeys(told))[:3]):
        out.append(f"{'because' if i == 0 else 'and':>{_COLUMN - 2}}  {text}")
    subjects = set(best.line.finding.identifiers[:1])
    other = next((c for c in candidates[1:] if not subjects & set(c.line.finding.identifiers[:1])), None)
    if other is not None and other.advice != best.advice:
        out.append(f"{'then':>{_COLUMN - 2}}  {cut(short(other.advice), _WIDTH - _COLUMN - 4)} [{other.line.step}]")
    return [*out, ""]


def _support(line: Seen) -> int:
    return _SUPPORT.index(line.kind) if line.kind in _SUPPORT else len(_SUPPORT)


def _section(scene: Scene, section: str) -> list[Seen]:
    lines = [line for line in scene.seen if section_of(line.kind) == section]
    if section == "goals" and scene.of("goal", "reached"):
        lines = [line for line in lines if line.kind not in ("due", "done")]
    if section == "changed" and scene.of("place"):
        lines = [line for line in lines if line.kind != "more"]
    return sorted(lines, key=lambda s: _ORDER.index(s.kind) if s.kind in _ORDER else len(_ORDER))


def _advice(line: Seen) -> str | None:
    """The rule's sentence; None where the kind calls for nothing or names too little."""
    advice = KINDS[line.kind].advice if line.kind in KINDS else ""
    names = [f"`{name}`" for name in line.finding.identifiers]
    if not advice or ("{0}" in advice and not names) or ("{1}" in advice and len(names) < 2):
        return None
    text = line.text.partition("): ")[2] if line.kind == "note" else re.sub(r" is (?:over)?due[^:]*: ", ": ", line.text)
    return (
        advice.replace("{text}", text or line.text)
        .replace("{0}", names[0] if names else "")
        .replace("{1}", names[1] if len(names) > 1 else "")
    )


def _same_subject(line: Seen, other: Seen) -> bool:
    names = line.finding.identifiers
    numbered = re.match(r"(?:note|goal) \d+", line.text)
    if numbered:
        return bool(re.search(rf"\b{numbered[0]}\b", other.text))
    return bool(names) and f"`{names[0]}`" in other.text


def _share(text: str) -> float:
    """How often an expectation held, as its line says it."""
    found = re.search(r"together in (\d+) of the last (\d+)", text)
    return int(found[1]) / int(found[2]) if found else 0.0
