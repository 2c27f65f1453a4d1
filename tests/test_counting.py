"""Tokens counted offline, and held against what a provider reports."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus import counting
from dionysus.counting import Calibration, count, counter, frame, note_saving


def test_tokens_of_a_text() -> None:
    assert counter() == "tekken"
    assert count("") == 0
    assert 8 <= count("The quick brown fox jumps over the lazy dog.") <= 12
    assert count("<|endoftext|> [INST]") > 2  # special tokens are text


def test_a_long_run_of_one_letter_is_counted_in_time() -> None:
    assert count("x" * 2_000_000) > 100_000


@given(st.text(max_size=50))
def test_any_text_can_be_counted(text: str) -> None:
    assert 0 <= count(text) <= 4 * len(text)


def test_without_the_extra_characters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counting._encoding.cache_clear()
    monkeypatch.setitem(sys.modules, "mistral_common", None)
    monkeypatch.setattr(counting, "find_spec", lambda name: None)
    try:
        assert (counter(), count("twelve chars"), frame()) == ("characters", 12, 16)
    finally:
        monkeypatch.undo()
        counting._encoding.cache_clear()


@pytest.mark.parametrize(("per_token", "of_tools"), [(1.2, 0), (1.2, 900), (0.9, 300)])
def test_the_slope_is_found_whatever_is_sent_with_each_prompt(per_token: float, of_tools: int) -> None:
    found = Calibration()
    for ours in (1_000, 1_400, 2_100, 2_500, 3_600):
        found.add(ours, round(per_token * ours) + of_tools, ours // 2)
    assert found.theirs_per_ours == pytest.approx(per_token, rel=0.01)
    assert found.saved == pytest.approx(per_token * (1_000 + 1_400 + 2_100 + 2_500 + 3_600) / 2, rel=0.01)


def test_few_or_equal_prompts_give_the_plain_ratio() -> None:
    found = Calibration()
    assert (found.theirs_per_ours, found.saved) == (0.0, 0)
    found.add(1_000, 1_500, 10)
    assert found.theirs_per_ours == 1.5
    for _ in range(5):
        found.add(1_001, 1_400, 10)
    assert found.theirs_per_ours == pytest.approx(8_500 / 6_005)


def test_a_slope_that_cannot_be_is_none() -> None:
    found = Calibration()
    for ours, theirs in ((1_000, 3_000), (2_000, 2_000), (3_000, 1_000)):
        found.add(ours, theirs, 0)
    assert found.theirs_per_ours == 1.0


def test_kinds_of_prompts_are_held_apart() -> None:
    found: dict[str, Calibration] = {}
    for step in ("action.1", "planning.1", "action.2"):
        began = {"trace": "t", "step": step, "counted": {"by": "tekken", "prompt": 100, "pruned": 5}}
        note_saving(found, 120, began)
    note_saving(found, 0, {"trace": "t", "step": "action.3"})  # nothing was reported
    note_saving(found, 60, {"trace": "t", "step": "action.4", "prompt_chars": 400, "pruned_chars": 40})
    assert {key: c.calls for key, c in found.items()} == {
        "t:action:tekken": 2,
        "t:planning:tekken": 1,
        "t:action:characters": 1,
    }
    assert found["t:action:characters"].saved == 6
