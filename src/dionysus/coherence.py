"""How coherent a run is, computed from its transcript alone: pure functions, no LLM, no store.

An integrity monitor in the spirit of IWMT (Safron 2020, doi 10.3389/frai.2020.00030: models with spatial, temporal
and causal coherence). It notices loops, errors and observations that do not belong to the actions; it does not
predict success.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from dionysus.words import stems

_WINDOW = 10
"""Turns looked at, so that the cost of an assessment does not grow with the run, and old turns hide no new trouble."""
_READ_CHARS = 1_000
"""Characters of an observation whose terms are looked at."""
_LONGEST_LOOP = 4
"""Actions in the longest pattern that is recognised when it repeats."""
_DECAY = 0.9
"""How much less the error of one turn earlier counts."""


_Vector = tuple[Mapping[str, float], float]
"""Weighted terms, and their Euclidean length."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One action of a run and what came of it."""

    step: int
    thought: str
    action: str
    """Tool and arguments, as text; equal for equal calls."""
    observation: str
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """An assessment; all scores in [0, 1], 1 = coherent."""

    level: float
    """The minimum of autonomy, errors and the mean of the contextual components."""
    components: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """In words, what lowers the level, with the steps."""


def assess_coherence(goal: str, turns: Sequence[Turn]) -> Coherence | None:
    """The coherence of a run so far; None before its first action, when there is nothing to measure.

    Components, with x_t = idf vector of thought and action, y_t = of the observation:
        autonomy     2^(−r/2), r = times that the newest actions repeat those just before them to the letter, at a
                     distance of one to four actions: a call made again once gives .71, twice .5, three times .35
        errors       1 − Σ .9^(N−1−t) e_t / Σ .9^(N−1−t), e_t = the turn failed
        spatial      idf-weighted share of an action's terms already in goal or observations, doubled, at most 1
        temporal     mean_t P(cos(x_t, x_(t−1)) > cos(x_t, x_s)), |s−t| ≥ 3; ties count half; from 5 turns on
        causal       mean_t P(cos(x_t, y_t) > cos(x_t, y_s)), |s−t| ≥ 2; ties count half; from 4 turns on
    """
    if not turns:
        return None
    shown = turns[-_WINDOW:]
    acts = [_terms(f"{t.thought} {t.action}") for t in shown]
    seen = [_terms(t.observation[:_READ_CHARS]) for t in shown]
    weight = _idf([*acts, *seen, _terms(goal)])
    vectors = [_vector(terms, weight) for terms in acts]
    context = {
        "spatial": _spatial(_terms(goal), acts, seen, weight),
        "temporal": _temporal(vectors),
        "causal": _causal(vectors, [_vector(terms, weight) for terms in seen]),
    }
    measured = {name: score for name, score in context.items() if score is not None}
    repeats, times = _loop([turn.action for turn in shown])
    components = {
        "autonomy": 2 ** (-times / 2),
        "errors": _errors(shown),
        **measured,
    }
    parts = {"autonomy": components["autonomy"], "errors": components["errors"]}
    if measured:
        parts["context"] = sum(measured.values()) / len(measured)
    lowest = min(parts, key=lambda name: parts[name])
    return Coherence(
        level=round(parts[lowest], 4),
        components={name: round(score, 4) for name, score in components.items()},
        reason=_reason(lowest, parts[lowest], shown[len(shown) - repeats :], shown),
    )


def _loop(actions: Sequence[str]) -> tuple[int, float]:
    """How many of the newest actions repeat those at a fixed distance before, and how often in a row that makes."""
    best = (0, 0.0)
    for lag in range(1, _LONGEST_LOOP + 1):
        run = 0
        while run + lag < len(actions) and actions[-1 - run] == actions[-1 - run - lag]:
            run += 1
        if run >= lag and run / lag > best[1]:
            best = (run, run / lag)
    return best


def _errors(turns: Sequence[Turn]) -> float:
    weights = [_DECAY ** (len(turns) - 1 - i) for i in range(len(turns))]
    return 1 - sum(w for w, t in zip(weights, turns, strict=True) if t.failed) / sum(weights)


def _spatial(
    goal: Counter[str], acts: Sequence[Counter[str]], seen: Sequence[Counter[str]], weight: Mapping[str, float]
) -> float | None:
    known, shares = set(goal), []
    for i, act in enumerate(acts):
        total = sum(weight[w] for w in act)
        if i and total:
            shares.append(min(1.0, 2 * sum(weight[w] for w in act if w in known) / total))
        known |= set(seen[i])
    return sum(shares) / len(shares) if shares else None


def _temporal(acts: Sequence[_Vector]) -> float | None:
    ranks = []
    for t, act in enumerate(acts):
        near = _cosines(act, acts)
        others = [near[s] for s in range(len(acts)) if abs(s - t) >= 3]
        if t and others:
            ranks.append(_rank(near[t - 1], others))
    return sum(ranks) / len(ranks) if len(acts) >= 5 and ranks else None


def _causal(acts: Sequence[_Vector], seen: Sequence[_Vector]) -> float | None:
    ranks = []
    for t, act in enumerate(acts):
        near = _cosines(act, seen)
        others = [near[s] for s in range(len(acts)) if abs(s - t) >= 2]
        if others:
            ranks.append(_rank(near[t], others))
    return sum(ranks) / len(ranks) if len(acts) >= 4 and ranks else None


def _rank(own: float, others: Sequence[float]) -> float:
    """The probability that `own` is greater than one of the others."""
    return sum(1.0 if own > c else 0.5 if own == c else 0.0 for c in others) / len(others)


@lru_cache(maxsize=256)
def _terms(text: str) -> Counter[str]:
    """Stems and how often they occur; kept, because the same turns are assessed plan after plan."""
    return Counter(stems(text))


def _idf(texts: Sequence[Counter[str]]) -> dict[str, float]:
    count: Counter[str] = Counter()
    for text in texts:
        count.update(text.keys())
    logs = [0.0, *(math.log(1 + len(texts) / n) for n in range(1, len(texts) + 1))]
    return {word: logs[n] for word, n in count.items()}


def _vector(terms: Counter[str], weight: Mapping[str, float]) -> _Vector:
    values = {word: n * weight[word] for word, n in terms.items()}
    length = math.sqrt(sum([v * v for v in values.values()])) or 1.0
    return values, length


def _cosines(a: _Vector, others: Sequence[_Vector]) -> list[float]:
    values, length = a
    return [
        sum([v * b[w] for w, v in values.items() if w in b]) / (length * other_length) for b, other_length in others
    ]


def _reason(lowest: str, score: float, repeats: Sequence[Turn], turns: Sequence[Turn]) -> str:
    if score > 0.95:
        return "nothing stands out"
    if lowest == "autonomy":
        verb = "repeats" if len(repeats) == 1 else "repeat"
        return f"{_steps([t.step for t in repeats])} {verb} what was just done, to the letter"
    if lowest == "errors":
        return f"{_steps([t.step for t in turns if t.failed])} failed"
    return "actions and observations share fewer terms than those of a run that holds together"


def _steps(numbers: Sequence[int]) -> str:
    return f"step{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
