"""How coherent a run is, computed from its transcript alone: pure functions, no LLM, no store.

An integrity monitor in the spirit of IWMT (Safron 2020, doi 10.3389/frai.2020.00030: models with spatial, temporal
and causal coherence). It notices loops, errors and observations that do not belong to the actions; it does not
predict success.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dionysus.words import stems

_WINDOW = 30
"""Turns looked at, so that the cost of an assessment does not grow with the run."""
_LONGEST_LOOP = 4
"""Actions in the longest pattern that is recognised when it repeats."""
_DECAY = 0.9
"""How much less the error of one turn earlier counts."""


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
    acts = [Counter(stems(f"{t.thought} {t.action}")) for t in shown]
    seen = [Counter(stems(t.observation)) for t in shown]
    weight = _idf([*acts, *seen, Counter(stems(goal))])
    context = {
        "spatial": _spatial(Counter(stems(goal)), acts, seen, weight),
        "temporal": _temporal(acts, weight),
        "causal": _causal(acts, seen, weight),
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


def _temporal(acts: Sequence[Counter[str]], weight: Mapping[str, float]) -> float | None:
    ranks = []
    for t in range(1, len(acts)):
        others = [acts[s] for s in range(len(acts)) if abs(s - t) >= 3]
        if others:
            ranks.append(_rank(acts[t], acts[t - 1], others, weight))
    return sum(ranks) / len(ranks) if len(acts) >= 5 and ranks else None


def _causal(acts: Sequence[Counter[str]], seen: Sequence[Counter[str]], weight: Mapping[str, float]) -> float | None:
    ranks = []
    for t in range(len(acts)):
        others = [seen[s] for s in range(len(acts)) if abs(s - t) >= 2]
        if others:
            ranks.append(_rank(acts[t], seen[t], others, weight))
    return sum(ranks) / len(ranks) if len(acts) >= 4 and ranks else None


def _rank(query: Counter[str], own: Counter[str], others: Sequence[Counter[str]], weight: Mapping[str, float]) -> float:
    """The probability that `own` is nearer to `query` than one of the others."""
    mine = _cosine(query, own, weight)
    theirs = [_cosine(query, other, weight) for other in others]
    return sum(1.0 if mine > c else 0.5 if mine == c else 0.0 for c in theirs) / len(theirs)


def _idf(texts: Sequence[Counter[str]]) -> dict[str, float]:
    count = Counter(word for text in texts for word in text)
    return {word: math.log(1 + len(texts) / n) for word, n in count.items()}


def _cosine(a: Counter[str], b: Counter[str], weight: Mapping[str, float]) -> float:
    dot = sum(a[w] * b[w] * weight[w] ** 2 for w in a.keys() & b.keys())
    norms = [math.sqrt(sum((n * weight[w]) ** 2 for w, n in text.items())) for text in (a, b)]
    return dot / (norms[0] * norms[1]) if dot else 0.0


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
