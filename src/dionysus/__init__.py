"""Dionysus: a cognitive runtime for smolagents agents.

from dionysus import Runtime

with Runtime(store="sqlite:///mind.db", model="reflex") as runtime:
    report = runtime.beat(watch=".")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dionysus.agents import HeartbeatAgent
    from dionysus.callbacks import CallbackRegistry
    from dionysus.coherence import Coherence, Turn, assess_coherence
    from dionysus.errors import DionysusError
    from dionysus.models import open_model
    from dionysus.runtime import BeatReport, Runtime
    from dionysus.settings import Settings
    from dionysus.traces import ExecutionTraceService

__version__ = "0.1.0"

_WHERE = {
    "BeatReport": "dionysus.runtime",
    "CallbackRegistry": "dionysus.callbacks",
    "Coherence": "dionysus.coherence",
    "DionysusError": "dionysus.errors",
    "ExecutionTraceService": "dionysus.traces",
    "HeartbeatAgent": "dionysus.agents",
    "Runtime": "dionysus.runtime",
    "Settings": "dionysus.settings",
    "Turn": "dionysus.coherence",
    "assess_coherence": "dionysus.coherence",
    "open_model": "dionysus.models",
}
__all__ = [
    "BeatReport",
    "CallbackRegistry",
    "Coherence",
    "DionysusError",
    "ExecutionTraceService",
    "HeartbeatAgent",
    "Runtime",
    "Settings",
    "Turn",
    "assess_coherence",
    "open_model",
]


def __getattr__(name: str) -> Any:
    """Public names are imported at first use, so that the command line starts fast."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'dionysus' has no attribute {name!r}")
