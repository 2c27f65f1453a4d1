"""The final report: what to do next and why, then what was found by section, each line with its step.

Extractive: every line is copied from a tool result, shortened; *Next* is a sentence of the table below. What a kind
of finding is worth, where it is shown and what it calls for stands in that one table.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dionysus.models.reflex.kinds import KINDS, PLACE, PLACE_OF, SECTIONS, UNKNOWN, Kind, section_of
from dionysus.models.reflex.layout import INDENT, WIDTH, Names, columns, shorten, wrap
from dionysus.models.reflex.scene import DID_NOT_WORK, Evidence, Scene
from dionysus.words import stems, words

_TOUCHED = 1.5
_OVERDUE = 3.0
_EACH_OTHER_KIND = 0.3
_EACH_MEETING = 0.6
_REASONS = "gist goal note marker dangling modified added commit origin spot".split()
"""Kinds that may stand beside the first reason, the best first."""
_ANSWERS = 8
"""Lines that answer a question."""
_CLOSE = 0.4
"""How near to the best line's score another one must come."""
_ASKING = frozenset("where who whose why while is".split())
_SAYS_ITSELF = 2.0
"""How much better than other lines one is that a file named in the question says of itself."""
_COMMIT = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{7,8}\b")
_OF_A_KIND = 2
"""Lines of one kind that a section shows before other kinds have had their turn."""

_NUMBERED = re.compile(r"(goal|note) (\d+)\b")
_GOAL = re.compile(r"(goal \d+)(?: is (?:over)?due[^:]*| is reached: .*? says so|, [^:]*?(?:\([^)]*\))?)?: (.*)")
_NOTE = re.compile(r"(note \d+)(?: \([^)]*\))?: (.*)")
_DUE_IN = re.compile(r" is due (?:in (\d+) d|today)")
_INTENDED = re.compile(r"(.*? would have done): (.*) – nothing of it was touched since")
_TAIL = re.compile(r"(?:held \d+ of \d+ times here\)?|– nothing of it was touched since|– .* changed since)$")
"""Ends of lines worth more than their middle: what an expectation has earned, what became of an intention."""
_EARNED = re.compile(r"held (\d+) of (\d+) times here\)?$")
_TOGETHER = re.compile(r"\((?:together in )?(\d+) of (?:the last )?(\d+)")


@dataclass(frozen=True, kw_only=True)
class Next:
    """Something that could be done."""

    sentence: str
    """With backticks around names."""
    score: float
    reason: Evidence
    beside: tuple[Evidence, ...]
    """Evidence of other kinds about the same thing."""


def needed(evidence: Evidence) -> bool:
    """Whether the report, or the choice of the next action, needs this line later."""
    return section_of(evidence.kind) is not None or evidence.kind in ("beat", "done")


def next_actions(scene: Scene) -> list[Next]:
    """What could be done, best first."""
    found = [found for e in scene.evidence if (found := _next(scene, e)) is not None]
    return sorted(found, key=lambda n: -n.score)


def _next(scene: Scene, reason: Evidence) -> Next | None:
    """The advice of one finding – None where it has nothing to name, or where others make it idle."""
    kind = KINDS.get(reason.kind, UNKNOWN)
    if not kind.advice or _is_settled(scene, reason):
        return None
    sentence = _advice(kind.advice, reason)
    if sentence is None:
        return None
    beside = tuple(e for e in scene.evidence if e is not reason and needed(e) and _is_about(e, reason))
    return Next(sentence=sentence, score=_score(kind, reason, beside), reason=reason, beside=beside)


def _advice(advice: str, reason: Evidence) -> str | None:
    named = {str(i): f"`{name}`" for i, name in enumerate(reason.identifiers)}
    goal, note, intended = _GOAL.match(reason.text), _NOTE.match(reason.text), _INTENDED.match(reason.text)
    if goal:
        named |= {"goal": f"{goal[1]}: {goal[2]}", "number": goal[1]}
    if note:
        named["note"] = f"{note[1]}: {note[2]}"
    if intended:
        named["intention"] = intended[2]
    wanted = re.findall(r"\{(\w+)\}", advice)
    if any(name not in named for name in wanted):
        return None
    return re.sub(r"\{(\w+)\}", lambda name: named[name[1]], advice)


def _is_settled(scene: Scene, reason: Evidence) -> bool:
    """A goal that is reached is not to be finished, one marked as done not to be marked; a due one says more."""
    subject = subject_of(reason)
    if reason.kind not in ("reached", "due", "goal"):
        return False
    others = {e.kind for e in scene.evidence if e is not reason and subject_of(e) == subject}
    if reason.kind == "goal" and "touched by" not in reason.text:
        return True
    settled_by = {"reached": {"done"}, "due": {"done", "reached"}, "goal": {"done", "reached", "due"}}
    return bool(others & settled_by[reason.kind])


def subject_of(evidence: Evidence) -> str | None:
    """`goal 3` or `note 1` where the finding is about one."""
    numbered = _NUMBERED.match(evidence.text)
    return numbered[0] if numbered else None


def _is_about(other: Evidence, reason: Evidence) -> bool:
    """Whether a finding speaks of what another one is about."""
    subject = subject_of(reason)
    if subject is not None:
        return bool(re.search(rf"\b{subject}\b", other.text.partition(": ")[0]))
    return bool(reason.identifiers) and reason.identifiers[0] in other.identifiers


def _score(kind: Kind, reason: Evidence, beside: Sequence[Evidence]) -> float:
    """The kind's weight; more where other evidence meets, less where such expectations did not earn trust."""
    score = kind.weight
    earned, together = _EARNED.search(reason.text), _TOGETHER.search(reason.text)
    if earned and int(earned[2]):
        score *= 0.5 + 0.5 * int(earned[1]) / int(earned[2])
    if together and int(together[2]):
        score += int(together[1]) / int(together[2])
    others = {e.kind for e in beside if e.kind != reason.kind}
    score += _EACH_OTHER_KIND * min(4, len(others)) + _EACH_MEETING * sum(e.kind == "gist" for e in beside)
    if reason.kind == "due":
        due = _DUE_IN.search(reason.text)
        score += _OVERDUE if " is overdue" in reason.text else max(0, 2 - int(due[1] or 0)) if due else 0
    if reason.kind in ("due", "goal") and any("touched by" in e.text for e in (reason, *beside)):
        score += _TOUCHED
    return score


def report(scene: Scene) -> str:
    """The whole report."""
    if scene.managed:
        return _for_the_manager(scene)
    if scene.idle is not None and not scene.asked:
        return shorten(f"Idle: {scene.idle.text}.", WIDTH)
    names = Names(name for e in scene.evidence for name in e.identifiers)
    head = "" if scene.asked else next((e.text for e in scene.of("beat")), "")
    lines = [shorten(names.brief(head[0].upper() + head[1:]), WIDTH), ""] if head else []
    ranked = next_actions(scene)
    used: list[Evidence] = []
    if scene.asked:
        lines += [*_answer_lines(scene, names, used), ""]
    if ranked:
        lines += [*_next_lines(scene, ranked, names, used), ""]
    elif head:
        lines += ["Next        Nothing: no tool result asks for anything.", ""]
    lines += _section_lines(scene, names, used)
    if not scene.evidence:
        lines += ["No tool gave a result. I am reflex, rules and not an LLM: I order and shorten what tools say."]
    if scene.failed:
        lines += ["", *wrap(DID_NOT_WORK + ", ".join(scene.failed), WIDTH, 2)]
    return "\n".join(lines).strip()


def _for_the_manager(scene: Scene) -> str:
    """The lines that were found here, as they are, so that what they say stays readable on the way up."""
    own = [e for e in scene.evidence if e.step and (needed(e) or e.kind == "idle")]
    failed = [f"{DID_NOT_WORK}{', '.join(scene.failed)}"] if scene.failed else []
    return "\n".join([*(str(e.finding) for e in own), *failed]) or "- [nothing] found nothing"


def _answer_lines(scene: Scene, names: Names, used: list[Evidence]) -> Iterator[str]:
    """The lines that share most telling words with the question, the best first."""
    asked = {stem: word for word in words(scene.question) if word not in _ASKING for stem in stems(word)}
    count = Counter(stem for e in scene.evidence for stem in set(stems(e.text)))
    about: list[tuple[float, Evidence]] = []
    commits: set[str] = set()
    for e in scene.evidence:
        shared = asked.keys() & set(stems(e.text))
        if not shared or not needed(e) or e.kind == "beat":
            continue
        commit = _COMMIT.search(e.text)
        if commit and commit[0] in commits:
            continue
        commits |= {commit[0]} if commit else set()
        rarity = sum(math.log(1 + len(scene.evidence) / count[stem]) for stem in shared)
        about.append((rarity + (_SAYS_ITSELF if e.kind == "says" else 0.0), e))
    ranked = sorted(about, key=lambda found: -found[0])
    chosen = [e for score, e in ranked[:_ANSWERS] if score >= _CLOSE * ranked[0][0]]
    used += chosen
    for i, e in enumerate(chosen):
        yield _line(f"{'' if i else 'Answer':<{INDENT}}", KINDS[e.kind].mark + names.brief(e.text), e.step)
    if not chosen:
        said = ", ".join(dict.fromkeys(asked.values())) or scene.question
        yield from wrap(f"Answer      Nothing found speaks of: {said}", WIDTH, 2)


def _next_lines(scene: Scene, ranked: Sequence[Next], names: Names, used: list[Evidence]) -> Iterator[str]:
    best = ranked[0]
    for i, line in enumerate(wrap(names.brief(best.sentence).rstrip(".") + ".", WIDTH - INDENT, 2)):
        yield f"{'' if i else 'Next':<{INDENT}}{line}"
    reason, said = _reason(best)
    used += [best.reason, reason]
    yield _line("  because".rjust(INDENT - 2) + "  ", names.brief(said), reason.step)
    for other in _also(scene, best, reason):
        used.append(other)
        yield _line("and".rjust(INDENT - 2) + "  ", names.brief(other.text), other.step)
    after = next((n for n in ranked[1:] if not _is_same(n, best)), None)
    if after:
        used += [after.reason] if after.reason.kind == "nogoal" else []
        yield _line("then".rjust(INDENT - 2) + "  ", names.brief(after.sentence), after.reason.step)


def _reason(best: Next) -> tuple[Evidence, str]:
    """Why, without what *Next* says already: of a goal or a note only how it stands."""
    reason = best.reason
    if reason.kind == "due":
        reason = next((e for e in best.beside if e.kind == "goal" and "touched by" in e.text), reason)
    said = _GOAL.match(reason.text) or _NOTE.match(reason.text)
    intended = _INTENDED.match(reason.text) if reason.kind == "before" else None
    if intended:
        return reason, f"{intended[1]} … – nothing of it was touched since"
    if said and said[2] in best.sentence:
        return reason, reason.text.removesuffix(said[2]).rstrip(": ")
    return reason, reason.text


def _also(scene: Scene, best: Next, reason: Evidence) -> list[Evidence]:
    """Up to two more reasons, of different kinds; for a touched goal, what touches it."""
    touching = reason.identifiers[0] if reason.kind == "goal" and reason.identifiers else None
    near = [*best.beside, *(e for e in scene.evidence if touching and _is_named(touching, e))]
    chosen: dict[str, Evidence] = {}
    for e in sorted((e for e in near if e.kind in _REASONS), key=lambda e: _REASONS.index(e.kind)):
        same = subject_of(e) is not None and subject_of(e) == subject_of(reason)
        tells = e.kind != "spot" or "fix" in e.text
        if e.kind not in chosen and e is not reason and not same and tells:
            chosen[e.kind] = e
    return list(chosen.values())[:2]


def _is_named(touching: str, e: Evidence) -> bool:
    """Whether a finding is what touches a goal: a path, `note 1`, or `commit 1a2b3c4d`."""
    sha = touching.removeprefix("commit ") if touching.startswith("commit ") else None
    return touching in e.identifiers or touching == subject_of(e) or bool(sha and e.kind == "commit" and sha in e.text)


def _is_same(one: Next, other: Next) -> bool:
    """Whether two actions are about the same thing, so that only one is worth naming."""
    shared = set(one.reason.identifiers) & set(other.reason.identifiers)
    subject = subject_of(one.reason)
    return bool(shared) or one.sentence == other.sentence or (subject and subject == subject_of(other.reason)) is True


def _section_lines(scene: Scene, names: Names, used: Sequence[Evidence]) -> Iterator[str]:
    rows: dict[str, list[Evidence]] = defaultdict(list)
    shown = _worth_a_line(scene, used)
    changed = any(e.kind in ("modified", "added", "removed", "commit") for e in scene.evidence)
    for e in shown:
        title = section_of(e.kind)
        if e.kind == "marker" and not changed:  # a first look: it was there before
            title = PLACE
        if title:
            rows[title].append(e)
    for title, most in SECTIONS.items():
        chosen = _choose(rows[title], most)
        more = len(rows[title]) - len(chosen)
        for i, e in enumerate(chosen):
            last = f" (+{more} more)" if more and i == len(chosen) - 1 else ""
            text = KINDS[e.kind].mark + names.brief(e.text)
            yield _line(f"{'' if i else title:<{INDENT}}", text, e.step, last)


def _worth_a_line(scene: Scene, used: Sequence[Evidence]) -> list[Evidence]:
    """What the reasons above have not shown yet; of a goal, one line."""
    goals = {subject_of(e) for e in (*scene.of("goal", "reached"), *used) if subject_of(e)}
    reached = {subject_of(e) for e in scene.of("reached")}
    lines = []
    for e in scene.evidence:
        repeated = (e.kind == "due" and subject_of(e) in goals) or (e.kind == "goal" and subject_of(e) in reached)
        if e not in used and not repeated and not (e.kind == "goal" and _is_told(e, used)):
            lines.append(e)
    return lines


def _is_told(goal: Evidence, used: Sequence[Evidence]) -> bool:
    return any(subject_of(e) == subject_of(goal) for e in used)


def _choose(rows: Sequence[Evidence], most: int) -> list[Evidence]:
    """At most `most` lines, in the order of the table; no kind crowds out the others."""
    ordered = sorted(rows, key=lambda e: PLACE_OF[e.kind])
    turn: dict[str, int] = defaultdict(int)
    first: list[Evidence] = []
    rest: list[Evidence] = []
    for e in ordered:
        turn[e.kind] += 1
        (first if turn[e.kind] <= _OF_A_KIND else rest).append(e)
    return sorted([*first, *rest][:most], key=lambda e: PLACE_OF[e.kind])


def _line(start: str, text: str, step: int, more: str = "") -> str:
    """A line with its step."""
    end = f" [{step}]{more}"
    tail = _TAIL.search(text)
    return start + shorten(text, WIDTH - columns(start) - columns(end), keep=tail[0] if tail else "") + end
