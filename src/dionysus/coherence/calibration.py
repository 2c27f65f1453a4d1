"""An agent's own threshold, from its finished runs: split conformal prediction on the monitor itself.

The threshold is the smallest worst strain that at least ⌈(n + 1) · 0.98⌉ of n clean runs do not exceed (Vovk,
Gammerman, Shafer 2005; Angelopoulos, Bates 2021, arXiv 2107.07511): if coming runs are like these, at most 2 % of them
are warned about though nothing is wrong. The oldest fifth of the runs is left out of it, and tells what the agent does
out of habit: one that waits makes the same call again and again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dionysus.coherence.monitor import Monitor, component_of
from dionysus.coherence.profile import PROFILE, Calibration
from dionysus.coherence.turns import Turn

FALSE_WARNINGS = 0.02
LEAST_TURNS = 6
"""Shorter runs say too little to calibrate by."""
FOR_THRESHOLD = math.ceil(1 / FALSE_WARNINGS) - 1
"""Runs without which no threshold keeps false warnings at 2 %: 49."""
LEAST_RUNS = 60
"""Runs without which the default is used: 49, and 11 for habits."""
_HABIT = 0.1
"""What more than so many of the older runs do is a habit."""
_OF_HABIT = ("loops", "stuck", "errors")
"""Detectors that count in units of their own. What the others' sums of standard deviations come to by chance is much
the same for all agents."""
_LEAST_THRESHOLD = 0.5
"""So that runs which are all alike do not make a monitor that warns of every other."""

Strains = Mapping[str, float]
"""Of each detector: the largest sum over bound of a run, with the profile's bounds."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What an agent's clean runs tell."""

    calibration: Calibration
    set_by: str
    """The component that was highest in the run that set the threshold."""


def calibrated(runs: Sequence[Strains]) -> Learned | None:
    """What an agent's clean runs tell, oldest first; None: there are not enough of them."""
    if len(runs) < LEAST_RUNS:
        return None
    older = min(len(runs) // 5, len(runs) - FOR_THRESHOLD)
    habits = {name: quantile([run[name] for run in runs[:older]], _HABIT) for name in _OF_HABIT}
    habits = {name: strain for name, strain in habits.items() if strain > 1}
    worst = [max((run[name] / habits.get(name, 1.0), name) for name in run) for run in runs[older:]]
    threshold = threshold_of([strain for strain, _ in worst])
    set_by = min(worst, key=lambda one: abs(one[0] - threshold))[1]
    bounds = {name: PROFILE.bounds[name] * strain for name, strain in habits.items()}
    return Learned(
        calibration=Calibration(threshold=threshold, bounds=bounds, runs=len(runs)), set_by=component_of(set_by)
    )


def strains_of(goal: str, turns: Sequence[Turn]) -> Strains:
    """The largest strains of a run; what `calibrated` learns from."""
    monitor = Monitor(goal)
    worst = dict.fromkeys(PROFILE.bounds, 0.0)
    for turn in turns:
        monitor.take(turn)
        for name, strain in monitor.strains.items():
            worst[name] = max(worst[name], strain)
    return worst


def threshold_of(strains: Sequence[float], false_warnings: float = FALSE_WARNINGS) -> float:
    """The conformal quantile of clean runs' worst strains, at least half the default.

    Raises:
        ValueError: There are too few runs for that share of false warnings.
    """
    if math.ceil((len(strains) + 1) * (1 - false_warnings)) > len(strains):
        raise ValueError(f"{len(strains)} runs are too few for {false_warnings:.0%} false warnings")
    return max(_LEAST_THRESHOLD, quantile(strains, false_warnings))


def quantile(values: Sequence[float], share: float) -> float:
    """What so large a share of coming values exceeds at most; of too few values the largest."""
    rank = math.ceil((len(values) + 1) * (1 - share))
    return sorted(values)[min(rank, len(values)) - 1]
