"""Where independent sources meet, without an LLM."""

from hypothesis import given
from hypothesis import strategies as st

from dionysus.agents.synthesis import synthesize
from dionysus.findings import parse


def test_three_kinds_of_evidence_that_share_words_meet() -> None:
    information = """
- [modified] `src/monitoring.py` +3 −1 in `Monitor`: planning tokens count too
- [note] note 1 (0 min ago): a user says that token totals leave out the planning steps
- [goal] goal 1, due in 2 d, not touched: Monitor reports token totals that include planning
- [memory] 2026-03-01 commit 6ff5bfe7: Bake bread (`kitchen.py`)
"""
    (gist,) = synthesize(information)
    assert gist.kind == "gist"
    assert gist.text.startswith("`src/monitoring.py`, note 1, goal 1 speak of the same: ")
    assert "planning" in gist.text
    assert "bread" not in gist.text


def test_a_name_that_three_kinds_mention_is_where_they_meet() -> None:
    information = """
- [risk] `src/models.py`: 10 fixes among its 32 changes in the last 200 commits
- [expect] when `src/models.py` changes, `tests/test_models.py` changes too (9 of the last 10)
- [spot] `src/models.py`: 93 commits, 28 fixes among them
"""
    assert [g.text for g in synthesize(information)] == [
        "`src/models.py` is where evidence meets: expectation, memory, place"
    ]


def test_the_tools_own_words_are_no_meeting() -> None:
    information = """
- [commit] 2026-11-21 1e1b586d Rename a stage; closes goal 1 (`agents.py`)
- [reached] goal 1 is reached: `commit 1e1b586d` says so: Something else entirely
- [note] note 4 (1 min ago): the goal of today is bread
"""
    assert [g.kind for g in synthesize(information)] == ["nothing"]


@given(st.text())
def test_anything_gives_findings(information: str) -> None:
    assert parse("\n".join(map(str, synthesize(information))))
