"""The scan: what is passed over, what is kept although it cannot be read, and markers and links in the files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Repository
from dionysus.world import World
from dionysus.world.survey import has_test, is_test, markers, stems_of_tests, survey

NOW = 1_795_000_000.0
HOUR = 3600.0


@contextmanager
def unprivileged(*paths: Path) -> Iterator[None]:
    """Meanwhile this process is not root, and may still come as far as `paths`."""
    for folder in {folder for path in paths for folder in (path, *path.parents)}:
        if os.geteuid() == 0 and folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("mode", [0o000, 0o311, 0o644])
def test_files_in_a_folder_that_was_shut_are_not_removed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut/a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    before = World(tmp_path, git=False).look(None, NOW).snapshot
    (tmp_path / "shut").chmod(mode)
    with unprivileged(tmp_path):
        view = World(tmp_path, git=False).look(before, NOW + HOUR)
        found = [str(f) for f in view.observe()]
    (tmp_path / "shut").chmod(0o755)
    assert view.reasons() == []
    assert view.snapshot.files == before.files
    assert found == ["- [unreadable] 1 file cannot be read: `shut/a.txt`"]


def test_a_tracked_file_that_may_not_be_reached_is_not_removed(repository: Repository) -> None:
    before = World(repository.path).look(None, NOW).snapshot
    (repository.path / "src").chmod(0)
    home = Path(os.environ["HOME"])
    (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
    with unprivileged(repository.path, home):
        view = World(repository.path).look(before, NOW + HOUR)
    (repository.path / "src").chmod(0o755)
    assert view.reasons() == []


def test_files_behind_a_linked_folder_are_passed_over(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/agents.py").write_text("secret = 1\n")
    before = World(repository.path).look(None, NOW).snapshot
    for file in (repository.path / "src").iterdir():
        file.unlink()
    (repository.path / "src").rmdir()
    (repository.path / "src").symlink_to(tmp_path / "elsewhere")
    view = World(repository.path).look(before, NOW + HOUR)
    assert {(c.path, c.kind) for c in view.changes} == {
        ("src", "added"),
        ("src/agents.py", "removed"),
        ("src/monitoring.py", "removed"),
    }


def test_what_is_skipped_is_skipped_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/mind.db").write_text("x")
    view = World(tmp_path / "link", skip=[tmp_path / "link/mind.db"]).look(None, NOW)
    assert view.snapshot.files == {}


def test_an_ignore_file_that_cannot_be_understood_ignores_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".gitignore")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.gitignore").write_text("!\n\\\n[z-\n")
    (tmp_path / "sub/a.py").write_text("x")
    assert "sub/a.py" in World(tmp_path, git=False).look(None, NOW).snapshot.files


# -- what files show ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("a.py", "x = 1  # TODO: both\n", [(1, "TODO: both")]),
        ("a.py", '"""\n# TODO in a docstring\n"""\n', []),
        ("a.py", "P = '# TODO'\n", []),
        ("a.py", "# one looks for TODO in comments\n", []),
        ("a.py", "def broken(:\n    pass  # FIXME it\n", [(2, "FIXME it")]),
        ("a.js", "f(); // HACK around it\n", [(1, "HACK around it")]),
        ("a.c", "/* XXX: why? */\n", [(1, "XXX: why?")]),
        ("a.c", "/*\n * TODO: later\n */\n", [(2, "TODO: later")]),
        ("a.go", 's := "// TODO"\n', []),
        ("a.md", "# TODO\n", []),
    ],
)
def test_markers_open_a_comment(path: str, text: str, found: list[tuple[int, str]]) -> None:
    assert markers(path, text.splitlines()) == found


@pytest.mark.parametrize(
    ("document", "broken"),
    [
        ("[a](docs/a.md)", ["docs/a.md"]),
        ("[a](docs/a%20b.md#part)", ["docs/a b.md"]),
        ("![a](pictures/a.png)", ["pictures/a.png"]),
        ("[a](here.md) [b](here) [c](here.html) [d](#top) [e](https://x.org/y) [f](mailto:a@b.c)", []),
        ("[a](../../issues)", []),  # what a forge shows there is not in the folder
        ("    [a](docs/a.md)", []),
        ("- item\n\n    [a](docs/a.md)", ["docs/a.md"]),
        ("  ```text\n  [a](docs/a.md)\n  ```", []),
        ("````\n```\n[a](docs/a.md)\n```\n````", []),
        ("```\n[a](docs/a.md) never closed", []),
        ("<!-- [a](docs/a.md) -->", []),
        ("``[a](docs/a.md)``", []),
        (f"[a]({'x' * 5000}.md)", ["x" * 5000 + ".md"]),
    ],
)
def test_links_that_lead_nowhere(tmp_path: Path, document: str, broken: list[str]) -> None:
    (tmp_path / "here.md").write_text("x")
    (tmp_path / "README.md").write_text(document)
    found = survey(tmp_path, {"README.md": 1, "here.md": 1})
    assert [f.identifiers for f in found if f.kind == "broken"] == [["README.md", target] for target in broken]


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ("src/parser.py", "tests/test_parser.py"),
        ("src/a/parser.py", "tests/a/test_parser.py"),
        ("src/parser.py", "src/parser_test.py"),
        ("src/parser.py", "tests/parser.py"),
        ("src/parser/lexer.py", "tests/test_parser.py"),
        ("src/parser.ts", "src/parser.test.ts"),
        ("src/parser.jsx", "src/__tests__/parser.spec.jsx"),
        ("parser.go", "parser_test.go"),
        ("main/Parser.java", "test/ParserTest.java"),
        ("lib/parser.rb", "spec/parser_spec.rb"),
    ],
)
def test_tests_are_found_by_their_names(source: str, test: str) -> None:
    assert is_test(test)
    assert not is_test(source)
    assert has_test(source, stems_of_tests([source, test]))
    assert not has_test("src/other.py", stems_of_tests([source, test]))


def test_source_files_without_a_test_are_listed_the_biggest_first(tmp_path: Path) -> None:
    sizes = {"a.py": 30, "b.py": 40, "c.py": 50, "d.py": 60, "_e.py": 90, "f.py": 5}
    for name, lines in sizes.items():
        (tmp_path / name).write_text("x = 1\n" * lines)
    (tmp_path / "tests").mkdir()
    for name in ("a.py", "c.py"):
        (tmp_path / "tests" / f"test_{name}").write_text("")
    found = World(tmp_path, git=False).look(None, NOW).observe()
    assert [f.text for f in found if f.kind == "untested"] == [
        "2 of 4 source files have no test of their name: `d.py`, `b.py`"
    ]
