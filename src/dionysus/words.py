"""Words of a text, as memory, goals and synthesis compare them: split at case and underscore, stemmed.

One tokenisation for all, so that what one part calls the same word the others do too.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol, cast

import snowballstemmer

_WORD = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|#?\d+")
_STOP = frozenset(
    """
    the a an and or of to in for on with is are was were be been by from this that it its as at not no
    nor into  when use using used than then them they has have had which what how do does did make makes
    set get one two  can could should would must will may you your we our us i me my if so but via also
    only all any more most  new now up out off per see there here just about after before over under
    between again he she him his her hers their theirs who whom whose where why mine yours ours having am shall
    might too very
    """.split()
)


_PASSAGE = 400
"""Characters: longer lines are split."""
_LARGE = 300_000
_HEAD = 2


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str: ...


_STEMMER = cast(_Stemmer, snowballstemmer.stemmer("english"))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of one lower-case word (Snowball, English)."""
    return _STEMMER.stemWord(word)


def is_stop_word(word: str) -> bool:
    """Whether a word says nothing by itself."""
    return word.lower() in _STOP


def words(text: str) -> list[str]:
    """Content words of `text` in order, lower case, stop words and single letters left out.

    `readHTTPHeader_v2` gives `read`, `http`, `header`; numbers count from two digits on.
    """
    return [w for w in (m.lower() for m in _WORD.findall(text)) if len(w) > 1 and w not in _STOP]


def stems(text: str) -> list[str]:
    """`words`, stemmed."""
    return [stem(w) for w in words(text)]


def passages(text: str, query: str, *, most: int) -> str:
    """The lines of a text that share a word with the query, in their order; `…` where others lie between.

    Args:
        most: Characters. Lines that hold the query as it is go first, then those with more of its words; how many more
            there are is said at the end.
    """
    wanted = set(stems(query))
    heads = {""}
    if len(text) > _LARGE:
        heads = {word[:_HEAD] for word in (*wanted, *words(query))} | {query.strip().lower()}
    found = []
    for place, piece in enumerate(_pieces(text)):
        if any(head in piece.lower() for head in heads):  # most lines of a large text need no stemming
            shared = _shared(piece, query, wanted)
            if shared:
                found.append((-shared, place, piece))
    chosen = _within(most, sorted(found))
    lines, last = [], -1
    for _, place, piece in sorted(chosen, key=lambda ranked: ranked[1]):
        lines += ["…"] * (place > last + 1) + [piece]
        last = place
    return "\n".join([*lines, *_left_out(len(found) - len(chosen))])


def most_of(texts: Sequence[str], query: str, *, most: int) -> str:
    """Several texts in their order; where they are too long together, those that say most of the query."""
    wanted = set(stems(query))
    ranked = sorted((-_shared(text, query, wanted), place, text) for place, text in enumerate(texts))
    chosen = sorted(_within(most, ranked), key=lambda one: one[1])
    return "\n".join([*(text for _, _, text in chosen), *_left_out(len(texts) - len(chosen))])


def _shared(text: str, query: str, wanted: set[str]) -> int:
    """How many of the query's words a text has; one that holds the query as it is comes before all others."""
    literally = query.strip().lower() in text.lower()
    return len(wanted.intersection(stems(text))) + (1 + len(wanted)) * literally


def _within(most: int, ranked: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The first of them that fit; the first in any case."""
    chosen: list[tuple[int, int, str]] = []
    for one in ranked:
        most -= len(one[2]) + 1
        if most < 0 and chosen:
            break
        chosen.append(one)
    return chosen


def _left_out(count: int) -> list[str]:
    return [f"… {count} more match; ask for less at once"] if count else []


def _pieces(text: str) -> Iterator[str]:
    """Lines; long ones in parts, cut between words where there are some."""
    for line in text.splitlines():
        start = 0
        while len(line) - start > _PASSAGE:
            space = line.rfind(" ", start + 1, start + _PASSAGE)
            end = space if space > start else start + _PASSAGE
            yield line[start:end].strip()
            start = end
        yield line[start:] if not start else line[start:].strip()
