"""What an episode – a beat, or a question – has before it: folder, notes, goals, failed runs; and the senses for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dionysus.agents.tools import Senses
from dionysus.findings import plural
from dionysus.journal import Frame
from dionysus.memory.basins import Basins
from dionysus.memory.goals import SOON, Goals
from dionysus.memory.mental_models import MentalModels
from dionysus.memory.semantic import SemanticMemory
from dionysus.stores import Store
from dionysus.stores.contract import AgentExecutionTrace, Beat, Goal, Note
from dionysus.world import Snapshot, View, World

_EXPECTED_FROM = 10
"""Earlier runs of which an agent's coherence is expected."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to see, before any agent runs."""

    view: View
    place: str
    began: datetime
    seen: Beat | None
    """The last beat that was carried through."""
    notes: Sequence[Note]
    failed: Sequence[AgentExecutionTrace]
    newly_due: Sequence[Goal]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why to wake, in words; empty: nothing happened."""
        return (
            *(["first look"] if self.view.first else self.view.reasons()),
            *([plural(len(self.notes), "unread note")] if self.notes else []),
            *([f"{plural(len(self.newly_due), 'goal')} due"] if self.newly_due else []),
            *([plural(len(self.failed), "failed run")] if self.failed else []),
        )


class Watch:
    """Looks at folders, and hands out the senses that an episode's tools share."""

    def __init__(
        self,
        store: Store,
        *,
        memory: SemanticMemory,
        basins: Basins,
        goals: Goals,
        own_files: Sequence[Path],
        clock: Callable[[], datetime],
        rewords: bool = False,
    ) -> None:
        """
        Args:
            rewords: Have an LLM word queries to memory anew, too.
            own_files: Files of ours, which are never observed.
        """
        self._store, self._memory, self._basins, self._goals = store, memory, basins, goals
        self._own_files, self._clock, self._rewords = own_files, clock, rewords

    def look(self, watch: Path, *, git: bool) -> Look:
        """Without any model: what changed since the last beat that was carried through, and what waits.

        Raises:
            WatchError: The folder cannot be observed.
        """
        began = self._clock()
        world = World(watch, git=git, skip=self._own_files)
        place = str(world.root)
        seen = self._store.mind.last_beat(place, seen=True)
        before = Snapshot.from_json(seen.snapshot) if seen is not None and seen.snapshot is not None else None
        return Look(
            view=world.look(before, began.timestamp()),
            place=place,
            began=began,
            seen=seen,
            notes=self._store.mind.unread_notes(),
            failed=self._failed_since(seen),
            newly_due=[g for g in self._goals.due(began) if seen is None or _became_due(g, seen.started_at, began)],
        )

    def senses(self, look: Look, episode: str, frame: Frame | None = None, *, agent_name: str = "") -> Senses:
        """What the tools of an episode work with; its first memory opens a basin. `close` them at the end.

        Args:
            agent_name: Whose episode it is: its earlier runs are what it is held against.
        """
        return Senses(
            view=look.view,
            place=look.place,
            episode=episode,
            now=look.began,
            reasons=look.reasons,
            notes=look.notes,
            due=self._goals.due(look.began),
            failed=look.failed,
            last=self._store.mind.last_beat(look.place, worked=True),
            memory=self._memory,
            goals=self._goals,
            models=MentalModels(self._store.mind, look.place),
            coherence=self._coherence_of(agent_name) if agent_name else (),
            open_basin=lambda: self._basins.opened(look.place, episode, at=look.began),
            frame=frame,
            rewords=self._rewords,
        )

    def close(self, senses: Senses) -> None:
        """The episode is over, and so is its basin, whichever process opened it."""
        self._basins.close(senses.place, senses.episode)

    def _coherence_of(self, agent_name: str) -> list[tuple[str, float]]:
        """The agent's newest runs that went to their end, and how low their coherence was."""
        traces = self._store.records.traces(agent_name=agent_name, status="success", limit=_EXPECTED_FROM + 1)
        return [(t.id, t.coherence_min) for t in traces if t.coherence_min is not None]

    def _failed_since(self, seen: Beat | None) -> list[AgentExecutionTrace]:
        """Traces that failed since the last beat that was carried through."""
        return [
            trace
            for status in ("error", "interrupted")
            for trace in self._store.records.traces(status=status, limit=5)
            if seen is not None and trace.started_at > seen.started_at
        ]


def _became_due(goal: Goal, last: datetime, now: datetime) -> bool:
    """Whether a goal came near its date, or passed it, since the last look; or was set since."""
    if goal.due_at is None:
        return False
    return goal.created_at > last or last < goal.due_at - SOON <= now or last < goal.due_at <= now
