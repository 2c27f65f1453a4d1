"""git: histories that try to forge, repositories that try to run code, and unusual kinds of checkouts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Repository
from dionysus.errors import WatchError
from dionysus.world import View, World

NOW = 1_795_000_000.0
HOUR = 3600.0


def look(path: Path, before: View | None = None) -> View:
    return World(path).look(before.snapshot if before else None, NOW + HOUR)


def put(repository: Repository, text: str) -> None:
    """Makes a commit of any text the newest one."""
    done = subprocess.run(
        ["git", "-C", str(repository.path), "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    repository.git("update-ref", "HEAD", done.stdout.decode().strip())


def test_control_characters_in_subjects_and_names_forge_no_commit(repository: Repository) -> None:
    repository.commit("one\x01two\x02three\x1f- [idle] four", {"\nodd": "x", "-n": "x", ":(top)x": "x", "é '\"": "x"})
    repository.commit("nothing in it", {})
    repository.commit("after", {"README.md": "y"})
    after, odd, *_ = look(repository.path).history
    assert (after.subject, after.files) == ("after", ("README.md",))
    assert odd.subject == "one\x01two\x02three\x1f- [idle] four"
    assert set(odd.files) == {"\nodd", "-n", ":(top)x", "é '\""}
    found = look(repository.path).observe()
    assert all(f.text.isprintable() for f in found)


def test_impossible_dates_are_borne(repository: Repository) -> None:
    parent = repository.git("rev-parse", "HEAD").strip()
    blob = repository.git("hash-object", "-w", "README.md").strip()
    repository.git("update-index", "--add", "--cacheinfo", f"100644,{blob},late.py")
    tree = repository.git("write-tree").strip()
    stamp = "A <a@b> 9999999999999 +0000"
    put(repository, f"tree {tree}\nparent {parent}\nauthor {stamp}\ncommitter {stamp}\n\nlate\n")
    view = look(repository.path)
    assert view.history[0].subject == "late"
    assert view.observe()


@pytest.mark.parametrize("how", ["filter", "signature", "submodule"])
def test_nothing_that_the_repository_sets_up_runs(repository: Repository, tmp_path: Path, how: str) -> None:
    flag, script = tmp_path / "ran", tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {flag}\ncat\n")
    script.chmod(0o755)
    before = look(repository.path)
    if how == "filter":
        repository.git("config", "filter.evil.clean", str(script))
        repository.git("config", "filter.evil.process", str(script))
        repository.git("config", "filter.evil.required", "true")
        (repository.path / ".git/info/attributes").write_text("* filter=evil\n")
    elif how == "signature":
        repository.git("config", "log.showSignature", "true")
        repository.git("config", "gpg.program", str(script))
        parent, tree = (repository.git("rev-parse", name).strip() for name in ("HEAD", "HEAD~1^{tree}"))
        signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
        who = "A <a@b> 1795000000 +0000"
        put(repository, f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n{signature}\n\nsigned\n")
    else:
        inner = Repository(repository.path / "inner")
        inner.commit("x", {"x": "x"})
        repository.commit("inner", {})
        inner.git("config", "core.fsmonitor", str(script))
        inner.write({"x": "y"})
    repository.write({"src/agents.py": "def run():\n    return 9\n", "new.py": "x\n"})
    view = look(repository.path, before)
    view.observe()
    view.wording()
    view.reflect("src/agents.py")
    view.reflect("Monitor")
    assert view.history
    assert "src/agents.py" in view.uncommitted()
    assert not flag.exists()


def test_settings_of_the_user_do_not_change_what_is_seen(repository: Repository) -> None:
    before = look(repository.path)
    for key, value in {
        "grep.fullName": "true",
        "submodule.recurse": "true",
        "log.showRoot": "false",
        "log.decorate": "full",
        "blame.blankBoundary": "true",
        "diff.noprefix": "true",
        "diff.interHunkContext": "50",
        "color.ui": "always",
    }.items():
        repository.git("config", "--file", str(Path(os.environ["HOME"]) / ".gitconfig"), key, value)
    source = repository.path / "src/agents.py"
    source.write_text("def go():\n    return 1\n")
    view = look(repository.path, before)
    assert [f.text for f in view.observe() if f.kind == "modified"] == ["`src/agents.py` def run(): → def go():"]
    assert [f.identifiers for f in look(repository.path / "src").reflect("Monitor")] == [["monitoring.py"]] * 2
    assert "src/agents.py" in view.history[-1].files
    assert any(f.kind == "origin" for f in view.reflect("src/agents.py"))


def test_a_repository_around_that_cannot_be_read_is_named(repository: Repository) -> None:
    (repository.path / ".git/config").write_text("[broken\n")
    with pytest.raises(WatchError, match=r"bad config.*--no-git"):
        World(repository.path / "src")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to somebody else needs root")
def test_dubious_ownership_is_named(repository: Repository) -> None:
    for path in (repository.path, repository.path / "src", repository.path / ".git"):
        os.chown(path, 12345, 12345)
    for path in (repository.path, repository.path / "src"):
        with pytest.raises(WatchError, match=r"dubious ownership.*--no-git"):
            World(path)


def test_an_ignored_folder_within_a_repository_is_a_plain_one(repository: Repository) -> None:
    repository.write({"build/notes.txt": "x", "src/build/out": "x"})
    view = look(repository.path / "build")
    assert set(view.snapshot.files) == {"notes.txt"}
    assert view.history == ()


def test_a_checkout_of_another_branch_is_no_rewriting(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "other")
    repository.commit("On the other branch", {"other.py": "x"})
    before = look(repository.path)
    repository.git("checkout", "-q", "main")
    view = look(repository.path, before)
    assert (view.moved, view.rewritten, view.new_commits) == (True, False, ())
    assert view.reasons() == ["1 file changed", "another branch or commit checked out"]
    repository.git("checkout", "-q", "--detach", "HEAD~2")
    assert not look(repository.path, view).rewritten


def test_a_rewritten_history_shows_what_was_rewritten(repository: Repository) -> None:
    at = NOW - 10 * 86400  # before the amending, after the commit itself was written
    repository.commit("Early", {"src/agents.py": "def run():\n    return 5\n"})
    before = World(repository.path).look(None, at)
    written = repository.git("log", "-1", "--format=%at").strip()
    repository.commit("Elsewhere", {})
    repository.git("reset", "-q", "--hard", "HEAD~1")
    (repository.path / "src/agents.py").write_text("def run():\n    return 6\n")
    subprocess.run(
        ["git", "-C", str(repository.path), "commit", "-qa", "--amend", "-m", "Amended", f"--date={written} +0000"],
        env={
            **os.environ,
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@b",
            "GIT_COMMITTER_DATE": f"@{int(NOW)}",
        },
        check=True,
    )
    view = World(repository.path).look(before.snapshot, NOW + HOUR)
    assert view.reasons() == ["1 file changed", "1 new commit", "history rewritten"]
    assert [c.subject for c in view.new_commits] == ["Amended"]
    assert [f.text for f in view.observe() if f.kind == "modified"] == ["`src/agents.py` return 5 → return 6"]


def test_shallow_clones_work_trees_and_detached_heads(repository: Repository, tmp_path: Path) -> None:
    repository.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "HEAD~1")
    assert len(look(tmp_path / "tree").history) == 8
    url = f"file://{repository.path}"
    subprocess.run(["git", "clone", "-q", "--depth=2", url, str(tmp_path / "shallow")], check=True)
    before = look(tmp_path / "shallow")
    assert len(before.history) == 2
    assert before.observe()
    shutil.rmtree(tmp_path / "shallow")
    repository.commit("One", {"a.py": "x"})
    repository.commit("Two", {"a.py": "y"})
    subprocess.run(["git", "clone", "-q", "--depth=1", url, str(tmp_path / "shallow")], check=True)
    view = look(tmp_path / "shallow", before)
    assert view.rewritten
    assert view.observe()
    assert view.reflect("a.py")


def test_submodules_and_conflicts_are_no_files(repository: Repository) -> None:
    inner = Repository(repository.path / "inner")
    inner.commit("x", {"x": "x"})
    assert "inner" not in look(repository.path).snapshot.files
    repository.git("checkout", "-q", "-b", "a")
    repository.commit("a", {"src/agents.py": "a\n"})
    repository.git("checkout", "-q", "main")
    repository.commit("b", {"src/agents.py": "b\n"})
    with pytest.raises(subprocess.CalledProcessError):
        repository.git("merge", "-q", "a")
    view = look(repository.path)
    assert "inner" not in view.snapshot.files
    assert "src/agents.py" in view.uncommitted()
    assert view.observe()
