"""Dionysus: a cognitive runtime for smolagents agents.

from dionysus import Runtime

with Runtime(store="sqlite:///mind.db", model="reflex") as runtime:
    report = runtime.beat(watch=".")  # one heartbeat
    answer = runtime.ask("What is to be done?")  # one cycle of a manager and its three faculties
    result = runtime.attach(agent).run("…")  # your own agent, on the record
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dionysus.agents import (
        ConsciousnessManager,
        HeartbeatAgent,
        ManagedAgent,
        ManagedMetacognitionAgent,
        ManagedPerceptionAgent,
        ManagedReasoningAgent,
        MetacognitionAgent,
        PerceptionAgent,
        ReasoningAgent,
    )
    from dionysus.callbacks import CallbackRegistry
    from dionysus.coherence import Coherence, Turn, assess_coherence
    from dionysus.errors import DionysusError, ReplayDiverged, ToolRefused
    from dionysus.journal import Budget, ToolEvent
    from dionysus.models import open_model
    from dionysus.runtime import Answer, Attached, BeatReport, RecordedRun, RecordedStream, Runtime
    from dionysus.settings import Settings
    from dionysus.traces import ExecutionTraceService

__version__ = "0.1.0"

_WHERE = {
    "Answer": "dionysus.runtime",
    "Attached": "dionysus.runtime",
    "BeatReport": "dionysus.runtime",
    "Budget": "dionysus.journal",
    "CallbackRegistry": "dionysus.callbacks",
    "Coherence": "dionysus.coherence",
    "ConsciousnessManager": "dionysus.agents",
    "DionysusError": "dionysus.errors",
    "ExecutionTraceService": "dionysus.traces",
    "HeartbeatAgent": "dionysus.agents",
    "ManagedAgent": "dionysus.agents",
    "ManagedMetacognitionAgent": "dionysus.agents",
    "ManagedPerceptionAgent": "dionysus.agents",
    "ManagedReasoningAgent": "dionysus.agents",
    "MetacognitionAgent": "dionysus.agents",
    "PerceptionAgent": "dionysus.agents",
    "ReasoningAgent": "dionysus.agents",
    "RecordedRun": "dionysus.runtime",
    "ReplayDiverged": "dionysus.errors",
    "RecordedStream": "dionysus.runtime",
    "Runtime": "dionysus.runtime",
    "Settings": "dionysus.settings",
    "ToolEvent": "dionysus.journal",
    "ToolRefused": "dionysus.errors",
    "Turn": "dionysus.coherence",
    "assess_coherence": "dionysus.coherence",
    "open_model": "dionysus.models",
}
__all__ = [
    "Answer",
    "Attached",
    "BeatReport",
    "Budget",
    "CallbackRegistry",
    "Coherence",
    "ConsciousnessManager",
    "DionysusError",
    "ExecutionTraceService",
    "HeartbeatAgent",
    "ManagedAgent",
    "ManagedMetacognitionAgent",
    "ManagedPerceptionAgent",
    "ManagedReasoningAgent",
    "MetacognitionAgent",
    "PerceptionAgent",
    "ReasoningAgent",
    "RecordedRun",
    "RecordedStream",
    "ReplayDiverged",
    "Runtime",
    "Settings",
    "ToolEvent",
    "ToolRefused",
    "Turn",
    "assess_coherence",
    "open_model",
]
logging.getLogger(__name__).addHandler(logging.NullHandler())  # who uses the library decides what is shown


def __getattr__(name: str) -> Any:
    """Public names are imported at first use, so that the command line starts fast."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'dionysus' has no attribute {name!r}")
