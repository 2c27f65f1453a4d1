"""Mental models: beliefs with a prediction, held against what the next beat observes.

Two kinds. *Together*: when this path changes, that one does too – believed while it held in at least eight of the
last ten changes. *Cadence*: the next commit comes before a date. What each belief earned is counted; counts over
all of history overrate such rules (promised .75–.81, kept .40–.47 on three repositories); the last ten keep
.62–.82.
"""

import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import fmean, pstdev

from dionysus.findings import Finding, code, quoted
from dionysus.memory.basins import CommitLike
from dionysus.stores.contract import MentalModel
from dionysus.stores.mind import Mind

_LAST = 10
_SHARE = 0.8
_LEAST = 5
"""Fewer changes of a path than this make no belief."""
_MOST_FILES = 12
"""Larger commits (renames, formatting) say nothing about what belongs together."""
_JUDGED = 200
"""Newest commits over which the earned rate is counted."""
_LISTED = 4
_RUNS = 3
"""Runs before the newest without which no coherence is expected of it."""
_USUAL_ERROR = 0.1
_TEST = re.compile(r"(^|[/_.-])(tests?|spec)([/_.-]|$)", re.I)


@dataclass(frozen=True, kw_only=True)
class Happened:
    """What a beat observed, as far as beliefs are concerned. Instants are Unix seconds."""

    first: bool
    now: float
    history: Sequence[CommitLike] = ()
    """Newest first."""
    new_commits: Sequence[CommitLike] = ()
    changed: Collection[str] = ()
    """Uncommitted paths that changed since the last beat."""
    files: Collection[str] = ()
    coherence: Sequence[tuple[str, float]] = ()
    """Runs of this kind, newest first, and how low their coherence was."""


@dataclass(kw_only=True)
class CoChange:
    """Which paths change together, learned commit by commit; judged on each commit before it is learned."""

    last: dict[str, deque[frozenset[str]]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_LAST)))
    held: int = 0
    failed: int = 0

    @classmethod
    def of(cls, history: Iterable[CommitLike]) -> "CoChange":
        """Learns a history, newest first."""
        commits = [frozenset(c.files) for c in history if len(c.files) <= _MOST_FILES]
        learned = cls()
        for age, files in zip(range(len(commits) - 1, -1, -1), reversed(commits), strict=True):
            learned.learn(files, judged=age < _JUDGED)
        return learned

    def learn(self, files: frozenset[str], *, judged: bool = True) -> None:
        """Takes one commit in, after judging what was expected of it."""
        if judged:
            for path in files:
                for other, _, _ in self.expected(path):
                    if other in files:
                        self.held += 1
                    else:
                        self.failed += 1
        for path in files:
            self.last[path].append(files)

    def expected(self, path: str) -> Iterator[tuple[str, int, int]]:
        """What should change with `path`: (other path, times it did, changes looked at)."""
        seen = self.last.get(path, ())
        if len(seen) < _LEAST:
            return
        for other in sorted(frozenset().union(*seen)):
            times = sum(other in files for files in seen)
            backwards = _TEST.search(path) and not _TEST.search(other)
            if other != path and times >= _SHARE * len(seen) and not backwards:
                yield other, times, len(seen)

    @property
    def earned(self) -> str:
        """What such expectations were worth so far, in words."""
        total = self.held + self.failed
        return f"; such expectations held {self.held} of {total} times here" if total else ""


class MentalModels:
    """The beliefs about one place."""

    def __init__(self, mind: Mind, place: str) -> None:
        self._mind, self._place = mind, place
        self._learned: dict[tuple[str, str, str], MentalModel] = {}

    def revise(self, happened: Happened) -> list[Finding]:
        """Compares what was expected with what happened, then says what is expected next.

        What was learned is kept by `settle`, so that a beat that is killed, and made again, counts nothing twice.
        """
        self._learned = {}
        known = {c.sha for c in happened.new_commits}
        rules = CoChange.of([c for c in happened.history if c.sha not in known])
        found = [*self._judge(happened, rules), *self._cadence(happened), *_coherence(happened.coherence)]
        if happened.first:
            found += self._first(happened, rules)
        return found or [Finding("nothing", "no expectation applied")]

    def settle(self) -> None:
        """Keeps what the last `revise` learned."""
        for model in self._learned.values():
            self._mind.save_mental_model(model)
        self._learned = {}

    def about(self, topic: str) -> list[Finding]:
        """What is believed about the paths that a topic names."""
        found = []
        for model in self._mind.mental_models(place=self._place, kind="together"):
            if model.subject in topic or model.subject.rpartition("/")[2] in topic.split():
                found.append(
                    Finding(
                        "model",
                        f"when {code(model.subject)} changes, {code(model.prediction)} does too "
                        f"({model.held} of {model.held + model.failed} times)"
                        + (" – contradicted: it failed more often than it held" if model.is_contradicted else ""),
                    )
                )
        return found[:_LISTED]

    def _judge(self, happened: Happened, rules: CoChange) -> list[Finding]:
        found = []
        sets = [(f" in commit {c.sha}", frozenset(c.files), True) for c in reversed(happened.new_commits)]
        if happened.changed:
            sets.append(("", frozenset(happened.changed), False))
        for where, files, settled in sets:
            if len(files) > _MOST_FILES:
                continue
            for path in sorted(files):
                for other, times, of in rules.expected(path):
                    if other not in happened.files and other not in files:
                        continue
                    held = other in files
                    kind = "held" if held else "failed" if settled else "missing"
                    what = "and so did " + code(other) if held else f"{code(other)} did not{'' if settled else ' yet'}"
                    rate = f" (together in {times} of the last {of}{'' if held else rules.earned})"
                    found.append(Finding(kind, f"{code(path)} changed, {what}{where}{rate}"))
                    if settled:
                        self._count(path, other, held=held, before=(times, of - times))
            if settled:
                rules.learn(files)
        return found

    def _count(self, path: str, other: str, *, held: bool, before: tuple[int, int]) -> None:
        key = (path, other)
        known = {(m.subject, m.prediction): m for m in self._mind.mental_models(place=self._place, kind="together")}
        model = known.get(key) or MentalModel(
            id=0,
            place=self._place,
            kind="together",
            subject=path,
            prediction=other,
            held=before[0],
            failed=before[1],
        )
        self._learn(replace(model, held=model.held + held, failed=model.failed + (not held)))

    def _learn(self, model: MentalModel) -> None:
        self._learned[model.kind, model.subject, model.prediction] = model

    def _first(self, happened: Happened, rules: CoChange) -> list[Finding]:
        """At the first look: what history teaches, and what to expect from the paths that change most."""
        found = []
        total = rules.held + rules.failed
        if total:
            share = round(100 * rules.held / total)
            found.append(
                Finding(
                    "learned",
                    f"'moves together' rules, each tried on commits it had not seen: held {rules.held} of {total} "
                    f"times ({share} %)",
                )
            )
        recent: Mapping[str, int] = _counts(c.files for c in happened.history[:60])
        listed: set[frozenset[str]] = set()
        for path in sorted(recent, key=lambda p: (-recent[p], p)):
            for other, times, of in rules.expected(path):
                pair = frozenset({path, other})
                if path in happened.files and other in happened.files and pair not in listed and len(listed) < 3:
                    listed.add(pair)
                    found.append(
                        Finding(
                            "expect",
                            f"when {code(path)} changes, {code(other)} changes too ({times} of the last {of})",
                        )
                    )
                    self._learn(
                        MentalModel(
                            id=0,
                            place=self._place,
                            kind="together",
                            subject=path,
                            prediction=other,
                            held=times,
                            failed=of - times,
                        )
                    )
        return found

    def _cadence(self, happened: Happened) -> list[Finding]:
        found = []
        now = datetime.fromtimestamp(happened.now, tz=UTC)
        for model in self._mind.mental_models(place=self._place, kind="cadence"):
            if model.settled or model.deadline_at is None:
                continue
            day = f"{model.deadline_at:%Y-%m-%d}"
            if happened.new_commits:
                found.append(Finding("held", f"a new commit came before {day}, as expected"))
                self._learn(replace(model, held=model.held + 1, settled=True))
            elif now > model.deadline_at:
                found.append(Finding("failed", f"a new commit was expected by {day}; none came"))
                self._learn(replace(model, failed=model.failed + 1, settled=True))
            else:
                found.append(Finding("open", f"a new commit is expected by {day}; not yet due"))
        history = happened.history
        if len(history) >= 10 and (happened.first or happened.new_commits):
            gaps = sorted(abs(a.at - b.at) for a, b in pairwise(history[:101]))
            usual = timedelta(seconds=max(86400.0, gaps[int(0.9 * (len(gaps) - 1))]))
            newest = datetime.fromtimestamp(history[0].at, tz=UTC)
            if now - newest > usual:
                quiet = (now - newest) / timedelta(days=1)
                found.append(
                    Finding(
                        "quiet",
                        f"no commit for {quiet:.0f} d, though 90 % of the gaps before were under {usual.days} d",
                    )
                )
            else:
                deadline = newest + usual
                found.append(
                    Finding(
                        "expect",
                        f"the next commit by {deadline:%Y-%m-%d} (90 % of gaps are under {max(1, usual.days)} d)",
                    )
                )
                self._learn(
                    MentalModel(
                        id=0,
                        place=self._place,
                        kind="cadence",
                        subject=history[0].sha,
                        prediction="",
                        held=0,
                        failed=0,
                        deadline_at=deadline,
                    )
                )
        return found


def _coherence(runs: Sequence[tuple[str, float]]) -> list[Finding]:
    """The newest run's coherence against what those before it let expect."""
    if len(runs) <= _RUNS:
        return []
    (name, level), before = runs[0], [level for _, level in runs[1:]]
    expected, spread = fmean(before), pstdev(before)
    error = level - expected
    held = error >= -max(_USUAL_ERROR, 2 * spread)
    text = (
        f"the coherence of {quoted(name)} was {level:.2f} at its lowest; {expected:.2f} was expected from the "
        f"{len(before)} runs before it (prediction error {error:+.2f})"
    )
    return [Finding("held" if held else "failed", text)]


def _counts(file_lists: Iterable[Sequence[str]]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for files in file_lists:
        for path in files:
            counts[path] += 1
    return counts
