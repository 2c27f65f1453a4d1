"""Signals: what each turn says, held against the turns before it."""

import math
import random
from dataclasses import replace

from hypothesis import given, settings

from coherence.made_runs import RECIPES, agent_run, call, odd_texts, odd_turns, seeing, turn
from dionysus.coherence import Turn
from dionysus.coherence.profile import PROFILE, WEIGHTS
from dionysus.coherence.signals import SIGNALS, Signals

SEEDS = range(8)


def measured(goal: str, turns: list[Turn]) -> list[dict[str, float]]:
    signals = Signals(goal)
    return [signals.measure(turn) for turn in turns]


def mean(name: str, rows: list[dict[str, float]]) -> float:
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)


@settings(max_examples=60)
@given(odd_texts, odd_turns)
def test_signals_are_finite_whatever_a_run_holds(goal: str, turns: list[Turn]) -> None:
    for found in measured(goal, turns):
        assert set(found) <= set(SIGNALS)
        assert all(math.isfinite(value) for value in found.values())


def test_every_signal_is_known_to_the_profile_and_used() -> None:
    assert set(SIGNALS) == set(PROFILE.usual)
    assert set(SIGNALS) == {name for weights in WEIGHTS.values() for name in weights}


def test_nothing_is_measured_before_there_is_something_to_compare_with() -> None:
    rows = measured(*agent_run(1, 5))
    assert rows[:3] == [{}, {}, {}]
    assert {"answers", "taken_up", "follows", "form"} <= set(rows[3])
    assert set(rows[4]) == set(SIGNALS)


def test_what_cannot_be_measured_is_left_out() -> None:
    rows = measured("find the bug", [call(i, "look", {"path": f"p{i}.py"}) for i in range(1, 9)])
    assert not any({"answers", "taken_up", "known_seen"} & set(row) for row in rows)
    assert "follows" in rows[-1]
    assert not any("known_said" in row for row in measured("", [turn(i, f"saw {i}0") for i in range(1, 9)]))


def test_a_turn_is_measured_by_the_turns_before_it_only() -> None:
    goal, turns = agent_run(2, 16)
    whole = measured(goal, turns)
    assert all(measured(goal, turns[:n]) == whole[:n] for n in range(len(turns)))


def test_own_observations_answer_better_than_permuted_ones() -> None:
    better = 0
    for seed in SEEDS:
        goal, turns = agent_run(seed)
        seen = [one.observation for one in turns]
        random.Random(seed).shuffle(seen)
        own, permuted = measured(goal, turns), measured(goal, seeing(turns, seen))
        better += mean("answers", own) < mean("answers", permuted)
        better += mean("form", own) < mean("form", permuted)
        better += mean("taken_up", own) < mean("taken_up", permuted)
    assert better >= 3 * len(SEEDS) - 2


def test_what_is_new_in_goal_and_run_is_a_surprise() -> None:
    goal, turns = agent_run(3, 16)
    strange = replace(turns[-1], thought=RECIPES[0], calls=(), observation=RECIPES[1])
    own, other = measured(goal, turns)[-1], measured(goal, [*turns[:-1], strange])[-1]
    assert other["known_seen"] > own["known_seen"]
    assert other["known_said"] > own["known_said"]
    known = replace(strange, thought=goal, observation=goal)
    assert measured(goal, [*turns[:-1], known])[-1]["known_said"] < own["known_said"]


def test_unknown_are_terms_of_neither_goal_nor_the_turns_before() -> None:
    signals = Signals("bake bread")
    for one in (turn(1, "flour"), turn(2, "salt"), turn(3, "yeast")):
        signals.measure(one)
    assert signals.unknown(["bread", "yeast", "flour", "sugar"], before=1) == ["yeast", "sugar"]
    assert signals.unknown(["yeast", "flour"], before=0) == ["yeast", "flour"]
    assert signals.unknown(["yeast", "bread"], before=3) == []


def test_an_unusual_kind_of_observation_is_a_surprise() -> None:
    goal, turns = agent_run(5, 20)
    unusual = replace(turns[-1], observation="{'a': [1, 2]}\n" * 300)
    assert measured(goal, [*turns[:-1], unusual])[-1]["form"] > measured(goal, turns)[-1]["form"]
