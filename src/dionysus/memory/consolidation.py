"""What becomes of memories while nothing happens: duplicates are joined, what repeats becomes a pattern with its
evidence, policies forget, the embedder makes up for what it has not seen, and beliefs that failed are named.

No model is asked. Each memory is looked at once, in the order in which they came, and each look is one transaction:
who is killed goes on where it was. Nothing is dropped but what a policy or a person says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dionysus.errors import EmbedderError, NotFound
from dionysus.memory.semantic import SemanticMemory
from dionysus.stores.contract import Filter, Memory, MentalModel, NewMemory
from dionysus.stores.memories import Memories
from dionysus.stores.mind import Mind
from dionysus.words import stems

PATTERN = "pattern"
"""The kind of memory that consolidation makes: wisdom, as principles are."""
_JOINED = ("fact", "note", PATTERN)
_PROMOTED = ("fact", "note")
"""Kinds of which these hold: commits and beats are each an event of its own."""
_ALIKE = 0.6
"""Shared words over all words, from which two memories say the same."""
_DAYS = 3
"""On so many days a thing is told before it is a pattern."""
_LEAST_WORDS = 3
_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class Consolidated:
    """What was done."""

    looked_at: int = 0
    joined: int = 0
    """Duplicates that are one memory now."""
    promoted: tuple[int, ...] = ()
    """Patterns that are new, or have more evidence now."""
    forgotten: int = 0
    """By policy."""
    made_up: int = 0
    """Memories that the embedder had not seen."""
    contradicted: tuple[MentalModel, ...] = ()
    """Beliefs that failed more often than they held."""
    embedder_failed: str = ""
    """Why it made up for nothing."""


class Consolidation:
    """Works on one store; call `run` when nothing else is to be done."""

    def __init__(
        self,
        mind: Mind,
        memories: Memories,
        semantic: SemanticMemory,
        *,
        keep_for: Mapping[str, timedelta],
        clock: Callable[[], datetime],
    ) -> None:
        """
        Args:
            keep_for: How long memories of a kind are kept; of kinds that it does not name, for ever.
        """
        self._mind, self._memories, self._semantic = mind, memories, semantic
        self._keep_for, self._clock = keep_for, clock

    def run(self, *, place: str | None = None, limit: int = _AT_ONCE) -> Consolidated:
        """Looks at the memories that came since the last time, `limit` at most, and does the rest.

        Args:
            place: Whose beliefs are looked at; None: none.
        """
        new = self._memories.unconsolidated(limit=limit)
        joined, promoted = 0, list[int]()
        for memory in new:
            first = self._memories.told_before(memory) if memory.kind in _JOINED and memory.turn is None else None
            alike = self._alike(memory) if memory.kind in _PROMOTED else []
            with self._memories.transaction():
                if first is not None:
                    self._memories.join(memory, first)
                    joined += 1
                if (
                    pattern := self._promoted([one for one in alike if first is None or one.id != memory.id])
                ) is not None:
                    promoted.append(pattern)
                self._memories.consolidated(memory.id)
        forgotten = sum(self.forget(self._too_old(kind, keep)) for kind, keep in self._keep_for.items())
        made_up, failed = 0, ""
        try:
            made_up = self._semantic.make_up(limit=limit)
        except EmbedderError as error:
            failed = str(error)
        models = self._mind.mental_models(place=place) if place is not None else []
        return Consolidated(
            looked_at=len(new),
            joined=joined,
            promoted=tuple(dict.fromkeys(promoted)),
            forgotten=forgotten,
            made_up=made_up,
            contradicted=tuple(model for model in models if model.is_contradicted),
            embedder_failed=failed,
        )

    # -- patterns --------------------------------------------------------------------------------------

    def _alike(self, memory: Memory) -> list[Memory]:
        """Memories that say the same, itself included; none where it has too few words to tell."""
        mine = set(stems(memory.text))
        if len(mine) < _LEAST_WORDS:
            return []
        wanted = Filter(kinds=_PROMOTED, place=memory.place or None)
        hits = self._semantic.recall(memory.text, wanted=wanted, limit=50, least=2)
        return [memory, *(h.memory for h in hits if h.memory.id != memory.id and _overlap(mine, h.memory) >= _ALIKE)]

    def _promoted(self, alike: Sequence[Memory]) -> int | None:
        """The pattern that memories show, if they were told on three days at least; made, or given more evidence."""
        ids = [one.id for one in alike]
        if not self._are_of_three_days(alike):
            return None
        known = self._memories.patterns_of(ids)
        if known and set(ids) <= set(self._memories.evidence_of(known[0])):
            return None
        pattern = known[0] if known else self._memories.add([self._as_pattern(alike)])[0]
        self._memories.add_evidence(pattern, ids)
        return pattern

    def _are_of_three_days(self, memories: Sequence[Memory]) -> bool:
        retold = self._memories.retold([memory.id for memory in memories])
        days = {memory.at.date() for memory in memories}
        days |= {datetime.fromtimestamp(us // 1_000_000, UTC).date() for some in retold.values() for _, us in some}
        return len(days) >= _DAYS

    def _as_pattern(self, alike: Sequence[Memory]) -> NewMemory:
        """The one that shares most with the others stands for all."""
        middle = max(alike, key=lambda one: (sum(_overlap(set(stems(one.text)), o) for o in alike), -one.id))
        return NewMemory(
            kind=PATTERN,
            text=middle.text,
            at=self._clock(),
            source=f"pattern of memory {middle.id}",
            place=middle.place,
            tags=("promoted",),
        )

    # -- forgetting ------------------------------------------------------------------------------------

    def forget(self, ids: Sequence[int]) -> int:
        """Forgets memories and all that was made of them: words, vectors, retellings, the notes that they were made
        of, and patterns that have no three days of evidence without them. Returns how many memories are gone.

        What runs were shown stays in their record.
        """
        with self._memories.transaction():
            memories = self._memories.get(list(dict.fromkeys(ids)))
            patterns = self._memories.patterns_of([memory.id for memory in memories])
            notes = [int(m.source.removeprefix("note ")) for m in memories if _is_note(m)]
            self._memories.drop_notes(notes)
            gone = self._memories.remove([memory.id for memory in memories])
            left = {pattern: self._memories.get(self._memories.evidence_of(pattern)) for pattern in patterns}
            return gone + self._memories.remove([p for p in patterns if not self._are_of_three_days(left[p])])

    def forget_these(self, ids: Sequence[int]) -> int:
        """`forget`, where a person names them.

        Raises:
            NotFound: One of them is none; nothing is forgotten.
        """
        known = {memory.id for memory in self._memories.get([n for n in ids if 0 <= n < 2**63])}
        for number in ids:
            if number not in known:
                raise NotFound("memory", number, see="`dionysus recall`")
        return self.forget(ids)

    def _too_old(self, kind: str, keep: timedelta) -> list[int]:
        return self._memories.ids(Filter(kinds=(kind,), until=self._clock() - keep), limit=-1)


def _overlap(mine: set[str], other: Memory) -> float:
    theirs = set(stems(other.text))
    return len(mine & theirs) / (len(mine | theirs) or 1)


def _is_note(memory: Memory) -> bool:
    return memory.kind == "note" and memory.source.removeprefix("note ").isdecimal()
