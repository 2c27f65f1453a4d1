"""Whatever the tools say: reflex ends in time, repeats no call, and every marked line is borne out by its step."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dionysus.findings import Finding, code, quoted, render
from dionysus.models.reflex.kinds import KINDS
from dionysus.models.reflex.layout import columns, shorten, wrap
from models.reflex_stage import ENDING, OPENING, Answer, mark_of, play

_NAMES = ["src/models.py", "docs/guide.md", "lib/a/__init__.py", "Makefile", "tests/test_models.py", ".github/ci.yml"]
_HEADS = [
    "",
    "goal 1 is due in 2 d: ",
    "goal 2, touched by `a.py` (x, y): ",
    "note 3 (1 d ago): ",
    "goal 1 is reached: `commit 1a2b3c4d` says so: ",
    "beat 1 (1 d ago) would have done: Mend `a.py` – nothing of it was touched since ",
]
_WORDS = st.text(st.characters(exclude_characters="/…", exclude_categories=["Cs"]), max_size=60)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    kind = draw(st.sampled_from([*KINDS, "basin", "nothing", "unheard"]))
    names = [code(name) for name in draw(st.lists(st.sampled_from(_NAMES), max_size=3))]
    head = draw(st.sampled_from(_HEADS))
    end = draw(st.sampled_from(["", " (together in 0 of the last 0; such expectations held 0 of 0 times here)"]))
    return Finding(
        kind, f"{head}{' '.join(names)} {quoted(draw(_WORDS) * draw(st.integers(1, 4)))}{end}".strip() or "-"
    )


def _without_folders(text: str) -> str:
    return re.sub(r"[^\s/]+/", "", text.replace("`", ""))


def _comes_from(line: str, result: str) -> bool:
    """Whether each piece between cuts stands in one line of the tool's result, in order."""
    text = re.sub(r"\s\[\d+\](?: \(\+\d+ more\))?$", "", line[12:])
    text = re.sub(r"^(?:[!✓✗→] |… )", "", text)
    pieces = [piece.strip() for piece in _without_folders(text).split("…") if piece.strip()]
    for source in map(_without_folders, result.split("\n")):
        at = 0
        for piece in pieces:
            found = source.find(piece, at)
            if found < 0:
                break
            at = found + len(piece)
        else:
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*OPENING, *ENDING[:2]]), st.lists(findings(), max_size=7), max_size=8),
    st.booleans(),
)
def test_any_findings_end_in_an_answer_that_they_bear_out(found: dict[str, list[Finding]], fails: bool) -> None:
    said: dict[str, Answer] = {tool: render(lines) for tool, lines in found.items()}
    if fails:
        said["semantic_recall"] = OSError("gone")
    played = play(said)
    assert played.tools[-1] == "final_answer"
    assert len(played.tools) <= 10
    calls = list(zip(played.tools, map(repr, played.arguments), strict=True))
    assert len(calls) == len(set(calls))
    for line in played.text.splitlines():
        assert columns(line) <= 105
        step = mark_of(line)
        if step is None:
            continue
        assert step in played.results
        if not line.startswith("      then  "):
            assert _comes_from(line, played.results[step]), (line, played.results[step])


@given(_WORDS, st.integers(20, 120))
def test_shortened_text_fits_and_is_a_beginning(text: str, room: int) -> None:
    flat = quoted(text)
    short = shorten(flat, room)
    assert columns(short) <= room
    assert flat.startswith(short.removesuffix("…").rstrip())


@given(_WORDS, st.integers(20, 60))
def test_wrapped_text_keeps_its_order(text: str, room: int) -> None:
    flat = quoted(text)
    lines = wrap(flat, room, 3)
    assert len(lines) <= 3
    assert all(columns(line) <= room for line in lines)
    places = [flat.find(line.removesuffix("…").strip()) for line in lines]
    assert all(a <= b for a, b in pairwise(places))
