"""An example of each answer, made of the records themselves, for the OpenAPI description."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import to_jsonable_python

from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    BasinLink,
    CreatedMemory,
    ModelCall,
    Pruned,
    TokenUsage,
    ToolUse,
    Usage,
)
from dionysus.traces import FullTrace, Moment, Replay, Scene, TracePage, total_usage

_AT = datetime(2026, 11, 21, 3, 58, tzinfo=UTC)
_TRACE = AgentExecutionTrace(
    id="beat-1-3f9a2c",
    agent_name="heartbeat",
    run_id="beat-1-3f9a2c",
    status="success",
    started_at=_AT,
    completed_at=_AT + timedelta(seconds=9),
    task="Look at what changed …",
    model="openai:gpt-5-mini",
    summary="Next: finish goal 1.",
    success=True,
    step_count=10,
    planning_count=4,
    model_calls=14,
    input_tokens=31_420,
    cached_tokens=19_004,
    output_tokens=1_208,
    cost_usd=0.0061,
    tokens_saved=8_870,
    coherence_min=0.83,
)
_CALL = ModelCall(
    position="heartbeat/action.1/model#1",
    model="openai:gpt-5-mini",
    started_at=_AT,
    completed_at=_AT + timedelta(seconds=1),
    usage=Usage(input_tokens=2_101, cached_tokens=1_024, output_tokens=44, cost_usd=0.0004),
    prompt_chars=8_204,
)
_STEP = AgentExecutionStep(
    id="beat-1-3f9a2c:action.1",
    trace_id="beat-1-3f9a2c",
    order=2,
    step_number=1,
    step_type="action",
    started_at=_AT,
    completed_at=_AT + timedelta(seconds=1, milliseconds=40),
    thought="What changed?",
    tool_calls=(
        ToolUse(
            position="heartbeat/action.1/tool:observe_environment#1",
            name="observe_environment",
            arguments={},
            started_at=_AT + timedelta(seconds=1),
            completed_at=_AT + timedelta(seconds=1, milliseconds=30),
            result="- [beat] beat 1 …",
        ),
    ),
    observation="- [beat] beat 1 …",
    model_calls=(_CALL,),
    input_tokens=2_101,
    cached_tokens=1_024,
    output_tokens=44,
    pruned=Pruned(before_step=3, stub="[cut 1480 chars; recall_observation(1)] monitoring.py", chars_saved=1_424),
)
_SCENE = Scene(
    order=2,
    step_number=1,
    step_type="action",
    title="observe_environment · 2,101 (1,024 cached) + 44 tokens · a stub from action 3 on (−1,424)",
    started_at=_AT,
    seconds=1.04,
    coherence=None,
    chars_pruned=1_424,
    moments=(
        Moment(kind="thought", title="thought", text="What changed?"),
        Moment(kind="call", title="call observe_environment()"),
        Moment(kind="observation", title="observation", text="- [beat] beat 1 …"),
    ),
)
_USAGE = TokenUsage(
    agent_name="heartbeat",
    traces=12,
    model_calls=168,
    input_tokens=377_040,
    cached_tokens=228_048,
    output_tokens=14_496,
    cost_usd=0.0732,
    tokens_saved=106_440,
)
EXAMPLES: dict[str, dict[str, Any]] = {
    "TraceList": to_jsonable_python(
        TracePage(traces=(_TRACE,), next_cursor=f"older_{int(_AT.timestamp())}000000_{_TRACE.id}")
    ),
    "TraceDetail": to_jsonable_python(
        FullTrace(
            trace=_TRACE,
            steps=(_STEP,),
            basins=(BasinLink(basin_id=7, name="commits 2026-11-19", strength=0.57, at_step=3),),
            memories=(CreatedMemory(memory_id=41, source="beat 1", at_step=9),),
            next_after=2,
        )
    ),
    "TraceReplay": to_jsonable_python(Replay(trace=_TRACE, scenes=(_SCENE,), next_after=2)),
    "TokenReport": to_jsonable_python(
        {"agents": [_USAGE], "runs": [], "days": [], "total": total_usage([_USAGE]), "since": None, "until": None}
    ),
}
