"""The agents, their prompts and their tools."""

from dionysus.agents.heartbeat import HeartbeatAgent

__all__ = ["HeartbeatAgent"]
