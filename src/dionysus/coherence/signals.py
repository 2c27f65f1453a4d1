"""What each turn says about the run's coherence, held against the turns before it: one number a signal, at the same
cost however long the run is.

All are measured within the run: how much better an observation fits its own action than the neighbours', not how well
it fits. So they need no model of the agent, of its tools or its language.
"""

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

from dionysus.coherence.turns import Turn, terms_of

_NEAR = 12
"""Turns that a turn is compared with."""
_FORMS = 60
"""Turns from which is learned what kind of observation an action has."""
_SHARP = 1.5
"""Exponent of idf: rare terms decide."""
_GOAL = 20_000
"""Characters of the goal that are read."""
_NEUTRAL = 100.0
"""Nats of idf that stand beside what was said: a text of few words is neither known nor unknown."""
_LEAST = 3
"""Turns before any is compared."""

SIGNALS = ("answers", "taken_up", "form", "follows", "routine", "known_seen", "known_said")


_Vector = tuple[Mapping[str, float], float]
"""Weighted terms, and their Euclidean length."""


class Signals:
    """Measures turn after turn.

    Each signal is a surprise in nats, larger for less coherent turns; one that cannot be measured is left out. With
    x_t = idf-weighted terms of thought and action, y_t = of the observation, rank(own; others) = the share of others
    that own exceeds, ties half:

    answers     −ln rank(cos(x_t, y_t); cos(x_s, y_t) for the s just before): whose action does the observation answer?
    taken_up    −ln rank(cos(x_t, y_(t−1)); cos(x_s, y_(t−1)), s < t): does the next action take up what was seen?
    form        −ln Σ w_s k(y_t, y_s) / (Σ w_s · mean k(y_t, y_s)), w_s = likeness of the actions' forms, k = of the
                observations': a kernel estimate of the pointwise mutual information of kind of action and kind of
                observation
    follows     −ln rank(max(cos(x_t, x_(t−1)), cos(x_t, y_(t−1))); the same for earlier s): does it go on from the
                turn before?
    routine     the same as form, of an action's form after that of the action before it
    known_seen  −ln of the idf-weighted share of y_t's terms that goal and first half of the run hold
    known_said  the same of x_t's terms, with 100 nats beside them of which half are known: short texts tell little
    """

    def __init__(self, goal: str) -> None:
        self._when: dict[str, list[int]] = {term: [-1] for term in terms_of(goal, _GOAL)}
        """The turns that hold a term; −1 = the goal."""
        self._count = 0
        self._near: deque[Turn] = deque(maxlen=_NEAR)
        self._forms: deque[Turn] = deque(maxlen=_FORMS)

    def measure(self, turn: Turn) -> dict[str, float]:
        """The signals of the next turn."""
        found = self._fits(turn) | self._usual(turn) if self._count >= _LEAST else {}
        if self._count > _LEAST:
            half = self._count // 2 - 1
            for name, terms, neutral in (("known_seen", turn.seen_terms, 0.0), ("known_said", turn.terms, _NEUTRAL)):
                share = self._known(terms, half, neutral)
                found |= {name: -math.log(share + 0.02)} if share is not None else {}
        for term in turn.terms.keys() | turn.seen_terms.keys():
            self._when.setdefault(term, []).append(self._count)
        self._count += 1
        self._near.append(turn)
        self._forms.append(turn)
        return found

    def unknown(self, terms: Iterable[str], *, before: int) -> list[str]:
        """Which of these terms neither the goal nor the turns before one hold, in their order."""
        return [term for term in terms if not self._count_of(term, before - 1)]

    def _fits(self, turn: Turn) -> dict[str, float]:
        said = [self._vector(near.terms) for near in self._near]
        seen = [self._vector(near.seen_terms) for near in self._near]
        own, came, last = self._vector(turn.terms), self._vector(turn.seen_terms), seen[-1]
        found = {}
        if came[0]:
            found["answers"] = _surprise(_cos(own, came), [_cos(x, came) for x in said])
        if last[0]:
            found["taken_up"] = _surprise(_cos(own, last), [_cos(x, last) for x in said])
        near = [max(_cos(own, x), _cos(own, y)) for x, y in zip(said, seen, strict=True)]
        found["follows"] = _surprise(near[-1], near[:-1])
        return found

    def _usual(self, turn: Turn) -> dict[str, float]:
        past = list(self._forms)
        alike = [_alike_actions(turn, other) for other in past]
        found = {"form": _unusual(alike, [_alike_forms(turn, other) for other in past])}
        if len(past) > _LEAST:
            before = [_alike_actions(past[-1], other) for other in past[:-1]]
            found["routine"] = _unusual(before, alike[1:])
        return found

    def _known(self, terms: Mapping[str, int], until: int, neutral: float) -> float | None:
        total = known = 0.0
        for term in terms:
            count = self._count_of(term, until)
            weight = _idf(count, until + 3)
            total += weight
            known += weight if count else 0.0
        return (known + neutral / 2) / (total + neutral) if total else None

    def _count_of(self, term: str, until: int) -> int:
        turns = self._when.get(term)
        return bisect_right(turns, until) if turns else 0

    def _vector(self, terms: Counter[str]) -> _Vector:
        values = {t: _idf(len(self._when.get(t, ())), self._count + 2) ** _SHARP for t in terms}
        return values, math.sqrt(sum([v * v for v in values.values()])) or 1.0


def _surprise(own: float, others: Sequence[float]) -> float:
    """−ln of the share of others that own exceeds."""
    below = sum(1.0 if own > c else 0.5 if own == c else 0.0 for c in others)
    return -math.log((below + 0.5) / (len(others) + 1))


def _cos(a: _Vector, b: _Vector) -> float:
    (small, of_small), (large, of_large) = (a, b) if len(a[0]) <= len(b[0]) else (b, a)
    return sum([v * large[term] for term, v in small.items() if term in large]) / (of_small * of_large)


def _idf(count: int, of: int) -> float:
    return max(0.0, math.log((of + 1) / (count + 0.5)))


def _unusual(alike: Sequence[float], came: Sequence[float]) -> float:
    """−ln of how much likelier what came is after what is alike than after anything."""
    usual = sum(came) / len(came) + 0.005
    expected = sum(w * k for w, k in zip(alike, came, strict=True)) + usual
    return -math.log(expected / (sum(alike) + 1) / usual)


def _alike_actions(a: Turn, b: Turn) -> float:
    """Squared Jaccard index of two actions' forms."""
    shared = len(a.form & b.form)
    return (shared / (len(a.form) + len(b.form) - shared)) ** 2 + 0.02


def _alike_forms(a: Turn, b: Turn) -> float:
    """Bhattacharyya coefficient of how two observations' lines begin, less the more their lengths differ."""
    (mine, my_size), (other, other_size) = a.seen_form, b.seen_form
    shared = sum([v * other[s] for s, v in mine.items() if s in other])
    return (0.05 + shared) * math.exp(-abs(my_size - other_size) / 2)
