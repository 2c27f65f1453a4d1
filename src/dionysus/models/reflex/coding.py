"""Reflex as a `CodeAgent`: one delegation a step – Observe, Orient, Decide – or one tool call, written as code.

Texts from outside go into the code as literals, in which neither the tags of the code block nor the name of the final
tool can occur; a thought has no tags at all.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from dionysus.models.offered import Offered, functions_in, members_in, tags_of, text_of
from dionysus.models.reflex.report import report
from dionysus.models.reflex.rules import decide, repeated
from dionysus.models.reflex.scene import Scene, read

_PHASES = (
    (re.compile(r"observ|perce|sens"), "Observe: say what has changed, what is remembered of it, which rules apply."),
    (re.compile(r"orient|reason|analy|synthes"), "Orient: look back at the places named below; where does it meet?"),
    (re.compile(r"decid|metacog|goal"), "Decide: which goals are concerned? Compare what was expected with what came."),
)
"""How the member of a phase is known – by its name or description – and what it is asked."""
_ANY = "Say what you can find out about it."


def members_in_order(text: str) -> list[Offered]:
    """The team members that a prompt lists, in the order of the cycle; those of no phase after them."""
    return sorted(members_in(text), key=_phase)


def code_answer(messages: Sequence[Any], closing: str, *, as_json: bool) -> str:
    """A thought and a block of code.

    Args:
        as_json: `{"thought": …, "code": …}` instead.
    """
    tags = tags_of(closing)
    system = text_of(messages[0]) if messages else ""
    offered = [*functions_in(system), Offered(name="final_answer", inputs={"answer": {"type": "any"}})]
    scene = read(messages, offered, members=members_in_order(system), tags=tags)
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
