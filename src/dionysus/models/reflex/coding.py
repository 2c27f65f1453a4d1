"""Reflex as a `CodeAgent`: one delegation a step – Observe, Orient, Decide – or one tool call, written as code.

Texts from outside go into the code as literals, in which neither the tags of the code block nor the name of the final
tool can occur; a thought has no tags at all.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from dionysus.models.reflex.report import report
from dionysus.models.reflex.rules import decide, repeated
from dionysus.models.reflex.scene import Offered, Scene, read, text_of

_USUAL_STOPS = ("Observation:", "Calling tools:", "<end_plan>")
_MEMBER = re.compile(r'^\s*def (\w+)\(task: str, additional_args[^\n]*\n\s*"""(.*?)(?:"""|\n)', re.M)
_TOOL = re.compile(r'^\s*def (\w+)\(([^()\n]*)\) -> [^\n]*:\n\s*"""(.*?)(?:"""|\n)', re.M)
_PHASES = (
    (re.compile(r"observ|perce|sens"), "Observe: say what has changed, what is remembered of it, which rules apply."),
    (re.compile(r"orient|reason|analy|synthes"), "Orient: look back at the places named below; where does it meet?"),
    (re.compile(r"decid|metacog|goal"), "Decide: which goals are concerned? Compare what was expected with what came."),
)
"""How the member of a phase is known – by its name or description – and what it is asked."""
_ANY = "Say what you can find out about it."


def closing_tag(stops: Sequence[str]) -> str | None:
    """The tag at which a code block ends; None: no code is asked for.

    smolagents leaves the tag out of the stop sequences where the opening one holds it: those are fences.
    """
    if not stops or "<end_plan>" in stops:
        return None
    return next((stop for stop in stops if stop not in _USUAL_STOPS), "```")


def tags_of(closing: str) -> tuple[str, str]:
    """The opening tag that goes with a closing one, and that."""
    return ("```python" if closing.startswith("```") else closing.replace("</", "<", 1)), closing


def members_in(text: str) -> list[Offered]:
    """The team members that a prompt lists, in the order of the cycle; those of no phase after them."""
    found = [Offered(name=name, description=purpose) for name, purpose in _MEMBER.findall(text)]
    unique = list({member.name: member for member in found}.values())
    return sorted(unique, key=lambda member: _phase(member))


def functions_in(text: str) -> list[Offered]:
    """The tools that a prompt lists as functions."""
    found = []
    for name, arguments, purpose in _TOOL.findall(text):
        names = [part.partition(":") for part in arguments.split(",") if part.strip()]
        if any(argument.strip() == "additional_args" for argument, _, _ in names):
            continue
        alone = len(names) == 1
        inputs = {
            argument.strip(): {"type": "string" if "str" in kind else kind.strip(), "nullable": not alone}
            for argument, _, kind in names
        }
        found.append(Offered(name=name, description=purpose, inputs=inputs))
    return found


def code_answer(messages: Sequence[Any], closing: str, *, as_json: bool) -> str:
    """A thought and a block of code.

    Args:
        as_json: `{"thought": …, "code": …}` instead.
    """
    tags = tags_of(closing)
    system = text_of(messages[0]) if messages else ""
    offered = [*functions_in(system), Offered(name="final_answer", inputs={"answer": {"type": "any"}})]
    scene = read(messages, offered, members=members_in(system), tags=tags)
    thought, code = _step(scene, tags)
    if as_json:
        return json.dumps({"thought": thought, "code": code})
    return f"{thought}\n{tags[0]}\n{code}\n{tags[1]}"


def _step(scene: Scene, tags: tuple[str, str]) -> tuple[str, str]:
    member = next(iter(scene.uncalled), None) if scene.left > 1 else None
    if member is not None:
        return repeated(scene, f"{member.name}: its turn in the cycle."), _delegation(scene, member, tags)
    action = decide(scene) if not scene.members else None
    if action is not None and action.tool != "final_answer":
        arguments = ", ".join(f"{k!r}: {_literal(v, tags)}" for k, v in action.arguments.items())
        return repeated(scene, f"{action.tool}: {action.thought}"), f"print({action.tool}(**{{{arguments}}}))"
    return "final_answer: Enough is known: report.", f"final_answer({_literal(report(scene), tags)})"


def _delegation(scene: Scene, member: Offered, tags: tuple[str, str]) -> str:
    phase = _phase(member)
    ask = _PHASES[phase][1] if phase < len(_PHASES) else _ANY
    task = _literal(f"{ask}\nQuestion: {scene.question}", tags)
    known = [f"{name}_report" for name in scene.reported]
    if known:
        task += " + '\\nWhat is known so far:\\n' + " + " + '\\n' + ".join(known)
    return f"{member.name}_report = {member.name}(task={task})\nprint({member.name}_report)"


def _phase(member: Offered) -> int:
    """By the name, else by what the description says first."""
    by_name = [i for i, (fits, _) in enumerate(_PHASES) if fits.search(member.name.lower())]
    said = [
        (found.start(), i) for i, (fits, _) in enumerate(_PHASES) if (found := fits.search(member.description.lower()))
    ]
    return by_name[0] if by_name else min(said)[1] if said else len(_PHASES)


def _literal(value: Any, tags: tuple[str, str]) -> str:
    """A Python literal in which neither a tag nor the name of the final tool occurs."""
    literal = repr(value)
    for word in (*tags, "final_answer"):
        at = 0 if word in tags else word.index("_")
        literal = literal.replace(word, f"{word[:at]}\\x{ord(word[at]):02x}{word[at + 1 :]}")
    return literal
