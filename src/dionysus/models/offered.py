"""What a prompt of smolagents offers and has seen called, read from its text: tools, members, functions, code tags.

A model is handed messages and, for agents that call tools, the tools themselves; agents that write code, and prompts
for plans, say in their text alone what there is.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smolagents import Tool

END_OF_PLAN = "<end_plan>"
"""The stop sequence that tells a prompt for a plan."""
NEW_TASK = "New task:\n"
FAILED = re.compile(r"(Call id: [^\n]*\n)?Error:\n(.*)", re.S)
"""How smolagents tells of a step that failed; the second group is why."""
RECALL = "recall_observation"
STUB = re.compile(rf"\[cut \d+ chars; {RECALL}\(\d+\)\]")
"""What stands where an observation was cut."""
_USUAL_STOPS = ("Observation:", "Calling tools:", END_OF_PLAN)
_MEMBER = re.compile(r'^\s*def (\w+)\(task: str, additional_args[^\n]*\n\s*"""(.*?)(?:"""|\n)', re.M)
_FUNCTION = re.compile(r'^\s*def (\w+)\(([^()\n]*)\) -> [^\n]*:\n\s*"""(.*?)(?:"""|\n)', re.M)
_LISTED_TOOL = re.compile(r"^- (\w+): ((?:(?!^- \w+: ).*\n)*?)\s+(?:- )?Takes inputs: (\{.*\})$", re.M)
FENCED_TASK = re.compile(r"task:\s*```\n(.*)\n\s*```", re.S | re.I)
"""To the last fence of the prompt: a task can hold fences itself."""


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A tool that may be called."""

    name: str
    description: str = ""
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """smolagents' form: a JSON schema per argument, `nullable` where it can be left out."""

    @classmethod
    def of(cls, tool: Tool) -> "Offered":
        """What a smolagents tool – or a team member, which is called like one – says of itself."""
        return cls(name=tool.name, description=tool.description or "", inputs=dict(tool.inputs or {}))

    @property
    def required(self) -> list[str]:
        """The arguments that cannot be left out."""
        return [name for name, spec in self.inputs.items() if not spec.get("nullable")]

    def takes(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments would be accepted, as far as names go."""
        return set(self.required) <= set(arguments) <= set(self.inputs)


def tools_listed_in(messages: Sequence[Any]) -> list[Offered]:
    """The tools that a plan prompt lists, in smolagents' form; other lines with a dash are none."""
    if not messages:
        return []
    text = FENCED_TASK.sub("", text_of(messages[-1]))
    found = []
    for name, description, inputs in _LISTED_TOOL.findall(text):
        try:
            read_inputs = ast.literal_eval(inputs)
        except (ValueError, SyntaxError):
            continue
        found.append(Offered(name=name, description=description.strip(), inputs=read_inputs))
    return found


def members_in(text: str) -> list[Offered]:
    """The team members that a prompt lists as functions of a task."""
    found = [Offered(name=name, description=purpose) for name, purpose in _MEMBER.findall(text)]
    return list({member.name: member for member in found}.values())


def functions_in(text: str) -> list[Offered]:
    """The tools that a prompt lists as functions."""
    found = []
    for name, arguments, purpose in _FUNCTION.findall(text):
        names = [part.partition(":") for part in re.split(r",\s*(?=[^\s:,\[\]'\"]+\s*:)", arguments) if part.strip()]
        if any(argument.strip() == "additional_args" for argument, _, _ in names):
            continue
        alone = len(names) == 1
        inputs = {argument.strip(): {"type": _type_in(kind), "nullable": not alone} for argument, _, kind in names}
        found.append(Offered(name=name, description=purpose, inputs=inputs))
    return found


def _type_in(kind: str) -> str | list[str]:
    """A type, or several, as a function's prompt names them."""
    kind = kind.strip()
    if kind.startswith("["):
        return re.findall(r"\w+", kind)
    return "string" if "str" in kind else kind


def closing_tag(stops: Sequence[str]) -> str | None:
    """The tag at which a code block ends; None: no code is asked for.

    smolagents leaves the tag out of the stop sequences where the opening one holds it: those are fences.
    """
    if not stops or END_OF_PLAN in stops:
        return None
    return next((stop for stop in stops if stop not in _USUAL_STOPS), "```")


def tags_of(closing: str) -> tuple[str, str]:
    """The opening tag that goes with a closing one, and that; where it is not known fences, which every agent reads."""
    return (closing.replace("</", "<", 1), closing) if closing.startswith("</") else ("```python", "```")


def called_in(text: str) -> list[tuple[str, Any]]:
    """Names and arguments of a `Calling tools:` message, which holds them as Python literals; of code, its text."""
    _, _, literal = text.partition("\n")
    try:
        return [(str(c["function"]["name"]), c["function"]["arguments"]) for c in ast.literal_eval(literal)]
    except (ValueError, SyntaxError, TypeError, KeyError):  # an argument that is no literal: the name is enough
        name = re.search(r"'name': '(\w+)'", literal)
        return [(name[1], {})] if name else []


def text_of(message: Any) -> str:
    """The text of a message, whichever of smolagents' forms it has."""
    content = message.get("content") if isinstance(message, dict) else message.content
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


def role_of(message: Any) -> Any:
    """The role of a message, whichever of smolagents' forms it has."""
    return message.get("role") if isinstance(message, dict) else message.role
