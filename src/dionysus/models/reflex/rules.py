"""What to do: the rules in their order, the first that fits is followed; a plan is the rules played forward.

A rule is a tool, a thought, and a function that gives the tool's arguments – or None where the rule does not fit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dionysus.models.offered import Offered
from dionysus.models.reflex.focus import recall_query, telling_words, topics, wisdom_topic
from dionysus.models.reflex.layout import shorten
from dionysus.models.reflex.report import needed, next_actions, report
from dionysus.models.reflex.scene import DID_NOT_WORK, Scene
from dionysus.words import stems

Arguments = dict[str, Any]

_PLANNED = 3
"""Actions that a plan names."""
_ROOM_FOR_THE_END = 3
"""Actions kept for synthesis, capture and answer."""
_REFLECTIONS = 2
_INFORMATION_CHARS = 8000
_LINE_CHARS = 110
_INTENTION_CHARS = 200
_ANY_CHANGE = "tests documentation changes"
"""What the rules of a place are asked about where nothing else is left to ask."""
_TOUCHED_GOAL = re.compile(r"goal (\d+)\b.*?(touched by `[^`]*`(?: \([^)]*\))?)")
_REACHED_GOAL = re.compile(r"goal (\d+) is reached: (.*? says so)")
_TASK_TALK = frozenset(stems("use the tools and finish with final answer within actions tool"))


@dataclass(frozen=True)
class Action:
    """A tool call, and why."""

    tool: str
    arguments: Arguments
    thought: str


@dataclass(frozen=True)
class Rule:
    """When this tool is the next one."""

    tool: str
    thought: str
    arguments: Callable[[Scene], Arguments | None]
    """What to call it with; None: the rule does not fit."""


def observe(scene: Scene) -> Arguments | None:
    return None if scene.did("observe_environment") else {}


def answer_when_idle(scene: Scene) -> Arguments | None:
    return {"answer": report(scene)} if scene.idle and not scene.asked else None


def list_goals(scene: Scene) -> Arguments | None:
    return None if scene.did("list_goals") else {}


def recall(scene: Scene) -> Arguments | None:
    return None if scene.did("semantic_recall") else {"query": recall_query(scene)}


def revise(scene: Scene) -> Arguments | None:
    return None if scene.did("revise_mental_model") else {}


def reflect(scene: Scene) -> Arguments | None:
    return None if scene.did("reflect_on_topic") else _reflection(scene)


def ask_wisdom(scene: Scene) -> Arguments | None:
    return None if scene.did("query_wisdom_graph") else {"topic": wisdom_topic(scene)}


def close_reached_goal(scene: Scene) -> Arguments | None:
    """A goal that a commit or a note says is done."""
    for e in scene.of("reached"):
        said = _REACHED_GOAL.match(e.text)
        if said and scene.left > 2 and not _is_updated(scene, int(said[1])):
            return {"goal_id": int(said[1]), "progress": said[2].replace("`", ""), "status": "done"}
    return None


def note_touched_goal(scene: Scene) -> Arguments | None:
    """A goal that a change touches; more than one only where there is time."""
    if scene.did("update_goal") and scene.left <= _ROOM_FOR_THE_END:
        return None
    for e in scene.of("goal"):
        said = _TOUCHED_GOAL.match(e.text)
        if said and not _is_updated(scene, int(said[1])):
            return {"goal_id": int(said[1]), "progress": said[2].replace("`", "")}
    return None


def reflect_again(scene: Scene) -> Arguments | None:
    return _reflection(scene) if _has_time_to_look_again(scene) else None


def ask_wisdom_again(scene: Scene) -> Arguments | None:
    """In place of a second reflection, where none is possible."""
    if not _has_time_to_look_again(scene) or len(scene.did("query_wisdom_graph")) > 1:
        return None
    return _first_unasked(scene, "query_wisdom_graph", "topic", " ".join(telling_words(scene)[:3]), _ANY_CHANGE)


def recall_again(scene: Scene) -> Arguments | None:
    """In place of a second reflection, where none is possible."""
    if not _has_time_to_look_again(scene) or len(scene.did("semantic_recall")) > 1:
        return None
    return _first_unasked(
        scene, "semantic_recall", "query", " ".join(telling_words(scene)[:3]), scene.question, _ANY_CHANGE
    )


def synthesize(scene: Scene) -> Arguments | None:
    """Not with the last action before the answer, if that can still keep the moment."""
    capture_waits = scene.can("mosaeic_capture") and not scene.did("mosaeic_capture")
    if scene.did("synthesize_information") or (capture_waits and scene.left <= 2):
        return None
    lines = [f"- [{e.kind}] {e.text}" for e in scene.evidence if needed(e)]
    while sum(map(len, lines)) > _INFORMATION_CHARS:
        lines.pop()
    return {"information": "\n".join(lines), "question": scene.question} if lines or scene.foreseen else None


def capture(scene: Scene) -> Arguments | None:
    """Senses, actions, emotions as surprise and confirmation, impulses as the next action, cognitions."""
    if scene.did("mosaeic_capture") or scene.left < 2:
        return None
    came_in = scene.of("modified", "added", "removed", "commit", "note") or scene.of("place", "recent")
    surprises = scene.of("failed", "missing", "gap", "dangling")
    following = [action for action in next_actions(scene) if action.reason.kind != "nogoal"]
    concluded = scene.of("gist") or surprises
    return {
        "senses": "; ".join(shorten(e.text, _LINE_CHARS) for e in came_in[:5]) or "nothing new",
        "actions": ", ".join(dict.fromkeys(call.tool for call in scene.calls)) or "none",
        "emotions": f"surprise {len(surprises)}, confirmation {len(scene.of('held'))}",
        "impulses": shorten(following[0].sentence, _INTENTION_CHARS) if following else "",
        "cognitions": "; ".join(shorten(e.text, _LINE_CHARS) for e in concluded[:2]) or "nothing stands out",
    }


def answer(scene: Scene) -> Arguments | None:
    return {"answer": report(scene)}


RULES = (
    Rule("observe_environment", "Look before thinking.", observe),
    Rule("final_answer", "Nothing changed: stop here.", answer_when_idle),
    Rule("list_goals", "Whose aim could this touch?", list_goals),
    Rule("semantic_recall", "What is known about this?", recall),
    Rule("revise_mental_model", "Compare what was expected with what came.", revise),
    Rule("reflect_on_topic", "Look back at the place where most evidence points.", reflect),
    Rule("query_wisdom_graph", "Which rule applies?", ask_wisdom),
    Rule("update_goal", "A goal is reached: close it.", close_reached_goal),
    Rule("update_goal", "A goal was touched: note it.", note_touched_goal),
    Rule("reflect_on_topic", "One more place deserves a look.", reflect_again),
    Rule("query_wisdom_graph", "Ask the rules once more, in other words.", ask_wisdom_again),
    Rule("semantic_recall", "Ask memory once more, in other words.", recall_again),
    Rule("synthesize_information", "Where does the evidence meet?", synthesize),
    Rule("mosaeic_capture", "Keep this moment.", capture),
    Rule("final_answer", "Enough is known: report.", answer),
)
_KNOWN = {rule.tool for rule in RULES} | {"recall_observation"}


def decide(scene: Scene) -> Action | None:
    """The next action; None where no tool is left to call. A call is never repeated with the same arguments."""
    if scene.left <= 1 and "final_answer" in scene.offered:
        return Action("final_answer", {"answer": report(scene)}, "The last action is for the answer.")
    fitting = _unknown_tool(scene)
    if fitting is not None:
        return fitting
    for rule in RULES:
        tool = scene.offered.get(rule.tool)
        if tool is None or not scene.can(rule.tool):
            continue
        arguments = rule.arguments(scene)
        if arguments is None:
            continue
        is_answer = rule.tool == "final_answer"
        if is_answer or (_accepts(tool, arguments) and arguments not in scene.did(rule.tool)):
            return Action(rule.tool, arguments, rule.thought)
    return None


def thought(scene: Scene, action: Action | None) -> str:
    """Why, and the lines that are needed later."""
    if action is None:
        return report(scene)
    why = f"{action.tool}: {action.thought}"
    return why if action.tool == "final_answer" else repeated(scene, why)


def repeated(scene: Scene, why: str) -> str:
    """A thought with the lines that are needed later: their observations will be cut once they were seen."""
    lost = [f"{DID_NOT_WORK}{', '.join(scene.failed)}"] if scene.members and scene.failed else []
    return "\n".join([why, *lost, *(str(e) for e in scene.evidence if not e.kept and needed(e))])


def plan(scene: Scene) -> str:
    """What is known and done, then the next tools: the rules played forward as if nothing new were found."""
    following = next_actions(scene)
    done = dict.fromkeys(call.tool for call in scene.calls)
    lines = [f"Known: {shorten(following[0].reason.text, _LINE_CHARS)}"] if following else []
    lines += [f"Done: {', '.join(done)}."] if done else []
    if scene.members:
        following_members = [member.name for member in scene.uncalled] + ["final_answer"]
        return "\n".join([*lines, *(f"{i}. {name}" for i, name in enumerate(following_members[: _PLANNED + 1], 1))])
    scene = replace(scene, foreseen=True)
    for number in range(1, _PLANNED + 1):
        action = decide(scene)
        if action is None:
            break
        lines.append(f"{number}. {action.tool}")
        if action.tool == "final_answer":
            break
        scene = scene.after(action.tool, action.arguments)
    return "\n".join(lines)


def _reflection(scene: Scene) -> Arguments | None:
    """The most telling place, or else word, that was not looked back at yet."""
    looked_at = {str(arguments.get("topic")) for arguments in scene.did("reflect_on_topic")}
    fresh = next((topic for topic in topics(scene) if topic not in looked_at), None)
    if fresh is None and scene.foreseen:
        return {"topic": f"place {scene.steps}"}
    return None if fresh is None else {"topic": fresh}


def _first_unasked(scene: Scene, tool: str, name: str, *asked: str) -> Arguments | None:
    return next(({name: text} for text in asked if text and {name: text} not in scene.did(tool)), None)


def _has_time_to_look_again(scene: Scene) -> bool:
    return scene.left > _ROOM_FOR_THE_END and len(scene.did("reflect_on_topic")) < _REFLECTIONS


def _is_updated(scene: Scene, goal_id: int) -> bool:
    return any(arguments.get("goal_id") == goal_id for arguments in scene.did("update_goal"))


def _accepts(tool: Offered, arguments: Mapping[str, Any]) -> bool:
    return tool.takes(arguments)


def _unknown_tool(scene: Scene) -> Action | None:
    """A tool outside the rules that shares most words with the task, and needs at most one string.

    Beside the heartbeat's own tools only one such tool is called, so that the rules have their turn.
    """
    tried = [call.tool for call in scene.calls if call.tool not in _KNOWN]
    tried += [tool for tool in scene.failed if tool not in _KNOWN]
    if tried and "observe_environment" in scene.offered:
        return None
    wanted = set(stems(scene.task)) - _TASK_TALK
    best: tuple[int, Offered] | None = None
    for tool in scene.offered.values():
        if tool.name in _KNOWN or tool.name in tried or not _takes_at_most_one_string(tool):
            continue
        fit = len(wanted & set(stems(f"{tool.name} {tool.description}")))
        if fit and (best is None or fit > best[0]):
            best = fit, tool
    if best is None:
        return None
    arguments = dict.fromkeys(best[1].required, scene.question)
    return Action(best[1].name, arguments, "This tool fits the task.")


def _takes_at_most_one_string(tool: Offered) -> bool:
    types = [tool.inputs[name].get("type") for name in tool.required]
    return len(types) <= 1 and all(kind in ("string", "any") for kind in types)
