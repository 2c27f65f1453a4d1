"""Coherence: bounds, what lowers it, what does not."""

from hypothesis import given
from hypothesis import strategies as st

from dionysus.coherence import Turn, assess_coherence


def turn(step: int, action: str, observation: str = "", *, thought: str = "", failed: bool = False) -> Turn:
    return Turn(step=step, thought=thought, action=action, observation=observation, failed=failed)


CLEAN = [
    turn(1, "list_files src", "monitoring.py agents.py"),
    turn(2, "read monitoring.py", "class Monitor counts tokens of each step"),
    turn(3, "search tokens step", "update adds step tokens to the total"),
    turn(4, "edit update total tokens", "update now adds planning tokens"),
    turn(5, "test update planning tokens", "all tests of update planning pass"),
    turn(6, "final_answer planning tokens are counted", ""),
]


def test_nothing_is_measured_before_the_first_action() -> None:
    assert assess_coherence("goal", []) is None


def test_a_clean_run_is_not_warned_about() -> None:
    found = assess_coherence("count planning tokens in monitoring", CLEAN)
    assert found is not None
    assert found.level > 0.6
    assert set(found.components) == {"autonomy", "errors", "spatial", "temporal", "causal"}


def test_a_loop_is_named_with_its_steps() -> None:
    looping = [turn(n, "search tokens", "the same") for n in range(1, 7)]
    found = assess_coherence("count tokens", looping)
    assert found is not None
    assert found.level < 0.5
    assert found.reason == "steps 2, 3, 4, 5, 6 repeat what was just done, to the letter"


def test_a_loop_is_noticed_late_in_a_long_run_and_forgotten_when_it_ends() -> None:
    long = [turn(n, f"look at file_{n}", f"file_{n} holds word_{n}") for n in range(1, 25)]
    pattern = [turn(25 + i, f"try {'ab'[i % 2]}", "no") for i in range(8)]
    looping, over = assess_coherence("g", long + pattern), assess_coherence("g", [*long, *pattern, turn(33, "stop")])
    assert looping is not None
    assert over is not None
    assert looping.components["autonomy"] < 0.5
    assert looping.reason.startswith("steps 27, 28,")
    assert over.components["autonomy"] == 1


def test_a_call_made_again_later_is_no_loop() -> None:
    found = assess_coherence("g", [turn(n, "list" if n in (1, 9) else f"read {n}", f"text {n}") for n in range(1, 10)])
    assert found is not None
    assert found.components["autonomy"] == 1


def test_errors_are_named_and_fade_with_time() -> None:
    late = [*CLEAN[:5], turn(6, "run x", "failed", failed=True)]
    early = [turn(1, "run x", "failed", failed=True), *CLEAN[1:]]
    for_late, for_early = assess_coherence("g", late), assess_coherence("g", early)
    assert for_late is not None
    assert for_early is not None
    assert for_late.components["errors"] < for_early.components["errors"] < 1
    everything = assess_coherence("g", [turn(n, f"run {n}", "no", failed=True) for n in range(1, 4)])
    assert everything is not None
    assert everything.level == 0
    assert everything.reason == "steps 1, 2, 3 failed"


def test_observations_that_do_not_belong_lower_the_causal_part() -> None:
    swapped = [
        turn(t.step, t.action, CLEAN[(i + 3) % 5].observation, thought=t.thought) for i, t in enumerate(CLEAN[:5])
    ]
    own, foreign = assess_coherence("g", CLEAN[:5]), assess_coherence("g", swapped)
    assert own is not None
    assert foreign is not None
    assert foreign.components["causal"] < own.components["causal"]


texts = st.text(alphabet="abc déf_1\n", max_size=30)
turns = st.builds(Turn, step=st.integers(1, 99), thought=texts, action=texts, observation=texts, failed=st.booleans())


@given(st.text(max_size=30), st.lists(turns, min_size=1, max_size=40))
def test_all_scores_are_in_bounds_and_the_same_each_time(goal: str, run: list[Turn]) -> None:
    found = assess_coherence(goal, run)
    assert found is not None
    assert 0 <= found.level <= 1
    assert all(0 <= score <= 1 for score in found.components.values())
    assert found == assess_coherence(goal, run)
