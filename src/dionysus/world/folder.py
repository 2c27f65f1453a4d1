"""The files of a folder and what changed between two looks.

Files are compared by content; content is read again only where size or modification time moved, or the time is too
near to the last look to be trusted. Links are not followed, and only regular files are opened.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from pathspec import GitIgnoreSpec

ALWAYS_SKIPPED = frozenset({".git", ".hg", ".svn", ".dionysus"})
SKIPPED_WITHOUT_GIT = ALWAYS_SKIPPED | {
    "__pycache__",
    "node_modules",
    ".venv",
    "venv",
    ".tox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
}
_WHOLE_BYTES = 16 * 2**20
"""Larger files are known by size, time, first and last MiB."""
_END_BYTES = 2**20
_RACY_NS = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """What a file was like when it was looked at."""

    fingerprint: str
    mtime_ns: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a folder was like at a look; handed in at the next one."""

    files: Mapping[str, FileMark]
    """By path relative to the folder, POSIX; undecodable bytes as surrogates."""
    head: str | None
    """The commit that was checked out."""
    taken_at: float
    """Unix seconds."""

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json.dumps` takes."""
        files = {path: [m.fingerprint, m.mtime_ns, m.size] for path, m in self.files.items()}
        return {"files": files, "head": self.head, "taken_at": self.taken_at}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Snapshot":
        """The snapshot that `to_json` wrote."""
        files = {p: FileMark(fingerprint=f, mtime_ns=t, size=s) for p, (f, t, s) in data["files"].items()}
        return cls(files=files, head=data["head"], taken_at=data["taken_at"])


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that is not as it was."""

    path: str
    kind: Literal["added", "modified", "removed"]


def scan(root: Path, paths: Iterable[str], before: Snapshot | None) -> tuple[dict[str, FileMark], list[str]]:
    """Marks of the regular files among `paths`, and the paths that could not be read.

    A file that cannot be read, or whose folder cannot, keeps its mark of before: it does not seem removed. A file
    behind a linked folder is passed over, since it may lie anywhere.
    """
    known: Mapping[str, FileMark] = before.files if before else {}
    linked = lru_cache(maxsize=None)(partial(_is_behind_link, root))
    trusted_ns = int(before.taken_at * 1e9) - _RACY_NS if before else 0
    marks: dict[str, FileMark] = {}
    unreadable: list[str] = []
    for path in paths:
        full = os.path.join(root, path)
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unreadable.append(path)
            continue
        if linked(path.rpartition("/")[0]):
            continue
        old = known.get(path)
        if stat.S_ISLNK(found.st_mode):
            marks[path] = FileMark(fingerprint=f"-> {os.readlink(full)}", mtime_ns=0, size=0)
        elif not stat.S_ISREG(found.st_mode):
            continue
        elif old and (old.mtime_ns, old.size) == (found.st_mtime_ns, found.st_size) and old.mtime_ns < trusted_ns:
            marks[path] = old
        else:
            try:
                fingerprint = _fingerprint(full, found)
            except OSError:
                unreadable.append(path)
                continue
            marks[path] = FileMark(fingerprint=fingerprint, mtime_ns=found.st_mtime_ns, size=found.st_size)
    unreadable += [path for path in known.keys() - marks.keys() - set(unreadable) if _is_shut(root, path)]
    marks |= {path: known[path] for path in unreadable if path in known}
    return marks, sorted(unreadable)


def changes_between(before: Snapshot | None, marks: Mapping[str, FileMark]) -> tuple[Change, ...]:
    """What differs, by path; nothing where there was no look before."""
    if before is None:
        return ()
    found = [Change(path=p, kind="added") for p in marks.keys() - before.files.keys()]
    found += [Change(path=p, kind="removed") for p in before.files.keys() - marks.keys()]
    found += [
        Change(path=p, kind="modified")
        for p in marks.keys() & before.files.keys()
        if marks[p].fingerprint != before.files[p].fingerprint
    ]
    return tuple(sorted(found, key=lambda change: change.path))


def walk(root: Path) -> Iterator[str]:
    """Paths below `root` that its `.gitignore` files do not name, without git; see `SKIPPED_WITHOUT_GIT`."""
    rules: dict[str, list[tuple[str, GitIgnoreSpec]]] = {"": []}
    for folder, names, files in os.walk(root):
        here = os.path.relpath(folder, root).replace(os.sep, "/").removeprefix(".").lstrip("/")
        specs = list(rules.pop(here, []))
        if ".gitignore" in files:
            specs += _read_rules(Path(folder) / ".gitignore", here)
        kept = []
        for name in sorted(names):
            below = f"{here}/{name}".lstrip("/")
            is_link = os.path.islink(os.path.join(folder, name))
            if name not in SKIPPED_WITHOUT_GIT and not is_link and not _ignored(below + "/", specs):
                kept.append(name)
                rules[below] = specs
        names[:] = kept
        for name in sorted(files):
            path = f"{here}/{name}".lstrip("/")
            if not _ignored(path, specs):
                yield path


def without(paths: Iterable[str], skip: Sequence[str]) -> list[str]:
    """Paths that are none of `skip` and in none of its folders, nor in a folder that is always skipped."""
    return [
        path
        for path in paths
        if not ALWAYS_SKIPPED.intersection(path.split("/"))
        and not any(path == s or path.startswith(s + "/") for s in skip)
    ]


def _is_behind_link(root: Path, folder: str) -> bool:
    """Whether a folder below `root` is reached through a symbolic link."""
    parts = folder.split("/") if folder else []
    return any(os.path.islink(os.path.join(root, *parts[: i + 1])) for i in range(len(parts)))


def _is_shut(root: Path, path: str) -> bool:
    """Whether a file could not be found because its folder may not be entered or listed."""
    try:
        os.lstat(os.path.join(root, path))
        os.scandir(os.path.join(root, path.rpartition("/")[0])).close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _ignored(path: str, specs: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    ignored = False
    for base, spec in specs:
        relative = path.removeprefix(base + "/") if base else path
        verdict = spec.check_file(relative).include
        ignored = ignored if verdict is None else verdict
    return ignored


def _read_rules(path: Path, base: str) -> list[tuple[str, GitIgnoreSpec]]:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        return [(base, GitIgnoreSpec.from_lines(path.read_text("utf-8", "replace").splitlines()))]
    except (OSError, ValueError):  # an ignore file that cannot be read or understood ignores nothing
        return []


def _fingerprint(path: str, found: os.stat_result) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if found.st_size <= _WHOLE_BYTES:
            while chunk := file.read(_END_BYTES):
                digest.update(chunk)
        else:
            digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
            digest.update(file.read(_END_BYTES))
            file.seek(-_END_BYTES, os.SEEK_END)
            digest.update(file.read(_END_BYTES))
    return digest.hexdigest()
