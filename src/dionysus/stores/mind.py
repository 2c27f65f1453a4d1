"""What the mind keeps in SQLite beside its memories: basins, notes, goals, mental models, beats."""

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from dionysus.stores.codec import from_us, to_us
from dionysus.stores.contract import Basin, Beat, CoActivation, CoherenceRecord, Goal, MentalModel, Note
from dionysus.stores.database import Database


class Mind:
    """Verbs on basins and on what is told, wanted and believed. Raises `StoreError` throughout."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def transaction(self) -> AbstractContextManager[None]:
        """Several verbs, all or nothing."""
        return self._db.transaction()

    # -- basins ----------------------------------------------------------------------------------------

    def add_basin(self, *, name: str, place: str, opened_at: datetime) -> int:
        """Opens a basin; returns its id."""
        return self._db.write(
            "INSERT INTO basins (name, place, opened_at, activation, habituation) VALUES (?,?,?,0,1)",
            (name, place, to_us(opened_at)),
        )

    def basin(self, basin_id: int) -> Basin | None:
        """The basin of that id."""
        rows = self._db.rows("SELECT * FROM basins WHERE id = ?", (basin_id,))
        return self._db.record(Basin, rows[0]) if rows else None

    def basins(
        self,
        *,
        place: str | None = None,
        name: str | None = None,
        prefix: str | None = None,
        open_only: bool = False,
        until: datetime | None = None,
        limit: int = -1,
    ) -> list[Basin]:
        """Basins, last opened first.

        Args:
            prefix: What their names begin with.
            until: Opened then at the latest.
            limit: At most; −1: all.
        """
        rows = self._db.rows(
            "SELECT * FROM basins WHERE (?1 IS NULL OR place = ?1) AND (?2 IS NULL OR name = ?2) "
            "AND (?4 IS NULL OR substr(name, 1, length(?4)) = ?4) "
            "AND (NOT ?3 OR closed_at IS NULL) AND (?6 IS NULL OR opened_at <= ?6) "
            "ORDER BY opened_at DESC, id DESC LIMIT ?5",
            (place, name, open_only, prefix, limit, to_us(until) if until is not None else None),
        )
        return [self._db.record(Basin, row) for row in rows]

    def basins_of(self, ids: Collection[int]) -> list[Basin]:
        """Basins of these ids."""
        rows = self._db.rows(
            "SELECT * FROM basins WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(ids)),)
        )
        return [self._db.record(Basin, row) for row in rows]

    def basin_named(self, place: str, name: str) -> Basin | None:
        """The one last opened of that name."""
        rows = self._db.rows(
            "SELECT * FROM basins WHERE place = ? AND name = ? ORDER BY opened_at DESC, id DESC LIMIT 1", (place, name)
        )
        return self._db.record(Basin, rows[0]) if rows else None

    def extent(self, basin_id: int) -> tuple[datetime | None, int]:
        """When the last memory that was put into a basin is of, and how many lie in it."""
        rows = self._db.rows("SELECT at FROM memories WHERE basin_id = ? ORDER BY id DESC LIMIT 1", (basin_id,))
        count = self._db.rows("SELECT count(*) FROM memories WHERE basin_id = ?", (basin_id,))[0][0]
        return (from_us(rows[0]["at"]) if rows else None), count

    def update_basin(self, basin_id: int, **columns: Any) -> None:
        """Sets `name`, `closed_at`, `activation`, `habituation` or `activated_at`."""
        names = ", ".join(f"{name} = ?" for name in columns)
        values = [to_us(v) if isinstance(v, datetime) else v for v in columns.values()]
        self._db.write(f"UPDATE basins SET {names} WHERE id = ?", (*values, basin_id))

    def remove_basin(self, basin_id: int, *, into: int) -> None:
        """Dissolves a basin that has no memories any more; the activations on record are those of another now."""
        with self._db.transaction():
            self._db.write("UPDATE OR IGNORE basin_links SET basin_id = ? WHERE basin_id = ?", (into, basin_id))
            self._db.write("DELETE FROM basin_links WHERE basin_id = ?", (basin_id,))
            self._db.write("UPDATE retellings SET basin_id = ? WHERE basin_id = ?", (into, basin_id))
            self._db.write("DELETE FROM basins WHERE id = ?", (basin_id,))

    def co_activations(self, basin_ids: Sequence[int]) -> list[CoActivation]:
        """Of pairs that one of some basins is in."""
        ids = json.dumps(list(basin_ids))
        rows = self._db.rows(
            "SELECT * FROM co_activations WHERE a IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT * FROM co_activations WHERE b IN (SELECT value FROM json_each(?1)) "
            "ORDER BY weight DESC, a, b",
            (ids,),
        )
        return [self._db.record(CoActivation, row) for row in rows]

    def save_co_activation(self, pair: CoActivation) -> None:
        """Adds a pair, or replaces it."""
        self._db.write(
            "INSERT OR REPLACE INTO co_activations (a, b, weight, at) VALUES (?,?,?,?)",
            (pair.a, pair.b, pair.weight, to_us(pair.at)),
        )

    # -- notes and goals -------------------------------------------------------------------------------

    def add_note(self, text: str, at: datetime) -> int:
        """Keeps what a person told; returns the note's id."""
        return self._db.write("INSERT INTO notes (text, at) VALUES (?, ?)", (text, to_us(at)))

    def unread_notes(self) -> list[Note]:
        """Notes that no beat has taken up yet, oldest first."""
        rows = self._db.rows("SELECT * FROM notes WHERE read_in IS NULL ORDER BY id")
        return [self._db.record(Note, row) for row in rows]

    def mark_notes_read(self, note_ids: Sequence[int], beat: int) -> None:
        """A beat took these notes up."""
        with self._db.transaction():
            for note_id in note_ids:
                self._db.write("UPDATE notes SET read_in = ? WHERE id = ?", (beat, note_id))

    def add_goal(self, text: str, created_at: datetime, due_at: datetime | None) -> int:
        """Opens a goal; returns its id."""
        due = to_us(due_at) if due_at else None
        return self._db.write(
            "INSERT INTO goals (text, status, created_at, due_at, progress) VALUES (?, 'open', ?, ?, '[]')",
            (text, to_us(created_at), due),
        )

    def goal(self, goal_id: int) -> Goal | None:
        """The goal of that id."""
        rows = self._db.rows("SELECT * FROM goals WHERE id = ?", (goal_id,))
        return self._db.record(Goal, rows[0]) if rows else None

    def goals(self, *, status: str | None = None) -> list[Goal]:
        """Goals, the earliest due first, those without a date last."""
        rows = self._db.rows(
            "SELECT * FROM goals WHERE ?1 IS NULL OR status = ?1 ORDER BY due_at IS NULL, due_at, id",
            (status,),
        )
        return [self._db.record(Goal, row) for row in rows]

    def update_goal(self, goal: Goal) -> None:
        """Saves a goal's status and progress."""
        with self._db.transaction():
            self._db.write(
                "UPDATE goals SET status = ?, progress = ? WHERE id = ?",
                (goal.status, self._db.pack(list(goal.progress)), goal.id),
            )

    # -- mental models ---------------------------------------------------------------------------------

    def mental_models(self, *, place: str, kind: str | None = None) -> list[MentalModel]:
        """Beliefs about a place, oldest first."""
        rows = self._db.rows(
            "SELECT * FROM mental_models WHERE place = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY id",
            (place, kind),
        )
        return [self._db.record(MentalModel, row) for row in rows]

    def save_mental_model(self, model: MentalModel) -> None:
        """Adds a belief, or replaces the one with the same place, kind, subject and prediction."""
        with self._db.transaction():
            self._db.write(
                "DELETE FROM mental_models WHERE place = ? AND kind = ? AND subject = ? AND prediction = ?",
                (model.place, model.kind, model.subject, model.prediction),
            )
            self._db.insert("mental_models", model, leave_out=frozenset({"id"}))

    # -- beats -----------------------------------------------------------------------------------------

    def open_beat(self, place: str, started_at: datetime) -> int:
        """A beat begins; returns its number."""
        return self._db.write(
            "INSERT INTO beats (place, status, started_at, reasons, report) VALUES (?, 'running', ?, '[]', '')",
            (place, to_us(started_at)),
        )

    def update_beat(self, beat: Beat) -> None:
        """Saves a beat's state."""
        with self._db.transaction():
            self._db.write("DELETE FROM beats WHERE number = ?", (beat.number,))
            self._db.insert("beats", beat)

    def drop_snapshots(self, place: str, *, before: int) -> None:
        """Forgets what a folder looked like at earlier beats; the newest look is all that is compared."""
        self._db.write("UPDATE beats SET snapshot = NULL WHERE place = ? AND number < ?", (place, before))

    def last_beat(self, place: str, *, seen: bool = False, worked: bool = False) -> Beat | None:
        """The newest beat over a folder.

        Args:
            seen: Only one that was carried through, and whose snapshot is still kept.
            worked: Only one in which an agent worked to its end.
        """
        rows = self._db.rows(
            "SELECT * FROM beats WHERE place = ?1 AND (NOT ?2 OR (snapshot IS NOT NULL AND status = 'done')) "
            "AND (NOT ?3 OR status = 'done') ORDER BY number DESC LIMIT 1",
            (place, seen, worked),
        )
        return self._db.record(Beat, rows[0]) if rows else None

    def beats(self, *, status: str | None = None, limit: int = 20) -> list[Beat]:
        """Beats, newest first."""
        rows = self._db.rows(
            "SELECT * FROM beats WHERE ?1 IS NULL OR status = ?1 ORDER BY number DESC LIMIT ?2",
            (status, limit),
        )
        return [self._db.record(Beat, row) for row in rows]

    # -- coherence -------------------------------------------------------------------------------------

    def coherence_record(self, agent_name: str, family: str) -> CoherenceRecord | None:
        """The calibration of an agent's runs of a family of tasks."""
        rows = self._db.rows("SELECT * FROM coherence WHERE agent_name = ? AND family = ?", (agent_name, family))
        return self._db.record(CoherenceRecord, rows[0]) if rows else None

    def save_coherence_record(self, record: CoherenceRecord) -> None:
        """Keeps a calibration in the place of the one before."""
        with self._db.transaction():
            key = (record.agent_name, record.family)
            self._db.write("DELETE FROM coherence WHERE agent_name = ? AND family = ?", key)
            self._db.insert("coherence", record)
