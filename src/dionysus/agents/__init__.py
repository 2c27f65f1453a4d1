"""The agents, their prompts and their tools."""

from dionysus.agents.faculties import MetacognitionAgent, PerceptionAgent, ReasoningAgent
from dionysus.agents.heartbeat import HeartbeatAgent
from dionysus.agents.managed import (
    ManagedAgent,
    ManagedMetacognitionAgent,
    ManagedPerceptionAgent,
    ManagedReasoningAgent,
)
from dionysus.agents.manager import ConsciousnessManager

__all__ = [
    "ConsciousnessManager",
    "HeartbeatAgent",
    "ManagedAgent",
    "ManagedMetacognitionAgent",
    "ManagedPerceptionAgent",
    "ManagedReasoningAgent",
    "MetacognitionAgent",
    "PerceptionAgent",
    "ReasoningAgent",
]
