"""A memory that recalls: who said it, when, beside what; and the episodes it lies in."""

from datetime import UTC, datetime, timedelta

from dionysus import Runtime
from dionysus.memory.semantic import Told
from dionysus.stores.contract import Filter

monday = datetime(2026, 5, 4, 9, tzinfo=UTC)
talk = [
    ("Ann", "Has the new ferry arrived?"),
    ("Ben", "Yes, on Saturday, but its engine is broken."),
    ("Ann", "Then I take the night train."),
]

with Runtime("sqlite://") as runtime:
    runtime.remember_all(
        [
            Told(text=text, actor=actor, at=monday + timedelta(minutes=n), session="monday", kind="turn")
            for n, (actor, text) in enumerate(talk)
        ]
    )
    runtime.remember("The harbour café closes at six.", tags=("harbour",))

    for query in ("What did Ben say about the boat's engine?", "How does Ann travel?"):
        best = runtime.memory.recall(query, limit=1)[0]
        print(f"{query}\n  {best.memory.actor}: {best.memory.text}  {dict(best.why)}")

    tagged = runtime.memory.recall("when does it close", wanted=Filter(tags=("harbour",)))
    print([hit.memory.text for hit in tagged])

    hits = runtime.memory.recall("ferry engine")
    runtime.basins.activate_for([(hit.memory.basin_id or 0, hit.score) for hit in hits])
    for one in runtime.landscape.lie():
        print(f"{one.activation:.2f}  {one.basin.name}  {', '.join(one.words)}")
