"""Passages of a text that speak of something."""

import pytest

from dionysus.words import most_of, passages

TEXT = "the witness is lying about it\nnothing here\nskies over the harbour\nwritten in C, they say\nand no more"


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("lying", "the witness is lying about it"),
        ("lying ferryman", "the witness is lying about it"),
        ("sky", "skies over the harbour"),
        ("harbours", "skies over the harbour"),
        ("C,", "written in C, they say"),
        ("no more", "and no more"),
    ],
)
def test_lines_that_share_a_word(query: str, line: str) -> None:
    for text in (TEXT, "and so on and so on\n" * 20_000 + TEXT):  # a large text is looked through in another way
        assert line in passages(text, query, most=500).splitlines()


def test_lines_in_between_are_marked() -> None:
    assert passages(TEXT, "witness harbour", most=500) == ("the witness is lying about it\n…\nskies over the harbour")
    assert passages(TEXT, "volcano", most=500) == ""
    assert passages("", "volcano", most=500) == ""


def test_what_holds_the_query_as_it_is_goes_first_where_there_is_little_room() -> None:
    text = "\n".join(["the ferry is late", "a late tram"] * 50 + ["the late ferry of nine"])
    found = passages(text, "late ferry", most=60)
    assert "the late ferry of nine" in found
    assert found.endswith("more match; ask for less at once")
    assert passages("x" * 50, "x" * 50, most=10) == "x" * 50  # the first in any case


def test_a_text_of_one_line_has_passages_too() -> None:
    text = "and so on " * 100 + "the treasure is here " + "and so on " * 100
    found = passages(text, "treasure", most=500)
    assert "the treasure is here" in found
    assert len(found) < 500


def test_several_texts_together() -> None:
    texts = ["step 1:\nthe ferry", "step 2:\nthe late ferry", "step 3:\na tram"]
    assert most_of(texts, "late ferry", most=500) == "\n".join(texts)
    assert most_of(texts, "late ferry", most=25) == "step 2:\nthe late ferry\n… 2 more match; ask for less at once"
