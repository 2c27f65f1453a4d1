"""A git repository, read through `git`: history, differences, blame, uses of a name.

A watched repository is not trusted: no hook, filter, external diff, text conversion, signature check or monitor that
it sets up runs, and nothing is fetched.
Paths are taken literally and are relative to the watched folder, which may lie within a larger repository.
"""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dionysus.errors import WatchError
from dionysus.findings import quoted

HISTORY = 2000
"""Newest commits that are read."""
_TIMEOUT_S = 60
_LAST_S = 221_845_132_800.0
"""The year 9000: later dates of commits are forged, and no calendar takes them."""
_CONFIG = {
    # what would run a program of the repository's choice
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "log.showSignature": "false",
    # what would change the form of an answer
    "core.quotepath": "false",
    "core.bigFileThreshold": "16m",
    "log.showRoot": "true",
    "log.follow": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "grep.fullName": "false",
    "submodule.recurse": "false",
    "blame.blankBoundary": "false",
}
"""Settings that no configuration may overrule."""
_DIFF = (
    *("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--relative"),
    *("--ignore-submodules=dirty", "--inter-hunk-context=0"),
)
_WITH_FILTERS = frozenset({"diff", "grep", "blame"})
"""What git reads work tree files for, through the filters that the repository sets up."""


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
        """The repository around `root`; None where there is none, none that would track `root`, or no git.

        Raises:
            WatchError: There is a repository that git cannot read.
        """
        git = shutil.which("git")
        if git is None:
            return None
        found = cls(root, git)
        done = found._call("rev-parse", "--is-inside-work-tree", "--show-prefix")
        inside, _, prefix = done.stdout.partition(b"\n")
        if done.returncode == 0 and inside == b"true":
            ignored = prefix.strip(b"\n") and found._call("check-ignore", "-q", ".").returncode == 0
            return None if ignored and not found._bytes("ls-files", "-z") else found
        why = "it has no work tree" if done.returncode == 0 else _reason(done.stderr)
        none_around = done.returncode == 0 or "not a git repository (or any" in why
        if os.path.lexists(root / ".git") or not none_around:
            raise WatchError(
                f"the git repository of {str(root)!r} cannot be read: {why}; mend it, or watch it as a plain "
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

    def can_read(self, commit: str) -> bool:
        """Whether a commit is still stored, if only for a while."""
        return self._call("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

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

    def later_than(self, at: float) -> tuple[Commit, ...]:
        """Commits made, amended or rebased after a time (Unix seconds), newest first."""
        return tuple(self._log(f"--max-count={HISTORY}", f"--since=@{int(at)}", "--", "."))

    def _log(self, *selection: str) -> Iterator[Commit]:
        if self.head() is None:
            return
        form = "--format=%x00%h%x00%at%x00%an%x00%s"
        out = self._bytes(
            "log", "--no-merges", "--no-renames", "--relative", "--name-only", "-z", "--abbrev=8", form, *selection
        )
        # NUL stands in no field, so no subject or name can forge a commit; an empty part opens each commit, and a
        # line end the list of its files.
        parts = iter(out.split(b"\0"))
        for part in parts:
            if not part:
                continue
            at, author, subject = next(parts), next(parts), next(parts)
            yield Commit(
                sha=part.decode()[:8],
                at=min(float(at or 0), _LAST_S),
                author=author.decode("utf-8", "replace"),
                subject=subject.decode("utf-8", "replace"),
                files=tuple(os.fsdecode(f) for f in _files(parts)),
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

    def blamed(self, base: str, path: str, old_lines: Sequence[tuple[int, int]]) -> dict[str, int]:
        """Which commits the old lines come from: short id → number of lines.

        Args:
            old_lines: (first line, number) of each part; a number of 0 means nothing and is passed over.
        """
        parts = [f"-L{first},{first + number - 1}" for first, number in old_lines if number]
        if not parts:
            return {}
        out = self._text("blame", "--no-textconv", "-s", "--abbrev=8", *parts, base, "--", path)
        return dict(Counter(sha[:8] for sha in re.findall(r"^\^?([0-9a-f]{8,64}) ", out, re.M)))

    def naming(self, word: str, *, ignore_case: bool = False) -> list[str]:
        """Tracked and untracked text files that hold a word."""
        options = ["-l", "-z", "-w", "-F", "-I", "--untracked", "--no-color", *(["-i"] if ignore_case else [])]
        return self._nul("grep", *options, "-e", word, "--", ".")

    # -- git -------------------------------------------------------------------------------------------

    @cached_property
    def _filters(self) -> tuple[str, ...]:
        """Settings of the repository – not of the user – that name a program to read files through."""
        listed = self._call(
            "config", "--show-scope", "--name-only", "-z", "--get-regexp", r"^filter\..*\.(clean|process|required)$"
        )
        parts = [os.fsdecode(part) for part in listed.stdout.split(b"\0")]
        return tuple(key for scope, key in zip(parts[::2], parts[1::2], strict=False) if scope in ("local", "worktree"))

    def _call(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        config = _CONFIG | (dict.fromkeys(self._filters, "") if arguments[0] in _WITH_FILTERS else {})
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k == "GIT_CONFIG_NOSYSTEM"},
            "LC_ALL": "C",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "0" if arguments[0] == "check-ignore" else "1",  # which does not take it
            "GIT_PAGER": "cat",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_CONFIG_COUNT": str(len(config)),
            **{f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(config)},
            **{f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(config.values())},
        }
        try:
            return subprocess.run(
                [self._git, "-C", str(self._root), *arguments],
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
            raise WatchError(
                f"git {arguments[0]} failed in {str(self._root)!r}: {_reason(done.stderr)}; "
                "run `git fsck`, or watch it as a plain folder with --no-git"
            )
        return done.stdout

    def _text(self, *arguments: str) -> str:
        return self._bytes(*arguments).decode("utf-8", "replace")

    def _nul(self, *arguments: str) -> list[str]:
        return [os.fsdecode(name) for name in self._bytes(*arguments).split(b"\0") if name]


def _reason(stderr: bytes) -> str:
    """The line with which git gave up, or its first one."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return quoted((fatal or lines or ["git gave no reason"])[0])


def _files(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The file names of one commit: up to the empty part that opens the next one."""
    for i, part in enumerate(parts):
        if not part:
            return
        yield part[1:] if i == 0 else part
