"""How coherent a run is, turn by turn: an integrity monitor, kept up at the same cost for each turn.

Six components, in the spirit of IWMT (Safron 2020, doi 10.3389/frai.2020.00030: systems "capable of generating models
with spatial, temporal, and causal coherence for self and world"). Each answers to a kind of fault, and none predicts
success. `benchmarks coherence` measures what each of them notices.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dionysus.coherence.profile import DEFAULT, PROFILE, Calibration, Profile
from dionysus.coherence.signals import Signals
from dionysus.coherence.turns import Turn, clipped
from dionysus.findings import quoted

WARNING_BELOW = 0.5
_PATTERN = 4
"""Actions in the longest pattern that is recognised when it repeats."""
_LOOKED_BACK = 64
"""Turns in which repetition is looked for."""
_MOST = 2.5
"""Standard deviations that one turn counts at most."""
_ALLOWED = 0.5
"""Standard deviations that a turn may be worse than usual without being counted."""
_OWN_LEVEL = frozenset({"spatial", "integration"})
"""Detectors that hold a turn against the run's own turns so far: how much of a text is known differs from task to
task."""
_PRIOR = 2
"""Turns that say nothing yet of the run's own level."""
_ERROR = math.log(0.7 / 0.3)
"""A failed turn counts for, a turn that went well against a process in which most turns fail: ± nats."""
_FULL = 4.0
"""Bounds at which a sum is full, so that what has ended is forgotten in time."""
_NOTHING = "nothing stands out"
_FEW = 8
"""Turns after which an assessment deserves half of full confidence: the slower components take about as many."""
_STEADY = 0.05
_TREND = 3
"""Turns over which a trend is told."""
COMPONENTS = ("autonomy", "errors", "causal", "temporal", "spatial", "integration")


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """An assessment; all scores in [0, 1], 1 = coherent, 0.5 = the threshold of a warning."""

    level: float
    """The lowest of the components."""
    components: Mapping[str, float] = field(default_factory=dict)
    """autonomy, errors, causal, temporal, spatial, integration; one that cannot be measured yet is left out."""
    reason: str = ""
    """In words, what lowers the level, with the steps."""
    advice: str = ""
    """In words, what to do about it; empty where nothing is wrong."""
    confidence: float = 0.0
    """In [0, 1]: how much a run of that many turns can say, n / (n + 8), times the share of measured components."""
    trend: float = 0.0
    """The level, less that of three turns before."""
    cause: str = ""
    """The component that is lowest."""
    since: int = 0
    """The step from which on it has been low; 0: nothing is."""
    lowest: float = 1.0
    """The lowest level of the run so far."""
    turns: int = 0
    """How many were looked at."""

    @property
    def consciousness_level(self) -> float:
        """The mission's name for the level."""
        return self.level

    @property
    def in_words(self) -> str:
        """Trend and confidence, short."""
        way = (
            "steady" if abs(self.trend) < _STEADY else f"{'rising' if self.trend > 0 else 'falling'} {self.trend:+.2f}"
        )
        sure = "low" if self.confidence < 0.4 else "fair" if self.confidence < 0.7 else "high"
        return f"{way}, confidence {sure}"


def assess_coherence(goal: str, turns: Sequence[Turn], calibration: Calibration = DEFAULT) -> Coherence | None:
    """The coherence of a run so far; None before its first action, when there is nothing to measure.

    A pure function of the transcript: no LLM, no clock, no chance. `Monitor` gives the same, turn by turn.
    """
    monitor = Monitor(goal, calibration)
    for turn in turns:
        monitor.take(turn)
    return monitor.assess()


class Monitor:
    """Takes turns, and says how coherent the run is.

    Each detector keeps a sum S of how unlike a coherent run's the last turns were; it grows while they are, and falls
    back to 0. A component's score is 2^(−S / h), so 0.5 is the threshold; h = the detector's bound times the
    calibration's threshold. The level is the lowest, so that no fault is averaged away.

    autonomy     the lower of two. *Loops*: how often the newest turns repeat those before them, at a distance of one
                 to four; a repetition with another thought, or another observation, counts half. *Stuck*: Σ −ln of how
                 frequent an observation was that comes again and again, whatever is done.
    errors       CUSUM (Page 1954, doi 10.2307/2333009) of the log-likelihood ratio of failing in 70 % against in 30 %
                 of turns.
    causal       do observations answer their actions? CUSUM of the mean surprise of `answers`, `taken_up` and `form`
                 (twice) of `Signals`, in standard deviations, less 0.5.
    temporal     does each turn go on from the one before? The same of `follows`, `taken_up` and `routine`.
    spatial      do observations lie in the context of goal and run? The same of `known_seen`, less the mean of the
                 run's own turns so far.
    integration  do thoughts and actions stay with the goal and with what the run is about? The same of `known_said`,
                 less that mean, too.
    """

    def __init__(self, goal: str, calibration: Calibration = DEFAULT) -> None:
        self._signals = Signals(goal)
        self._detectors = Detectors(PROFILE, calibration.bounds)
        self._threshold = calibration.threshold
        self._levels: deque[float] = deque(maxlen=_TREND + 1)
        self.turns = 0
        """How many it took."""
        self.worst = 0.0
        """The largest strain so far; calibration makes 0.5 of what 2 % of clean runs exceed."""

    @property
    def strains(self) -> Mapping[str, float]:
        """Of each detector: its sum over its bound, as of the last turn."""
        return self._detectors.strains

    def take(self, turn: Turn) -> None:
        """The next turn; its cost does not depend on how many there were."""
        self.turns += 1
        self._detectors.take(turn, self._signals.measure(turn))
        highest = max(self.strains.values())
        self.worst = max(self.worst, highest)
        self._levels.append(self._score(highest))

    def assess(self) -> Coherence | None:
        """The coherence so far; None before the first turn."""
        if not self.turns:
            return None
        scores = {name: self._score(strain) for name, strain in self.strains.items()}
        scores["autonomy"] = min(scores["loops"], scores["stuck"])
        components = {name: round(scores[name], 4) for name in COMPONENTS if name in scores}
        lowest = min(self.strains, key=lambda name: scores[name])
        level = round(scores[lowest], 4)
        reason, advice, since = _NOTHING, "", 0
        if level < 0.75:
            reason, advice, since = self._detectors.in_words(lowest, self._signals)
        return Coherence(
            level=level,
            components=components,
            reason=reason,
            advice=advice,
            confidence=round(self.turns / (self.turns + _FEW) * len(components) / len(COMPONENTS), 4),
            trend=round(level - self._levels[0], 4) + 0.0,
            cause=component_of(lowest),
            since=since,
            lowest=round(self._score(self.worst), 4),
            turns=self.turns,
        )

    def _score(self, strain: float) -> float:
        return float(2 ** (-strain / self._threshold))


def component_of(detector: str) -> str:
    """Which component a detector belongs to."""
    return "autonomy" if detector in ("loops", "stuck") else detector


class Detectors:
    """The sums behind the components, and what they are in words."""

    def __init__(self, profile: Profile, bounds: Mapping[str, float] | None = None) -> None:
        """
        Args:
            bounds: Where they are other than the profile's.
        """
        self._bounds = {**profile.bounds, **(bounds or {})}
        self._sums = {name: _Sum(name, profile, name in _OWN_LEVEL) for name in profile.weights}
        self._repetition = _Repetition()
        self._errors = 0.0
        self._failed: deque[Turn] = deque(maxlen=_LOOKED_BACK)
        self._failed_since = 0
        self.strains: dict[str, float] = {}
        """Of each detector: its sum over its bound; one that cannot be measured yet is left out."""

    def take(self, turn: Turn, signals: Mapping[str, float]) -> None:
        """The next turn, and its signals."""
        self._repetition.take(turn)
        most = _FULL * self._bounds["errors"]
        self._errors = min(most, max(0.0, self._errors + (_ERROR if turn.has_failed else -_ERROR)))
        if turn.has_failed:
            self._failed_since = self._failed_since if self._failed else turn.step
            self._failed.append(turn)
        elif not self._errors:
            self._failed.clear()
        for summed in self._sums.values():
            summed.take(turn, signals)
        sums = {"loops": self._repetition.loops, "stuck": self._repetition.stuck, "errors": self._errors}
        sums |= {name: summed.value for name, summed in self._sums.items() if summed.is_measured}
        self.strains = {name: value / self._bounds[name] for name, value in sums.items()}

    def in_words(self, detector: str, signals: Signals) -> tuple[str, str, int]:
        """Reason, advice, and the step where it began."""
        if detector == "loops":
            return self._repetition.loop_in_words
        if detector == "stuck":
            return self._repetition.stuck_in_words
        if detector == "errors":
            return _errors_in_words(self._failed, self._failed_since)
        return self._sums[detector].in_words(signals)


class _Sum:
    """One detector's CUSUM over turns: how much worse than usual they were, lately."""

    def __init__(self, name: str, profile: Profile, own_level: bool) -> None:
        self._name, self._profile, self._own_level = name, profile, own_level
        self._most = _FULL * profile.bounds[name]
        self._total, self._count, self._place = 0.0, 0, 0
        self._since: deque[int] = deque(maxlen=_LOOKED_BACK)
        """The newest steps since the sum was 0."""
        self._first = 0
        self._worst: tuple[float, Turn, int] | None = None
        """(surprise, turn, its place) of the worst turn since then."""
        self.value = 0.0

    @property
    def is_measured(self) -> bool:
        """Whether any turn could be."""
        return self._count > 0

    def take(self, turn: Turn, signals: Mapping[str, float]) -> None:
        """The next turn's signals."""
        self._place += 1
        surprise = self._profile.surprise(self._name, signals)
        if surprise is None:
            return
        surprise = max(-_MOST, min(_MOST, surprise))
        usual = self._total / (self._count + _PRIOR) if self._own_level else 0.0
        self._count += 1
        self._total += surprise
        self.value = min(self._most, max(0.0, self.value + surprise - usual - _ALLOWED))
        if not self.value:
            self._since.clear()
            self._worst = None
            return
        if self._worst is None:
            self._first = turn.step
        if self._worst is None or surprise > self._worst[0]:
            self._worst = surprise, turn, self._place - 1
        self._since.append(turn.step)

    def in_words(self, signals: Signals) -> tuple[str, str, int]:
        """Reason, advice, and the step where it began."""
        if self._worst is None:
            return _NOTHING, "", 0
        _, turn, place = self._worst
        first, several = self._first, len(self._since) > 1
        where = _from(first, self._since)
        at = f"step {turn.step}"
        if self._name == "causal":
            text = f"what {where} saw does not look like answers to what they did, least at {at}: {turn.in_words}"
            return text, f"check that what {at} was answered belongs to it before you build on it", first
        if self._name == "temporal":
            do = "do" if several else "does"
            text = f"{where} {do} not go on from what was found just before, least {at}: {turn.in_words}"
            return text, "go back to the last result that you understood, and go on from there", first
        before = max(0, place // 2)
        if self._name == "spatial":
            new = signals.unknown(turn.seen_terms, before=before)
            text = f"what {where} saw has little to do with goal and run{_such_as(new, at)}"
            return text, "check that you look in the right place", first
        new = signals.unknown(turn.terms, before=before)
        return (
            f"{where} {'drift' if several else 'drifts'} from the goal{_such_as(new, at)}",
            "read the task again, and say how this serves it",
            first,
        )


class _Repetition:
    """Loops, and observations that do not change."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque(maxlen=_LOOKED_BACK + _PATTERN)
        self._runs = {lag: deque[float](maxlen=_LOOKED_BACK) for lag in range(1, _PATTERN + 1)}
        """Of each distance, how much each of the newest turns repeats the one so far before it."""
        self._began = dict.fromkeys(self._runs, 0)
        """The step with which the pattern of each distance began."""
        self._frequency: Counter[str] = Counter()
        self._count = 0
        self._same: deque[int] = deque(maxlen=_LOOKED_BACK)
        """The newest steps that saw the same, one after the other."""
        self._same_since, self._rare = 0, 0.0
        self._lag, self._run = 1, 0
        self.loops = 0.0
        self.stuck = 0.0

    def take(self, turn: Turn) -> None:
        """The next turn."""
        last = self._turns[-1] if self._turns else None
        for lag, run in self._runs.items():
            weight = _repeats(turn, self._turns[-lag]) if lag <= len(self._turns) else 0.0
            if weight:
                self._began[lag] = self._began[lag] if run else self._turns[-lag].step
                run.append(weight)
            else:
                run.clear()
        self._turns.append(turn)
        self._lag, self._run, self.loops = self._loop()
        if last is not None and last.seen == turn.seen:
            if not turn.nearly(last):
                if not self.stuck:
                    self._rare = -math.log(self._frequency[turn.seen] / (self._count + 1))
                self.stuck += self._rare
        else:
            self._same.clear()
            self._same_since, self.stuck = turn.step, 0.0
        self._same.append(turn.step)
        self._frequency[turn.seen] += 1
        self._count += 1

    def _loop(self) -> tuple[int, int, float]:
        """Of the pattern that repeats most: its length, how many turns repeat it, and how often, weighed."""
        found = [(lag, len(run), sum(run) / lag) for lag, run in self._runs.items() if len(run) >= lag]
        return max(found, key=lambda one: one[2], default=(1, 0, 0.0))

    @property
    def loop_in_words(self) -> tuple[str, str, int]:
        """Reason, advice, and the step where it began."""
        turns = list(self._turns)[-self._lag - self._run :]
        first = self._began[self._lag]
        where = _from(first, [turn.step for turn in turns])
        exactly = all(turn.same == turns[i].same for i, turn in enumerate(turns[self._lag :]))
        how = "the same" if exactly else "nearly the same"
        names = " and ".join(dict.fromkeys(turn.in_words for turn in turns[: self._lag]))
        if not turns[0].calls:
            return f"{where} say {how}: {names}", "do not say that again; call a tool, or answer", first
        tools = ", ".join(dict.fromkeys(turn.tools_in_words for turn in turns[: self._lag] if turn.calls))
        advice = f"do not call {tools} like that again; try something else"
        return f"{where} call {names}, {how} each time", advice, first

    @property
    def stuck_in_words(self) -> tuple[str, str, int]:
        """Reason, advice, and the step where it began."""
        first = self._same_since
        where = _from(first, self._same)
        saw = quoted(clipped(self._turns[-1].observation), 60) or "nothing"
        text = f"{where} did different things and saw the same: {saw}"
        return text, "check whether what you call does anything at all", first


def _repeats(new: Turn, old: Turn) -> float:
    """How much a turn repeats another: 1 = to the letter, 0 = not."""
    saw_same = new.seen == old.seen
    if new.same == old.same:
        weight = 1.0
    elif saw_same and new.nearly(old):
        weight = 0.75
    else:
        return 0.0
    return weight * (1.0 if saw_same else 0.5) * (1.0 if new.thought == old.thought else 0.5)


def _errors_in_words(failed: Sequence[Turn], first: int) -> tuple[str, str, int]:
    where = _from(first, [turn.step for turn in failed])
    tools = Counter(quoted(name, 40) for turn in failed for name in dict.fromkeys(turn.tools))
    last = quoted(clipped(failed[-1].observation), 80)
    said = f"; last: {last}" if last else ""
    if not tools:
        return f"{where} failed{said}", "write your next action as you were told to", first
    worst = tools.most_common(1)[0][0]
    of = f" ({worst})" if len(tools) == 1 else f", {worst} most of all"
    return f"{where} failed{of}{said}", f"find out why {worst} fails before you use it again", first


def _such_as(terms: Sequence[str], at: str) -> str:
    names = sorted({t[1:] for t in terms if t.startswith("=")}, key=lambda t: (-len(t), t))[:3]
    return f"; new at {at}: {', '.join(quoted(name, 40) for name in names)}" if names else ""


def _from(first: int, newest: Sequence[int]) -> str:
    """The steps in words, of which only the newest are known."""
    return f"steps {first}–{newest[-1]}" if first not in newest else _steps(newest)


def _steps(numbers: Collection[int]) -> str:
    """`step 3`, `steps 3–7`, `steps 3, 5, 9`: ranges where they are without gaps."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number - spans[-1][-1] in (0, 1):
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = [
        str(s[0]) if s[0] == s[-1] else f"{s[0]}–{s[-1]}" if s[-1] - s[0] > 1 else f"{s[0]}, {s[-1]}" for s in spans
    ]
    if len(texts) > 3:
        texts = ["…", *texts[-3:]]
    return f"step{'s' if len(set(numbers)) > 1 else ''} {', '.join(texts)}"
