"""A git repository, read through `git`: history, differences, blame, uses of a name.

A watched repository is not trusted: no hook, external diff, text conversion or file-system monitor of it runs.
Paths are taken literally and are relative to the watched folder, which may lie within a larger repository.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dionysus.errors import WatchError

HISTORY = 2000
"""Newest commits that are read."""
_TIMEOUT_S = 60
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-c", "core.hooksPath=/dev/null")
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--relative")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit, as far as the watched folder is concerned."""

    sha: str
    """The first eight digits."""
    at: float
    """Unix seconds, of the author."""
    author: str
    subject: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one file differs from an earlier commit."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    """What git names behind the hunks' line numbers: the function or class around."""
    old_lines: tuple[tuple[int, int], ...] = ()
    """(first line, number) of each hunk on the old side; number 0 where lines were only added."""
    binary: bool = False


class Repository:
    """The repository that a folder lies in."""

    def __init__(self, root: Path, git: str) -> None:
        self._root, self._git = root, git

    @classmethod
    def open(cls, root: Path) -> "Repository | None":
        """The repository around `root`; None where there is none, or no git.

        Raises:
            WatchError: There is a `.git` that git cannot read.
        """
        git = shutil.which("git")
        if git is None:
            return None
        found = cls(root, git)
        done = found._call("rev-parse", "--is-inside-work-tree")
        if done.returncode == 0 and done.stdout.strip() == b"true":
            return found
        if (root / ".git").exists():
            reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = reason[0] if reason else "it has no work tree"
            raise WatchError(
                f"the git repository in {str(root)!r} cannot be read: {why}; mend it, or watch it as a plain "
                "folder with --no-git"
            )
        return None

    # -- the state -------------------------------------------------------------------------------------

    def head(self) -> str | None:
        """The full id of the commit that is checked out; None before the first commit."""
        return self._text("rev-parse", "--verify", "-q", "HEAD").strip() or None

    def paths(self) -> list[str]:
        """Tracked and untracked paths that are not ignored."""
        listed = self._nul("ls-files", "-co", "--exclude-standard", "-z")
        return list(dict.fromkeys(listed))

    def uncommitted(self) -> tuple[frozenset[str], frozenset[str]]:
        """(changed tracked paths, untracked paths) against HEAD."""
        head = self.head()
        tracked = self._nul(*_DIFF, "--name-only", "-z", head) if head else self._nul("ls-files", "-z")
        untracked = self._nul("ls-files", "-o", "--exclude-standard", "-z")
        return frozenset(tracked), frozenset(untracked)

    def has(self, commit: str) -> bool:
        """Whether a commit is still there and an ancestor of what is checked out."""
        return self._call("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0

    def is_kept(self, commit: str) -> bool:
        """Whether a branch or tag still holds a commit."""
        return bool(self._call("for-each-ref", "--count=1", "--contains", commit).stdout.strip())

    # -- history ---------------------------------------------------------------------------------------

    @cached_property
    def history(self) -> tuple[Commit, ...]:
        """The newest commits that touched the folder, newest first, merges left out."""
        return tuple(self._log(f"--max-count={HISTORY}", "--", "."))

    def since(self, commit: str) -> tuple[Commit, ...]:
        """Commits behind an earlier one, newest first."""
        return tuple(self._log(f"--max-count={HISTORY}", f"{commit}..HEAD", "--", "."))

    def _log(self, *selection: str) -> Iterator[Commit]:
        if self.head() is None:
            return
        form = "--format=%x01%h%x02%at%x02%an%x02%s%x02"
        out = self._bytes(
            "log", "--no-merges", "--no-renames", "--relative", "--name-only", "-z", "--abbrev=8", form, *selection
        )
        for entry in out.split(b"\x01")[1:]:
            sha, at, author, subject, files = entry.split(b"\x02", 4)
            yield Commit(
                sha=sha.decode()[:8],
                at=float(at),
                author=author.decode("utf-8", "replace"),
                subject=subject.decode("utf-8", "replace"),
                files=tuple(os.fsdecode(f) for f in files.replace(b"\n", b"\0", 1).split(b"\0") if f.strip(b"\n")),
            )

    # -- differences -----------------------------------------------------------------------------------

    def difference(self, base: str, path: str) -> Difference:
        """How `path` in the work tree differs from `base`."""
        text = self._bytes(*_DIFF, "-U0", base, "--", path).decode("utf-8", "replace")
        added, removed, places, old = [], [], [], []
        in_hunk = False
        for line in text.split("\n"):
            if hunk := re.match(r"@@ -(\d+)(?:,(\d+))? \+\S+ @@ ?(.*)", line):
                in_hunk = True
                old.append((int(hunk[1]), int(hunk[2] if hunk[2] is not None else 1)))
                if hunk[3]:
                    places.append(hunk[3])
            elif line.startswith("diff --git"):
                in_hunk = False
            elif in_hunk and line.startswith("+"):
                added.append(line[1:])
            elif in_hunk and line.startswith("-"):
                removed.append(line[1:])
        return Difference(
            added=tuple(added),
            removed=tuple(removed),
            places=tuple(places),
            old_lines=tuple(old),
            binary="\nBinary files " in text,
        )

    def changed_between(self, base: str) -> list[str]:
        """Paths that differ between `base` and the work tree."""
        return self._nul(*_DIFF, "--name-only", "-z", base)

    def blamed(self, base: str, path: str, old_lines: Sequence[tuple[int, int]]) -> dict[str, int]:
        """Which commits the old lines come from: short id → number of lines."""
        counts: dict[str, int] = {}
        for first, number in old_lines:
            last = max(1, first) + max(1, number) - 1
            out = self._text(
                "blame", "--no-textconv", "-s", "--abbrev=8", "-L", f"{max(1, first)},{last}", base, "--", path
            )
            for sha in re.findall(r"^\^?([0-9a-f]{8,40}) ", out, re.M):
                counts[sha[:8]] = counts.get(sha[:8], 0) + 1
        return counts

    def naming(self, word: str, *, ignore_case: bool = False) -> list[str]:
        """Tracked and untracked text files that hold a word."""
        options = ["-l", "-z", "-w", "-F", "-I", "--untracked", "--no-color", *(["-i"] if ignore_case else [])]
        return self._nul("grep", *options, "-e", word, "--", ".")

    # -- git -------------------------------------------------------------------------------------------

    def _call(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k == "GIT_CONFIG_NOSYSTEM"},
            "LC_ALL": "C",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_PAGER": "cat",
            "GIT_NO_LAZY_FETCH": "1",
        }
        try:
            return subprocess.run(
                [self._git, "-C", str(self._root), *_SAFE, *arguments],
                capture_output=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WatchError(
                f"git {arguments[0]} in {str(self._root)!r} took longer than {_TIMEOUT_S} s; watch a smaller "
                "folder, or watch it with --no-git"
            ) from error

    def _bytes(self, *arguments: str) -> bytes:
        done = self._call(*arguments)
        quiet = arguments[0] in ("rev-parse", "grep", "blame")
        if done.returncode != 0 and not quiet:
            reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise WatchError(
                f"git {arguments[0]} failed in {str(self._root)!r}: {reason[0] if reason else 'no reason given'}; "
                "run `git fsck`, or watch it as a plain folder with --no-git"
            )
        return done.stdout

    def _text(self, *arguments: str) -> str:
        return self._bytes(*arguments).decode("utf-8", "replace")

    def _nul(self, *arguments: str) -> list[str]:
        return [os.fsdecode(name) for name in self._bytes(*arguments).split(b"\0") if name]
