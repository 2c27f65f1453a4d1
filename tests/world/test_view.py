"""What a look says: lines worth reading, and none that mislead."""

from pathlib import Path

import pytest

from conftest import Repository
from dionysus.findings import Finding
from dionysus.world import View, World
from dionysus.world.survey import principles

NOW = 1_795_000_000.0
HOUR = 3600.0


def look(path: Path, before: View | None = None) -> View:
    return World(path).look(before.snapshot if before else None, NOW + (HOUR if before else 0.0))


def texts(found: list[Finding], kind: str) -> list[str]:
    return [f.text for f in found if f.kind == kind]


def test_the_world_knows_its_path(repository: Repository) -> None:
    assert World(repository.path).root == repository.path.resolve()


def test_repairs_of_wording_are_no_fixes(repository: Repository) -> None:
    for i in range(9):
        repository.commit(f"Fix a typo ({i})", {"src/agents.py": f"# {i}\n"})
    assert texts(look(repository.path).observe(), "risk") == [
        "`src/monitoring.py`: 4 fixes among its 9 changes in the last 18 commits"
    ]


def test_hot_spots_are_ranked_by_share_and_number(repository: Repository) -> None:
    for i in range(24):
        word = "Fix" if i < 5 else "Change"
        repository.commit(f"{word} the agents ({i})", {"src/agents.py": f"# {i}\n"})
    first, second = texts(look(repository.path).observe(), "risk")
    assert first.startswith("`src/monitoring.py`: 4 fixes among its 9 changes")
    assert second.startswith("`src/agents.py`: 5 fixes among its 25 changes")


def test_names_at_home_everywhere_do_not_dangle(repository: Repository) -> None:
    repository.commit("Use", {"src/a.py": "class A:\n    def items(self):\n        pass\n", "src/b.py": "{}.items()\n"})
    before = look(repository.path)
    repository.write({"src/a.py": "class A:\n    pass\n"})
    view = look(repository.path, before)
    assert view.reasons() == ["1 file changed"]
    assert texts(view.observe(), "dangling") == []


def test_a_name_removed_with_its_file_dangles(repository: Repository) -> None:
    repository.commit(
        "Use", {"src/a.py": "def encode_image():\n    pass\n", "src/b.py": "from a import encode_image\n"}
    )
    before = look(repository.path)
    repository.git("rm", "-q", "src/a.py")
    repository.commit("Remove a", {})
    (line,) = texts(look(repository.path, before).observe(), "dangling")
    assert line == "`encode_image` was removed from `src/a.py` and is still named in 1 file: `src/b.py`"


def test_a_marker_in_a_new_docstring_is_no_marker(repository: Repository) -> None:
    before = look(repository.path)
    repository.write({"src/agents.py": '"""\n# TODO is a word here\n"""\nx = 1  # TODO: settle\n'})
    assert texts(look(repository.path, before).observe(), "marker") == ["`src/agents.py` brings TODO: settle"]


def test_lines_only_added_have_no_origin(repository: Repository) -> None:
    before = look(repository.path)
    repository.write({"src/agents.py": "def run():\n    return 1\n\n\ndef stop():\n    return 0\n"})
    assert texts(look(repository.path, before).reflect("src/agents.py"), "origin") == []


@pytest.mark.parametrize("topic", ["\0", "a\nb", "\ud800", "--", "-e", ":(top)", "x" * 5000, "`src/agents.py`", " "])
def test_any_topic_gets_an_answer_of_one_line_findings(repository: Repository, topic: str) -> None:
    plain = World(repository.path, git=False).look(None, NOW)
    for view in (look(repository.path), plain):
        found = view.reflect(topic)
        assert found
        assert all("\n" not in f.text for f in found)
        "\n".join(map(str, found)).encode()


def test_a_plain_folder_tells_sizes_and_definitions(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def first():\n    pass\n\n\nclass Second:\n    pass\n")
    before = look(tmp_path)
    assert texts(before.reflect("a.py"), "spot") == ["`a.py`: 6 lines, defines `first`, `Second`"]
    (tmp_path / "a.py").write_text("x = 1\n")
    view = look(tmp_path, before)
    assert texts(view.observe(), "modified") == ["`a.py` 47 → 6 bytes"]
    assert view.uncommitted() == frozenset()
    assert (view.history, view.new_commits, view.moved) == ((), (), False)


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n\x0c\ny = '\u2028'\r\n# TODO here\n")
    assert texts(look(tmp_path).observe(), "left") == ["`a.py` line 4: TODO here"]


def test_rules_are_imperative_items_outside_of_code(tmp_path: Path) -> None:
    (tmp_path / "CLAUDE.md").write_text(
        "# Rules\n\n- Always run the tests\n  before a commit\n- [ ] Run the release list\n- The licence is MIT.\n"
        "```\n- Never count this one\n```\n<!--\n- Never count a comment\n-->\n"
        "1. **Do not** log secrets, see [x](y.md).\n"
    )
    (tmp_path / "LICENSE").write_text("- You must keep this notice in all copies\n")
    assert principles(tmp_path, ["CLAUDE.md", "LICENSE"]) == [
        ("CLAUDE.md", "Always run the tests before a commit"),
        ("CLAUDE.md", "Do not log secrets, see x."),
    ]
