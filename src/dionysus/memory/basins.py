"""Attractor basins: episodes of memory, with an activation that is bounded, decays and habituates.

A basin is an episode – the memories of one beat, one burst of commits, one document's rules – not a cluster:
on real conversations episodes carry the signal and clusters carry none (docs/decisions/0004).
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Protocol

from dionysus.errors import BadInput, NotFound
from dionysus.stores.contract import Basin, CoActivation
from dionysus.stores.memories import Memories
from dionysus.stores.mind import Mind
from dionysus.words import stem, words

DECAY_S = 86400.0
"""τ: seconds after which an activation has fallen to 1/e."""
HABITUATION = 0.8
"""Factor on h with each activation; it recovers towards 1 with the same τ."""
CO_DECAY_S = 30 * 86400.0
"""τ_w: of what is wired together."""
_LEARNING = 0.3
"""η."""
_TOGETHER = 5
"""So many of the basins that a recall activates are wired to each other: the most active."""
_READ, _READ_CHARS = 200, 2_000
"""Memories of a basin, and characters of each, that its words are taken from."""
_TOLD = "told "
_PAUSE = timedelta(minutes=30)
_MOST_TOLD = 100
_BREAK_S = 2 * 86400.0
_MOST_COMMITS = 30


class CommitLike(Protocol):
    """What memory needs to know of a commit."""

    @property
    def sha(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def subject(self) -> str: ...
    @property
    def files(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What an activation did to a basin."""

    basin_id: int
    name: str
    drive: float
    """m ≥ 0."""
    activation: float
    """In [0, 1), after it."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A burst of commits and its basin."""

    basin_id: int
    commits: Sequence[CommitLike]


class Basins:
    """The basins of one store."""

    def __init__(self, mind: Mind, memories: Memories, *, clock: Callable[[], datetime]) -> None:
        self._mind, self._memories, self._clock = mind, memories, clock

    def opened(self, place: str, name: str, *, at: datetime | None = None) -> int:
        """The basin of that name, open again where it was closed, made where there is none; returns its id."""
        basin = self._mind.basin_named(place, name)
        if basin is not None:
            if basin.closed_at is not None:
                self._mind.update_basin(basin.id, closed_at=None)
            return basin.id
        return self._mind.add_basin(name=name, place=place, opened_at=at or self._clock())

    def going_on(self, place: str, *, at: datetime) -> int:
        """The episode of what is told without saying to which it belongs: the last one, unless half an hour lies
        between, or a hundred memories lie in it already; then a new one."""
        for basin in self._mind.basins(place=place, prefix=_TOLD, until=at + _PAUSE, limit=1):
            last, count = self._mind.extent(basin.id)
            if count < _MOST_TOLD and abs(at - (last or basin.opened_at)) <= _PAUSE:
                return basin.id
            self._mind.update_basin(basin.id, closed_at=last or basin.opened_at)
        return self._mind.add_basin(name=f"{_TOLD}{at:%Y-%m-%d %H:%M}", place=place, opened_at=at)

    def close(self, place: str, name: str) -> None:
        """The episode of that name is over; without a memory it has no basin."""
        for basin in self._mind.basins(place=place, name=name, open_only=True):
            self._mind.update_basin(basin.id, closed_at=self._clock())

    def landscape(self, place: str | None = None) -> list[tuple[Basin, float]]:
        """Basins with their activation as of now, most active first."""
        now = self._clock()
        found = [(basin, current_activation(basin, now)) for basin in self._mind.basins(place=place)]
        return sorted(found, key=lambda pair: (-pair[1], -pair[0].id))

    def levels(self, basin_ids: Collection[int]) -> dict[int, float]:
        """The activation of some basins as of now."""
        now = self._clock()
        return {basin.id: current_activation(basin, now) for basin in self._mind.basins_of(basin_ids)}

    def activate_basin(self, basin_id: int, strength: float) -> Activation:
        """Drives a basin: a ← a·e^(−Δt/τ) + (1 − a·e^(−Δt/τ))·h·(1 − e^(−m)), with m = strength.

        So an activation stays below 1, repeated drives matter less (h falls with each and recovers), and what is
        not driven fades.

        Args:
            strength: The drive m ≥ 0.

        Raises:
            NotFound: No such basin.
            BadInput: A negative or infinite strength.
        """
        if not (math.isfinite(strength) and strength >= 0):
            raise BadInput(f"strength {strength!r} is not a number ≥ 0")
        basin = self.get(basin_id)
        now = self._clock()
        faded = current_activation(basin, now)
        rested = 1 - (1 - basin.habituation) * _fade(basin, now)
        activation = faded + (1 - faded) * rested * (1 - math.exp(-strength))
        self._mind.update_basin(basin_id, activation=activation, habituation=rested * HABITUATION, activated_at=now)
        return Activation(basin_id=basin_id, name=basin.name, drive=strength, activation=activation)

    def activate_for(self, hits: Sequence[tuple[int, float]]) -> list[Activation]:
        """Drives the basins that a recall's hits lie in, strongest first.

        The drive of a basin is the mean of its two best hits, relative to the best hit of the recall.

        Args:
            hits: (basin, score > 0) of each hit.
        """
        best = max((score for _, score in hits), default=0.0)
        if best <= 0:
            return []
        scores: dict[int, list[float]] = {}
        for basin, score in hits:
            scores.setdefault(basin, []).append(score / best)
        drives = {basin: sum(sorted(s)[-2:]) / len(s[-2:]) for basin, s in scores.items()}
        with self._mind.transaction():
            done = [self.activate_basin(basin, drive) for basin, drive in drives.items()]
            done.sort(key=lambda a: (-a.activation, a.basin_id))
            self._wire(done[:_TOGETHER])
        return done

    def _wire(self, active: Sequence[Activation]) -> None:
        """What is active together is wired together: w ← w·e^(−Δt/τ_w) + η·a_b·a_c·(1 − w·e^(−Δt/τ_w))."""
        now = self._clock()
        ids = [one.basin_id for one in active]
        known = {(pair.a, pair.b): co_weight(pair, now) for pair in self._mind.co_activations(ids)}
        for one, other in combinations(sorted(active, key=lambda a: a.basin_id), 2):
            w = known.get((one.basin_id, other.basin_id), 0.0)
            w += _LEARNING * one.activation * other.activation * (1 - w)
            self._mind.save_co_activation(CoActivation(a=one.basin_id, b=other.basin_id, weight=w, at=now))

    def associates(self, basin_id: int, *, least: float = 0.01) -> list[tuple[int, float]]:
        """Basins that were active together with one: (id, weight in [0, 1) as of now), strongest first."""
        now = self._clock()
        pairs = [(p.b if p.a == basin_id else p.a, co_weight(p, now)) for p in self._mind.co_activations([basin_id])]
        return sorted((p for p in pairs if p[1] >= least), key=lambda p: (-p[1], p[0]))

    def get(self, basin_id: int) -> Basin:
        """
        Raises:
            NotFound: There is none of that id.
        """
        basin = self._mind.basin(basin_id) if 0 <= basin_id < 2**63 else None
        if basin is None:
            raise NotFound("basin", basin_id, see="`dionysus basins`")
        return basin

    def merge(self, into: int, other: int) -> Basin:
        """Makes one episode of two: the memories of `other` go to `into`, behind those that lie there.

        Raises:
            NotFound: No such basin.
            BadInput: They are one, or of different places.
        """
        kept, gone = self.get(into), self.get(other)
        if kept.id == gone.id or kept.place != gone.place:
            raise BadInput(f"basins {into} and {other} cannot be one: they are the same, or of different places")
        now = self._clock()
        with self._mind.transaction():
            moved = self._memories.of_basin(other, limit=-1)
            self._memories.move([memory.id for memory in reversed(moved)], into)
            for neighbour, weight in self.associates(other):
                if neighbour != into:
                    known = dict(self.associates(into)).get(neighbour, 0.0)
                    a, b = sorted((into, neighbour))
                    self._mind.save_co_activation(CoActivation(a=a, b=b, weight=max(weight, known), at=now))
            self._mind.update_basin(
                into,
                opened_at=min(kept.opened_at, gone.opened_at),
                closed_at=max(kept.closed_at, gone.closed_at) if kept.closed_at and gone.closed_at else None,
                activation=max(current_activation(kept, now), current_activation(gone, now)),
                activated_at=now,
            )
            self._mind.remove_basin(other, into=into)
        return self.get(into)

    def split(self, basin_id: int, memory_id: int) -> Basin:
        """Makes two episodes of one: a memory and those that came after it go to a new basin, which is returned.

        Raises:
            NotFound: No such basin.
            BadInput: The memory does not lie in it, or is the first one.
        """
        basin = self.get(basin_id)
        memories = list(reversed(self._memories.of_basin(basin_id, limit=-1)))
        place = next((n for n, memory in enumerate(memories) if memory.id == memory_id), 0)
        if place == 0:
            raise BadInput(f"memory {memory_id} does not lie in basin {basin_id}, or is its first one")
        with self._mind.transaction():
            new = self._mind.add_basin(
                name=f"{basin.name}, from memory {memory_id} on", place=basin.place, opened_at=memories[place].at
            )
            self._mind.update_basin(new, closed_at=basin.closed_at)
            self._mind.update_basin(basin_id, closed_at=memories[place].at)
            self._memories.move([memory.id for memory in memories[place:]], new)
        return self.get(new)

    def telling_words(self, basin_id: int, *, most: int = 3) -> tuple[str, ...]:
        """The words that tell a basin from others: frequent in it, rare elsewhere; as its texts write them."""
        counts: Counter[str] = Counter()
        written: dict[str, str] = {}
        for memory in self._memories.of_basin(basin_id, limit=_READ):
            for word in words(memory.text[:_READ_CHARS]):
                if word.isalpha() and len(word) > 2:
                    counts[stem(word)] += 1
                    written.setdefault(stem(word), word)
        likely = [term for term, _ in counts.most_common(100)]
        total, _ = self._memories.totals()
        found = self._memories.found_in(likely)
        telling = {t: math.log1p(counts[t]) * math.log(1 + total / max(1, found.get(t, 1))) for t in likely}
        return tuple(written[t] for t in sorted(telling, key=lambda t: (-telling[t], t))[:most])

    def episodes_of(self, place: str, commits: Sequence[CommitLike]) -> Iterator[Episode]:
        """New commits, oldest first, as bursts: a pause of two days or thirty commits end one."""
        burst: list[CommitLike] = []
        for commit in commits:
            if burst and (commit.at - burst[-1].at > _BREAK_S or len(burst) >= _MOST_COMMITS):
                yield self._episode(place, burst)
                burst = []
            burst.append(commit)
        if burst:
            yield self._episode(place, burst)

    def _episode(self, place: str, burst: Sequence[CommitLike]) -> Episode:
        first, last = (datetime.fromtimestamp(c.at, tz=UTC) for c in (burst[0], burst[-1]))
        days = f"{first:%Y-%m-%d}" if first.date() == last.date() else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        basin = self._mind.add_basin(name=f"commits {days}", place=place, opened_at=first)
        self._mind.update_basin(basin, closed_at=last)
        return Episode(basin_id=basin, commits=burst)


def current_activation(basin: Basin, now: datetime) -> float:
    """A basin's activation at `now`, in [0, 1)."""
    return basin.activation * _fade(basin, now)


def co_weight(pair: CoActivation, now: datetime) -> float:
    """How strongly two basins are wired at `now`, in [0, 1)."""
    return pair.weight * math.exp(-max(0.0, (now - pair.at).total_seconds()) / CO_DECAY_S)


def _fade(basin: Basin, now: datetime) -> float:
    if basin.activated_at is None:
        return 0.0
    return math.exp(-max(0.0, (now - basin.activated_at).total_seconds()) / DECAY_S)
