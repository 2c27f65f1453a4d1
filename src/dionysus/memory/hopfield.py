"""Completing a partial cue: the modern Hopfield network (Ramsauer et al. 2020, arXiv 2008.02217). Pure.

Stored patterns are attractors: one update, ξ ← Xᵀ softmax(β X ξ), moves a state towards the patterns that it resembles,
and never raises the energy E = −β⁻¹ ln Σ exp(β x·ξ) + ½ ξ·ξ. So a cue that has a part of an episode ends at the
episode.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dionysus.errors import BadInput

Floats = npt.NDArray[np.float64]
_STILL = 1e-6


@dataclass(frozen=True)
class Settled:
    """Where a state came to rest."""

    state: Floats
    weights: Floats
    """How much of it is each pattern; their sum is 1."""
    energies: tuple[float, ...]
    """Before the first update, and after each."""


def settle(patterns: Floats, state: Floats, *, beta: float = 8.0, most: int = 50) -> Settled:
    """Updates a state until it moves no more.

    Args:
        patterns: (patterns, dimensions), finite; of length one each, for `beta` to mean what it does.
        state: (dimensions,).
        beta: Inverse temperature: the higher, the more one pattern takes all.
        most: Updates.

    Raises:
        BadInput: Shapes that do not fit, no pattern, or numbers that are not finite.
    """
    patterns, state = np.asarray(patterns, np.float64), np.asarray(state, np.float64)
    if patterns.ndim != 2 or not len(patterns) or state.shape != patterns.shape[1:]:
        raise BadInput(f"patterns {patterns.shape} and a state {state.shape} do not fit; give (n, d) and (d,)")
    if not (np.isfinite(patterns).all() and np.isfinite(state).all() and np.isfinite(beta) and beta > 0):
        raise BadInput("patterns, state and beta must be finite numbers, beta above 0")
    energies = [energy(patterns, state, beta=beta)]
    for _ in range(most):
        weights = _softmax(beta * (patterns @ state))
        moved = patterns.T @ weights
        energies.append(energy(patterns, moved, beta=beta))
        still = float(np.abs(moved - state).max()) < _STILL
        state = moved
        if still:
            break
    return Settled(state, _softmax(beta * (patterns @ state)), tuple(energies))


def energy(patterns: Floats, state: Floats, *, beta: float) -> float:
    """E, up to a constant that does not depend on the state."""
    inner = beta * (patterns @ state)
    top = float(inner.max())
    return float(-(top + np.log(np.exp(inner - top).sum())) / beta + 0.5 * state @ state)


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max())
    return np.asarray(raised / raised.sum(), np.float64)
