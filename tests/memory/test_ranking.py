"""How well memories answer a query: each feature, and all together."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus.memory.cues import Asked, asked
from dionysus.memory.ranking import (
    CONTEXTUAL,
    LEXICAL,
    POOLED,
    STATIC,
    Floats,
    Posting,
    Scored,
    Weights,
    posting,
    score,
    seeds,
)
from dionysus.stores.codec import to_us
from dionysus.stores.memories import BLOCK, ENTRY, Candidate
from dionysus.words import stems

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PLAIN = Weights(meaning=0, meaning_lent=0, words=1, actor=0, date=0, when=0, question=0, answer=0, opening=0)
_WORDS = ["apple", "bread", "cloud", "drum", "eagle"]


def blocks_of(term: str, texts: dict[int, Sequence[str]]) -> list[tuple[int, bytes]]:
    """Postings of one word as the store lays them out."""
    rows: dict[int, bytes] = {}
    for number, words in sorted(texts.items()):
        if term in words:
            entry = ENTRY.pack(number % BLOCK, words.count(term), len(words))
            rows[number // BLOCK] = rows.get(number // BLOCK, b"") + entry
    return [(block * BLOCK, entries) for block, entries in sorted(rows.items())]


def postings_of(terms: Sequence[str], texts: dict[int, Sequence[str]]) -> dict[str, Posting]:
    total = sum(map(len, texts.values()))
    found = {term: blocks_of(term, texts) for term in terms}
    return {term: posting(blocks, memories=len(texts), words=total) for term, blocks in found.items() if blocks}


def bm25(query: Sequence[str], words: Sequence[str], texts: dict[int, Sequence[str]]) -> float:
    """As Robertson and Zaragoza write it, with Lucene's rarity, k1 = 1.2 and b = 0.75."""
    average = sum(map(len, texts.values())) / len(texts)
    total = 0.0
    for term in query:
        found_in = sum(term in other for other in texts.values())
        idf = math.log(1 + (len(texts) - found_in + 0.5) / (found_in + 0.5))
        times = Counter(words)[term]
        total += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(words) / average))
    return total


numbers = st.integers(0, 3 * BLOCK)
texts_by_id = st.dictionaries(
    numbers, st.lists(st.sampled_from(_WORDS), min_size=1, max_size=12), min_size=1, max_size=30
)
queries = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4, unique=True)


# -- words --------------------------------------------------------------------------------------------


@given(texts_by_id, queries)
def test_bm25_is_the_formula(texts: dict[int, Sequence[str]], query: list[str]) -> None:
    found = postings_of(query, texts)
    ids = np.array(sorted(texts), np.int64)
    ours = sum((one.of(ids) for one in found.values()), np.zeros(len(ids), np.float32))
    assert ours.tolist() == pytest.approx([bm25(query, texts[number], texts) for number in ids], rel=1e-4, abs=1e-6)


@given(texts_by_id, st.randoms(use_true_random=False))
def test_entries_need_no_order(texts: dict[int, Sequence[str]], random: Random) -> None:
    """What takes another's place is appended behind it."""
    blocks = blocks_of("apple", texts)
    mixed = []
    for first, entries in blocks:
        parts = [entries[n : n + ENTRY.size] for n in range(0, len(entries), ENTRY.size)]
        random.shuffle(parts)
        mixed.append((first, b"".join(parts)))
    if blocks:
        total = sum(map(len, texts.values()))
        one, other = (posting(b, memories=len(texts), words=total) for b in (blocks, mixed))
        assert one.ids.tolist() == other.ids.tolist() == sorted(n for n, words in texts.items() if "apple" in words)
        assert one.scores.tolist() == other.scores.tolist()


@given(texts_by_id, queries, st.integers(1, 12), st.none() | st.sets(numbers))
def test_seeds_are_the_best_of_all(
    texts: dict[int, Sequence[str]], query: list[str], limit: int, allowed: set[int] | None
) -> None:
    if allowed is not None:
        allowed |= set(list(texts)[::2])
    only = None if allowed is None else np.array(sorted(allowed), np.int64)
    found = seeds(list(postings_of(query, texts).values()), allowed=only, limit=limit).tolist()
    scores = {
        number: bm25(query, words, texts)
        for number, words in texts.items()
        if set(words) & set(query) and (allowed is None or number in allowed)
    }
    assert len(found) == len(set(found)) == min(limit, len(scores))
    best = sorted(scores.values(), reverse=True)[:limit]
    assert [scores[number] for number in found] == pytest.approx(best, rel=1e-4)


def test_of_equal_seeds_the_newer_comes_first() -> None:
    texts: dict[int, Sequence[str]] = {number: ["apple"] for number in (3, BLOCK + 1, 9)}
    assert seeds(list(postings_of(["apple"], texts).values()), allowed=None, limit=5).tolist() == [BLOCK + 1, 9, 3]


def test_without_words_there_are_no_seeds() -> None:
    assert seeds([], allowed=None, limit=5).tolist() == []
    one = postings_of(["apple"], {7: ["apple"]})["apple"]
    assert seeds([one], allowed=np.array([1, 99], np.int64), limit=5).tolist() == []
    assert seeds([one], allowed=np.zeros(0, np.int64), limit=5).tolist() == []


# -- all features -------------------------------------------------------------------------------------


def candidate(number: int, text: str, **changes: object) -> Candidate:
    made = Candidate(id=number, basin_id=1, turn=number, at=to_us(NOON), actor="", text=text, vectors=None)
    return replace(made, **changes)  # type: ignore[arg-type]


def scored(
    query: str | Asked,
    candidates: Sequence[Candidate],
    *,
    weights: Weights,
    near: Sequence[Sequence[float]] | None = None,
    words: Sequence[str] = (),
    actors: Sequence[str] = (),
) -> Scored:
    ask = query if isinstance(query, Asked) else asked(query, today=NOON.date(), actors=actors)
    texts: dict[int, Sequence[str]] = {c.id: stems(c.text) for c in candidates}
    return score(
        ask,
        candidates,
        postings_of(ask.terms, texts),
        memories=len(candidates),
        words=words,
        nearness=None if near is None else np.array(near, np.float32),
        weights=weights,
    )


def lent(candidates: Sequence[Candidate], *, share: float = 0.5) -> Floats:
    """Of what the memory that has the word gets, what each gets."""
    total = scored("apple", candidates, weights=replace(PLAIN, words_lent=share)).total
    return np.asarray(total / total.max())


def test_a_hit_lends_to_two_turns_on_either_side() -> None:
    texts = ["cloud", "bread", "drum", "apple", "eagle", "cloud", "bread"]
    assert lent([candidate(n, text) for n, text in enumerate(texts)]).tolist() == [0, 0.25, 0.5, 1, 0.5, 0.25, 0]


def test_turns_that_are_missing_between_two_keep_them_apart() -> None:
    found = [candidate(n, text, turn=turn) for n, (text, turn) in enumerate([("apple", 1), ("cloud", 3), ("drum", 4)])]
    assert lent(found).tolist() == [1, 0.25, 0]


def test_nothing_is_lent_beyond_an_episode() -> None:
    found = [candidate(0, "apple", turn=0), candidate(1, "cloud", turn=1), candidate(2, "drum", basin_id=2, turn=2)]
    assert lent(found).tolist() == [1, 0.5, 0]


def test_what_stands_alone_neither_lends_nor_borrows() -> None:
    alone = [candidate(n, text, turn=None) for n, text in enumerate(["apple", "cloud"])]
    assert lent(alone).tolist() == [1, 0]
    nowhere = [candidate(n, text, basin_id=None, turn=n) for n, text in enumerate(["apple", "cloud"])]
    assert lent(nowhere).tolist() == [1, 0]
    beside = [candidate(0, "apple", turn=None), candidate(1, "cloud", turn=0), candidate(2, "drum", turn=1)]
    assert lent(beside).tolist() == [1, 0, 0]


@pytest.mark.parametrize(("length", "half"), [(600, 1.0), (601, 0.5)])
def test_a_long_text_lends_and_borrows_half(length: int, half: float) -> None:
    long = ("apple " + "x" * 600)[:length]
    assert lent([candidate(0, long), candidate(1, "cloud")]).tolist() == [1, 0.5 * half]
    assert lent([candidate(0, "apple"), candidate(1, "cloud".ljust(length, "."))]).tolist() == [1, 0.5 * half]


def test_who_has_more_himself_keeps_it() -> None:
    found = [candidate(0, "apple"), candidate(1, "apple apple")]
    alone = [replace(c, turn=None) for c in found]
    weights = replace(PLAIN, words_lent=0.1)
    assert (
        scored("apple", found, weights=weights).total.tolist() == scored("apple", alone, weights=weights).total.tolist()
    )


def test_meaning_is_lent_by_its_own_share() -> None:
    weights = replace(PLAIN, words=0, meaning=1, meaning_lent=0.5)
    found = [candidate(n, "x") for n in range(4)]
    total = scored("fruit", found, weights=weights, words=["fruit"], near=[[2, 0, 0, 0]]).total
    assert total.tolist() == [2, 1, 0.5, 0]


def test_an_actor_who_is_named_counts_for_and_another_against() -> None:
    found = [candidate(0, "apple", actor="ADA"), candidate(1, "apple", actor="Bob"), candidate(2, "apple")]
    parts = scored("Ada's apple", found, weights=replace(PLAIN, actor=1.5), actors=["ada"]).parts
    assert parts["actor"].tolist() == [1.5, -1.5, 0]
    parts = scored("an apple", found, weights=replace(PLAIN, actor=1.5)).parts
    assert parts["actor"].tolist() == [0, 0, 0]
    parts = scored("Ada and Bob", found, weights=replace(PLAIN, actor=1.5), actors=["Ada", "Bob"]).parts
    assert parts["actor"].tolist() == [1.5, 1.5, 0]


def test_a_memory_of_the_day_is_found_whatever_its_words() -> None:
    days = [datetime(2023, 5, day, tzinfo=UTC) for day in (7, 9, 20)]
    found = [candidate(n, "cloud", at=to_us(at), turn=None) for n, at in enumerate(days)]
    result = scored("what came on 7 May 2023", found, weights=replace(PLAIN, date=2))
    assert result.parts["date"].tolist() == pytest.approx([2, 1.2, 0])
    assert result.evidence.tolist() == [True, True, False]


def test_words_of_time_count_where_a_time_is_asked_for() -> None:
    found = [candidate(0, "apple yesterday"), candidate(1, "apple")]
    weights = replace(PLAIN, when=2)
    assert scored("when apple", found, weights=weights).parts["when"].tolist() == [2, 0]
    assert scored("apple", found, weights=weights).parts["when"].tolist() == [0, 0]


def test_a_question_counts_less_and_its_answer_more() -> None:
    found = [
        candidate(0, "apple?", actor="Ada"),
        candidate(1, "apple", actor="Bob"),
        candidate(2, "apple?", actor="Bob"),
        candidate(3, "apple", actor="BOB"),
        candidate(4, "apple", actor="Ada", turn=9),
    ]
    parts = scored("apple", found, weights=replace(PLAIN, question=-0.5, answer=0.25)).parts
    assert parts["question"].tolist() == [-0.5, 0, -0.5, 0, 0]
    assert parts["answer"].tolist() == [0, 0.25, 0, 0, 0]


def test_the_opening_of_an_episode_counts() -> None:
    found = [candidate(0, "apple", turn=0), candidate(1, "apple", turn=1), candidate(2, "apple", turn=None)]
    assert scored("apple", found, weights=replace(PLAIN, opening=3)).parts["opening"].tolist() == [3, 0, 0]


def test_a_hit_speaks_of_two_words_of_a_longer_query() -> None:
    found = [candidate(n, text, turn=None) for n, text in enumerate(["apple bread", "apple apple", "cloud"])]
    result = scored("apple bread drum", found, weights=LEXICAL)
    assert result.evidence.tolist() == [True, False, False]
    assert result.shared.tolist() == [2, 1, 0]
    assert scored("apple bread", found, weights=LEXICAL).evidence.tolist() == [True, True, False]
    together = [candidate(0, "apple"), candidate(1, "bread")]
    result = scored("apple bread drum", together, weights=LEXICAL)
    assert result.evidence.tolist() == [True, True]
    assert result.shared.tolist() == [1, 1]


def test_meaning_that_stands_out_is_evidence() -> None:
    found = [candidate(n, "cloud", turn=None) for n in range(10)]
    near = [[5.0] + [0.1] * 9]
    assert scored("fruit", found, weights=STATIC, words=["fruit"], near=near).evidence.tolist() == [True] + [False] * 9


# -- whatever there is --------------------------------------------------------------------------------

_TEXTS = st.lists(st.sampled_from([*_WORDS, "why?", "yesterday", "x" * 300]), max_size=6).map(" ".join)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Candidate], list[list[float]], str]:
    """Candidates in their order, their nearness, and a query."""
    spots = draw(st.lists(st.tuples(st.none() | st.integers(1, 3), st.none() | st.integers(0, 5)), max_size=12))
    unique = list(dict.fromkeys(spot for spot in spots if None not in spot)) + [s for s in spots if None in s]
    ordered = sorted(unique, key=lambda spot: tuple(-1 if one is None else one for one in spot))
    found = [
        Candidate(
            id=number,
            basin_id=basin,
            turn=turn,
            at=to_us(draw(st.sampled_from([NOON, datetime(2023, 5, 7, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]))),
            actor=draw(st.sampled_from(["", "Ada", "bob"])),
            text=draw(_TEXTS),
            vectors=None,
        )
        for number, (basin, turn) in enumerate(ordered, 1)
    ]
    row = st.lists(st.floats(0, 5, width=32), min_size=len(found), max_size=len(found))
    near = [draw(row), draw(row)]
    query = draw(
        st.sampled_from(["when did Ada see the apple", "bread and cloud in May 2023?", "drum", "the", "eagle"])
    )
    return found, near, query


_ALL = (LEXICAL, STATIC, CONTEXTUAL, POOLED)


@given(scenes(), st.sampled_from(_ALL))
def test_what_speaks_for_a_memory_sums_to_its_score(
    scene: tuple[list[Candidate], list[list[float]], str], weights: Weights
) -> None:
    found, near, query = scene
    result = scored(query, found, weights=weights, near=near, words=["apple", "bread"], actors=["Ada"])
    assert result.total.shape == result.evidence.shape == result.shared.shape == (len(found),)
    for place in range(len(found)):
        why = result.why(place)
        assert sum(why.values()) == pytest.approx(float(result.total[place]), abs=0.001 * len(result.parts))
        assert 0 not in why.values()


@given(scenes(), st.sampled_from(_ALL), st.sampled_from([f.name for f in fields(Weights) if "lent" not in f.name]))
def test_a_weight_of_nought_takes_out_its_part_and_nothing_else(
    scene: tuple[list[Candidate], list[list[float]], str], weights: Weights, name: str
) -> None:
    found, near, query = scene

    def with_weights(these: Weights) -> Scored:
        return scored(query, found, weights=these, near=near, words=["apple", "bread"], actors=["Ada"])

    without = with_weights(replace(weights, **{name: 0.0}))
    assert not without.parts.get(name, np.zeros(1)).any()
    assert all(name not in without.why(place) for place in range(len(found)))
    before = with_weights(weights)
    for other in before.parts.keys() - {name}:
        assert without.parts[other].tolist() == before.parts[other].tolist()


@given(scenes(), st.floats(0.05, 1))
def test_lending_is_what_going_through_all_pairs_comes_to(
    scene: tuple[list[Candidate], list[list[float]], str], share: float
) -> None:
    found, near, _ = scene
    weights = replace(PLAIN, words=0, meaning=1, meaning_lent=share)
    own = near[0]
    expected = []
    for place, one in enumerate(found):
        best = own[place]
        for other, mine in zip(found, own, strict=True):
            if one.turn is not None and other.turn is not None and one.basin_id == other.basin_id is not None:
                apart = abs(one.turn - other.turn)
                if 1 <= apart <= 2:
                    half = 0.5 if len(one.text) > 600 or len(other.text) > 600 else 1.0
                    best = max(best, half * share**apart * mine)
        expected.append(best)
    result = scored("apple", found, weights=weights, near=[own], words=["apple"])
    assert result.parts["meaning"].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
