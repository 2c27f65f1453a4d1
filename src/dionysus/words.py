"""Words of a text, as memory, goals and synthesis compare them: split at case and underscore, stemmed.

One tokenisation for all, so that what one part calls the same word the others do too.
"""

import re
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
    between again
    """.split()
)


class _Stemmer(Protocol):
    def stemWord(self, word: str) -> str: ...


_STEMMER = cast(_Stemmer, snowballstemmer.stemmer("english"))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of one lower-case word (Snowball, English)."""
    return _STEMMER.stemWord(word)


def words(text: str) -> list[str]:
    """Content words of `text` in order, lower case, stop words and single letters left out.

    `readHTTPHeader_v2` gives `read`, `http`, `header`; numbers count from two digits on.
    """
    return [w for w in (m.lower() for m in _WORD.findall(text)) if len(w) > 1 and w not in _STOP]


def stems(text: str) -> list[str]:
    """`words`, stemmed."""
    return [stem(w) for w in words(text)]
