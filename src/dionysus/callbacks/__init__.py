"""What happens after each step: coherence into plans, basins, pruning, traces, audit.

A callback is a function `(step, agent, frame)`; it knows one service and no other callback. `CallbackRegistry`
keeps their order and sees to it that a failing one is recorded and does not end the run.
"""

from dionysus.callbacks.registry import CallbackRegistry

__all__ = ["CallbackRegistry"]
