"""The monitor's figures: what is usual in coherent runs, and how far from it is too far.

Few, and none was fitted to a fault: they describe clean runs only. `python -m benchmarks coherence --fit` measures
them anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

DETECTOR = 1
"""Counts up when the same turns would be measured otherwise: calibrations of another one are not used."""


@dataclass(frozen=True)
class Profile:
    """What is usual."""

    usual: Mapping[str, tuple[float, float]]
    """Of each signal: mean and standard deviation in clean runs."""
    spread: Mapping[str, float]
    """Of each detector: the standard deviation of its signals' weighed mean."""
    bounds: Mapping[str, float]
    """Of each detector: what its sum exceeds in one of a hundred clean runs, or what was chosen."""
    weights: Mapping[str, Mapping[str, float]]
    """Of each detector that sums signals: how much each of them counts."""

    def surprise(self, detector: str, signals: Mapping[str, float]) -> float | None:
        """How unusual a turn is for a detector, in standard deviations; None: none of its signals was measured."""
        joint = self.joint(detector, signals)
        return joint / self.spread[detector] if joint is not None else None

    def joint(self, detector: str, signals: Mapping[str, float]) -> float | None:
        """The weighed mean of a detector's signals, each in its standard deviations, at most ±2.5."""
        total = count = 0.0
        for name, weight in self.weights[detector].items():
            if name in signals:
                mean, deviation = self.usual[name]
                total += weight * max(-2.5, min(2.5, (signals[name] - mean) / deviation))
                count += weight
        return total / count if count else None


WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "causal": {"answers": 1.0, "taken_up": 1.0, "form": 2.0},
    "temporal": {"follows": 1.0, "taken_up": 1.0, "routine": 1.0},
    "spatial": {"known_seen": 1.0},
    "integration": {"known_said": 1.0},
}
PROFILE = Profile(
    usual={
        "answers": (0.4418, 0.524),
        "follows": (0.3857, 0.513),
        "form": (-0.2533, 0.3336),
        "known_said": (0.707, 0.1353),
        "known_seen": (1.2065, 0.9622),
        "routine": (0.0084, 0.2794),
        "taken_up": (0.5791, 0.683),
    },
    spread={"causal": 0.605, "temporal": 0.5727, "spatial": 1.0922, "integration": 1.0349},
    bounds={
        # Chosen: they count in units of their own, and clean runs have few of them.
        "loops": 0.9,  # a repetition to the letter – call, thought and result – is just too much
        "stuck": 5.8,  # … or twice more an observation that comes once in 18 turns
        "errors": 5.0,  # … or six turns that fail more than turns that go well
        "causal": 7.136,
        "temporal": 6.89,
        "spatial": 5.147,
        "integration": 6.069,
    },
    weights=WEIGHTS,
)
"""Of two agents: mini-swe-agent on SWE-bench Verified, and tau-bench's airline agent; half of their tasks."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is known of one agent's runs of one family of tasks."""

    threshold: float
    """What the worst strain of a clean run exceeds in 2 % of runs at most."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Of detectors for which its runs have another one than the profile."""
    runs: int = 0
    """Own runs that it rests on; 0: the default, from other agents' runs."""


DEFAULT = Calibration(threshold=1.0)
