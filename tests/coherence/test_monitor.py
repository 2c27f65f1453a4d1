"""The monitor: levels, reasons and advice, at the same cost for each turn."""

import json
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings

from coherence.made_runs import (
    RECIPES,
    ROOT,
    agent_run,
    call,
    is_sound,
    odd_texts,
    odd_turns,
    seeing,
    turn,
    varied,
)
from dionysus.coherence import DEFAULT, WARNING_BELOW, Calibration, Coherence, Monitor, Turn, assess_coherence
from dionysus.coherence.monitor import _steps

SEEDS = range(8)
ALL = f"Write down what went wrong, whatever was unexpected: {'; '.join(RECIPES)}."
GOAL = "Find out why the tests of the parser fail, and mend it."


def assessed(turns: Sequence[Turn], goal: str = GOAL, calibration: Calibration = DEFAULT) -> Coherence:
    return is_sound(assess_coherence(goal, turns, calibration), turns)


def working(count: int, first: int = 1) -> list[Turn]:
    """Turns that differ, and in which nothing is wrong."""
    turns = agent_run(1, count + first - 1)[1][first - 1 :]
    return [replace(one, step=first + i) for i, one in enumerate(turns)]


def on(turns: list[Turn], more: Sequence[Turn]) -> list[Turn]:
    """Turns after others, with the steps that follow."""
    return [*turns, *(replace(one, step=len(turns) + 1 + i) for i, one in enumerate(more))]


def test_before_the_first_turn_there_is_nothing_to_say() -> None:
    assert assess_coherence("goal", []) is None
    assert Monitor("").assess() is None


@settings(max_examples=100)
@given(odd_texts, odd_turns)
def test_scores_lie_between_0_and_1_whatever_a_run_holds(goal: str, turns: list[Turn]) -> None:
    assessed(turns, goal)
    assessed(turns, goal, Calibration(threshold=0.5))


@settings(max_examples=40)
@given(odd_texts, odd_turns)
def test_a_monitor_says_of_each_beginning_what_a_new_one_says(goal: str, turns: list[Turn]) -> None:
    monitor = Monitor(goal)
    for n, one in enumerate(turns):
        monitor.take(one)
        assert monitor.assess() == assess_coherence(goal, turns[: n + 1])


def test_a_monitor_says_of_a_real_run_what_a_new_one_says() -> None:
    goal, turns = agent_run(7)
    monitor = Monitor(goal)
    for n, one in enumerate(turns):
        monitor.take(one)
        first = monitor.assess()
        assert first == monitor.assess() == assess_coherence(goal, [replace(t) for t in turns[: n + 1]])


def test_the_lowest_level_and_the_trend_are_those_of_the_turns_before() -> None:
    turns = on(on(working(6), [call(0, "look", "x")] * 3), working(6, 7))
    levels = [assessed(turns[: n + 1]) for n in range(len(turns))]
    for n, found in enumerate(levels):
        assert found.lowest == min(one.level for one in levels[: n + 1])
        assert found.trend == pytest.approx(found.level - levels[max(0, n - 3)].level, abs=2e-4)


DEGENERATE: dict[str, Callable[[int], Turn]] = {
    "nothing at all": turn,
    "no observations": lambda n: call(n, "look", {"path": f"file{n * 7919}.py"}),
    "no calls": lambda n: turn(n, thought=f"I think about number {n * 7919}."),
    "only errors": lambda n: call(n, "look", {"n": n * 7919}, f"Error: {n * 31}"),
    "failed silently": lambda n: turn(n, calls=(("look", {"n": n}),), failed=True),
    "identical": lambda n: call(n, "look", {"path": "a.py"}, "the same", "I look."),
    "one step number": lambda n: call(1, "look", {"path": "a.py"}, "the same"),
    "falling step numbers": lambda n: call(100 - n, "look", {"path": "a.py"}, "the same"),
    "bytes": lambda n: call(n, "look", bytes([n % 256]), "\x00" * n),
    "many calls": lambda n: turn(n, "x", calls=tuple(("look", {"i": i * n}) for i in range(30))),
    "another script": lambda n: call(n, "見る", {"道": "漢字" * n}, "かな" * n, "思う"),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_runs_have_sound_scores(name: str) -> None:
    for count in (1, 2, 3, 4, 5, 6, 9, 40):
        turns = [DEGENERATE[name](n) for n in range(1, count + 1)]
        assessed(turns)
        assessed(turns, "")


def test_short_runs_say_little() -> None:
    _, turns = agent_run(3)
    sure = [assessed(turns[: n + 1]).confidence for n in range(len(turns))]
    assert sure == sorted(sure)
    assert sure[0] < 0.1
    assert sure[3] < 0.4
    assert 0.7 < sure[-1] < 1
    assert assessed(turns[:2]).in_words == "steady, confidence low"
    assert assessed([turn(1)]).components == {"autonomy": 1.0, "errors": 1.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_works_is_not_warned_about(seed: int) -> None:
    goal, turns = agent_run(seed)
    found = assessed(turns, goal)
    assert found.lowest >= WARNING_BELOW or found.cause == "integration"  # it does wander, from name to name
    assert set(found.components) == {"autonomy", "errors", "causal", "temporal", "spatial", "integration"}


# Loops


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_loops_are_noticed_named_and_left(lag: int) -> None:
    pattern = [call(0, f"tool_{i}", {"path": f"{'abcd'[i] * 9}.py"}, f"saw {i}", f"think {i}") for i in range(lag)]
    before = working(6)
    turns = on(before, pattern * 3)
    found = assessed(turns)
    assert found.level == found.components["autonomy"] < WARNING_BELOW
    assert (found.cause, found.since) == ("autonomy", 7)
    assert found.reason.startswith(f"steps 7–{6 + 3 * lag} call tool_0 aaaaaaaaa.py")
    assert found.reason.endswith(", the same each time")
    assert (
        found.advice == f"do not call {', '.join(f'tool_{i}' for i in range(lag))} like that again; try something else"
    )
    after = assessed(on(turns, working(1, 20)))
    assert after.components["autonomy"] == 1.0
    assert after.lowest <= found.level
    assert after.trend > 0 or after.level >= found.level


def test_a_pattern_of_five_is_no_loop() -> None:
    pattern = [call(0, f"tool_{i}", {"path": str(i) * 9}, f"saw {i}") for i in range(5)]
    assert assessed(on([], pattern * 3)).components["autonomy"] == 1.0


def repeated(**changed: Any) -> float:
    """Autonomy where a call is made, and once more with something changed."""
    one = call(1, "read", {"path": "src/a.py", "line": 1}, "the observation", "I read it.")
    return assessed([one, replace(one, step=2, **changed)]).components["autonomy"]


def test_a_repetition_with_another_thought_or_observation_counts_half() -> None:
    exactly = repeated()
    assert exactly < WARNING_BELOW < repeated(thought="Once more.")
    assert repeated(thought="Once more.") == pytest.approx(exactly**0.5, abs=1e-3)
    assert repeated(observation="another one") == repeated(thought="Once more.")
    both = repeated(thought="Once more.", observation="another one")
    assert both == pytest.approx(exactly**0.25, abs=1e-3)


def test_order_of_arguments_and_white_space_do_not_hide_a_repetition() -> None:
    assert repeated(calls=(("read", {"line": 1, "path": " src/a.py\n"}),)) == repeated()
    assert repeated(calls=(("read", '{"line": 1, "path": "src/a.py"}'),)) == repeated()
    assert repeated(calls=(("read", {"line": 300, "path": "src/a.py"}),)) > 0.9


def test_near_repetitions_count_where_they_saw_the_same() -> None:
    long = "please search the whole of the repository for uses of the parser, try number "
    turns = [call(n, "search", {"query": f"{long}{n}"}, "nothing found", "I search.") for n in range(1, 5)]
    found = assessed(turns)
    assert found.level < WARNING_BELOW
    assert found.reason.endswith("nearly the same each time")
    others = [replace(one, observation=f"found {n * 7919} files") for n, one in enumerate(turns)]
    assert assessed(others).components["autonomy"] == 1.0


def test_times_do_not_hide_a_repetition() -> None:
    assert repeated(observation="the observation") == repeated()
    turns = [call(n, "run", "pytest", f"3 failed in 0.{n}s", "I run it.") for n in range(1, 4)]
    assert assessed(turns).level < WARNING_BELOW


# Stuck, and errors


def test_different_calls_that_see_the_same_are_stuck() -> None:
    turns = on(working(6), [call(0, f"tool{n}", {"q": RECIPES[n % 8][n // 8 :]}, "no result") for n in range(10)])
    found = assessed(turns)
    assert found.components["autonomy"] < WARNING_BELOW
    assert (found.cause, found.since) == ("autonomy", 7)
    assert found.reason == "steps 7–16 did different things and saw the same: no result"
    assert found.advice == "check whether what you call does anything at all"
    assert assessed(on(turns, working(1, 20))).components["autonomy"] == 1.0


@pytest.mark.parametrize("begin", ["Error: ", "Exception: ", "Error executing it: ", ""])
def test_errors_lower_errors_and_name_the_tool(begin: str) -> None:
    said = begin in ("Error: ", "Exception: ")
    more = [
        replace(
            call(0, "parse", {"rule": RECIPES[n]}, f"{begin}unexpected {RECIPES[n][:12]}", RECIPES[n]), failed=not said
        )
        for n in range(7)
    ]
    turns = on(working(4), more)
    found = assessed(turns, ALL)
    assert found.components["errors"] < WARNING_BELOW
    assert found.cause == "errors"
    assert found.since == 5
    assert found.reason == f"steps 5–11 failed (parse); last: {begin}unexpected caramelise o"
    assert found.advice == "find out why parse fails before you use it again"
    assert assessed(on(turns, working(7, 12)), ALL).components["errors"] == 1.0


def test_tracebacks_lower_errors() -> None:
    seen = "Traceback (most recent call last):\n  File x\nKeyError: {}"
    turns = [call(n, "python", RECIPES[n], seen.format(n * 7919)) for n in range(1, 8)]
    assert assessed(turns).components["errors"] < WARNING_BELOW


def test_a_tool_that_fails_now_and_then_is_no_fault_one_that_mostly_fails_is() -> None:
    rare = [replace(one, failed=n % 5 == 4) for n, one in enumerate(working(24))]
    assert assessed(rare).lowest >= 0.75
    flaky = [
        replace(call(n, "fetch" if n % 4 else "look", RECIPES[n % 7], RECIPES[n % 7][::-1]), failed=n % 4 > 0)
        for n in range(1, 25)
    ]
    found = assessed(flaky, ALL)
    assert found.components["errors"] < WARNING_BELOW
    assert found.cause == "errors"
    assert "fetch" in found.reason
    assert found.advice == "find out why fetch fails before you use it again"


def test_of_several_tools_that_fail_the_worst_is_named() -> None:
    turns = [
        Turn(step=n, calls=((f"tool{n % 3 > 0}", {"q": RECIPES[n]}),), observation=f"bad {n * 31}", failed=True)
        for n in range(8)
    ]
    found = assessed(turns)
    assert ", toolTrue most of all; last: bad 217" in found.reason
    assert "toolTrue" in found.advice


# What was seen, and where it goes


def test_permuted_and_foreign_observations_lower_what_answers_the_actions() -> None:
    own: list[Coherence] = []
    permuted: list[Coherence] = []
    foreign: list[Coherence] = []
    for seed in SEEDS:
        goal, turns = agent_run(seed)
        seen = [one.observation for one in turns]
        random.Random(seed).shuffle(seen)
        other = [one.observation for one in agent_run(seed + 100)[1]]
        random.Random(seed).shuffle(other)
        for found, observations in ((permuted, seen), (foreign, other)):
            found.append(assessed(seeing(turns, observations), goal))
        own.append(assessed(turns, goal))
    for other_ones in (permuted, foreign):
        lower = [a.components["causal"] > b.components["causal"] for a, b in zip(own, other_ones, strict=True)]
        assert sum(lower) >= len(SEEDS) - 1
        assert sum(one.components["causal"] for one in other_ones) < sum(one.components["causal"] for one in own) - 1


def test_what_was_seen_of_another_task_is_told() -> None:
    goal, turns = agent_run(2, 30)
    strange = [f"{RECIPES[n % 8]} and {RECIPES[(n * 3 + 1) % 8]} {n}" for n in range(18)]
    found = assessed([*turns[:12], *seeing(turns[12:], strange)], goal)
    assert min(found.components["causal"], found.components["spatial"]) < WARNING_BELOW
    assert 11 <= found.since <= 22
    assert f"–{turns[-1].step}" in found.reason


def test_drift_from_the_goal_lowers_integration() -> None:
    goal, turns = agent_run(2, 12)
    away = [
        call(
            0,
            "cook",
            {"recipe": f"{RECIPES[n % 8]}, dish_{n * 7919}_{'abcdefgh'[n % 8] * 4}"},
            f"done {n}",
            RECIPES[n % 8],
        )
        for n in range(8)
    ]
    on_course, adrift = assessed(turns, goal), assessed(on(turns, away), goal)
    assert adrift.components["integration"] < on_course.components["integration"] - 0.2


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([3], "step 3"),
        ([3, 3], "step 3"),
        ([3, 4], "steps 3, 4"),
        ([3, 4, 5, 6, 7], "steps 3–7"),
        ([3, 4, 5, 9], "steps 3–5, 9"),
        ([1, 3, 5, 7, 9], "steps …, 5, 7, 9"),
        ([9, 3], "steps 9, 3"),
    ],
)
def test_steps_in_words(numbers: list[int], words: str) -> None:
    assert _steps(numbers) == words


def test_steps_in_words_as_they_are_promised() -> None:
    assert _steps([3, 5, 9]) == "steps 3, 5, 9"


def test_names_of_gaps_are_told() -> None:
    turns = working(12)
    turns[4:11] = [
        replace(one, failed=one.step not in (7,), observation=f"bad {one.step * 7919}") for one in turns[4:11]
    ]
    found = assessed(turns[:11], "")
    assert found.components["errors"] < 0.75
    assert found.reason.startswith("steps 5, 6, 8–11 failed")


# Words that are wrong


def test_one_step_has_a_verb_in_the_singular() -> None:
    strict = Calibration(threshold=0.1)
    for seed in SEEDS:
        goal, turns = agent_run(seed)
        for n in range(len(turns)):
            found = assess_coherence(goal, turns[: n + 1], strict)
            assert found is not None
            assert not found.reason.startswith(
                tuple(f"step {i} {verb}" for i in range(99) for verb in ("do ", "drift "))
            )


def test_an_error_without_words_leaves_no_hole() -> None:
    found = assessed([Turn(step=n, calls=(("t", {"q": RECIPES[n]}),), failed=True) for n in range(6)])
    assert found.cause == "errors"
    assert not found.reason.endswith(": ")


@pytest.mark.parametrize("one", [turn(1, thought="  "), call(1, "look", {"path": ""})])
def test_blank_thoughts_and_arguments_leave_no_hole(one: Turn) -> None:
    reason = assessed(on([], [one] * 4)).reason
    assert " ," not in reason
    assert reason == reason.strip()


def test_who_only_talks_is_not_told_not_to_call_it() -> None:
    assert "call it" not in assessed(on([], [turn(1, thought="I wait.")] * 4)).advice


@pytest.mark.parametrize("name", ["t\n- [note] forged", "\udc00", "t" * 5_000])
@pytest.mark.parametrize("failed", [False, True])
def test_names_of_tools_that_a_model_made_up_are_quoted(name: str, failed: bool) -> None:
    turns = [
        Turn(step=n, calls=((name, {"q": RECIPES[n] if failed else "q"}),), observation=f"x{n * 31}", failed=failed)
        for n in range(8)
    ]
    found = assessed(turns)
    assert len(found.reason) + len(found.advice) < 600


def test_new_names_are_told_short() -> None:
    turns = working(12)
    more = [turn(0, f"{'xyz'[n % 3] * 800}_{n}", thought="parser", calls=(("t", {"n": n}),)) for n in range(12)]
    for n in range(12):
        assert len(assessed([*turns, *on(turns, more)[12 : 13 + n]]).reason) < 400


@pytest.mark.parametrize("name", ["identical", "only errors", "no observations"])
def test_since_is_where_it_began_however_long_ago(name: str) -> None:
    turns = [DEGENERATE[name](n) for n in range(1, 101)]
    short = assessed(turns[:40])
    assert short.since == 1
    assert assessed(turns).since == 1


# Cost


def kept(value: Any, into: list[int], seen: set[int]) -> list[int]:
    """Sizes of all lists and deques that an object keeps; dictionaries of terms grow with what there is to know."""
    if id(value) in seen or isinstance(value, Turn):
        return into
    seen.add(id(value))
    if isinstance(value, list | deque):
        into.append(len(value))
        for one in value:
            kept(one, into, seen)
    elif type(value).__module__.startswith("dionysus.coherence") and hasattr(value, "__dict__"):
        for name, part in vars(value).items():
            if name != "_when":
                kept(part, into, seen)
    elif isinstance(value, dict):
        for part in value.values():
            kept(part, into, seen)
    return into


def calls_in(work: Callable[[], object], *names: str) -> int:
    """How many calls of functions of the package it takes, or of those with these names."""
    count = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        code = frame.f_code
        if event == "call" and "dionysus" in code.co_filename and (not names or code.co_name in names):
            count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def going_round(count: int) -> list[Turn]:
    """Without loops, for as long as one likes: seven different turns again and again, with an error now and then."""
    return [
        Turn(
            step=n,
            thought=f"{RECIPES[n % 7]}.",
            calls=((f"tool{n % 7}", {"q": RECIPES[n % 7], "n": n % 7}),),
            observation=RECIPES[(n + 1) % 7] * 2,
            failed=n % 9 == 0,
        )
        for n in range(1, count + 1)
    ]


def test_the_cost_of_a_turn_and_what_is_kept_do_not_grow() -> None:
    monitor, turns = Monitor(GOAL), going_round(700)
    work, sizes = {}, {}
    for n, one in enumerate(turns):
        if n in (202, 692):  # the same turn of seven
            work[n] = calls_in(lambda one=one: monitor.take(one))  # type: ignore[misc]
            sizes[n] = kept(monitor, [], set())
        else:
            monitor.take(one)
    assert 0 < work[692] <= 1.05 * work[202]
    assert max(sizes[692]) <= 80
    assert sum(sizes[692]) <= sum(sizes[202]) + 80


@pytest.mark.parametrize("name", ["identical", "only errors", "no observations"])
def test_what_is_kept_of_a_run_that_goes_wrong_is_bounded(name: str) -> None:
    monitor = Monitor(GOAL)
    for n in range(1, 200):
        monitor.take(DEGENERATE[name](n))
    assert max(kept(monitor, [], set())) <= 80


def test_a_long_loop_of_near_repetitions_is_not_compared_anew_with_each_turn() -> None:
    monitor = Monitor(GOAL)
    turns = [call(n, "ask", {"q": f"please do tell me now about number {n}"}, "no answer") for n in range(1, 90)]
    for one in turns[:-1]:
        monitor.take(one)
    assert calls_in(lambda: monitor.take(turns[-1]), "nearly") <= 16


def test_ten_megabytes_that_were_seen_are_no_more_work_than_a_little() -> None:
    work = []
    for size in (10_000, 10_000_000):
        turns = working(4)
        monitor = Monitor(GOAL)
        for one in turns:
            monitor.take(one)
        large = replace(turns[-1], step=5, observation=("0123456789abcdef" * (size // 16)))
        work.append(calls_in(lambda: monitor.take(large)))  # noqa: B023
        found = monitor.assess()
        is_sound(found, [*turns, large])
    assert work[1] <= work[0] + 10


# The same anywhere

_PRINTED = """
import json
from dataclasses import asdict
from coherence.made_runs import agent_run, varied
from dionysus.coherence import Monitor, strains_of
found = []
for goal, turns in [("Find the parser's bug", varied()), agent_run(11), agent_run(12)]:
    monitor = Monitor(goal)
    for turn in turns:
        monitor.take(turn)
        found.append([asdict(monitor.assess()), dict(monitor.strains)])
    found.append([turn.same + turn.seen for turn in turns])
    found.append(strains_of(goal, turns))
print(json.dumps(found))
"""
_SETS = """
from dionysus.coherence import Turn
print(Turn(step=1, calls=(("t", {"names": {"one", "two", "three", "four", "five"}}),)).same)
"""


def printed(script: str, seed: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT.parent / "tests")])
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True).stdout


def test_two_processes_find_the_same_to_the_byte() -> None:
    one, other = printed(_PRINTED, "1"), printed(_PRINTED, "4242")
    assert len(json.loads(one)) > 70
    assert one == other


def test_sets_as_arguments_are_the_same_in_two_processes() -> None:
    assert len({printed(_SETS, seed) for seed in ("1", "2", "3")}) == 1


def test_turns_of_every_kind_can_be_told_as_json() -> None:
    turns = varied()
    for n in range(len(turns)):
        found = assessed(turns[: n + 1])
        assert json.loads(json.dumps(asdict(found))) == asdict(found)
