"""Basins: wiring, merging, splitting, telling words, the landscape, and cues that settle."""

import xml.etree.ElementTree as ET
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Clock
from dionysus.errors import BadInput, NotFound
from dionysus.memory.basins import CO_DECAY_S, Basins
from dionysus.memory.hopfield import settle
from dionysus.memory.landscape import Landscape, picture
from dionysus.memory.semantic import SemanticMemory, Told
from dionysus.stores import Store


@pytest.fixture
def basins(store: Store, clock: Clock) -> Basins:
    return Basins(store.mind, store.memories, clock=clock)


@pytest.fixture
def memory(store: Store, basins: Basins, clock: Clock) -> SemanticMemory:
    return SemanticMemory(store.memories, basins, clock=clock, hide=str)


@pytest.fixture
def landscape(store: Store, basins: Basins, clock: Clock) -> Landscape:
    return Landscape(store.mind, store.memories, basins, clock=clock)


def tell(memory: SemanticMemory, session: str, *texts: str) -> list[int]:
    return memory.remember_all([Told(text=text, session=session, actor="Ann") for text in texts])


def test_what_is_active_together_is_wired_and_unwires_with_time(basins: Basins, clock: Clock) -> None:
    sea, kitchen, attic = (basins.opened("", name) for name in ("sea", "kitchen", "attic"))
    basins.activate_for([(sea, 2.0), (kitchen, 1.5)])
    first = dict(basins.associates(sea))
    assert set(first) == {kitchen}
    assert basins.associates(attic) == []
    basins.activate_for([(sea, 2.0), (kitchen, 1.5)])
    assert first[kitchen] < dict(basins.associates(sea))[kitchen] < 1
    assert [n for n, _ in basins.associates(kitchen)] == [sea]
    before = dict(basins.associates(sea))[kitchen]
    clock.now += timedelta(seconds=CO_DECAY_S)
    assert dict(basins.associates(sea))[kitchen] == pytest.approx(before / np.e, rel=1e-4)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.001, 50)), min_size=1, max_size=30))
def test_wiring_stays_below_one(drives: list[tuple[int, float]]) -> None:
    from dionysus.stores import open_store

    store = open_store("sqlite://")
    basins = Basins(store.mind, store.memories, clock=Clock())
    ids = [basins.opened("", str(n)) for n in range(6)]
    basins.activate_for([(ids[n], drive) for n, drive in drives])
    basins.activate_for([(ids[n], drive) for n, drive in drives])
    assert all(0 <= weight < 1 for one in ids for _, weight in basins.associates(one))
    store.close()


def test_merging_moves_memories_wires_and_what_is_on_record(
    basins: Basins, memory: SemanticMemory, store: Store
) -> None:
    one = tell(memory, "first", "the tide rises", "the boat leaves")
    two = tell(memory, "second", "the harbour sleeps", "the lamp burns")
    third = basins.opened("", "third")
    first, second = (store.memories.get([n])[0].basin_id or 0 for n in (one[0], two[0]))
    basins.activate_for([(second, 1.0), (third, 1.0)])
    basins.merge(first, second)
    lying = sorted(store.memories.of_basin(first), key=lambda m: m.turn or 0)
    assert [m.id for m in lying] == [*one, *two]
    assert [m.turn for m in lying] == [0, 1, 2, 3]
    assert [n for n, _ in basins.associates(first)] == [third]
    with pytest.raises(NotFound, match="dionysus basins"):
        basins.get(second)
    with pytest.raises(BadInput, match="cannot be one"):
        basins.merge(first, first)


def test_splitting_ends_an_episode_where_it_is_told_to(basins: Basins, memory: SemanticMemory, store: Store) -> None:
    ids = tell(memory, "talk", "the tide rises", "the boat leaves", "now to the bread", "salt and time")
    basin = store.memories.get([ids[0]])[0].basin_id or 0
    new = basins.split(basin, ids[2])
    assert [(m.basin_id, m.turn) for m in store.memories.get(ids)] == [(basin, 0), (basin, 1), (new.id, 0), (new.id, 1)]
    assert ids[1] not in [hit.memory.id for hit in memory.recall("bread")]  # what is another episode lends nothing
    for wrong in (ids[0], ids[3] + 1):
        with pytest.raises(BadInput, match="first one"):
            basins.split(basin, wrong)


def test_a_basin_is_told_by_what_is_frequent_in_it_and_rare_elsewhere(
    memory: SemanticMemory, landscape: Landscape
) -> None:
    tell(memory, "sea", "the boat waits for the tide", "the tide was late", "the boat has a leak")
    tell(memory, "oven", "the bread waits for salt", "the salt was late", "the bread has a crust")
    words = {one.basin.name: set(one.words[:2]) for one in landscape.lie()}
    assert words == {"sea": {"boat", "tide"}, "oven": {"bread", "salt"}}


def test_the_landscape_is_sorted_by_activation_and_can_be_drawn(
    memory: SemanticMemory, basins: Basins, landscape: Landscape
) -> None:
    tell(memory, "sea & <sky>", "the boat waits for the tide")
    oven = memory.remember("the bread waits for salt")
    basins.activate_basin(landscape.lie()[-1].basin.id, 1.0)
    lies = landscape.lie()
    assert [round(one.activation, 2) for one in lies] == [0.63, 0.0]
    assert [one.memories for one in lies] == [1, 1]
    drawn = picture(lies)
    shown = ["".join(text.itertext()) for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert "sea & <sky>" in shown
    assert "0.63" in shown
    assert oven


def test_a_part_of_an_episode_brings_back_the_whole(memory: SemanticMemory, landscape: Landscape) -> None:
    tell(memory, "sea", "the boat waits for the tide", "the tide was late", "the lighthouse keeper waves")
    tell(memory, "oven", "the bread waits for salt", "the salt was late", "the baker sleeps")
    found = landscape.complete("keeper late tide")
    assert found is not None
    assert found.basin.name == "sea"
    assert 0.5 < found.share <= 1
    assert landscape.complete("submarine") is None
    with pytest.raises(BadInput, match="no word to go by"):
        landscape.complete("the and of")


vectors = st.integers(1, 5).flatmap(
    lambda d: st.tuples(
        st.lists(st.lists(st.floats(-3, 3), min_size=d, max_size=d), min_size=1, max_size=6),
        st.lists(st.floats(-3, 3), min_size=d, max_size=d),
        st.floats(0.05, 20),
    )
)


@given(vectors)
def test_the_energy_of_a_state_never_rises(drawn: tuple[list[list[float]], list[float], float]) -> None:
    patterns, state, beta = drawn
    settled = settle(np.array(patterns), np.array(state), beta=beta)
    for before, after in zip(settled.energies, settled.energies[1:], strict=False):
        assert after <= before + 1e-9 * max(1.0, abs(before))
    assert settled.weights.sum() == pytest.approx(1)


@given(st.integers(2, 8), st.integers(0, 1000), st.floats(0, 0.3))
def test_a_disturbed_pattern_settles_at_itself(count: int, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    patterns = np.linalg.qr(rng.standard_normal((16, 16)))[0][:count]
    disturbed = patterns[0] + noise * rng.standard_normal(16) / 4
    settled = settle(patterns, disturbed, beta=32.0)
    assert int(settled.weights.argmax()) == 0
    assert np.allclose(settled.state, patterns[0], atol=1e-3)


@pytest.mark.parametrize(
    ("patterns", "state", "beta"),
    [
        (np.zeros((0, 2)), np.zeros(2), 1.0),
        (np.zeros((1, 2)), np.zeros(3), 1.0),
        (np.array([[np.nan, 0.0]]), np.zeros(2), 1.0),
        (np.ones((1, 2)), np.array([np.inf, 0.0]), 1.0),
        (np.ones((1, 2)), np.ones(2), 0.0),
        (np.ones((1, 2)), np.ones(2), float("nan")),
    ],
)
def test_what_cannot_settle_is_said(patterns: np.ndarray, state: np.ndarray, beta: float) -> None:
    with pytest.raises(BadInput):
        settle(patterns, state, beta=beta)
