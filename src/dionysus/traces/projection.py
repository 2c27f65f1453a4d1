"""A trace, written from the journal's events while its run goes on.

Called inside the transaction that appends the event, so journal and trace never differ: a killed run leaves its
trace complete up to the last finished call.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from dionysus.stores.contract import (
    AgentExecutionStep,
    AgentExecutionTrace,
    CallbackFailure,
    Event,
    ModelCall,
    Pruned,
    ToolUse,
    Usage,
)
from dionysus.stores.records import Records
from dionysus.traces.service import lowest


class Projection:
    """Turns events into traces and steps."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._on = {
            "run_started": self._run_started,
            "model_called": self._model_called,
            "tool_started": self._tool_started,
            "tool_finished": self._tool_finished,
            "effect": self._effect,
            "step_finished": self._step_finished,
            "run_finished": self._run_finished,
        }

    def __call__(self, event: Event) -> None:
        """Writes what the event means for its trace."""
        self._on[event.kind](event)

    def _run_started(self, event: Event) -> None:
        body = event.body
        self._records.save_trace(
            AgentExecutionTrace(
                id=body["trace"],
                agent_name=body["agent"],
                run_id=event.run_id,
                status="running",
                started_at=event.at,
                task=body["task"],
                model=body["model"],
                parent_trace_id=body.get("parent"),
                parent_step=body.get("parent_step"),
            )
        )

    def _model_called(self, event: Event) -> None:
        body = event.body
        usage = Usage(**body.get("usage", {}))
        call = ModelCall(
            position=event.position,
            model=body["model"],
            started_at=datetime.fromisoformat(body["started_at"]),
            completed_at=event.at,
            usage=usage,
            prompt_chars=body["prompt_chars"],
            pruned_chars=body["pruned_chars"],
            error=body.get("error"),
        )
        step = self._step(event, started_at=call.started_at)
        self._records.save_step(
            replace(
                step,
                model_calls=(*step.model_calls, call),
                input_tokens=step.input_tokens + usage.input_tokens,
                cached_tokens=step.cached_tokens + usage.cached_tokens,
                output_tokens=step.output_tokens + usage.output_tokens,
                thought=step.thought or _content(body.get("answer", {}).get("content")),
            )
        )
        trace = self._trace(event)
        total = Usage(cost_usd=trace.cost_usd) + usage
        self._records.save_trace(
            replace(
                trace,
                model_calls=trace.model_calls + 1,
                input_tokens=trace.input_tokens + usage.input_tokens,
                cached_tokens=trace.cached_tokens + usage.cached_tokens,
                output_tokens=trace.output_tokens + usage.output_tokens,
                cost_usd=total.cost_usd,
                usage_estimated=trace.usage_estimated or usage.estimated,
                tokens_saved=trace.tokens_saved + _saved(call),
            )
        )

    def _tool_started(self, event: Event) -> None:
        step = self._step(event, started_at=event.at)
        use = ToolUse(
            position=event.position,
            name=event.body["tool"],
            arguments=event.body["arguments"],
            started_at=event.at,
        )
        self._records.save_step(replace(step, tool_calls=(*step.tool_calls, use)))

    def _tool_finished(self, event: Event) -> None:
        step = self._step(event, started_at=event.at)

        def finished(call: ToolUse) -> ToolUse:
            if call.position != event.position:
                return call
            result, error = event.body.get("result"), event.body.get("error")
            return replace(call, completed_at=event.at, result=result, error=error)

        self._records.save_step(replace(step, tool_calls=tuple(map(finished, step.tool_calls))))

    def _effect(self, event: Event) -> None:
        name, value = event.body["name"], event.body["value"]
        if name == "callback_failed":
            step = self._step(event, started_at=event.at)
            failures = (*step.callback_failures, CallbackFailure(**value))
            self._records.save_step(replace(step, callback_failures=failures))
        elif name == "coherence":
            step = self._step(event, started_at=event.at)
            self._records.save_step(replace(step, coherence=value["level"]))
            trace = self._trace(event)
            self._records.save_trace(replace(trace, coherence_min=lowest(trace.coherence_min, value["level"])))
        elif name == "pruned":
            for cut in value:
                step_id = _step_id(event.body["trace"], f"action.{cut['step']}")
                seen = self._records.step(step_id)
                if seen is not None:
                    pruned = Pruned(before_step=cut["before_step"], stub=cut["stub"], chars_saved=cut["chars_saved"])
                    self._records.save_step(replace(seen, pruned=pruned))
        elif name == "basins":
            at_step = int(event.body["step"].partition(".")[2])
            for basin in value:
                self._records.save_basin_link(event.body["trace"], basin["id"], basin["activation"], at_step)

    def _step_finished(self, event: Event) -> None:
        body = event.body
        step = self._records.step(_step_id(body["trace"], body["step"]))
        if step is None:  # stopped before its first call: nothing happened in it
            return
        self._records.save_step(
            replace(
                step,
                completed_at=event.at,
                plan=body["plan"],
                thought=body["thought"] if step.step_type != "planning" else None,
                observation=body["observation"],
                error=body["error"],
            )
        )

    def _run_finished(self, event: Event) -> None:
        status, output = event.body["status"], event.body["output"]
        self._records.save_trace(
            replace(
                self._trace(event),
                status=status,
                success=status == "success",
                completed_at=event.at,
                summary=_content(output),
                error_message=event.body["error"],
            )
        )

    def _trace(self, event: Event) -> AgentExecutionTrace:
        trace = self._records.trace(event.body["trace"])
        if trace is None:
            raise RuntimeError(f"event {event.seq} of run {event.run_id!r} came before its run_started")
        return trace

    def _step(self, event: Event, *, started_at: datetime) -> AgentExecutionStep:
        """The event's step; opened, and counted in the trace, where this is its first event."""
        trace_id, key = event.body["trace"], event.body["step"]
        known = self._records.step(_step_id(trace_id, key))
        if known is not None:
            return known
        step_type, _, number = key.partition(".")
        step = AgentExecutionStep(
            id=_step_id(trace_id, key),
            trace_id=trace_id,
            order=self._records.next_order(trace_id),
            step_number=int(number),
            step_type=step_type,
            started_at=started_at,
        )
        self._records.save_step(step)
        trace = self._trace(event)
        planning = step_type == "planning"
        self._records.save_trace(
            replace(
                trace,
                step_count=trace.step_count + (not planning),
                planning_count=trace.planning_count + planning,
            )
        )
        return step


def _step_id(trace_id: str, key: str) -> str:
    return f"{trace_id}:{key}"


def _saved(call: ModelCall) -> int:
    return round(call.usage.input_tokens * call.pruned_chars / call.prompt_chars) if call.prompt_chars else 0


def _content(content: Any) -> str | None:
    """The text of an answer's content."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) for p in content):
        return "\n".join(str(p.get("text", "")) for p in content)
    return str(content)
