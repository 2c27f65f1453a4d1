"""What a scene is about: the places where most evidence points, and its most telling words."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from dionysus.models.reflex.kinds import CHANGED, EXPECTED, GOALS, PLACE, RESULT, TOLD, section_of, weight_of
from dionysus.models.reflex.scene import Evidence, Scene
from dionysus.words import stems, words

_PRESENT = (PLACE, CHANGED, TOLD, GOALS, EXPECTED)
"""Sections that speak of now; what is remembered makes no place worth a look."""
_SHORT_WORD = 4
_CHANGES = ("modified", "added", "removed")
_ABSENT_SECOND = ("broken", "gap")
"""Kinds whose second identifier does not exist."""
_TELLING = {"note": 3, "due": 3, "goal": 3, "commit": 2, "recent": 2, "marker": 2}
"""How much the words of a kind tell; those of others count once."""
_GRAMMAR = frozenset(
    """
    commit commits goal goals note notes file files changed change changes beat first none nothing history
    today due overdue word words actions action tools tool finish final answer heartbeat within other
    recall known compare expected
    """.split()
)
"""Words of the tools' own sentences and of the task, which tell nothing of the place."""
_ASPECTS = {
    "added": "new functionality",
    "gap": "tests new functionality",
    "untested": "tests new functionality",
    "missing": "tests",
    "dangling": "rename remove",
    "broken": "documentation links",
    "marker": "todo",
}
"""What a kind of finding asks the rules of a place about."""


def places(scene: Scene) -> list[str]:
    """Paths, the most telling first: those that call for action, or changed, or touch a goal."""
    score: dict[str, float] = defaultdict(float)
    for e in scene.evidence:
        if section_of(e.kind) not in _PRESENT:
            continue
        worth = 0.3 + weight_of(e.kind) / 3 + 3 * (e.kind in _CHANGES) + 5 * ("touched by" in e.text)
        for i, name in enumerate(e.identifiers):
            absent = i == 1 and e.kind in _ABSENT_SECOND
            if not absent and (_is_path(name) or (i == 0 and e.kind in _CHANGES)):
                score[name] += worth / (1 + i) * (0.3 if name.startswith(".") else 1)
    return sorted(score, key=lambda name: -score[name])


def telling_words(scene: Scene) -> list[str]:
    """Words of what was found, the most telling first; of the task, where nothing was."""
    score: Counter[str] = Counter()
    for e in scene.evidence:
        for word in set(_words_of(e)):
            score[word] += _TELLING.get(e.kind, 1)
    found = sorted(score, key=lambda w: (-score[w], -len(w), w))
    asked = [w for w in words(scene.question) if _tells(w) and w not in score]
    return [*found, *dict.fromkeys(asked)]


def topics(scene: Scene) -> Iterator[str]:
    """What to look back at: paths, then words; where something is asked, first what the question names."""
    found = places(scene)
    asked = _asked_words(scene) if scene.asked else []
    named = [path for path in found if set(stems(_stem_of(path))) & {stem for word in asked for stem in stems(word)}]
    yield from named
    yield from sorted(asked, key=lambda word: -len(word))
    yield from (path for path in found if path not in named)
    yield from telling_words(scene)


def recall_query(scene: Scene) -> str:
    """The question; else words of notes and due goals; else of what changed; else of the place."""
    if scene.asked:
        return scene.question
    told = [_said(e) for e in scene.of("note", "due")[:2]]
    if told:
        return " ".join(told)
    parts = [_stem_of(path) for path in places(scene)[:2]]
    named = set(words(" ".join(parts)))
    for e in scene.of("modified", "added")[:3]:
        parts += [name for name in e.identifiers[1:] if "/" not in name]
    if not scene.of("modified", "added"):
        parts += [word for word in telling_words(scene) if word not in named][:2]
    return " ".join(dict.fromkeys(parts)) or scene.question


def wisdom_topic(scene: Scene) -> str:
    """The question, or the places, and what is to be known of them."""
    if scene.asked:
        return scene.question
    aspects = [aspect for kind, aspect in _ASPECTS.items() if scene.of(kind)]
    parts = [*places(scene)[:2], *dict.fromkeys(" ".join(aspects).split())]
    return " ".join(parts or telling_words(scene)[:3]) or scene.question


def _asked_words(scene: Scene) -> list[str]:
    return [word for word in dict.fromkeys(words(scene.question)) if _tells(word) and len(word) > _SHORT_WORD]


def _is_path(name: str) -> bool:
    return bool(re.search(r"[/.]", name)) and " " not in name


def _stem_of(path: str) -> str:
    base = path.rpartition("/")[2]
    return base.rpartition(".")[0].lstrip(".") or base


def _said(e: Evidence) -> str:
    """What a note or goal says, without its head."""
    return e.text.partition(": ")[2] or e.text


def _words_of(e: Evidence) -> list[str]:
    """Of text from outside its words, of the tools' own sentences only the names and, of the place, its kinds."""
    if e.kind == "place":
        text = e.text
    elif e.kind in _TELLING or e.kind == RESULT:
        text = _said(e) if section_of(e.kind) in (GOALS, TOLD) else e.text
    else:
        text = " ".join(e.identifiers) if section_of(e.kind) else ""
    return [word for word in words(text) if _tells(word)]


def _tells(word: str) -> bool:
    return len(word) >= 3 and word.isalpha() and word not in _GRAMMAR
