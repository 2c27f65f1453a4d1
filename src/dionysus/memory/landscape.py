"""The basins as they lie now: how active, of what they speak, what was active together – as records and as a picture.

And the other way: `complete` finds the episode that a partial cue belongs to, by letting it settle (`hopfield`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from dionysus.errors import BadInput
from dionysus.memory.basins import Basins, current_activation
from dionysus.stores.contract import Basin
from dionysus.stores.memories import Memories
from dionysus.stores.mind import Mind
from dionysus.words import stems

if TYPE_CHECKING:
    from dionysus.memory.hopfield import Floats

_PATTERNS = 500
"""Basins that a cue may settle in: the last ones."""
_WIDTH, _ROW, _LEFT = 960, 46, 20


@dataclass(frozen=True, kw_only=True)
class Lie:
    """A basin in the landscape."""

    basin: Basin
    activation: float
    """In [0, 1), as of now."""
    words: tuple[str, ...]
    """The most telling ones."""
    memories: int
    associates: tuple[tuple[int, float], ...]
    """Basins that were active together with it, and how strongly they are wired, strongest first."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a partial cue belongs to."""

    basin: Basin
    words: tuple[str, ...]
    share: float
    """How much of where the cue settled is this episode, in (0, 1]."""
    updates: int
    energies: tuple[float, ...]
    """Of the state, before and after each update; they never rise."""


class Landscape:
    """Reads basins and memories; changes nothing."""

    def __init__(self, mind: Mind, memories: Memories, basins: Basins, *, clock: Callable[[], datetime]) -> None:
        self._mind, self._memories, self._basins, self._clock = mind, memories, basins, clock

    def lie(self, *, place: str | None = None, limit: int = 20) -> list[Lie]:
        """Basins, the most active first, then the last opened."""
        now = self._clock()
        found = [(current_activation(basin, now), basin) for basin in self._mind.basins(place=place)]
        found.sort(key=lambda pair: (-round(pair[0], 4), -pair[1].opened_at.timestamp(), -pair[1].id))
        return [
            Lie(
                basin=basin,
                activation=level,
                words=self._basins.telling_words(basin.id),
                memories=self._mind.extent(basin.id)[1],
                associates=tuple(self._basins.associates(basin.id)[:3]),
            )
            for level, basin in found[:limit]
        ]

    def complete(self, cue: str) -> Completed | None:
        """The episode that a partial cue belongs to; None: no episode has a word of it.

        Raises:
            BadInput: The cue has no word to go by.
        """
        import numpy as np

        from dionysus.memory.hopfield import settle

        wanted = list(dict.fromkeys(stems(cue)))
        if not wanted:
            raise BadInput("the cue has no word to go by; give a few telling ones")
        basins = self._mind.basins(limit=_PATTERNS)
        texts = {b.id: [t for m in self._memories.of_basin(b.id) for t in stems(m.text[:2_000])] for b in basins}
        basins = [basin for basin in basins if texts[basin.id]]
        known = {term: n for n, term in enumerate(dict.fromkeys(t for some in texts.values() for t in some))}
        if not any(term in known for term in wanted):
            return None
        lies_in = np.zeros(len(known))
        for basin in basins:
            lies_in[[known[term] for term in set(texts[basin.id])]] += 1
        rarity = np.log1p(len(basins) / lies_in)
        patterns = np.stack([_vector([known[t] for t in texts[b.id]], rarity) for b in basins])
        state = _vector([known[term] for term in wanted if term in known], rarity)
        settled = settle(patterns, state, beta=16.0)
        best = int(settled.weights.argmax())
        return Completed(
            basin=basins[best],
            words=self._basins.telling_words(basins[best].id),
            share=float(settled.weights[best]),
            updates=len(settled.energies) - 1,
            energies=settled.energies,
        )


def _vector(places: Sequence[int], rarity: "Floats") -> "Floats":
    """Words as a vector of length one: their logarithmic counts, times their rarity."""
    import numpy as np

    vector = np.log1p(np.bincount(places, minlength=len(rarity))) * rarity
    return np.asarray(vector / (np.linalg.norm(vector) or 1.0), np.float64)


def picture(lies: Sequence[Lie]) -> str:
    """The landscape as SVG: a row a basin, a well as deep as it is active; arcs between what is wired together."""
    height = _ROW * (len(lies) + 1)
    rows = {one.basin.id: _ROW * (n + 1) for n, one in enumerate(lies)}
    size = f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fbfaf7"/>',
        f'<text x="{_LEFT}" y="20" fill="#555">activation · basin · its most telling words · memories</text>',
    ]
    for one in lies:
        y = rows[one.basin.id]
        top, low = y - 6, y - 2 + 30 * one.activation
        parts.append(
            f'<path d="M {_LEFT} {top} C {_LEFT + 35} {top}, {_LEFT + 35} {low:.1f}, {_LEFT + 60} {low:.1f} '
            f'S {_LEFT + 85} {top}, {_LEFT + 120} {top}" fill="#7a4b9d" '
            f'fill-opacity="{0.15 + 0.7 * one.activation:.2f}" stroke="#7a4b9d"/>'
        )
        words = " · ".join(one.words)
        parts.append(
            f'<text x="{_LEFT + 135}" y="{y + 4}">{one.activation:.2f}</text>'
            f'<text x="{_LEFT + 180}" y="{y + 4}" font-weight="bold">{escape(_short(one.basin.name, 32))}</text>'
            f'<text x="{_LEFT + 430}" y="{y + 4}" fill="#444">{escape(_short(words, 44))}</text>'
            f'<text x="{_LEFT + 760}" y="{y + 4}" fill="#444">{one.memories}</text>'
        )
        for other, weight in one.associates:
            if other in rows and rows[other] > y:
                bulge = _LEFT + 830 + min(90, (rows[other] - y) / 2)
                parts.append(
                    f'<path d="M {_LEFT + 810} {y} Q {bulge:.0f} {(y + rows[other]) / 2:.0f}, '
                    f'{_LEFT + 810} {rows[other]}" fill="none" stroke="#c2803a" '
                    f'stroke-width="{1 + 6 * weight:.1f}" stroke-opacity="0.7"/>'
                )
    return "\n".join([*parts, "</svg>", ""])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
