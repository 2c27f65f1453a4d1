"""What the coherence monitor notices: recorded runs against twins of them that have a fault, false warnings, cost.

Twins have one fault each, from a random step in the middle third on (`benchmarks.faults`). A run's score is its lowest
level. Thresholds are calibrated as an agent's own are, on the successful runs of one half of the tasks, and figures are
those of the other half: twenty random splits, means and intervals; where there are too few successful runs, the default
stays, as it does for an agent. Beside them: what the default gives, over all runs.
"""

import gc
import hashlib
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, pvariance, quantiles
from typing import Any

from benchmarks.exploring import exploring_runs
from benchmarks.faults import FAULTS, LEAST, UNSEEN, Recorded, recorded, twin_of
from benchmarks.recorded import runs_in
from dionysus.coherence import DEFAULT, Calibration, Monitor, Turn, calibrated
from dionysus.coherence.calibration import FALSE_WARNINGS, LEAST_RUNS, quantile
from dionysus.coherence.monitor import COMPONENTS, Detectors, component_of
from dionysus.coherence.profile import PROFILE, WEIGHTS, Profile
from dionysus.coherence.signals import Signals

_SPLITS = 20
_FAR = 1e6
"""A bound that no sum comes near to."""
Split = tuple[Calibration, Sequence[int], str]
"""What was learned from one half, the places of the other half's runs, and what it was learned from."""


@dataclass(frozen=True)
class Assessed:
    """A run's strains by the profile's bounds: of each detector, turn by turn."""

    strains: Mapping[str, Sequence[float]]
    at: int
    """The first turn that is not as it was."""

    @property
    def worst(self) -> dict[str, float]:
        """Of each detector."""
        return {name: max(one) for name, one in self.strains.items()}

    def lowest(self, calibration: Calibration) -> float:
        """The lowest level."""
        return float(2 ** -max(map(max, self._above(calibration, 0).values())))

    def warned(self, calibration: Calibration) -> tuple[int, str] | None:
        """Turns from the fault to the first warning, and the component that gave it."""
        above = self._above(calibration, self.at)
        for turn in range(len(self.strains["loops"]) - self.at):
            name = max(above, key=lambda name: above[name][turn])
            if above[name][turn] > 1:
                return turn + 1, component_of(name)
        return None

    def below_half(self, calibration: Calibration) -> set[str]:
        """Components that would have warned alone."""
        return {component_of(name) for name, one in self._above(calibration, self.at).items() if max(one) > 1}

    def _above(self, calibration: Calibration, since: int) -> dict[str, list[float]]:
        """Strains in parts of the threshold."""
        scale = {
            name: calibration.threshold * calibration.bounds.get(name, PROFILE.bounds[name]) / PROFILE.bounds[name]
            for name in self.strains
        }
        return {name: [strain / scale[name] for strain in one[since:]] for name, one in self.strains.items()}


def run(
    *,
    short: bool,
    seed: int,
    data: Path | None,
    limit: int | None = None,
    unseen: bool = False,
    fit: Sequence[Path] = (),
) -> dict[str, Any]:
    """Figures.

    Args:
        data: Recorded runs; default: made-up ones, in which this project's files are searched and read.
        limit: So many runs at most.
        unseen: Only of tasks that the profile was not fitted on.
        fit: Files to fit the profile on, instead of measuring.
    """
    if fit:
        return {"profile": _fitted([_runs(path, None) for path in fit])}
    runs = _runs(data, limit or (40 if short else None))
    if unseen:
        runs = [r for r in runs if not _is_fitted_on(r)]
    if len({r.task for r in runs}) < 8:
        raise SystemExit(f"{data}: {len(runs)} runs of at least {LEAST} steps are too few; 8 tasks are needed")
    with ProcessPoolExecutor(os.cpu_count(), initializer=_keep, initargs=(runs,)) as pool:
        places = range(len(runs))
        done = list(pool.map(_assessed, places, [seed] * len(runs), chunksize=4))
    assessed = {kind: [one[kind] for one in done] for kind in ("clean", *FAULTS)}
    cost = _cost(runs, seed, short)
    return {**_figures(runs, assessed, seed), "cost": cost}


def _runs(data: Path | None, limit: int | None) -> list[Recorded]:
    given = runs_in(data) if data is not None else exploring_runs(limit or 60)
    return [made for made in map(recorded, given) if len(made.turns) >= LEAST][:limit]


def _is_fitted_on(run: Recorded) -> bool:
    return hashlib.sha256(f"profile {run.task}".encode()).digest()[0] % 2 == 0


# -- assessing -----------------------------------------------------------------------------------------


_KEPT: list[Recorded] = []
"""In each worker: so that a turn which several twins share is read once."""


def _keep(runs: Sequence[Recorded]) -> None:
    _KEPT[:] = runs


def _assessed(place: int, seed: int) -> dict[str, Assessed]:
    """One run and its twins."""
    one = _KEPT[place]
    others = [other for other in _KEPT if other.task != one.task]
    found = {"clean": Assessed(_strains(one.goal, one.turns), 0)}
    for kind in FAULTS:
        chance = random.Random(f"{seed} {kind} {one.id}")
        twin = twin_of(kind, one, chance.choice(others), chance)
        found[kind] = Assessed(_strains(one.goal, twin.turns), twin.at)
    return found


def _strains(goal: str, turns: Sequence[Turn]) -> dict[str, list[float]]:
    monitor = Monitor(goal)
    found: dict[str, list[float]] = {name: [] for name in PROFILE.bounds}
    for turn in turns:
        monitor.take(turn)
        for name, one in found.items():
            one.append(monitor.strains.get(name, 0.0))
    return found


# -- figures -------------------------------------------------------------------------------------------


def _figures(runs: Sequence[Recorded], assessed: dict[str, list[Assessed]], seed: int) -> dict[str, Any]:
    clean = assessed["clean"]
    splits = list(_splits(runs, clean, seed))
    rows = [_row(kind, assessed[kind], clean, splits) for kind in FAULTS]
    false = [_false(runs, clean, calibration, tested) for calibration, tested, _ in splits]
    success, baseline = _success(runs, clean)
    return {
        "runs": len(runs),
        "tasks": len({r.task for r in runs}),
        "successful": sum(r.success for r in runs),
        "turns": sum(len(r.turns) for r in runs),
        "splits": len(splits),
        "threshold": round(fmean(calibration.threshold for calibration, _, _ in splits), 3),
        "calibrated_by": sorted({by for _, _, by in splits}),
        "false_warning_rate_on_successful": round(fmean(false), 4),
        "false_warning_interval": _interval(false),
        "false_warning_rate_of_default": round(_false(runs, clean, DEFAULT, range(len(runs))), 4),
        "clean_runs_warned_of_by_default": dict(Counter(n for one in clean for n in one.below_half(DEFAULT))),
        "success_auc": success,
        "success_auc_baseline": baseline,
        "rows": rows,
    }


def _row(kind: str, twins: Sequence[Assessed], clean: Sequence[Assessed], splits: Sequence[Split]) -> dict[str, Any]:
    delays: list[int] = []
    fired: Counter[str] = Counter()
    below: Counter[str] = Counter()
    greater, rates = [], []
    for calibration, tested, _ in splits:
        warned = [twins[i].warned(calibration) for i in tested]
        rates.append(fmean(one is not None for one in warned))
        greater.append(_greater([clean[i] for i in tested], [twins[i] for i in tested], calibration))
        delays += [one[0] for one in warned if one]
        fired.update(one[1] for one in warned if one)
        for i in tested:
            below.update(twins[i].below_half(calibration))
    tests = sum(len(tested) for _, tested, _ in splits)
    return {
        "corruption": kind,
        "looked_at_while_building": kind not in UNSEEN,
        "p_real_over_twin": round(fmean(greater), 3),
        "p_interval": _interval(greater),
        "detection_rate": round(fmean(rates), 3),
        "detection_interval": _interval(rates),
        "median_delay_steps": median(delays) if delays else None,
        "runs": len(twins),
        "fired_first": {name: round(n / fired.total(), 3) for name, n in fired.most_common()},
        "components_below_half": {name: round(below[name] / tests, 3) for name in COMPONENTS},
        "by_default": {
            "p_real_over_twin": round(_greater(clean, twins, DEFAULT), 3),
            "detection_rate": round(fmean(one.warned(DEFAULT) is not None for one in twins), 3),
        },
    }


def _splits(runs: Sequence[Recorded], clean: Sequence[Assessed], seed: int) -> Iterator[Split]:
    """Random halves of the tasks: a calibration from one, the places of the runs of the other."""
    tasks = sorted({r.task for r in runs})
    chance = random.Random(f"{seed} splits")
    worst = {r.id: one.worst for r, one in zip(runs, clean, strict=True)}
    for _ in range(_SPLITS):
        chance.shuffle(tasks)
        mine = set(tasks[: (len(tasks) + 1) // 2])
        known = [worst[r.id] for r in runs if r.task in mine and r.success]
        learned = calibrated(chance.sample(known, len(known)))
        which = "successful runs" if learned else f"the default, for there are fewer than {LEAST_RUNS} successful runs"
        calibration = learned.calibration if learned else DEFAULT
        yield calibration, [i for i, r in enumerate(runs) if r.task not in mine], which


def _false(
    runs: Sequence[Recorded], clean: Sequence[Assessed], calibration: Calibration, tested: Sequence[int]
) -> float:
    well = [clean[i].warned(calibration) is not None for i in tested if runs[i].success]
    return fmean(well) if well else 0.0


def _greater(clean: Sequence[Assessed], twins: Sequence[Assessed], calibration: Calibration) -> float:
    """How often a run's lowest level is above its twin's; ties count half."""
    pairs = [(a.lowest(calibration), b.lowest(calibration)) for a, b in zip(clean, twins, strict=True)]
    return fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)


def _success(runs: Sequence[Recorded], clean: Sequence[Assessed]) -> tuple[float | None, float | None]:
    """AUC of the lowest level, and of run length plus errors, for success."""
    lengths = [len(r.turns) for r in runs]
    errors = [sum(t.has_failed for t in r.turns) for r in runs]
    scale = [max(1e-9, _deviation(values)) for values in (lengths, errors)]
    simple = [-(n / scale[0] + e / scale[1]) for n, e in zip(lengths, errors, strict=True)]
    labels = [r.success for r in runs]
    return _auc([one.lowest(DEFAULT) for one in clean], labels), _auc(simple, labels)


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    well = [s for s, good in zip(scores, labels, strict=True) if good]
    ill = [s for s, good in zip(scores, labels, strict=True) if not good]
    if not well or not ill:
        return None
    return round(fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a in well for b in ill), 3)


def _deviation(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.sqrt(fmean((v - mean) ** 2 for v in values))


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """2.5 % to 97.5 % over the splits."""
    cuts = quantiles(values, n=40, method="inclusive")
    return round(cuts[0], 3), round(cuts[-1], 3)


# -- cost ----------------------------------------------------------------------------------------------


def _cost(runs: Sequence[Recorded], seed: int, short: bool) -> dict[str, Any]:
    """Milliseconds for one more turn after so many, over runs that are joined to long ones."""
    turns = [turn for one in runs for turn in one.turns]
    marks = [10, 100] if short else [10, 100, 500]
    tries = 3 if short else 9
    took: dict[int, list[float]] = {mark: [] for mark in marks}
    for number in range(tries):
        begin = random.Random(f"{seed} {number}").randrange(max(1, len(turns) - marks[-1] - 20))
        monitor = Monitor(runs[0].goal)
        for place in range(marks[-1] + 20):
            one = turns[(begin + place) % len(turns)]
            fresh = Turn(
                step=place, thought=one.thought, calls=one.calls, observation=one.observation, failed=one.failed
            )
            gc.disable()
            began = time.perf_counter()
            monitor.take(fresh)
            monitor.assess()
            ms = 1000 * (time.perf_counter() - began)
            gc.enable()
            for mark in marks:
                if mark <= place < mark + 20:
                    took[mark].append(ms)
    found = {f"step_{mark}": round(median(values), 3) for mark, values in took.items()}
    return {"ms_per_turn": found, "last_over_first": round(found[f"step_{marks[-1]}"] / found[f"step_{marks[0]}"], 2)}


# -- fitting -------------------------------------------------------------------------------------------


def _fitted(files: Sequence[Sequence[Recorded]]) -> dict[str, Any]:
    """The default profile: what is usual in clean runs without habits, all files counting alike; bounds and threshold
    so that each file keeps them."""
    mine = [[r for r in runs if r.success and _is_fitted_on(r)] for runs in files]
    signals = [[_signals(r) for r in part] for part in mine]
    usual = {}
    for name in sorted({name for weights in WEIGHTS.values() for name in weights}):
        values = [[turn[name] for run in part for turn in run if name in turn] for part in signals]
        usual[name] = (fmean(map(fmean, values)), math.sqrt(fmean(map(pvariance, values))))
    made = Profile(usual, dict.fromkeys(WEIGHTS, 1.0), dict.fromkeys(PROFILE.bounds, _FAR), WEIGHTS)
    spread = {}
    for name in WEIGHTS:
        joint = [[j for run in part for turn in run if (j := made.joint(name, turn)) is not None] for part in signals]
        spread[name] = math.sqrt(fmean(fmean(j * j for j in part) for part in joint))
    profile = replace(made, spread=spread)
    worst = [
        [_sums(r.turns, s, profile) for r, s in zip(part, of_part, strict=True)]
        for part, of_part in zip(mine, signals, strict=True)
    ]
    bounds = {**PROFILE.bounds}
    bounds |= {name: max(quantile([w[name] for w in part], 0.01) for part in worst) for name in WEIGHTS}
    strains = [[max(w[name] / bounds[name] for name in bounds) for w in part] for part in worst]
    threshold = max(quantile(part, FALSE_WARNINGS) for part in strains)
    return {
        "usual": {name: [round(v, 4) for v in pair] for name, pair in profile.usual.items()},
        "spread": {name: round(v, 4) for name, v in profile.spread.items()},
        "bounds": {name: round(v, 3) for name, v in bounds.items()},
        "threshold": round(threshold, 3),
    }


def _signals(one: Recorded) -> list[dict[str, float]]:
    signals = Signals(one.goal)
    return [signals.measure(turn) for turn in one.turns]


def _sums(turns: Sequence[Turn], signals: Sequence[Mapping[str, float]], profile: Profile) -> dict[str, float]:
    """Of each detector, the largest sum that a run came to."""
    detectors = Detectors(profile)
    worst = dict.fromkeys(profile.bounds, 0.0)
    for turn, measured in zip(turns, signals, strict=True):
        detectors.take(turn, measured)
        for name, strain in detectors.strains.items():
            worst[name] = max(worst[name], strain * _FAR)
    return worst
