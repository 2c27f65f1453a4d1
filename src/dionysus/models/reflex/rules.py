"""The rules, and the plan that they amount to. The first rule that fits fires.

A rule names a tool and a function of the scene that gives its arguments, or None where the rule does not fit. Before
the rules: the last action is the answer; and a tool outside the table that fits the task and takes at most one text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dionysus.findings import plural
from dionysus.models.reflex.kinds import section_of, weight_of
from dionysus.models.reflex.report import cut, ranked, report
from dionysus.models.reflex.scene import Scene, read, text_of
from dionysus.words import words

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Action:
    """What to do next, and why."""

    tool: str
    arguments: Arguments
    thought: str


@dataclass(frozen=True)
class Rule:
    """Condition and arguments in one: None means that the rule does not fit."""

    tool: str
    arguments: Callable[[Scene], Arguments | None]
    thought: str


def decide(scene: Scene) -> Action:
    """The next action."""
    if scene.left > 1 and (found := _fitting_tool(scene)):
        return Action(found[0], found[1], "This tool fits the task best.")
    if scene.left <= 1 and scene.can("final_answer"):
        return Action("final_answer", {"answer": report(scene)}, "The last action is for the answer.")
    for rule in RULES:
        if not scene.can(rule.tool):
            continue
        arguments = rule.arguments(scene)
        if arguments is not None and (rule.tool == "final_answer" or arguments not in scene.did(rule.tool)):
            return Action(rule.tool, arguments, rule.thought)
    return Action("final_answer", {"answer": report(scene)}, "Nothing else can be done.")


def plan(messages: Sequence[Any]) -> str:
    """Up to four next tools, with what is known that matters most; from a prompt without tools."""
    text = "\n".join(text_of(m) for m in messages)
    offered = dict.fromkeys(re.findall(r"^\s*- (\w+): ", text, re.M))
    scene = read(messages, offered)
    done = list(dict.fromkeys(name for name, _ in scene.called))
    known = RULE_TOOLS
    todo = [t for t in offered if t not in known and t not in done and t != "recall_observation"][:2]
    todo += [t for t in known if t in offered and t not in done and t not in ("final_answer", "update_goal")]
    if _goal_to_update(scene) and "update_goal" in offered:
        todo.insert(0, "update_goal")
    todo = todo[:3]
    if len(todo) < 3 and "final_answer" in offered:
        todo.append("final_answer")
    best = next(iter(ranked(scene)), None)
    lines = [f"Known: {cut(best.line.text, 100)}"] if best else []
    lines += [f"Done: {', '.join(done)}."] if done else []
    return "\n".join(lines + [f"{i}. {tool}" for i, tool in enumerate(todo, 1)])


# -- what the rules look at ---------------------------------------------------------------------------


def focus(scene: Scene) -> list[str]:
    """Paths, the most telling first: those that call for action, then those that changed, then the frequent."""
    score: Counter[str] = Counter()
    for line in scene.seen:
        if section_of(line.kind) not in ("changed", "place", "expected", "goals", "told"):
            continue
        for position, name in enumerate(line.finding.identifiers):
            if _is_path(name):
                gain = 0.3 + weight_of(line.kind) / 3
                gain += 3 * (line.kind in ("modified", "added")) + 5 * ("touched by" in line.text)
                score[name] += gain / (1 + position)  # type: ignore[assignment]  # a Counter of floats
    return [name for name, _ in score.most_common()]


def _is_path(name: str) -> bool:
    return ("/" in name or "." in name) and " " not in name


def _names(scene: Scene) -> list[str]:
    """Telling words where there are no further paths: functions and classes that changed, then frequent words."""
    found = [n for line in scene.of("modified", "added", "dangling") for n in line.finding.identifiers]
    counted = Counter(w for line in scene.of("recent", "commit", "memory", "note", "due") for w in words(line.text))
    frequent = [w for w, n in counted.most_common(8) if w.isalpha() and len(w) > 3]
    stems = [re.split(r"[./]", path.rpartition("/")[2])[0] for path in focus(scene)[:4]]
    return [n for n in dict.fromkeys([*found, *frequent, *stems]) if n and not _is_path(n)]


def _new_topic(scene: Scene) -> str | None:
    done = {a.get("topic") for a in scene.did("reflect_on_topic") if isinstance(a, Mapping)}
    return next((topic for topic in [*focus(scene), *_names(scene)] if topic not in done), None)


def _query(scene: Scene) -> str:
    """Words of notes and due goals; else what changed; else where most points."""
    told = [line.text.partition(": ")[2] for line in scene.of("note", "due")[:2]]
    if told:
        return " ".join(told)[:300]
    changed = [n for line in scene.of("modified", "added", "commit")[:3] for n in line.finding.identifiers]
    paths = focus(scene)[:2]
    return " ".join(dict.fromkeys([*paths, *changed])) or " ".join(_names(scene)[:3]) or scene.question


def _goal_to_update(scene: Scene) -> Arguments | None:
    """A goal that was reached or touched and not yet noted."""
    noted = {a.get("goal_id") for a in scene.did("update_goal") if isinstance(a, Mapping)}
    for line in scene.of("reached", "goal"):
        number = re.match(r"goal (\d+)", line.text)
        if number is None or int(number[1]) in noted:
            continue
        if line.kind == "reached":
            by = line.finding.identifiers[0] if line.finding.identifiers else "what was said"
            return {"goal_id": int(number[1]), "progress": f"reached by {by}", "status": "done"}
        if (touch := re.search(r"touched by [^)]*\)", line.text)) and "not touched" not in line.text:
            return {"goal_id": int(number[1]), "progress": touch[0].replace("`", "")}
    return None


def _once(tool: str, arguments: Callable[[Scene], Arguments | None]) -> Callable[[Scene], Arguments | None]:
    return lambda scene: None if scene.did(tool) else arguments(scene)


def _answer_if_idle(scene: Scene) -> Arguments | None:
    return {"answer": report(scene)} if scene.of("idle") else None


def _reflect(scene: Scene) -> Arguments | None:
    topic = _new_topic(scene)
    return {"topic": topic} if topic else None


def _reflect_again(scene: Scene) -> Arguments | None:
    if scene.left <= 3 or len(scene.did("reflect_on_topic")) >= 2 or scene.did("update_goal"):
        return None
    return _reflect(scene)


def _wisdom_topic(scene: Scene) -> Arguments:
    new = ["new functionality"] if scene.of("added", "gap") else []
    return {"topic": " ".join([*focus(scene)[:2], *new]) or scene.question}


def _wisdom_again(scene: Scene) -> Arguments | None:
    """Fills a beat that has little to go on: which rules apply to tests and changes at all."""
    if scene.left <= 3 or len(scene.called) != 6 or scene.did("update_goal"):
        return None
    return {"topic": "write tests documentation changes"}


def _information(scene: Scene) -> Arguments | None:
    lines = [str(s.finding) for s in scene.seen if section_of(s.kind)]
    return {"information": "\n".join(lines), "question": scene.question} if lines else None


def _moment(scene: Scene) -> Arguments | None:
    if scene.left < 2:
        return None
    best = next(iter(ranked(scene)), None)
    surprises = len(scene.of("failed", "missing", "gap", "dangling"))
    came = [cut(s.text, 90) for s in scene.of("modified", "added", "removed", "commit", "note")[:5]]
    follows = [cut(s.text, 110) for s in scene.of("gist", "missing", "failed")[:2]]
    return {
        "senses": "; ".join(came) or "; ".join(cut(s.text, 90) for s in scene.of("place")) or "nothing new",
        "actions": ", ".join(dict.fromkeys(name for name, _ in scene.called)),
        "emotions": f"{plural(surprises, 'surprise')}, {plural(len(scene.of('held')), 'confirmation')}",
        "impulses": best.advice if best else "wait",
        "cognitions": "; ".join(follows) or "nothing stands out",
    }


RULES = (
    Rule("observe_environment", _once("observe_environment", lambda s: {}), "Look before thinking."),
    Rule("final_answer", _answer_if_idle, "Nothing changed: stop here."),
    Rule("list_goals", _once("list_goals", lambda s: {}), "Whose aim could this touch?"),
    Rule("semantic_recall", _once("semantic_recall", lambda s: {"query": _query(s)}), "What is known about this?"),
    Rule(
        "revise_mental_model",
        _once("revise_mental_model", lambda s: {}),
        "Compare what was expected with what came.",
    ),
    Rule("reflect_on_topic", _once("reflect_on_topic", _reflect), "Look back at the place where most points."),
    Rule("query_wisdom_graph", _once("query_wisdom_graph", _wisdom_topic), "Which principle applies?"),
    Rule("update_goal", _goal_to_update, "A goal was touched: note it."),
    Rule("reflect_on_topic", _reflect_again, "One more place deserves a look."),
    Rule("query_wisdom_graph", _wisdom_again, "Which rules hold here at all?"),
    Rule("synthesize_information", _once("synthesize_information", _information), "Where do the sources meet?"),
    Rule("mosaeic_capture", _once("mosaeic_capture", _moment), "Keep this moment."),
    Rule("final_answer", lambda s: {"answer": report(s)}, "Enough is known: report."),
)
RULE_TOOLS = tuple(dict.fromkeys(rule.tool for rule in RULES))


def _fitting_tool(scene: Scene) -> tuple[str, Arguments] | None:
    """A tool outside the table, not used yet, nearest to the task by shared words, whose inputs the task can fill."""
    wanted = set(words(scene.task))
    best: tuple[int, str, Arguments] | None = None
    for name, tool in scene.offered.items():
        if name in RULE_TOOLS or name == "recall_observation" or scene.did(name) or not scene.can(name):
            continue
        needed = {k: v for k, v in getattr(tool, "inputs", {}).items() if not v.get("nullable")}
        if len(needed) > 1 or any(v["type"] not in ("string", "any") for v in needed.values()):
            continue
        fit = len(wanted & set(words(f"{name} {tool.description}")))
        if fit and (best is None or fit > best[0]):
            best = (fit, name, dict.fromkeys(needed, scene.question))
    return best[1:] if best else None
