"""How well memories answer a query: features, each a number for each memory, and their weights, all in one place.

Words by BM25, meaning by the nearness of tokens, both lent to neighbours in the same episode; the actor whom the query
names; its date; and the form of question and answer. Pure; docs/decisions/0018 says where each comes from and what it
is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from dionysus.memory.cues import Asked, date_match, is_question, says_a_time
from dionysus.stores.memories import ENTRY, Candidate
from dionysus.words import is_stop_word, stems

Floats = npt.NDArray[np.float32]
_ENTRY = np.dtype([("offset", "<u2"), ("times", "u1"), ("size", "<u2")])
assert _ENTRY.itemsize == ENTRY.size
K1, B = 1.2, 0.75
"""Of BM25 (Robertson and Zaragoza 2009)."""
REACH = 2
"""Turns over which a memory lends its score to its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each feature counts. All are fitted on LoCoMo conversations; see docs/decisions/0018."""

    meaning: float
    """Nearness of tokens, averaged over the query's words by their rarity."""
    meaning_lent: float
    """Of it goes to the next turn; its square to the one behind."""
    near: float = 1.0
    """From this nearness on a memory has a word of the query in other words."""
    words: float
    """BM25, relative to the rarity of all the query's words."""
    words_lent: float = 0.7
    actor: float = 1.2
    """The query names whose it is; as much less where it names another."""
    date: float = 3.5
    """It is of the day, month or week that the query names."""
    when: float = 2.0
    """The query asks for a time, and it has a word of time."""
    question: float = -0.5
    """It is a question itself."""
    answer: float = 0.4
    """It follows another's question."""
    opening: float = 0.0
    """It opens its episode: there what is new is told."""


LEXICAL = Weights(meaning=0.0, meaning_lent=0.0, words=9.0, opening=1.0)
STATIC = Weights(meaning=0.53, meaning_lent=0.7, words=3.0, actor=1.0, date=5.5, when=1.8, question=-0.6, opening=1.0)
CONTEXTUAL = Weights(
    meaning=15.0, meaning_lent=0.85, near=0.4, words=1.5, actor=0.9, date=4.5, when=2.0, question=-0.6, opening=0.5
)
POOLED = Weights(meaning=8.0, meaning_lent=0.7, near=0.5, words=6.0)


@dataclass(frozen=True)
class Posting:
    """Where one word occurs: ids in order, and its BM25 in each."""

    idf: float
    ids: npt.NDArray[np.int64]
    scores: Floats

    def of(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Its BM25 in these memories; 0 where it does not occur."""
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, self.scores[places], np.float32(0))


def rarity(found_in: int, memories: int) -> float:
    """BM25's inverse document frequency: ln(1 + (N − n + ½) / (n + ½))."""
    return float(np.log1p((memories - found_in + 0.5) / (found_in + 0.5)))


def posting(blocks: Sequence[tuple[int, bytes]], *, memories: int, words: int) -> Posting:
    """A word's postings, scored.

    Args:
        blocks: As the store gives them: (first id, entries).
        memories: All that there are.
        words: All words of all memories.
    """
    entries = np.frombuffer(b"".join(part for _, part in blocks), _ENTRY)
    firsts = np.array([first for first, _ in blocks], np.int64)
    ids = np.repeat(firsts, [len(part) // _ENTRY.itemsize for _, part in blocks]) + entries["offset"]
    order = slice(None) if len(ids) < 2 or (np.diff(ids) > 0).all() else np.argsort(ids)
    ids, entries = ids[order], entries[order]
    idf = rarity(len(ids), memories)
    times, size = entries["times"].astype(np.float32), entries["size"].astype(np.float32)
    norm = K1 * (1 - B + B * size * (memories / max(words, 1)))
    return Posting(idf, ids, (idf * times * (K1 + 1) / (times + norm)).astype(np.float32))


def seeds(postings: Sequence[Posting], *, allowed: npt.NDArray[np.int64] | None, limit: int) -> npt.NDArray[np.int64]:
    """The memories with the best BM25, best first.

    Args:
        allowed: Only these; None: all.
    """
    if not postings:
        return np.zeros(0, np.int64)
    lowest = min(int(one.ids[0]) for one in postings)
    total = np.zeros(max(int(one.ids[-1]) for one in postings) - lowest + 1, np.float32)
    for one in postings:
        total[one.ids - lowest] += one.scores
    if allowed is not None:
        within = allowed[(allowed >= lowest) & (allowed < lowest + len(total))] - lowest
        only = np.zeros_like(total)
        only[within] = total[within]
        total = only
    hit = np.flatnonzero(total)
    if len(hit) > limit:
        hit = hit[np.argpartition(-total[hit], limit)[:limit]]
    return np.asarray(hit[np.lexsort((-hit, -total[hit]))] + lowest)


@dataclass(frozen=True)
class Scored:
    """Features of candidates, weighted: what each contributes to each."""

    total: Floats
    parts: Mapping[str, Floats]
    evidence: npt.NDArray[np.bool_]
    """Has two words of the query, itself or with its neighbours, the named actor being one, or means them; or means
    more of it than most; or is of its date."""
    shared: npt.NDArray[np.int64]
    """How many of the query's words it has itself."""

    def with_part(self, name: str, values: Floats) -> "Scored":
        """One more feature, weighted already."""
        return replace(self, total=self.total + values, parts={**self.parts, name: values})

    def why(self, place: int) -> dict[str, float]:
        """What speaks for or against one of them."""
        return {name: round(float(part[place]), 3) for name, part in self.parts.items() if abs(part[place]) >= 0.0005}


def score(
    asked: Asked,
    candidates: Sequence[Candidate],
    postings: Mapping[str, Posting],
    *,
    memories: int,
    words: Sequence[str] = (),
    nearness: Floats | None = None,
    weights: Weights,
) -> Scored:
    """Scores candidates, which are ordered by basin and turn, so that neighbours are side by side.

    Args:
        postings: Of the query's terms, where they occur at all.
        words: What the rows of `nearness` stand for.
        nearness: (words, candidates).
    """
    ids = np.array([c.id for c in candidates], np.int64)
    lent = _Lent(candidates)
    unknown = rarity(0, memories)
    idfs = {term: postings[term].idf if term in postings else unknown for term in asked.terms}
    mass = sum(idfs.values()) or 1.0
    found = {term: postings[term].of(ids) for term in asked.terms if term in postings}
    by_words = np.zeros(len(ids), np.float32)
    has = {term: np.zeros(len(ids), bool) for term in asked.terms}
    for term, one in found.items():
        spread = lent.spread(one, weights.words_lent)
        by_words += spread
        has[term] |= spread > 0
    parts = {"words": weights.words * by_words / np.float32(mass)}
    means_much = np.zeros(len(ids), bool)
    if nearness is not None and weights.meaning:
        counts = np.array([_count(word, idfs) for word in words], np.float32)
        spread = np.zeros(len(ids), np.float32)
        for row, count in zip(nearness, counts, strict=True):
            spread += count * lent.spread(row, weights.meaning_lent)
        parts["meaning"] = weights.meaning * spread / np.float32(counts.sum() or 1.0)
        if len(ids) >= _ENOUGH:
            means_much = spread > spread.mean() + _OUTSTANDING * spread.std()
        for row, word in zip(nearness, words, strict=True):
            for term in set(stems(word)) & has.keys():
                has[term] |= row >= weights.near
    days = [datetime.fromtimestamp(c.at // 1_000_000, UTC).date() for c in candidates]
    questions = np.array([is_question(c.text) for c in candidates], bool)
    parts |= {
        "actor": weights.actor * np.array([_actor(asked, c.actor) for c in candidates], np.float32),
        "date": weights.date * np.array([date_match(asked.days, day) for day in days], np.float32)
        if asked.days
        else np.zeros(len(ids), np.float32),
        "when": weights.when * np.array([asked.when and says_a_time(c.text) for c in candidates], np.float32),
        "question": weights.question * questions.astype(np.float32),
        "answer": weights.answer * lent.answers(questions, candidates),
        "opening": weights.opening * np.array([c.turn == 0 for c in candidates], np.float32),
    }
    total, shared = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int64)
    for part in parts.values():
        total += part
    for one in found.values():
        shared += one > 0
    covered = np.sum([parts["actor"] > 0, *has.values()], axis=0, dtype=np.int64)
    evidence = (covered >= needed_of(asked)) | means_much | (parts["date"] > 0)
    return Scored(total, parts, np.asarray(evidence), shared)


def needed_of(asked: Asked) -> int:
    """How many of a query's words make a memory one that speaks of it: two, or one where it has no more than two."""
    return 2 if len(asked.terms) > 2 else 1


def _count(word: str, idfs: Mapping[str, float]) -> float:
    """What a word of the query counts: its rarity; less where no memory can be found by it."""
    known = [idfs[term] for term in stems(word) if term in idfs]
    if known:
        return min(max(known), _RAREST)
    return _FUNCTION_WORD if is_stop_word(word) or not any(map(str.isalnum, word)) else _OTHER_WORD


_FUNCTION_WORD, _OTHER_WORD, _RAREST = 0.4, 1.0, 5.5
_OUTSTANDING = 1.0
"""Standard deviations above the candidates' mean, from which a meaning is evidence by itself."""
_ENOUGH = 8
"""Fewer candidates have no mean to speak of."""


def _actor(asked: Asked, actor: str) -> float:
    if not asked.actors or not actor:
        return 0.0
    return 1.0 if actor.casefold() in asked.actors else -1.0


_LONG = 600
_LENDS_LESS = 0.5


class _Lent:
    """Lends scores to neighbours: within an episode, up to `REACH` turns away.

    What is longer than 600 characters speaks for itself: it lends and borrows half. So it is best on agents' steps.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        basins = np.array([-1 if c.basin_id is None or c.turn is None else c.basin_id for c in candidates], np.int64)
        turns = np.array([c.turn or 0 for c in candidates], np.int64)
        long = np.array([len(c.text) > _LONG for c in candidates], bool)
        self._pairs = []
        """(earlier, later, turns between them, what is lent of it)."""
        for offset in range(1, REACH + 1):
            apart = turns[offset:] - turns[:-offset]
            near = (basins[offset:] == basins[:-offset]) & (basins[offset:] >= 0) & (apart > 0) & (apart <= REACH)
            earlier = np.flatnonzero(near)
            share = np.where(long[earlier] | long[earlier + offset], _LENDS_LESS, 1.0).astype(np.float32)
            self._pairs.append((earlier, earlier + offset, apart[near], share))

    def spread(self, scores: Floats, share: float) -> Floats:
        """The greatest of a memory's own score and what its neighbours lend."""
        lent = scores.copy()
        for earlier, later, apart, least in self._pairs:
            factor = least * np.float32(share) ** apart.astype(np.float32)
            np.maximum.at(lent, later, factor * scores[earlier])
            np.maximum.at(lent, earlier, factor * scores[later])
        return lent

    def answers(self, questions: npt.NDArray[np.bool_], candidates: Sequence[Candidate]) -> Floats:
        """Which follow another's question."""
        found = np.zeros(len(candidates), np.float32)
        for earlier, later, apart, _ in self._pairs:
            for a, b in zip(earlier[apart == 1], later[apart == 1], strict=True):
                found[b] = questions[a] and candidates[a].actor.casefold() != candidates[b].actor.casefold()
        return found
