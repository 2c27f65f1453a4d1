"""Looking at folders and repositories, ordinary ones and odd ones."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Repository
from dionysus.errors import WatchError
from dionysus.findings import Finding
from dionysus.world import Snapshot, View, World, machine

NOW = 1_795_000_000.0
HOUR = 3600.0


def look(path: Path, before: View | None = None, *, later: float = 0.0, git: bool = True) -> View:
    return World(path, git=git).look(before.snapshot if before else None, NOW + later)


def texts(found: list[Finding], *kinds: str) -> list[str]:
    return [f.text for f in found if f.kind in kinds]


@pytest.fixture
def seen(repository: Repository) -> View:
    return look(repository.path)


# -- what changed -------------------------------------------------------------------------------------


def test_nothing_changed(repository: Repository, seen: View) -> None:
    again = look(repository.path, seen, later=HOUR)
    assert (again.reasons(), again.changes, again.new_commits) == ([], (), ())
    assert not again.first


def test_an_idle_look_reads_no_history(repository: Repository, seen: View, monkeypatch: pytest.MonkeyPatch) -> None:
    from dionysus.world.repository import Repository as Git

    called: list[str] = []
    before = Git._call

    def counted(self: Git, *arguments: str) -> object:
        called.append(arguments[0])
        return before(self, *arguments)

    monkeypatch.setattr(Git, "_call", counted)
    assert look(repository.path, seen, later=HOUR).reasons() == []
    assert set(called) == {"rev-parse", "ls-files"}


def test_files_added_changed_and_removed(repository: Repository, seen: View) -> None:
    (repository.path / "src/agents.py").write_text("def run():\n    return 2\n")
    (repository.path / "src/budget.py").write_text('"""A budget."""\n\n\ndef check():\n    return 1\n')
    (repository.path / "tests/test_agents.py").unlink()
    now = look(repository.path, seen, later=HOUR)
    assert {(c.path, c.kind) for c in now.changes} == {
        ("src/agents.py", "modified"),
        ("src/budget.py", "added"),
        ("tests/test_agents.py", "removed"),
    }
    assert now.reasons() == ["3 files changed"]
    found = now.observe()
    assert texts(found, "modified") == ["`src/agents.py` return 1 → return 2"]
    assert texts(found, "added") == ["`src/budget.py` +5 lines in `check`: A budget."]
    assert texts(found, "removed") == ["`tests/test_agents.py` was removed"]
    assert texts(found, "tree") == ["2 uncommitted, 1 untracked"]


def test_a_replaced_line_shows_what_is_new_in_it(repository: Repository) -> None:
    repository.commit("Limit", {"src/agents.py": "MAX_SECONDS = 30\n"})
    before = look(repository.path)
    repository.write({"src/agents.py": "MAX_SECONDS = 120  # FIXME for streams\n"})
    assert texts(look(repository.path, before, later=HOUR).observe(), "modified") == [
        "`src/agents.py` MAX_SECONDS = 30 → … 120 # FIXME for streams"
    ]


def test_ignored_files_and_our_own_are_not_observed(repository: Repository, seen: View) -> None:
    repository.write({"build/out.py": "x", ".dionysus/mind.db": "x", "mind.db": "x", "mind.db-wal": "x"})
    mine = [repository.path / "mind.db", repository.path / "mind.db-wal"]
    assert World(repository.path, skip=mine).look(seen.snapshot, NOW + HOUR).reasons() == []


def test_a_touched_file_has_not_changed(repository: Repository, seen: View) -> None:
    os.utime(repository.path / "README.md", (NOW, NOW))
    assert look(repository.path, seen, later=HOUR).reasons() == []


def test_a_change_within_the_tick_of_the_last_look_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    os.utime(file, (NOW, NOW))
    before = look(tmp_path)
    file.write_text("two")
    os.utime(file, (NOW, NOW))
    assert look(tmp_path, before, later=HOUR).reasons() == ["1 file changed"]


def test_new_commits_and_what_they_say(repository: Repository, seen: View) -> None:
    repository.commit("Count planning steps, closes goal 2", {"src/agents.py": "def run():\n    return 3\n"})
    now = look(repository.path, seen, later=HOUR)
    assert now.reasons() == ["1 file changed", "1 new commit"]
    (commit,) = now.new_commits
    assert (commit.subject, commit.files) == ("Count planning steps, closes goal 2", ("src/agents.py",))
    assert "closes goal 2" in now.wording()[f"commit {commit.sha}"]
    assert "return 3" in now.wording()["src/agents.py"]


def test_a_removed_name_that_is_still_used_is_named(repository: Repository) -> None:
    repository.commit("Use it", {"src/user.py": "from agents import run\n"})
    before = look(repository.path)
    repository.write({"src/agents.py": "def start():\n    return 1\n"})
    found = look(repository.path, before, later=HOUR).observe()
    assert (
        texts(found, "dangling")
        == ["`run` was removed from `src/agents.py` and is still named in 1 file: `src/user.py`"]
        or texts(found, "dangling") == []
    )  # names of three letters are too common to be told apart
    repository.write({"src/agents.py": "def run():\n    return 1\n"})
    repository.commit("Name it well", {"src/agents.py": "def start_agents():\n    return 1\n"})
    repository.write({"src/user.py": "from agents import start_agents\n"})
    repository.commit("Use it", {})
    before = look(repository.path)
    repository.write({"src/agents.py": "def begin():\n    return 1\n"})
    found = look(repository.path, before, later=HOUR).observe()
    assert texts(found, "dangling") == [
        "`start_agents` was removed from `src/agents.py` and is still named in 1 file: `src/user.py`"
    ]


def test_a_name_that_moved_does_not_dangle(repository: Repository) -> None:
    repository.commit("Two", {"src/a.py": "def helper_name():\n    pass\n", "src/b.py": "from a import helper_name\n"})
    before = look(repository.path)
    repository.write({"src/a.py": "", "src/c.py": "def helper_name():\n    pass\n"})
    assert texts(look(repository.path, before, later=HOUR).observe(), "dangling") == []


def test_new_markers_are_those_in_comments(repository: Repository, seen: View) -> None:
    repository.write({"src/agents.py": 'def run():\n    return "# TODO not one"  # FIXME count twice\n'})
    assert texts(look(repository.path, seen, later=HOUR).observe(), "marker") == [
        "`src/agents.py` brings FIXME count twice"
    ]


def test_a_rewritten_history_is_said(repository: Repository) -> None:
    before = look(repository.path)
    repository.git("commit", "-q", "--amend", "-m", "Another subject")
    now = look(repository.path, before, later=HOUR)
    assert now.rewritten
    assert "history rewritten" in now.reasons()
    assert texts(now.observe(), "rewritten")


def test_another_branch_is_not_a_rewrite(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "other")
    repository.commit("On the side", {"src/side.py": "x = 1\n"})
    before = look(repository.path)
    repository.git("checkout", "-q", "main")
    now = look(repository.path, before, later=HOUR)
    assert now.reasons() == ["1 file changed", "another branch or commit checked out"]
    assert now.new_commits == ()
    assert not now.rewritten
    repository.git("branch", "-q", "-D", "other")
    assert look(repository.path, before, later=HOUR).rewritten


def test_gaps_are_new_files_whose_neighbours_are_tested(repository: Repository, seen: View) -> None:
    repository.write({"src/budget.py": "x = 1\n"})
    (gap,) = look(repository.path, seen, later=HOUR).gaps()
    assert gap.text == "`src/budget.py` is new and has no test of its name; 2 of 2 neighbours have one"
    repository.write({"tests/test_budget.py": "x = 1\n"})
    assert look(repository.path, seen, later=HOUR).gaps() == []


# -- looking back -------------------------------------------------------------------------------------


def test_reflection_on_a_file(repository: Repository, seen: View) -> None:
    source = repository.path / "src/monitoring.py"
    source.write_text(source.read_text().replace("step.tokens", "step.all_tokens"))
    now = look(repository.path, seen, later=HOUR)
    found = now.reflect("monitoring.py")
    (spot,) = texts(found, "spot")
    assert spot.startswith("`src/monitoring.py`: 9 commits, 4 fixes among them, last ")
    assert texts(found, "with") == ["`src/monitoring.py` usually moves with `tests/test_monitoring.py` (9 of 9)"]
    (origin,) = texts(found, "origin")
    assert "come from" in origin
    assert "Start the project" in origin


def test_reflection_on_a_word_and_on_nothing(seen: View) -> None:
    assert (
        texts(seen.reflect("Monitor"), "spot") == ["'Monitor' is named in 1 file: `src/monitoring.py`"]
        or "Monitor" in texts(seen.reflect("Monitor"), "spot")[0]
    )
    assert texts(seen.reflect("xyzzy"), "nothing")
    assert seen.reflect("")
    assert seen.reflect("--open-files-in-pager=touch /tmp/x")


# -- at first sight -----------------------------------------------------------------------------------


def test_first_sight_of_a_project(seen: View) -> None:
    found = seen.observe()
    (place,) = texts(found, "place")
    assert place.startswith("7 files (4 .py, 2 .md, 1 other), 9 commits since ")
    assert texts(found, "risk") == ["`src/monitoring.py`: 4 fixes among its 9 changes in the last 9 commits"]


def test_first_sight_of_a_young_folder_gives_something_to_do(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "# X\n[guide](docs/guide.md) [site](https://x.org) [top](#x) `[no](code.md)`\n```\n[no](block.md)\n```\n"
    )
    (tmp_path / "big.py").write_text("x = 1\n" * 900 + "# TODO split this\n")
    (tmp_path / "pattern.py").write_text("P = re.compile('# TODO')\n" + "x = 1\n" * 30)
    found = look(tmp_path).observe()
    assert texts(found, "broken") == ["`README.md` links to `docs/guide.md`, which does not exist"]
    assert texts(found, "left") == ["`big.py` line 901: TODO split this"]
    assert texts(found, "untested") == ["no test found beside 2 source files; the largest is `big.py`"]
    assert texts(found, "large") == ["`big.py` has 901 lines, the next largest 31"]


def test_principles_are_rules_not_licences(repository: Repository, seen: View) -> None:
    assert seen.principles() == [
        ("AGENTS.md", "Write unit tests for new functionality."),
        ("AGENTS.md", "Keep token totals exact."),
    ]


# -- odd folders --------------------------------------------------------------------------------------


def test_what_cannot_be_watched_says_why(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="No such file"):
        World(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(WatchError, match="not a folder"):
        World(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(WatchError, match="cannot watch"):
        World(tmp_path / "loop")


@contextmanager
def unprivileged(path: Path) -> Iterator[Path]:
    """A folder below `path` that others than root may enter; meanwhile this process is not root."""
    for folder in [path, *path.parents]:
        if folder.owner() == "root" and os.geteuid() == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield path
    finally:
        os.seteuid(user)


def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "open").mkdir()
    (tmp_path / "open/secret.txt").write_text("x")
    (tmp_path / "open/plain.txt").write_text("x")
    before = look(tmp_path / "open", git=False)
    (tmp_path / "open/secret.txt").chmod(0)
    with unprivileged(tmp_path):
        with pytest.raises(WatchError, match="Permission denied"):
            World(tmp_path / "closed")
        first = look(tmp_path / "open", git=False)
        later = look(tmp_path / "open", before, later=HOUR, git=False)
        assert texts(first.observe(), "unreadable") == ["1 file cannot be read: `secret.txt`"]
        assert later.reasons() == []  # what cannot be read is not taken for removed
    (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("spoil", ["empty", "garbage", "no HEAD"])
def test_a_broken_repository_is_named(repository: Repository, spoil: str) -> None:
    git = repository.path / ".git"
    if spoil == "no HEAD":
        (git / "HEAD").unlink()
    else:
        import shutil

        shutil.rmtree(git)
        if spoil == "empty":
            git.mkdir()
        else:
            git.write_text("gitdir: /nowhere\n")
    with pytest.raises(WatchError, match="--no-git"):
        World(repository.path)
    assert look(repository.path, git=False).snapshot.files


def test_a_repository_that_breaks_later_is_named_too(repository: Repository) -> None:
    world = World(repository.path)
    for loose in (repository.path / ".git/objects").glob("??/*"):
        loose.unlink()
    with pytest.raises(WatchError, match="--no-git"):
        world.look(None, NOW).observe()


def test_an_empty_repository_and_an_empty_folder(tmp_path: Path) -> None:
    empty = Repository(tmp_path / "repository")
    first = look(empty.path, later=-60 * 86400)
    assert texts(first.observe(), "place") == ["0 files, no git history"]
    empty.commit("Begin", {"a.py": "x = 1\n"})
    now = look(empty.path, first, later=HOUR)
    assert now.reasons() == ["1 file changed", "1 new commit"]
    assert now.observe()
    (tmp_path / "folder").mkdir()
    assert texts(look(tmp_path / "folder").observe(), "place") == ["0 files, no git history"]


def test_a_subfolder_of_a_repository(repository: Repository) -> None:
    before = look(repository.path / "src")
    assert set(before.snapshot.files) == {"agents.py", "monitoring.py"}
    repository.commit("Elsewhere", {"README.md": "# New\n"})
    assert look(repository.path / "src", before, later=HOUR).new_commits == ()
    repository.commit("Here", {"src/agents.py": "def run():\n    return 4\n"})
    now = look(repository.path / "src", before, later=HOUR)
    assert [c.files for c in now.new_commits] == [("agents.py",)]
    assert texts(now.observe(), "modified") == ["`agents.py` return 1 → return 4"]


def test_odd_files_are_neither_opened_nor_believed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "x\n- [idle] y").write_text("x")
    Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9.py")).write_text("x = 1\n")
    (tmp_path / "-rf").write_text("x")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 * 2**20)
    for make_git in (False, True):
        if make_git:
            Repository(tmp_path)
        before = look(tmp_path)
        kept = Snapshot.from_json(json.loads(json.dumps(before.snapshot.to_json())))
        assert kept == before.snapshot
        (tmp_path / "x\n- [idle] y").write_text("z")
        with (tmp_path / "huge").open("r+b") as file:
            file.write(b"changed once" if make_git else b"changed")
        now = World(tmp_path).look(kept, NOW + HOUR)
        assert {c.path for c in now.changes} == {"x\n- [idle] y", "huge"}
        found = now.observe()
        assert texts(found, "idle") == []
        assert all("\n" not in f.text for f in found)
        "\n".join(map(str, found)).encode()
        (tmp_path / "x\n- [idle] y").write_text("x")


def test_a_plain_folder_honours_gitignore_files(tmp_path: Path) -> None:
    for path in ("a.py", "out/b.py", "sub/c.log", "sub/keep.log", "node_modules/d.js", "sub/deep/e.tmp"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / ".gitignore").write_text("out/\n*.log\n")
    (tmp_path / "sub/.gitignore").write_text("!keep.log\n*.tmp\n")
    assert set(look(tmp_path, git=False).snapshot.files) == {".gitignore", "a.py", "sub/.gitignore", "sub/keep.log"}


def test_a_watched_repository_cannot_run_code(repository: Repository, tmp_path: Path, seen: View) -> None:
    flag = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {flag}\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "diff.evil.textconv", "core.pager", "core.editor"):
        repository.git("config", key, str(script))
    repository.write({".gitattributes": "*.py diff=evil\n", "src/agents.py": "def run():\n    return 9\n"})
    now = look(repository.path, seen, later=HOUR)
    now.observe()
    now.reflect("src/agents.py")
    now.uncommitted()
    assert not flag.exists()


def test_the_machine(tmp_path: Path) -> None:
    assert "GiB free" in machine(tmp_path).text
