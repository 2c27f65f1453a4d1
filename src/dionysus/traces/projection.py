"""Traces, folded from the journal's events.

`Fold` is the pure part: events in, traces and steps out. `Projection` keeps one per open run and writes its rows inside
the transaction that appends the event: the trace when it begins and ends, and with each step that has finished. What a
running or killed run did since is in its journal, so who reads folds that, and nothing is lost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dionysus.counting import Calibration, note_saving
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

Fields = dict[str, Any]


class Story:
    """One agent's trace in the making."""

    def __init__(self, event: Event) -> None:
        body = event.body
        self.trace: Fields = {
            "id": body["trace"],
            "agent_name": body["agent"],
            "run_id": event.run_id,
            "status": "running",
            "started_at": event.at,
            "task": body["task"],
            "model": body["model"],
            "parent_trace_id": body.get("parent"),
            "parent_step": body.get("parent_step"),
            **dict.fromkeys(_COUNTS, 0),
        }
        self.cost: float | None = 0.0
        self.steps: dict[str, Fields] = {}
        self.changed: set[str] = set()
        """Steps whose rows are out of date."""
        self.links: list[tuple[int, float, int]] = []
        """Basins that were activated and whose links are not written: id, strength, step."""
        self.calibrations: dict[str, Calibration] = {}
        """See `note_saving`."""
        self.recalls: list[tuple[int, float, int]] = []
        """Memories that were recalled and whose links are not written: id, score, step."""

    def as_trace(self) -> AgentExecutionTrace:
        """The trace as it now is."""
        return AgentExecutionTrace(**self.trace, cost_usd=self.cost)

    def as_step(self, key: str) -> AgentExecutionStep:
        """A step as it now is."""
        fields = self.steps[key]
        lists = {name: tuple(fields[name].values()) for name in ("tool_calls", "model_calls")}
        failures = {"callback_failures": tuple(fields["callback_failures"])}
        return AgentExecutionStep(**{**{k: v for k, v in fields.items() if k != "asking"}, **lists, **failures})

    def forget_links(self) -> None:
        """All its links are written."""
        self.links.clear()
        self.recalls.clear()

    def step(self, event: Event) -> Fields:
        """The event's step; opened, and counted in the trace, where this is its first event."""
        key = event.body["step"]
        self.changed.add(key)
        known = self.steps.get(key)
        if known is not None:
            return known
        step_type, _, number = key.partition(".")
        self.trace["planning_count" if step_type == "planning" else "step_count"] += 1
        self.steps[key] = {
            "id": f"{self.trace['id']}:{key}",
            "trace_id": self.trace["id"],
            "order": len(self.steps) + 1,
            "step_number": int(number),
            "step_type": step_type,
            "started_at": event.at,
            "tool_calls": {},
            "model_calls": {},
            "asking": {},
            "callback_failures": [],
            **dict.fromkeys(_STEP_TOKENS, 0),
        }
        return self.steps[key]


_STEP_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
_SPENT = ("model_calls", *_STEP_TOKENS, "tokens_saved")
_OF_PROMPTS = ("trace", "step", "prompt_chars", "pruned_chars", "counted")
_COUNTS = ("step_count", "planning_count", "model_calls", *_STEP_TOKENS, "tokens_saved")


class Fold:
    """The traces of one run, as far as its events tell."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.stories: dict[str, Story] = {}
        for event in events:
            self.add(event)

    def add(self, event: Event) -> Story:
        """Takes an event in; returns the trace that it belongs to."""
        trace_id = event.body["trace"]
        if event.kind == "run_started":
            self.stories[trace_id] = Story(event)
        story = self.stories[trace_id]
        if event.kind == "run_forked":  # what is shared was paid for by the run that it comes from
            for shared in self.stories.values():
                shared.trace.update(dict.fromkeys(_SPENT, 0), usage_estimated=False, mended_calls=0)
                shared.cost = 0.0
                shared.calibrations.clear()
        handler = _HANDLERS.get(event.kind)
        if handler is not None:
            handler(story, event)
        return story


def _model_started(story: Story, event: Event) -> None:
    body = event.body
    step = story.step(event)
    counted = body.get("counted") or {}
    step["model_calls"][event.seq] = ModelCall(
        position=event.position,
        model=body["model"],
        started_at=event.at,
        prompt_chars=body["prompt_chars"],
        pruned_chars=body["pruned_chars"],
        counted_by=counted.get("by", ""),
        counted=counted.get("prompt", 0),
        counted_pruned=counted.get("pruned", 0),
    )
    step["asking"][event.position] = event.seq, {name: body.get(name) for name in _OF_PROMPTS}
    story.trace["model_calls"] += 1


def _model_called(story: Story, event: Event) -> None:
    body = event.body
    if "prompt" in body:  # older journals say it in one event
        _model_started(story, event)
    step = story.step(event)
    usage = Usage(**body.get("usage", {}))
    started, sent = step["asking"].pop(event.position)
    call = replace(step["model_calls"][started], completed_at=event.at, usage=usage, error=body.get("error"))
    step["model_calls"][started] = call
    for name in _STEP_TOKENS:
        step[name] += getattr(usage, name)
        story.trace[name] += getattr(usage, name)
    step["thought"] = step.get("thought") or _content(body.get("answer", {}).get("content"))
    story.trace["usage_estimated"] = story.trace.get("usage_estimated", False) or usage.estimated
    story.trace["mended_calls"] = story.trace.get("mended_calls", 0) + usage.mended
    note_saving(story.calibrations, usage.input_tokens, sent)
    story.trace["tokens_saved"] = sum(calibration.saved for calibration in story.calibrations.values())
    story.cost = None if story.cost is None or usage.cost_usd is None else story.cost + usage.cost_usd


def _tool_started(story: Story, event: Event) -> None:
    story.step(event)["tool_calls"][event.position] = ToolUse(
        position=event.position, name=event.body["tool"], arguments=event.body["arguments"], started_at=event.at
    )


def _tool_finished(story: Story, event: Event) -> None:
    calls, body = story.step(event)["tool_calls"], event.body
    at_step = int(body["step"].partition(".")[2])
    story.recalls += [(memory_id, score, at_step) for memory_id, score in body.get("recalled", ())]
    if event.position in calls:
        calls[event.position] = replace(
            calls[event.position], completed_at=event.at, result=body.get("result"), error=body.get("error")
        )


def _effect(story: Story, event: Event) -> None:
    name, value = event.body["name"], event.body["value"]
    if name == "callback_failed":
        story.step(event)["callback_failures"].append(CallbackFailure(**value))
    elif name == "coherence":
        story.step(event)["coherence"] = value["level"]
        story.trace["coherence_min"] = lowest(story.trace.get("coherence_min"), value["level"])
    elif name == "basins":
        at_step = int(event.body["step"].partition(".")[2])
        story.links += [(basin["id"], basin["activation"], at_step) for basin in value]
    elif name == "pruned":
        for cut in value:
            key = f"action.{cut['step']}"
            if key in story.steps:
                story.changed.add(key)
                story.steps[key]["pruned"] = _pruned(story.steps[key].get("pruned"), cut)


def _step_finished(story: Story, event: Event) -> None:
    body = event.body
    said = any(body[part] for part in ("plan", "thought", "observation", "error"))
    if body["step"] not in story.steps and not said:  # stopped before its first call: nothing happened in it
        return
    step = story.step(event)
    story.changed.add(body["step"])
    step.update(completed_at=event.at, plan=body["plan"], observation=body["observation"], error=body["error"])
    step["thought"] = body["thought"] if step["step_type"] != "planning" else None


def _run_finished(story: Story, event: Event) -> None:
    body = event.body
    story.trace.update(
        status=body["status"],
        success=body["status"] == "success",
        completed_at=event.at,
        summary=_content(body["output"]),
        error_message=body["error"],
    )


def _run_resumed(story: Story, event: Event) -> None:
    story.trace.update(status="running", success=None, completed_at=None, summary=None, error_message=None)


def _run_forked(story: Story, event: Event) -> None:
    _run_resumed(story, event)
    story.trace.update(forked_from=event.body["from"], started_at=event.at)


_HANDLERS = {
    "run_resumed": _run_resumed,
    "run_forked": _run_forked,
    "model_started": _model_started,
    "model_called": _model_called,
    "tool_started": _tool_started,
    "tool_finished": _tool_finished,
    "effect": _effect,
    "step_finished": _step_finished,
    "run_finished": _run_finished,
}
_WRITTEN_AT = ("run_started", "run_resumed", "step_finished", "run_finished")


class Projection:
    """Writes the rows of traces while their runs go on."""

    def __init__(self, records: Records, *, links: bool = True) -> None:
        """
        Args:
            links: Whether basins and memories are linked: those that events name are in this store.
        """
        self._records, self._links = records, links
        self._open: dict[str, Fold] = {}

    def __call__(self, event: Event) -> None:
        """Writes what the event means for its trace. Call it inside the transaction that appends the event."""
        fold = self._open.get(event.run_id)
        if fold is None:
            fold = self._open[event.run_id] = Fold(self._records.events(event.run_id, before=event.seq))
            if event.kind != "run_forked":  # its links were written when they came about
                for known in fold.stories.values():
                    known.forget_links()
        story = fold.add(event)
        if event.kind == "run_forked":  # what it shares is shown as its own
            for shared in fold.stories.values():
                self._keep_links_of(shared, event)
                self._records.save_trace(shared.as_trace())
                self._write_steps(shared)
            return
        if event.kind in _WRITTEN_AT:
            self._records.save_trace(story.as_trace())
        if story.links or story.recalls or event.kind in _WRITTEN_AT:
            self._write_steps(story, steps=event.kind in _WRITTEN_AT)

    def _keep_links_of(self, shared: Story, event: Event) -> None:
        """Of what is shared, what the run that it comes from is linked to here: one of another store is not."""
        origin = event.body["from"] + str(shared.trace["id"]).removeprefix(event.run_id)
        basins = {(link.basin_id, link.at_step) for link in self._records.basin_links(origin)}
        memories = {(link.memory_id, link.at_step) for link in self._records.recalled_memories(origin)}
        shared.links = [link for link in shared.links if (link[0], link[2]) in basins]
        shared.recalls = [link for link in shared.recalls if (link[0], link[2]) in memories]

    def _write_steps(self, story: Story, *, steps: bool = True) -> None:
        trace_id = str(story.trace["id"])
        if self._links:
            for link in story.links:
                self._records.save_basin_link(trace_id, *link)
            for recall in story.recalls:
                self._records.save_recall(trace_id, *recall)
        story.forget_links()
        if steps:
            for key in story.changed:
                self._records.save_step(story.as_step(key))
            story.changed.clear()

    def forget(self, run_id: str) -> None:
        """Lets go of a run that is over, or whose last event was not written after all."""
        self._open.pop(run_id, None)


def stories_of(records: Records, run_id: str) -> Mapping[str, Story]:
    """The traces of a run by id, as its journal has them at this moment."""
    return Fold(records.events(run_id)).stories


def lowest(first: float | None, second: float | None) -> float | None:
    """The smaller of two scores, where there are any."""
    scores = [score for score in (first, second) if score is not None]
    return min(scores, default=None)


def _pruned(before: Pruned | None, cut: Fields) -> Pruned:
    """What a step is shown as after one more cut: of another part of it, or a shorter stub of the same."""
    stubs = dict(before.stubs) if before is not None else {}
    stubs[cut.get("part", "observation")] = cut["stub"]
    return Pruned(
        before_step=cut["before_step"],
        stub="\n".join(stubs.values()),
        chars_saved=cut["chars_saved"] + (before.chars_saved if before is not None else 0),
        stubs=stubs,
    )


def _content(content: Any) -> str | None:
    """The text of an answer's content."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) for p in content):
        return "\n".join(str(p.get("text", "")) for p in content)
    return str(content)
