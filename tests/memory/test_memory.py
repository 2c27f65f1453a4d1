"""Recall, basins, goals, mental models."""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import START, Clock
from dionysus.errors import BadInput, NotFound
from dionysus.memory.basins import Basins, current_activation
from dionysus.memory.goals import Goals, reached, touched
from dionysus.memory.mental_models import CoChange, Happened, MentalModels
from dionysus.memory.semantic import SemanticMemory
from dionysus.stores import Store, open_store
from dionysus.stores.contract import Goal


@dataclass(frozen=True)
class Commit:
    sha: str
    at: float
    subject: str = ""
    files: tuple[str, ...] = field(default=())


@pytest.fixture
def basins(store: Store, clock: Clock) -> Basins:
    return Basins(store.mind, store.memories, clock=clock)


@pytest.fixture
def memory(store: Store, basins: Basins, clock: Clock) -> SemanticMemory:
    return SemanticMemory(store.memories, basins, clock=clock, hide=lambda text: text.replace("hunter22", "<secret>"))


# -- recall -------------------------------------------------------------------------------------------


def test_recall_finds_by_stems_and_says_where_from(memory: SemanticMemory) -> None:
    memory.remember("Token totals leave out the planning steps", kind="note", source="note 1")
    memory.remember("The bakery opens at eight", kind="note", source="note 2")
    hits = memory.recall("planned token total")
    assert [hit.memory.source for hit in hits] == ["note 1"]


def test_a_hit_needs_two_words_of_a_longer_query(memory: SemanticMemory) -> None:
    memory.remember("token of gratitude")
    assert memory.recall("token totals planning") == []
    assert len(memory.recall("token")) == 1


def test_filters_by_kind_place_and_source(memory: SemanticMemory) -> None:
    memory.remember("moon tides", kind="note", source="note 1")
    memory.remember("moon tides here", kind="fact", place="/a")
    memory.remember("moon tides there", kind="fact", place="/b", source="there")
    assert {h.memory.place for h in memory.recall("moon tides", place="/a")} == {"", "/a"}
    assert [h.memory.kind for h in memory.recall("moon tides", kinds=("note",))] == ["note"]
    assert "there" not in [h.memory.source for h in memory.recall("moon tides", without={"there"})]


def test_the_same_source_is_replaced_not_doubled(memory: SemanticMemory, store: Store) -> None:
    memory.remember("old words", source="s")
    memory.remember("new words", source="s")
    assert [m.text for m in store.memories.newest()] == ["new words"]
    assert memory.recall("old") == []


def test_secrets_do_not_enter_memory(memory: SemanticMemory, store: Store) -> None:
    memory.remember("the password is hunter22")
    assert store.memories.newest()[0].text == "the password is <secret>"
    memory.remember("again", actor="hunter22", session="of hunter22", tags=("hunter22",))
    kept = store.memories.newest()[0]
    assert (kept.actor, kept.tags) == ("<secret>", ("<secret>",))
    assert "hunter22" not in str(store.mind.basins())


@pytest.mark.parametrize("query", ['"', "a AND b", "NEAR(x y)", "terms:x", "x*", "'; DROP TABLE memories", "", "- ^ :"])
def test_any_query_is_only_words(memory: SemanticMemory, query: str) -> None:
    memory.remember("something else entirely")
    memory.recall(query)


def test_commits_are_learned_once_in_bursts(memory: SemanticMemory, store: Store) -> None:
    day = 86400.0
    commits = [Commit(f"{i:08x}", START.timestamp() + d * day, f"work {i}") for i, d in enumerate((0, 0.5, 1, 9, 9.5))]
    assert memory.learn_commits("/p", reversed(commits)) == 5
    assert memory.learn_commits("/p", commits) == 0
    names = {b.name for b in store.mind.basins(place="/p")}
    assert names == {"commits 2026-11-21 to 2026-11-22", "commits 2026-11-30"}


# -- basins -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 10 * 86400)), max_size=12))
def test_activation_stays_in_bounds_and_only_decays_by_itself(drives: list[tuple[float, float]]) -> None:
    clock = Clock()
    store = open_store("sqlite://")
    basins = Basins(store.mind, store.memories, clock=clock)
    basin = basins.opened("", "b")
    for strength, pause in drives:
        clock.now += timedelta(seconds=pause)
        before = basins.landscape()[0][1]
        after = basins.activate_basin(basin, strength).activation
        assert 0 <= after <= 1
        assert after >= before * 0.9999
        found = store.mind.basins()[0]
        levels = [current_activation(found, clock.now + timedelta(hours=h)) for h in range(6)]
        assert all(a >= b for a, b in pairwise(levels))
    store.close()


def test_repeated_drives_matter_less_until_rested(basins: Basins, clock: Clock, store: Store) -> None:
    basin = basins.opened("", "b")
    habituation = []
    for _ in range(3):
        basins.activate_basin(basin, 1.0)
        habituation.append(store.mind.basins()[0].habituation)
    assert habituation[0] > habituation[1] > habituation[2]
    clock.now += timedelta(days=30)
    basins.activate_basin(basin, 1.0)
    assert store.mind.basins()[0].habituation > habituation[1]


def test_wrong_activations_are_refused(basins: Basins) -> None:
    with pytest.raises(NotFound, match="no basin 7"):
        basins.activate_basin(7, 1.0)
    with pytest.raises(BadInput, match="nan"):
        basins.activate_basin(basins.opened("", "b"), float("nan"))


# -- goals --------------------------------------------------------------------------------------------


def goal(text: str) -> Goal:
    return Goal(id=1, text=text, status="open", created_at=START)


def test_a_goal_is_touched_by_two_shared_words() -> None:
    wording = {"src/monitoring.py": "planning steps count too", "src/other.py": "nothing alike", "x": "planning"}
    touch = touched(goal("Monitor reports token totals that include planning"), wording)
    assert touch is not None
    assert touch.by == "src/monitoring.py"
    assert set(touch.words) == {"monitor", "planning"}
    assert touched(goal("Bake bread"), wording) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Closes goal 3: all counted", {3}),
        ("goal #4 is done", {4}),
        ("this finishes goal 12 and goal 5 is reached", {12, 5}),
        ("work on goal 3", set()),
        ("goals 3 and 4", set()),
    ],
)
def test_a_goal_is_reached_where_a_text_says_so(text: str, numbers: set[int]) -> None:
    assert set(reached({"commit 1": text})) == numbers


def test_goals_are_listed_by_date_and_closed(store: Store, clock: Clock) -> None:
    goals = Goals(store.mind, clock=clock, hide=str)
    late = goals.add("later", due_at=START + timedelta(days=9))
    none = goals.add("some day")
    soon = goals.add("soon", due_at=START + timedelta(days=1))
    assert [g.id for g in goals.listed()] == [soon.id, late.id, none.id]
    assert [g.id for g in goals.due(START)] == [soon.id]
    goals.update(soon.id, progress="half", status="done")
    assert [g.id for g in goals.listed()] == [late.id, none.id]
    assert goals.get(soon.id).progress == ("half",)
    with pytest.raises(NotFound, match="dionysus goals"):
        goals.get(99)
    with pytest.raises(NotFound):
        goals.get(10**30)
    with pytest.raises(BadInput, match=r"text"):
        goals.add("  ")


# -- mental models ------------------------------------------------------------------------------------


def history(*file_sets: tuple[str, ...]) -> list[Commit]:
    """Newest first, a day apart, the newest at START."""
    count = len(file_sets)
    return [Commit(f"{count - i:08x}", START.timestamp() - i * 86400, "", files) for i, files in enumerate(file_sets)]


TOGETHER = ("a.py", "b.py")


def test_paths_that_moved_together_are_expected_to() -> None:
    rules = CoChange.of(history(*[TOGETHER] * 10))
    assert list(rules.expected("a.py")) == [("b.py", 10, 10)]
    assert rules.failed == 0
    assert rules.held > 0


def test_only_the_last_ten_count() -> None:
    rules = CoChange.of(history(*[("a.py",)] * 4, *[TOGETHER] * 30))
    assert list(rules.expected("a.py")) == []


def test_a_test_does_not_call_for_its_source() -> None:
    rules = CoChange.of(history(*[("src/a.py", "tests/test_a.py")] * 10))
    assert [other for other, _, _ in rules.expected("src/a.py")] == ["tests/test_a.py"]
    assert list(rules.expected("tests/test_a.py")) == []


def test_judgement_of_commits_and_of_the_working_tree(store: Store) -> None:
    models = MentalModels(store.mind, "/p")
    new = Commit("ffffffff", START.timestamp() + 1, "", ("a.py",))
    old = history(*[TOGETHER] * 10)
    happened = Happened(
        first=False,
        now=START.timestamp() + 10,
        history=[new, *old],
        new_commits=[new],
        changed={"b.py"},
        files={"a.py", "b.py"},
    )
    kinds = [(f.kind, f.identifiers) for f in models.revise(happened)]
    assert ("failed", ["a.py", "b.py"]) in kinds
    assert ("missing", ["b.py", "a.py"]) in kinds
    assert store.mind.mental_models(place="/p", kind="together") == []
    models.settle()
    (kept,) = store.mind.mental_models(place="/p", kind="together")
    assert (kept.subject, kept.prediction, kept.held, kept.failed) == ("a.py", "b.py", 10, 1)
    assert "(10 of 11 times)" in str(models.about("a.py")[0])


def test_a_date_is_predicted_and_judged(store: Store) -> None:
    models = MentalModels(store.mind, "/p")
    old = history(*[("x.py",)] * 12)
    first = models.revise(Happened(first=True, now=START.timestamp() + 60, history=old, files={"x.py"}))
    assert any(f.kind == "expect" and "the next commit by" in f.text for f in first)
    models.settle()
    later = START.timestamp() + 30 * 86400
    found = models.revise(Happened(first=False, now=later, history=old, files={"x.py"}))
    assert [f.kind for f in found] == ["failed"]
    models.settle()
    again = models.revise(Happened(first=False, now=later, history=old, files={"x.py"}))
    assert [f.kind for f in again] == ["nothing"]


def test_a_quiet_place_is_noticed(store: Store) -> None:
    old = history(*[("x.py",)] * 12)
    found = MentalModels(store.mind, "/p").revise(
        Happened(first=True, now=START.timestamp() + 90 * 86400, history=old, files={"x.py"})
    )
    assert [f.text for f in found if f.kind == "quiet"] == [
        "no commit for 90 d, though 90 % of the gaps before were under 1 d"
    ]
