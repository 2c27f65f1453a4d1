"""Calibration: an agent's threshold, habits and profile from its clean runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherence.made_runs import COMPONENTS, agent_run, call, turn
from dionysus.coherence import DEFAULT, WARNING_BELOW, Monitor, Turn, assess_coherence, calibrated, strains_of
from dionysus.coherence.calibration import (
    FALSE_WARNINGS,
    FOR_THRESHOLD,
    LEAST_RUNS,
    Learned,
    quantile,
    threshold_of,
)
from dionysus.coherence.profile import PROFILE, WEIGHTS, Calibration

RUNS = 70
Transcript = tuple[str, list[Turn]]


@pytest.fixture(scope="module")
def runs() -> list[Transcript]:
    return [agent_run(seed, 6 + seed % 7) for seed in range(RUNS)]


@pytest.fixture(scope="module")
def known(runs: list[Transcript]) -> Learned:
    return learned(runs)


def learned(runs: Sequence[Transcript]) -> Learned:
    found = calibrated([strains_of(goal, turns) for goal, turns in runs])
    assert found is not None
    return found


def lowest(run: Transcript, calibration: Calibration = DEFAULT) -> float:
    found = assess_coherence(*run, calibration)
    assert found is not None
    return found.lowest


def test_too_few_runs_tell_nothing(runs: list[Transcript]) -> None:
    strains = [strains_of(goal, turns) for goal, turns in runs[: LEAST_RUNS - 1]]
    assert calibrated([]) is None
    assert calibrated(strains) is None
    assert calibrated([*strains, strains[0]]) is not None


def test_the_strains_of_a_run_are_the_largest_of_each_detector(runs: list[Transcript]) -> None:
    for goal, turns in runs[:10]:
        strains = strains_of(goal, turns)
        assert set(strains) == set(PROFILE.bounds)
        assert lowest((goal, turns)) == round(2 ** -max(strains.values()), 4)
    assert set(strains_of("goal", []).values()) == {0.0}


def test_the_threshold_is_what_the_newer_runs_hardly_exceed(runs: list[Transcript], known: Learned) -> None:
    newer = runs[min(RUNS // 5, RUNS - FOR_THRESHOLD) :]
    calibration = known.calibration
    strains = []
    for goal, turns in newer:
        monitor = Monitor(goal, calibration)
        for one in turns:
            monitor.take(one)
        strains.append(monitor.worst)
    rank = math.ceil((len(newer) + 1) * (1 - FALSE_WARNINGS))
    assert calibration.threshold >= sorted(strains)[rank - 1] * (1 - 1e-9)
    assert sum(lowest(run, calibration) < WARNING_BELOW for run in newer) <= FALSE_WARNINGS * len(newer)
    assert calibration.runs == RUNS
    assert known.set_by in COMPONENTS


def test_what_is_learned_is_bounded_and_positive(known: Learned) -> None:
    calibration = known.calibration
    assert calibration.threshold >= 0.5
    assert set(calibration.bounds) <= set(PROFILE.bounds) - set(WEIGHTS)
    assert all(bound > PROFILE.bounds[name] for name, bound in calibration.bounds.items())


def test_the_same_runs_give_the_same_calibration(runs: list[Transcript], known: Learned) -> None:
    again = [(goal, [replace(one) for one in turns]) for goal, turns in runs]
    assert learned(again) == known


def test_the_threshold_is_never_below_half_of_the_default() -> None:
    quiet = dict.fromkeys(PROFILE.bounds, 0.0)
    found = calibrated([quiet] * LEAST_RUNS)
    assert found is not None
    assert found.calibration == Calibration(threshold=0.5, runs=LEAST_RUNS)


def test_a_habit_of_a_few_runs_only_is_none() -> None:
    """Of a fifth of 200 runs, two loop: that is no habit, and the threshold of the newer ones is not theirs."""
    quiet = dict.fromkeys(PROFILE.bounds, 0.0)
    found = calibrated([{**quiet, "loops": 9.0}] * 2 + [{**quiet, "causal": 0.8}] * 198)
    assert found is not None
    assert (found.calibration.bounds, found.calibration.threshold, found.set_by) == ({}, 0.8, "causal")


def test_a_habit_lifts_the_bound_of_its_own_detector_only() -> None:
    quiet = dict.fromkeys(PROFILE.bounds, 0.1)
    found = calibrated([{**quiet, "stuck": 3.0, "causal": 3.0}] * 100)
    assert found is not None
    assert found.calibration.bounds == {"stuck": pytest.approx(3 * PROFILE.bounds["stuck"])}
    assert (found.calibration.threshold, found.set_by) == (3.0, "causal")


def polling(run: int, times: int = 10) -> Transcript:
    """An agent that starts a job, and asks for its state until it is done."""
    goal = f"Train model number {run} and report its accuracy."
    start = call(1, "start", {"job": f"train-{run}"}, f"started job train-{run}", "I start the training.")
    waits = [call(2 + i, "status", {"job": f"train-{run}"}, "running", "I wait for it.") for i in range(times)]
    end = call(2 + times, "report", {"job": f"train-{run}"}, f"accuracy 0.{run + 10}", "It is done: I report.")
    return goal, [start, *waits, end]


def test_an_agent_that_always_waits_is_not_warned_about_once_it_is_known() -> None:
    assert lowest(polling(99)) < WARNING_BELOW
    calibration = learned([polling(n) for n in range(LEAST_RUNS)]).calibration
    assert lowest(polling(99), calibration) >= WARNING_BELOW
    assert lowest(polling(99, times=30), calibration) < WARNING_BELOW


def identical(run: int) -> Transcript:
    return "goal", [call(i + 1, "look", {"path": "a.py"}, "the same", "I look.") for i in range(7)]


def failing(run: int) -> Transcript:
    return f"goal {run}", [
        Turn(step=i + 1, calls=(("look", {"n": i * 7919 + run}),), observation=f"x{i * run}", failed=True)
        for i in range(7)
    ]


def blind(run: int) -> Transcript:
    return f"goal {run}", [call(i + 1, "look", {"path": f"file{i * run}.py"}) for i in range(7)]


def empty(run: int) -> Transcript:
    return "", [turn(i + 1) for i in range(7)]


def flat_out(run: int) -> Transcript:
    return "", [turn(1, "Error: " * 500, thought="\ud800", calls=(("\udc00", b"x"),)) for _ in range(7)]


@pytest.mark.parametrize("made", [identical, failing, blind, empty, flat_out])
def test_runs_that_are_all_alike_can_be_learned_from(made: Callable[[int], Transcript]) -> None:
    found = learned([made(n) for n in range(LEAST_RUNS)])
    calibration = found.calibration
    assert math.isfinite(calibration.threshold)
    assert calibration.threshold >= 0.5
    assert found.set_by in COMPONENTS
    assert lowest(made(LEAST_RUNS + 1), calibration) >= WARNING_BELOW
    for goal, turns in (agent_run(1, 8), made(3)):
        again = assess_coherence(goal, turns, calibration)
        assert again is not None
        assert all(0 <= score <= 1 for score in again.components.values())


@pytest.mark.parametrize("count", [0, 1, FOR_THRESHOLD - 1])
def test_no_threshold_holds_with_too_few_runs(count: int) -> None:
    with pytest.raises(ValueError, match="too few"):
        threshold_of([1.0] * count)


@given(st.lists(st.floats(0, 100), min_size=FOR_THRESHOLD, max_size=300))
def test_a_threshold_is_the_conformal_rank_or_the_least(strains: Sequence[float]) -> None:
    found = threshold_of(strains)
    rank = math.ceil((len(strains) + 1) * (1 - Fraction(2, 100)))
    assert found == max(0.5, sorted(strains)[rank - 1])
    assert sum(strain > found for strain in strains) <= 0.02 * len(strains)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=250), st.sampled_from([0.01, 0.02, 0.1]))
def test_a_quantile_is_one_of_the_values_and_few_exceed_it(values: Sequence[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value > found for value in values) <= share * len(values)
    assert quantile(sorted(values), share) == found
