"""Memories: kept with where they come from, recalled by the words they share with a query.

Ranking is BM25 over stems (SQLite's FTS5), discounted by age; a hit must share two of the query's words, or one
where the query has fewer than three.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dionysus.errors import BadInput
from dionysus.memory.basins import Basins, CommitLike
from dionysus.stores.contract import Memory
from dionysus.stores.mind import Mind
from dionysus.words import stems

_HALF_LIFE_S = 365 * 86400.0
"""Age at which a memory's age factor has come half of its way from 1 to 0.6."""
_FLOOR = 0.4
"""Hits below this share of the best score are left out."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A memory that a query brought back."""

    memory: Memory
    score: float
    """Above 0; comparable within one query only."""


class SemanticMemory:
    """Memories of one store."""

    def __init__(
        self, mind: Mind, basins: Basins, *, clock: Callable[[], datetime], hide: Callable[[str], str]
    ) -> None:
        """
        Args:
            hide: Replaces secrets in a text by placeholders.
        """
        self._mind, self._basins, self._clock, self._hide = mind, basins, clock, hide

    def remember(
        self,
        text: str,
        *,
        kind: str = "fact",
        source: str | None = None,
        at: datetime | None = None,
        place: str = "",
        basin_id: int | None = None,
        run_id: str | None = None,
        step: int | None = None,
    ) -> int:
        """Keeps a text; one of the same place and source is replaced. Returns the memory's id.

        Args:
            source: Where it comes from; by default the kind and the time.
            basin_id: The episode that it belongs to.

        Raises:
            BadInput: The text is empty.
        """
        text = self._hide(text).strip()
        if not text:
            raise BadInput("there is nothing to remember: the text is empty")
        when = at or self._clock()
        return self._mind.add_memory(
            kind=kind,
            text=text,
            terms=stems(text),
            at=when,
            source=source or f"{kind} of {when.isoformat()}",
            place=place,
            basin_id=basin_id,
            run_id=run_id,
            step=step,
        )

    def recall(
        self,
        query: str,
        *,
        kinds: Sequence[str] = (),
        place: str | None = None,
        limit: int = 5,
        least: int | None = None,
        without: Collection[str] = (),
    ) -> list[Hit]:
        """The memories nearest to `query`, best first.

        Args:
            kinds: Only these; empty: all.
            place: Only of this place, or of none.
            least: Words of the query that a hit must share; by default two, one for queries of one or two words.
            without: Sources to leave out.
        """
        wanted = list(dict.fromkeys(stems(query)))
        needed = least or (2 if len(wanted) > 2 else 1)
        now = self._clock()
        hits = []
        for memory, score, shared in self._mind.match(wanted, kinds=kinds, place=place, limit=limit * 4 + len(without)):
            if shared >= needed and memory.source not in without:
                age_s = max(0.0, (now - memory.at).total_seconds())
                hits.append(Hit(memory=memory, score=score * (0.6 + 0.4 * 0.5 ** (age_s / _HALF_LIFE_S))))
        hits.sort(key=lambda hit: (-hit.score, -hit.memory.at.timestamp(), hit.memory.id))
        return [hit for hit in hits[:limit] if hit.score >= _FLOOR * hits[0].score]

    def learn_commits(self, place: str, commits: Iterable[CommitLike]) -> int:
        """Keeps commits that are not known yet, in basins of their own; returns how many were new.

        Args:
            commits: In any order.
        """
        known = self._mind.sources(kind="commit", place=place)
        new = sorted((c for c in commits if f"commit {c.sha}" not in known), key=lambda c: c.at)
        if not new:
            return 0
        with self._mind.transaction():
            for episode in self._basins.episodes_of(place, new):
                for commit in episode.commits:
                    self.remember(
                        " | ".join([commit.subject, " ".join(commit.files[:8])]),
                        kind="commit",
                        source=f"commit {commit.sha}",
                        at=datetime.fromtimestamp(commit.at, tz=self._clock().tzinfo),
                        place=place,
                        basin_id=episode.basin_id,
                    )
        return len(new)

    def learn_principles(self, place: str, principles: Iterable[tuple[str, str]]) -> None:
        """Keeps the rules of a place: (path they stand in, rule)."""
        known = self._mind.sources(kind="principle", place=place)
        with self._mind.transaction():
            for path, rule in principles:
                source = f"{path}: {rule[:80]}"
                if source not in known:
                    basin = self._basins.opened(place, f"rules of {path}")
                    self.remember(f"{rule} | {path}", kind="principle", source=source, place=place, basin_id=basin)
