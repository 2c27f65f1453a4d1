"""One look at a watched folder, and what it finds, phrased in the line grammar."""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from dionysus.errors import WatchError
from dionysus.findings import Finding, code, plural, quoted
from dionysus.words import stem
from dionysus.world.folder import Change, Snapshot, changes_between, scan, walk, without
from dionysus.world.past import fixes_of, origin_of, past_of
from dionysus.world.phrasing import headline, listed
from dionysus.world.repository import Commit, Difference, Repository
from dionysus.world.sight import at_first_sight
from dionysus.world.survey import (
    defined,
    has_test,
    is_source,
    is_test,
    markers,
    principles,
    read_lines,
    stems_of_tests,
    survey,
    wants_test,
)

_COMMON = frozenset(name for kind in (str, bytes, int, float, list, dict, set, BaseException) for name in dir(kind))
"""Names that are at home everywhere; that one was removed here says nothing about its uses elsewhere."""
_LISTED_FILES = 25
_LISTED_COMMITS = 8
_COMPARED = 200
"""Changed files, sources first, whose difference is worked out."""
_WORDING_CHARS = 20_000
_SAME_CHARS = 10
_BLAMED = 12
"""Changed parts of a file whose origin is looked for."""
_BEARING = 2
"""Files bearing a word in their name whose opening is read."""
_OPENING_LINES = 10
_SOUGHT = 40
"""Removed names whose uses are looked for."""


class World:
    """A folder to look at."""

    def __init__(self, watch: Path, *, git: bool = True, skip: Sequence[Path] = ()) -> None:
        """
        Args:
            git: False: a plain folder, whatever is in it.
            skip: Files and folders that are never observed, such as our own store.

        Raises:
            WatchError: The folder is missing or unreadable, or holds a repository that git cannot read.
        """
        try:
            self.root = watch.expanduser().resolve(strict=True)
            if not self.root.is_dir():
                raise WatchError(f"cannot watch {str(watch)!r}: it is not a folder; name a folder with --watch")
            next(self.root.iterdir(), None)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            why = getattr(error, "strerror", None) or error
            raise WatchError(f"cannot watch {str(watch)!r}: {why}; name a readable folder with --watch") from error
        self._repository = Repository.open(self.root) if git else None
        own = [p.expanduser().absolute() for p in skip]
        inside = [p.parent.resolve() / p.name for p in own]
        self._skip = [p.relative_to(self.root).as_posix() for p in inside if p.is_relative_to(self.root)]

    def look(self, before: Snapshot | None, now: float) -> "View":
        """Scans the folder and compares it with an earlier look.

        Args:
            now: Unix seconds.

        Raises:
            WatchError: The folder or its repository cannot be read.
        """
        listed = self._repository.paths() if self._repository else walk(self.root)
        marks, unreadable = scan(self.root, without(listed, self._skip), before)
        head = self._repository.head() if self._repository else None
        snapshot = Snapshot(files=marks, head=head, taken_at=now)
        return View(self.root, self._repository, before, snapshot, unreadable)


class View:
    """What one look sees."""

    def __init__(
        self,
        root: Path,
        repository: Repository | None,
        before: Snapshot | None,
        snapshot: Snapshot,
        unreadable: Sequence[str],
    ) -> None:
        self.root, self.snapshot = root, snapshot
        self.first = before is None
        self.changes: tuple[Change, ...] = changes_between(before, snapshot.files)
        self._repository, self._before, self._unreadable = repository, before, unreadable
        self._kind = {change.path: change.kind for change in self.changes}

    # -- what happened ---------------------------------------------------------------------------------

    @cached_property
    def history(self) -> tuple[Commit, ...]:
        """Commits, newest first, merges left out; empty for a plain folder."""
        return self._repository.history if self._repository else ()

    @property
    def moved(self) -> bool:
        """Whether another commit is checked out than at the last look."""
        return self._before is not None and self._before.head != self.snapshot.head

    @cached_property
    def rewritten(self) -> bool:
        """Whether the commit of the last look is in no branch or tag any more."""
        return self.elsewhere and not self._is_kept

    @cached_property
    def elsewhere(self) -> bool:
        """Whether the commit of the last look is not part of the history that is checked out."""
        old = self._before.head if self._before else None
        return bool(self.moved and old and self._repository and not self._repository.has(old))

    @cached_property
    def _is_kept(self) -> bool:
        old = self._before.head if self._before else None
        return bool(old and self._repository and self._repository.is_kept(old))

    @cached_property
    def new_commits(self) -> tuple[Commit, ...]:
        """Commits since the last look, newest first; on another line of history, those dated later than that look."""
        if self._before is None or not self.moved or self._repository is None:
            return ()
        if self._before.head is None or self.elsewhere:
            return self._repository.later_than(self._before.taken_at)
        return self._repository.since(self._before.head)

    @cached_property
    def _sources_first(self) -> list[Change]:
        return sorted(self.changes, key=lambda c: (not is_source(c.path), is_test(c.path), c.path))

    def reasons(self) -> list[str]:
        """What happened since the last look, in words; empty where nothing did."""
        found = []
        if self.changes:
            found.append(f"{plural(len(self.changes), 'file')} changed")
        if self.new_commits:
            found.append(plural(len(self.new_commits), "new commit"))
        if self.elsewhere:
            found.append("history rewritten" if self.rewritten else "another branch or commit checked out")
        return found

    def uncommitted(self) -> frozenset[str]:
        """Paths that differ from HEAD; empty for a plain folder."""
        changed, untracked = self._status
        return changed | untracked

    def wording(self) -> dict[str, str]:
        """The text that moved: lines of the changed paths (of 200 at most), subject and paths of new commits."""
        found = {}
        for change in self._sources_first[:_COMPARED]:
            lines = (*self._difference(change.path).added, *self._difference(change.path).removed)
            found[change.path] = " ".join(lines)[:_WORDING_CHARS]
        for commit in self.new_commits:
            found[f"commit {commit.sha}"] = f"{commit.subject} {' '.join(commit.files)}"[:_WORDING_CHARS]
        return found

    def principles(self) -> list[tuple[str, str]]:
        """(path, rule) from the documents that state rules."""
        return principles(self.root, self.snapshot.files)

    # -- looking ---------------------------------------------------------------------------------------

    def observe(self) -> list[Finding]:
        """The folder at first sight, or what changed since the last look."""
        found = self._at_first_sight() if self.first else self._what_changed()
        if self._repository and self.snapshot.head:
            changed, untracked = self._status
            if changed or untracked:
                found.append(Finding("tree", f"{len(changed)} uncommitted, {len(untracked)} untracked"))
        if self._unreadable:
            text = f"{plural(len(self._unreadable), 'file')} cannot be read: {listed(self._unreadable)}"
            found.append(Finding("unreadable", text))
        return found

    def standing(self) -> list[Finding]:
        """The folder as at first sight, whatever changed."""
        return self._at_first_sight()

    def gaps(self) -> list[Finding]:
        """New source files without a test, where most of their neighbours have one."""
        stems = stems_of_tests(self.snapshot.files)
        found = []
        for change in self.changes:
            path = change.path
            if change.kind != "added" or not wants_test(path) or has_test(path, stems):
                continue
            folder = PurePosixPath(path).parent
            near = [p for p in self.snapshot.files if p != path and wants_test(p) and PurePosixPath(p).parent == folder]
            tested = [p for p in near if has_test(p, stems)]
            if len(near) > 1 and 2 * len(tested) >= len(near):
                have = f"{len(tested)} of {len(near)} neighbours have one"
                found.append(Finding("gap", f"{code(path)} is new and has no test of its name; {have}"))
        return found

    def reflect(self, topic: str) -> list[Finding]:
        """What is known of a path, or where a word is used."""
        path = self._path_of(topic)
        if path is None:
            return self._uses(topic)
        if any(path in c.files for c in self.history):
            told = past_of(path, self.history, here=self.snapshot.files, own=path)
            return [*told, *self._origin(path), *fixes_of(path, self.history)]
        if self._repository:
            folder, suffix = PurePosixPath(path).parent, PurePosixPath(path).suffix
            near = [p for p in self.snapshot.files if p != path and PurePosixPath(p).parent == folder]
            like = [p for p in near if PurePosixPath(p).suffix == suffix]
            kind = plural(len(like), f"{suffix or 'other'} file")
            where = "beside it" if str(folder) == "." else f"in {code(str(folder))}"
            beside = f"; it joins {kind} {where}" if like else ""
            return [Finding("fresh", f"{code(path)} has no history yet{beside}")]
        lines = read_lines(self.root, path)
        if lines is None:
            size = self.snapshot.files[path].size
            return [Finding("spot", f"{code(path)}: {size:,} bytes, not text")]
        names = defined(path, lines)
        what = f", defines {', '.join(map(code, names[:5]))}" if names else ""
        return [Finding("spot", f"{code(path)}: {plural(len(lines), 'line')}{what}")]

    # -- what there is, what changed ----------------------------------------------------------------------------------

    def _at_first_sight(self) -> list[Finding]:
        sizes = {path: mark.size for path, mark in self.snapshot.files.items()}
        return at_first_sight(self.snapshot, self.history) + survey(self.root, sizes)

    def _what_changed(self) -> list[Finding]:
        found = []
        if self.elsewhere:
            gone = "the history was rewritten: the commit of the last look is in no branch any more"
            aside = "another branch or commit is checked out: the commit of the last look is not part of it"
            found.append(Finding("rewritten", gone if self.rewritten else aside))
        found += [Finding("commit", headline(c, 100)) for c in self.new_commits[:_LISTED_COMMITS]]
        if len(self.new_commits) > _LISTED_COMMITS:
            found.append(Finding("more", plural(len(self.new_commits) - _LISTED_COMMITS, "further new commit")))
        order = self._sources_first
        for change in order[:_LISTED_FILES]:
            found.append(Finding(change.kind, f"{code(change.path)} {self._what(change)}".rstrip()))
            found += self._new_markers(change)
        if len(order) > _LISTED_FILES:
            found.append(Finding("more", plural(len(order) - _LISTED_FILES, "further changed file")))
        return found + self._dangling(order[:_COMPARED])

    def _what(self, change: Change) -> str:
        path, mark = change.path, self.snapshot.files.get(change.path)
        if change.kind == "removed" or mark is None:
            return "was removed"
        old = self._before.files.get(path) if self._before else None
        delta = self._difference(path)
        if delta.binary or read_lines(self.root, path) is None:
            grown = f"{old.size:,} → {mark.size:,} bytes" if old else f"{mark.size:,} bytes"
            return f"{'new ' if change.kind == 'added' else ''}binary or large file, {grown}"
        if change.kind == "modified" and self._repository is None and old:
            return f"{old.size:,} → {mark.size:,} bytes"
        if change.kind == "modified" and not delta.added and not delta.removed:
            return "is back to what was committed"
        if len(delta.added) == len(delta.removed) == 1:
            return _replaced(delta.removed[0].strip(), delta.added[0].strip())
        size = f"+{len(delta.added)} −{len(delta.removed)}"
        if change.kind == "added":
            size = f"+{plural(len(delta.added), 'line')}"
        names = list(dict.fromkeys([*defined(path, delta.added), *defined(path, delta.places)]))
        where = f" in {', '.join(map(code, names[:3]))}" if names else ""
        said = _telling(delta.added)
        return size + where + (f": {said}" if said else "")

    def _new_markers(self, change: Change) -> list[Finding]:
        added = set(self._difference(change.path).added)
        lines = read_lines(self.root, change.path) or [] if added else []
        found = [(number, text) for number, text in markers(change.path, lines) if lines[number - 1] in added]
        return [Finding("marker", f"{code(change.path)} brings {quoted(text, 80)}") for _, text in found[:2]]

    def _dangling(self, changes: Sequence[Change]) -> list[Finding]:
        """Names whose definition went and that are still used."""
        if self._repository is None:
            return []
        deltas = {c.path: self._difference(c.path) for c in changes if is_source(c.path)}
        again = {name for path, d in deltas.items() for name in defined(path, d.added)}
        gone = [
            (path, name)
            for path, delta in deltas.items()
            for name in defined(path, delta.removed)
            if name not in again and name not in _COMMON and len(name) >= 4 and not name.startswith("__")
        ]
        found = []
        for path, name in gone[:_SOUGHT]:
            users = [u for u in self._repository.naming(name) if is_source(u) and u in self.snapshot.files]
            if users and not any(name in defined(u, read_lines(self.root, u) or ()) for u in users):
                text = f"{code(name)} was removed from {code(path)} and is still named in"
                found.append(Finding("dangling", f"{text} {plural(len(users), 'file')}: {listed(users, 2)}"))
        return found

    def _difference(self, path: str) -> Difference:
        """A file against the commit of the last look (its changes from before that look included)."""
        if path not in self._differences:
            self._differences[path] = self._compute_difference(path)
        return self._differences[path]

    @cached_property
    def _differences(self) -> dict[str, Difference]:
        return {}

    def _compute_difference(self, path: str) -> Difference:
        base = self._base
        if self._repository and base and (self._kind.get(path) != "added" or path not in self._status[1]):
            return self._repository.difference(base, path)
        if self._kind.get(path) == "added":
            return Difference(added=tuple(read_lines(self.root, path) or ()))
        return Difference()

    @cached_property
    def _base(self) -> str | None:
        """What changes are held against: the commit of the last look, or HEAD where that cannot be read any more."""
        old = self._before.head if self._before else None
        if old is None or self._repository is None or (self.rewritten and not self._repository.can_read(old)):
            return self.snapshot.head
        return old

    @cached_property
    def _status(self) -> tuple[frozenset[str], frozenset[str]]:
        return self._repository.uncommitted() if self._repository else (frozenset(), frozenset())

    # -- looking back ----------------------------------------------------------------------------------

    def _path_of(self, topic: str) -> str | None:
        """The file that a topic names: its path, or an ending that only one path has."""
        wanted = topic.strip().strip("`").removeprefix("./")
        if wanted in self.snapshot.files:
            return wanted
        ending = [p for p in self.snapshot.files if p.endswith("/" + wanted)]
        return ending[0] if len(ending) == 1 else None

    def _origin(self, path: str) -> list[Finding]:
        if self._kind.get(path) != "modified" or self._repository is None or self._base is None:
            return []
        parts = self._difference(path).old_lines[:_BLAMED]
        return origin_of(path, self._repository.blamed(self._base, path, parts), self.history)

    def _naming(self, word: str) -> list[str]:
        if self._repository:
            found = self._repository.naming(word, ignore_case=True) if word.strip() else []
        else:
            pattern = re.compile(rf"\b{re.escape(word)}\b", re.I)
            found = [p for p in self.snapshot.files if any(map(pattern.search, read_lines(self.root, p) or ()))]
        return [f for f in found if f in self.snapshot.files]

    def _uses(self, word: str) -> list[Finding]:
        """Where a word is named; of the files that bear it in their name, what they say of themselves."""
        asked = quoted(word)
        files: list[str] = []
        for word in dict.fromkeys((asked, stem(asked.lower()))):  # "counted" finds "count"
            files = self._naming(word)
            if files:
                break
        plain = quoted(word if files else asked, 80)
        if not files:
            return [Finding("nothing", f"nothing here is called or says {plain!r}")]
        bearing = [f for f in files if word.lower() in PurePosixPath(f).stem.lower()]
        bearing.sort(key=lambda f: (not is_source(f), is_test(f), len(PurePosixPath(f).stem), f))
        said = [(f, _telling((read_lines(self.root, f) or [])[:_OPENING_LINES])) for f in bearing[:_BEARING]]
        ordered = [*bearing, *(f for f in files if f not in bearing)]
        return [
            *(Finding("says", f"{code(f)} says of itself: {text}") for f, text in said if text),
            Finding("spot", f"{plain!r} is named in {plural(len(files), 'file')}: {listed(ordered)}"),
        ]


def _replaced(old: str, new: str) -> str:
    """`LIMIT = 30 → … 120`: of the new line only what follows the words that both begin with."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    if not new.startswith(old):
        same = max(new.rfind(mark, 0, same) for mark in " (=,.") + 1
    if same < _SAME_CHARS:
        return f"{quoted(old, 46)} → {quoted(new, 46)}"
    return f"{quoted(old, 60)} → … {quoted(new[same:].strip(), 60)}"


def _telling(lines: Sequence[str]) -> str:
    """The first added comment or docstring with something to say."""
    for line in lines:
        if match := re.search(r'(?:#|//|"""|/\*+)\s*(\w[^"]{8,})', line):
            return quoted(match[1].rstrip("*/ "), 60)
    return ""
