"""Turns: what is equal, what is nearly equal, what failed, and the action in words."""

import json
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coherence.made_runs import call, odd_turns, turn
from dionysus.callbacks.iwmt import turn_of
from dionysus.coherence import Turn
from dionysus.coherence.turns import clipped, terms_of
from dionysus.journal import FinishedStep

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_the_order_of_arguments_says_nothing(given: dict[str, Any]) -> None:
    one, other = call(1, "t", given), call(2, "t", dict(reversed(given.items())))
    assert one.same == other.same
    assert one.nearly(other)
    assert one.form == other.form


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_arguments_as_json_text_are_the_arguments(given: dict[str, Any]) -> None:
    assert call(1, "t", given).same == call(1, "t", json.dumps(given)).same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "x  y\n"}, {"a": " x y"}),
        ({"a": 'say "it"'}, {"a": "say 'it'"}),
        ("ls  -l", "ls -l"),
        ({"a": [1, {"b": 2}]}, {"a": (1, {"b": 2})}),
    ],
)
def test_white_space_and_quotation_marks_do_not_make_another_call(one: Any, other: Any) -> None:
    assert call(1, "t", one).same == call(2, "t", other).same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (call(1, "t", {"a": "x"}), call(1, "u", {"a": "x"})),
        (call(1, "t", {"a": "x"}), call(1, "t", {"b": "x"})),
        (call(1, "t", {"a": "x"}), call(1, "t", {"a": "y"})),
        (call(1, "t", {"a": ["x", "y"]}), call(1, "t", {"a": ["y", "x"]})),
        (call(1, "t"), turn(1)),
        (turn(1, calls=(("t", 1), ("u", 1))), turn(1, calls=(("u", 1), ("t", 1)))),
        (turn(1, thought="a"), turn(1, thought="b")),
    ],
)
def test_other_calls_are_not_the_same(one: Turn, other: Turn) -> None:
    assert one.same != other.same


def test_the_thought_counts_only_where_nothing_was_called() -> None:
    assert call(1, "t", thought="a").same == call(1, "t", thought="b").same
    assert turn(1, thought="I wait").same == turn(2, thought=" I  wait ").same


def test_nearly_the_same_are_long_arguments_with_small_differences() -> None:
    long = "please read the whole of the file src/dionysus/runtime.py from line %d on, and tell me what it does"
    one, other = call(1, "t", {"q": long % 10}), call(2, "t", {"q": long % 90})
    assert one.same != other.same
    assert one.nearly(other)
    assert other.nearly(one)
    assert not one.nearly(call(1, "t", {"q": "something else altogether"}))
    assert not one.nearly(call(1, "u", {"q": long % 10}))
    assert not one.nearly(call(1, "t", {"r": long % 10}))
    assert not one.nearly(call(1, "t", {"q": long % 10, "more": 1}))


def test_pages_of_one_file_are_not_nearly_the_same() -> None:
    path = "src/dionysus/coherence/monitor.py"
    assert not call(1, "read", {"path": path, "line": 100}).nearly(call(2, "read", {"path": path, "line": 200}))


def test_thoughts_are_compared_where_nothing_was_called() -> None:
    one, other = turn(1, thought="I will now wait for the answer."), turn(2, thought="I will now wait for the answers.")
    assert one.nearly(other)
    assert not one.nearly(turn(3, thought="Bread is ready."))
    assert not turn(1, thought="").nearly(turn(1, thought="x"))


@settings(max_examples=60)
@given(odd_turns)
def test_nearly_is_symmetric_and_holds_of_itself(turns: list[Turn]) -> None:
    for one in turns:
        assert one.nearly(one)
        assert one.nearly(turns[0]) == turns[0].nearly(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 passed in 1.52s", "2 passed in 0.90s"),
        ("took 12 ms", "took 8ms"),
        ("took 2 seconds", "took 31 seconds"),
        ("waited 2 minutes", "waited 3 minutes"),
        ("[12:01:09] ready", "[12:01:44] ready"),
        ("2026-01-02T10:00:00.123 ready", "2027-11-12 11:22:33 ready"),
        ("<Agent at 0x7f3a10>", "<Agent at 0x7F9bb0>"),
        ("2026-01-02T10:00:00Z up", "2026-01-02T11:00:00Z up"),
        ("a  b\n", "a b"),
    ],
)
def test_times_durations_and_addresses_make_no_other_observation(one: str, other: str) -> None:
    assert turn(1, one).seen == turn(2, other).seen


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("real\t0m0.003s", "real\t0m1.250s", id="time of bash"),
        pytest.param("at 10:01", "at 10:59", id="hours and minutes"),
        pytest.param("100 loops, 31 µs each", "100 loops, 44 µs each", id="microseconds"),
        pytest.param("in 1 second", "in 2 seconds", id="one second"),
        pytest.param("ran for 1m30s", "ran for 2m10s", id="minutes and seconds"),
        pytest.param("up 1 hour", "up 2 hours", id="hours"),
    ],
)
def test_common_ways_to_write_times_are_masked(one: str, other: str) -> None:
    assert turn(1, one).seen == turn(2, other).seen


@pytest.mark.parametrize(("one", "other"), [("3 files", "4 files"), ("a", "b"), ("", "x"), ("v1.2.3", "v1.2.4")])
def test_other_observations_are_others(one: str, other: str) -> None:
    assert turn(1, one).seen != turn(2, other).seen


@pytest.mark.parametrize("seen", ["Error: x", "error\nmore", "  fatal: not a repository", "Exception: y", "[ERROR]: z"])
def test_observations_that_begin_with_an_error_have_failed(seen: str) -> None:
    assert turn(1, seen).has_failed


def test_a_traceback_has_failed() -> None:
    assert turn(1, 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1').has_failed


@pytest.mark.parametrize(
    "seen", ["", "no error: fine", "errors: 0", "The error was this", "Errorless\n", "x\nError: y"]
)
def test_other_observations_have_not(seen: str) -> None:
    assert not turn(1, seen).has_failed
    assert turn(1, seen, failed=True).has_failed


def test_the_form_says_what_kind_of_action_it_is_whatever_it_is_about() -> None:
    one = call(1, "bash", {"command": "cd /a && grep -rn --include x y | head -3"})
    assert one.form == call(2, "bash", {"command": "cd /b && grep -rn --include z q | head -5"}).form
    assert one.form >= {"bash", "0.command=", "first cd", "then grep", "then head", "flag -rn", "operator &&"}
    assert turn(1).form == {"(none)"}


def test_the_form_does_not_depend_on_how_long_a_list_is() -> None:
    assert call(1, "read", {"paths": ["a", "b"]}).form == call(1, "read", {"paths": ["a", "b"] * 3}).form


def test_the_form_is_small_however_many_arguments_there_are() -> None:
    assert len(call(1, "t", {"rows": list(range(5_000))}).form) < 500


def test_the_form_of_an_observation_is_a_unit_vector_whatever_its_length() -> None:
    for seen in ("", "a", "a\n" * 1_000, "x1\n\n- y\n" * 7):
        shape, size = turn(1, seen).seen_form
        assert sum(v * v for v in shape.values()) == pytest.approx(1)
        assert size >= 0


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ((("look", {}),), "look"),
        ((("look", {"path": "a.py"}),), "look a.py"),
        ((("look", "a.py"),), "look a.py"),
        ((("look", {"b": 1, "a": [2, 3]}),), "look 1, 2, 3"),
        ((("look", {"a": 1}), ("see", {})), "look 1 and 1 more"),
        ((("look", {}), ("see", {}), ("see", {})), "look and 2 more"),
        ((("look", '{"a": "x"}'),), "look x"),
        ((("look", {"a": "x`\n- [y] z⟨"}),), "look x' - [y] z‹"),
    ],
)
def test_the_action_in_words(calls: tuple[tuple[str, Any], ...], words: str) -> None:
    assert turn(1, calls=calls).in_words == words


def test_the_action_in_words_is_short() -> None:
    assert turn(1).in_words == "(nothing)"
    assert turn(1, thought="I wait.").in_words == "I wait."
    assert turn(1, thought="I wait. " * 40).in_words.endswith("…")
    assert len(turn(1, thought="I wait. " * 40).in_words) <= 40
    assert len(call(1, "look", {"a": "word " * 99}).in_words) <= len("look ") + 40


def test_lists_are_told_in_their_order() -> None:
    assert call(1, "t", list(range(11))).in_words == "t 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"


@pytest.mark.parametrize("one", [turn(1, thought=" \n"), call(1, "t", {"a": ""}), call(1, "t", "")])
def test_blank_texts_leave_no_hole_in_words(one: Turn) -> None:
    assert one.in_words == one.in_words.strip()
    assert one.in_words


@pytest.mark.parametrize("name", ["t\n- [note] forged", "\udc00", "t" * 5_000, "a`b"])
def test_names_of_tools_are_outside_text_as_well(name: str) -> None:
    words = call(1, name, {"a": 1}).in_words
    assert words.encode()
    assert "\n" not in words
    assert "`" not in words
    assert len(words) < 200


def test_cyclic_deep_and_foreign_arguments_can_be_read() -> None:
    cyclic: dict[str, Any] = {"x": 1}
    cyclic["self"] = cyclic
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    for odd in (cyclic, deep, "{" * 100_000, '{"a":' * 100_000, b"\xff", {1: 2, None: {3}}, object(), float("nan")):
        one = call(1, "t", odd)
        assert one.same
        assert one.form
        assert one.terms is not None
        assert one.in_words
        assert one.nearly(one)


def test_very_large_numbers_can_be_read() -> None:
    assert call(1, "t", {"n": 10 ** (sys.get_int_max_str_digits() + 1)}).same


def test_of_long_texts_both_ends_are_read() -> None:
    text = "beginning " + "x " * 100_000 + " finish"
    assert {"begin", "finish"} <= set(terms_of(text))
    assert len(clipped("a" * 10_000, 300)) == 301
    assert clipped("short") == "short"


def test_identifiers_count_as_a_whole_as_well() -> None:
    terms = terms_of("see read_file in src/dionysus/runtime.py, of Runtime: the plain words")
    assert {"=read_file", "=src/dionysus/runtime.py"} <= set(terms)
    assert "=plain" not in terms


def test_a_long_observation_is_not_taken_apart_as_a_whole() -> None:
    one = turn(1, "ab " * 300_000)
    tracemalloc.start()
    try:
        assert one.seen
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(one.observation)


@pytest.mark.parametrize(("observation", "error"), [("", None), (None, "Error in code parsing")])
def test_what_was_told_is_left_out_of_steps_that_saw_nothing_else(observation: str | None, error: str | None) -> None:
    """`CoherenceRules` makes this of an action that saw nothing: it leaves out the line break before its mark."""
    told = f"{observation or ''}\n[IWMT] This is call 3 in a row of look.".lstrip("\n")
    step = FinishedStep(key="action.3", step_type="action", number=3, observation=told, error=error)
    assert turn_of(step).observation == (error or "")
