"""How coherent a run is: pure functions of its transcript – no LLM, no store, no clock, no chance.

An integrity monitor: it notices loops, errors, observations that do not belong to the actions, turns that do not go on
from those before, and drift from the goal. It does not predict success, and says so.

turns.py        what a turn is, read once: calls, terms, forms
signals.py      what each turn says, held against the turns before it
monitor.py      detectors, level, reason, advice
profile.py      what is usual in clean runs
calibration.py  an agent's own threshold, from its finished runs
"""

from dionysus.coherence.calibration import calibrated, strains_of
from dionysus.coherence.monitor import WARNING_BELOW, Coherence, Monitor, assess_coherence
from dionysus.coherence.profile import DEFAULT, DETECTOR, Calibration
from dionysus.coherence.turns import Turn

__all__ = [
    "DEFAULT",
    "DETECTOR",
    "WARNING_BELOW",
    "Calibration",
    "Coherence",
    "Monitor",
    "Turn",
    "assess_coherence",
    "calibrated",
    "strains_of",
]
