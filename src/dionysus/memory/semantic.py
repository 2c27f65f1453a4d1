"""Memories: kept with where they come from, recalled by their words, by what they mean, and by cues of time and actor.

Recall has two stages. The first takes, from the index, those with the best words, or all where there are few; the
second scores these and their neighbours in the same episode by every feature of `ranking`. An embedder that fails costs
meaning, never a memory: recall goes on by the other features, and what it has not looked at is made up for later.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from dionysus.errors import BadInput, EmbedderError
from dionysus.memory.basins import Basins, CommitLike
from dionysus.memory.cues import Asked, asked, names
from dionysus.stores.contract import Filter, Memory, NewMemory
from dionysus.stores.memories import Candidate, Memories

if TYPE_CHECKING:  # it needs NumPy, which what only keeps memories does not
    from dionysus.memory.embeddings import Embedder
    from dionysus.memory.ranking import Posting, Scored

log = logging.getLogger("dionysus")
_WHOLE = 1_000
"""Up to so many memories all are scored; beyond, those that the index finds."""
_SEEDS = 300
_MASKED = 20_000
"""Filters that so many pass at most are applied before the first stage, others after it."""
_TERMS = 48
"""The rarest words of a longer query are looked up."""
_TO_EMBED = 64


class _WithText(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def actor(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Told:
    """Something to be remembered."""

    text: str
    kind: str = "fact"
    source: str | None = None
    """Where it comes from, unique in its place: what comes from the same source takes its place. None: from nowhere
    that could tell it again."""
    at: datetime | None = None
    """None: now."""
    place: str = ""
    actor: str = ""
    """Who says it."""
    session: str | None = None
    """Names the episode in whose course it is told, so that one brings its neighbours to mind; None: it stands alone,
    in one basin with what is told within half an hour."""
    basin_id: int | None = None
    """The episode, where it is known; goes before `session`."""
    tags: tuple[str, ...] = ()
    run_id: str | None = None
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A memory that a query brought back."""

    memory: Memory
    score: float
    """Comparable within one query only."""
    why: Mapping[str, float] = field(default_factory=dict)
    """What each feature of `ranking.Weights` contributed."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is remembered."""

    memories: int
    words: int
    embedder: str | None
    """In use; None: by words alone."""
    vectors: Mapping[str, tuple[int, int]]
    """For each embedder that vectors are of: (memories, bytes)."""


class SemanticMemory:
    """Memories of one store."""

    def __init__(
        self,
        memories: Memories,
        basins: Basins,
        *,
        clock: Callable[[], datetime],
        hide: Callable[[str], str],
        open_embedder: Callable[[], "Embedder | None"] = lambda: None,
        by_activation: float = 0.0,
    ) -> None:
        """
        Args:
            hide: Replaces secrets in a text by placeholders.
            by_activation: What the activation of a memory's basin adds to its score, at most; 0: nothing.
            open_embedder: Called once, at the first need; gives None where recall goes by words alone.
        """
        self._memories, self._basins, self._clock, self._hide = memories, basins, clock, hide
        self._open_embedder, self._by_activation = open_embedder, by_activation
        self._embedder: Embedder | None = None
        self._opened = False
        self.looks_failed: EmbedderError | None = None
        """Why the embedder gave nothing the last time that it was asked; None: it did."""

    # -- keeping ---------------------------------------------------------------------------------------

    def remember(self, text: str, **told: object) -> int:
        """Keeps one text; the arguments are those of `Told`. Returns the memory's id. Raises as `remember_all`."""
        return self.remember_all([Told(text=text, **told)])[0]  # type: ignore[arg-type]

    def remember_all(self, told: Sequence[Told]) -> list[int]:
        """Keeps texts, all or none; returns their ids, in this order.

        Raises:
            BadInput: One is empty, or no text, or of an instant without time zone; or there is no such embedder.
            MissingExtra: The embedder needs a package that is not installed.
        """
        for one in told:
            _check(one)
        self._open()
        self._memories.check_index()
        with self._memories.transaction():
            opened: dict[tuple[str, str], int] = {}
            new = [self._new(one, opened) for one in told]
            ids = self._memories.add(new)
        self._look_at([_Kept(number, n.actor, n.text) for number, n in zip(ids, new, strict=True)])
        return ids

    def _new(self, told: Told, opened: dict[tuple[str, str], int]) -> NewMemory:
        at = told.at or self._clock()
        basin = told.basin_id
        if basin is None and told.session is not None:
            key = (told.place, self._hide(told.session))
            basin = opened[key] = opened.get(key) or self._basins.opened(*key, at=at)
        elif basin is None:
            basin = self._basins.going_on(told.place, at=at)
        text = self._hide(told.text).strip()
        said = f"{at.isoformat()} {told.actor}: {text}".encode("utf-8", "surrogatepass")
        return NewMemory(
            kind=told.kind,
            text=text,
            at=at,
            source=told.source or f"{told.kind} {hashlib.blake2b(said, digest_size=6).hexdigest()}",
            place=told.place,
            basin_id=basin,
            run_id=told.run_id,
            step=told.step,
            actor=self._hide(told.actor),
            tags=tuple(dict.fromkeys(map(self._hide, told.tags))),
            in_turn=told.basin_id is None and told.session is not None,
        )

    def learn_commits(self, place: str, commits: Iterable[CommitLike]) -> int:
        """Keeps commits that are not known yet, in basins of their own; returns how many were new.

        Args:
            commits: In any order.
        """
        known = self._memories.sources(kind="commit", place=place)
        new = sorted((c for c in commits if f"commit {c.sha}" not in known), key=lambda c: c.at)
        if not new:
            return 0
        with self._memories.transaction():
            self.remember_all(
                [
                    Told(
                        text=" | ".join([commit.subject, " ".join(commit.files[:8])]),
                        kind="commit",
                        source=f"commit {commit.sha}",
                        at=datetime.fromtimestamp(commit.at, tz=UTC),
                        place=place,
                        basin_id=episode.basin_id,
                    )
                    for episode in self._basins.episodes_of(place, new)
                    for commit in episode.commits
                ]
            )
        return len(new)

    def learn_principles(self, place: str, principles: Iterable[tuple[str, str]]) -> None:
        """Keeps the rules of a place: (path they stand in, rule)."""
        known = self._memories.sources(kind="principle", place=place)
        new = [(path, rule, f"{path}: {rule[:80]}") for path, rule in principles]
        if not any(source not in known for _, _, source in new):
            return
        with self._memories.transaction():
            self.remember_all(
                [
                    Told(
                        text=f"{rule} | {path}",
                        kind="principle",
                        source=source,
                        place=place,
                        basin_id=self._basins.opened(place, f"rules of {path}"),
                    )
                    for path, rule, source in new
                    if source not in known
                ]
            )

    # -- recalling -------------------------------------------------------------------------------------

    def recall(
        self,
        query: str,
        *,
        kinds: Sequence[str] = (),
        place: str | None = None,
        limit: int = 5,
        least: int = 0,
        without: Collection[str] = (),
        wanted: Filter | None = None,
    ) -> list[Hit]:
        """The memories that answer a query, best first; none that has nothing to do with it.

        Args:
            kinds: Only these; empty: all.
            place: Only of this place, or of none.
            least: Words of the query that a hit must have itself; 0: it may be near in meaning, in time, or beside a
                hit.
            without: Sources to leave out.
            wanted: A filter for more; `kinds`, `place` and `without`, where given, go before its own.

        Raises:
            BadInput: An instant of the filter has no time zone.
        """
        wanted = wanted or Filter()
        wanted = replace(
            wanted,
            kinds=tuple(kinds) or wanted.kinds,
            place=wanted.place if place is None else place,
            without=frozenset(without) or wanted.without,
        )
        found, scored = self._scored(query, wanted)
        if scored is None:
            return []
        order = sorted(
            (n for n in range(len(found)) if scored.evidence[n] and scored.shared[n] >= least),
            key=lambda n: (-scored.total[n], -found[n].at, found[n].id),
        )
        allowed = {c.id for c in found}
        if not wanted.lets_all_pass:
            allowed = self._memories.passing([found[n].id for n in order], wanted)
        best = [n for n in order if found[n].id in allowed][:limit]
        by_id = {memory.id: memory for memory in self._memories.get([found[n].id for n in best])}
        return [
            Hit(memory=by_id[found[n].id], score=float(scored.total[n]), why=scored.why(n))
            for n in best
            if found[n].id in by_id
        ]

    def _scored(self, query: str, wanted: Filter) -> tuple[list[Candidate], "Scored | None"]:
        import numpy as np

        from dionysus.memory import ranking

        memories, words = self._memories.totals()
        if not memories or not query.strip():
            return [], None
        today = self._clock().date()
        ask = asked(query, today=today, actors=self._memories.actors_among(names(query)))
        postings = {
            term: ranking.posting(blocks, memories=memories, words=words)
            for term, blocks in self._memories.postings(ask.terms).items()
        }
        if len(ask.terms) > _TERMS:
            rarest = sorted(postings, key=lambda term: -postings[term].idf)[:_TERMS]
            postings = {term: postings[term] for term in rarest}
            ask = replace(ask, terms=tuple(rarest))
        ids = self._first_stage(ask, postings, wanted, memories)
        embedder = self.embedder
        found = self._memories.around(ids, reach=ranking.REACH, embedder=embedder.name if embedder else None)
        nearness, said = None, tuple[str, ...]()
        if embedder is not None and found:
            try:
                found = self._made_up(found)
                asking = embedder.query(query)
                nearness, said = embedder.nearness(asking, [c.vectors or b"" for c in found]), asking.words
                self.looks_failed = None
            except EmbedderError as error:
                self._failed(error)
        weights = ranking.LEXICAL if nearness is None or embedder is None else embedder.weights
        scored = ranking.score(ask, found, postings, memories=memories, words=said, nearness=nearness, weights=weights)
        if self._by_activation:
            levels = self._basins.levels({c.basin_id for c in found if c.basin_id is not None})
            active = np.array([levels.get(c.basin_id or 0, 0.0) for c in found], np.float32)
            scored = scored.with_part("active", np.float32(self._by_activation) * active)
        return found, scored

    def _first_stage(self, ask: Asked, postings: Mapping[str, "Posting"], wanted: Filter, memories: int) -> list[int]:
        """The ids that are worth scoring."""
        import numpy as np

        from dionysus.memory import ranking

        if memories <= _WHOLE:
            return self._memories.ids(wanted, limit=_WHOLE)
        allowed = None
        if not wanted.lets_all_pass:
            passing = self._memories.ids(wanted, limit=_MASKED + 1)
            if len(passing) <= _WHOLE:
                return passing
            if len(passing) <= _MASKED:
                allowed = np.array(passing, np.int64)
        limit, ranked = _SEEDS, list[int]()
        while True:
            ranked = [int(n) for n in ranking.seeds(list(postings.values()), allowed=allowed, limit=limit)]
            if allowed is not None or wanted.lets_all_pass:
                break
            passed = self._memories.passing(ranked, wanted)
            if len(passed) >= _SEEDS or len(ranked) < limit:
                ranked = [n for n in ranked if n in passed][:_SEEDS]
                break
            limit *= 8
        return list(dict.fromkeys([*ranked, *self._of_the_days(ask, wanted)]))

    def _of_the_days(self, ask: Asked, wanted: Filter) -> list[int]:
        """Memories of the days that a query names, whatever their words."""
        found = []
        for span in ask.days:
            if not span.yearly:
                since = datetime(span.first.year, span.first.month, span.first.day, tzinfo=UTC)
                until = datetime(span.last.year, span.last.month, span.last.day, 23, 59, 59, 999999, tzinfo=UTC)
                within = replace(
                    wanted,
                    since=max(filter(None, (wanted.since, since))),
                    until=min(filter(None, (wanted.until, until))),
                )
                found += self._memories.ids(within, limit=_SEEDS // 2)
        return found

    # -- meaning ---------------------------------------------------------------------------------------

    @property
    def embedder(self) -> "Embedder | None":
        """What looks at the meaning of texts; None: nothing does, or it cannot now, and `looks_failed` says why."""
        self._open()
        if self._embedder is not None:
            try:
                self._embedder.name  # noqa: B018 – an endpoint is asked for its dimensions
            except EmbedderError as error:
                self._failed(error)
                return None
        return self._embedder

    def size(self) -> Size:
        """How much there is."""
        memories, words = self._memories.totals()
        embedder = self.embedder
        return Size(
            memories=memories,
            words=words,
            embedder=embedder.name if embedder else None,
            vectors=self._memories.vector_sizes(),
        )

    def ids(self, wanted: Filter) -> list[int]:
        """Of all that pass a filter, newest first."""
        return self._memories.ids(wanted, limit=-1)

    def rebuild(self) -> int:
        """Makes the index and all vectors again, from the memories; returns how many there are.

        Raises:
            EmbedderError: It failed; the index is made, and what it made until then is kept.
        """
        with self._memories.transaction():
            self._memories.rebuild_index()
            self._memories.drop_vectors()
        while self.make_up():
            pass
        return self._memories.totals()[0]

    def _open(self) -> None:
        if not self._opened:
            self._embedder, self._opened = self._open_embedder(), True

    def make_up(self, *, limit: int = 1_000) -> int:
        """Has the embedder look at memories that it has not seen, or that another embedder saw, newest first.

        Returns:
            How many; fewer than `limit`: it has seen all now.

        Raises:
            EmbedderError: It failed; what it has made until then is kept.
        """
        embedder = self.embedder
        if embedder is None:
            if self.looks_failed is not None:
                raise self.looks_failed
            return 0
        done = 0
        while done < limit:
            some = self._memories.without_vectors(embedder.name, limit=min(_TO_EMBED, limit - done))
            if not some:
                break
            self._look(embedder, some)
            done += len(some)
        self.looks_failed = None
        return done

    def _look_at(self, kept: "Sequence[_Kept]") -> None:
        """What was just kept; if that fails, recall and idle beats make up for it. So they do for what is kept within a
        transaction, for others would wait for the embedder."""
        embedder = None if self._memories.in_transaction else self.embedder
        if embedder is None:
            return
        try:
            for start in range(0, len(kept), _TO_EMBED):
                self._look(embedder, kept[start : start + _TO_EMBED])
        except EmbedderError as error:
            self._failed(error)

    def _look(self, embedder: "Embedder", some: Sequence[_WithText]) -> list[bytes]:
        bodies = embedder.encode([f"{one.actor}: {one.text}" if one.actor else one.text for one in some])
        self._memories.save_vectors(embedder.name, [(one.id, body) for one, body in zip(some, bodies, strict=True)])
        return bodies

    def _made_up(self, found: list[Candidate]) -> list[Candidate]:
        """Candidates, all with vectors."""
        missing = [c.id for c in found if c.vectors is None]
        if not missing or self._embedder is None:
            return found
        made: dict[int, bytes] = {}
        for start in range(0, len(missing), _TO_EMBED):
            some = self._memories.get(missing[start : start + _TO_EMBED])
            made |= dict(zip([memory.id for memory in some], self._look(self._embedder, some), strict=True))
        return [replace(c, vectors=made.get(c.id, c.vectors)) for c in found]

    def _failed(self, error: EmbedderError) -> None:
        if self.looks_failed is None:
            log.warning("%s; memories are recalled by their words until it works again", error)
        self.looks_failed = error


@dataclass(frozen=True)
class _Kept:
    id: int
    actor: str
    text: str


def _check(told: Told) -> None:
    if not isinstance(told.text, str):
        raise BadInput(f"a memory is a text, not {type(told.text).__name__}")
    if not told.text.strip():
        raise BadInput("there is nothing to remember: the text is empty")
    if told.at is not None and (not isinstance(told.at, datetime) or told.at.tzinfo is None):
        raise BadInput(f"a memory's instant is a datetime with its time zone, not {told.at!r}")
    try:
        _ = told.at and told.at.astimezone(UTC)
    except OverflowError as error:
        raise BadInput(f"a memory's instant lies between the years 1 and 9999, in UTC; {told.at} does not") from error
    if any(not isinstance(tag, str) or not tag.strip() for tag in told.tags):
        raise BadInput("tags are texts that are not empty")
