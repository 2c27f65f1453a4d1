"""The transcript, read once: what was asked, called and found.

Pruning replaces observations by stubs once they were seen, so each thought repeats the lines worth keeping, marked
with the step that they come from; reading takes them back. Outside text cannot forge such a mark: `findings.quoted`
replaces its brackets.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smolagents.models import MessageRole

from dionysus.findings import Finding, parse
from dionysus.models.reflex.kinds import section_of

_MARK = re.compile(r" ⟨(\d+)⟩$")
_WITHIN = re.compile(r"within (\d+) actions")
_FAILED = re.compile(r"(?:executing tool|Unknown tool|team member) '?(\w+)'?")
_DEFAULT_ACTIONS = 6
_MOST_KEPT = 40


@dataclass(frozen=True)
class Seen:
    """A finding and the step that found it."""

    finding: Finding
    step: int

    @property
    def kind(self) -> str:
        return self.finding.kind

    @property
    def text(self) -> str:
        return self.finding.text


@dataclass
class Scene:
    """What a transcript holds."""

    offered: Mapping[str, Any]
    """Tools that can be called, by name."""
    task: str = ""
    called: list[tuple[str, Any]] = field(default_factory=list)
    """(tool, arguments) in order; a failed call has no arguments."""
    seen: list[Seen] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    other: list[str] = field(default_factory=list)
    """Observations that are not in the line grammar."""

    def did(self, tool: str) -> list[Any]:
        """The arguments of each call of a tool."""
        return [arguments for name, arguments in self.called if name == tool]

    def of(self, *kinds: str) -> list[Seen]:
        """What was found of these kinds."""
        return [line for line in self.seen if line.kind in kinds]

    def can(self, tool: str) -> bool:
        """Whether a tool is offered and has not failed."""
        return tool in self.offered and tool not in self.failed

    @property
    def left(self) -> int:
        """Actions that are left, this one included."""
        found = _WITHIN.search(self.task)
        return (int(found[1]) if found else _DEFAULT_ACTIONS) - len(self.called)

    @property
    def question(self) -> str:
        """The first line of the task."""
        return " ".join(self.task.strip().split("\n")[0].split())[:200]


def read(messages: Sequence[Any], offered: Mapping[str, Any]) -> Scene:
    """Reads a transcript as smolagents renders it: roles and plain text."""
    scene = Scene(offered)
    for message in messages:
        role, text = _role(message), text_of(message)
        if role == MessageRole.USER and text.startswith("New task:"):
            scene.task = text.removeprefix("New task:").strip()
        elif role == MessageRole.TOOL_CALL:
            scene.called += _calls(text)
        elif role == MessageRole.TOOL_RESPONSE and "Error:\n" in text[:200]:
            _read_error(scene, text)
        elif role == MessageRole.TOOL_RESPONSE:
            found = parse(text)
            _add(scene, [Seen(f, len(scene.called)) for f in found])
            if not found and "[cut " not in text[:40]:
                scene.other.append(text.removeprefix("Observation:\n"))
        elif role == MessageRole.ASSISTANT:
            marked = [(f, _MARK.search(f.text)) for f in parse(text)]
            _add(scene, [Seen(Finding(f.kind, f.text[: m.start()]), int(m[1])) for f, m in marked if m])
    return scene


def kept_lines(scene: Scene) -> list[str]:
    """The newest step's findings, marked, for the thought that outlives their observation."""
    newest = [s for s in scene.seen if s.step == len(scene.called) and section_of(s.kind)]
    return [f"{line.finding} ⟨{line.step}⟩" for line in newest[:_MOST_KEPT]]


def text_of(message: Any) -> str:
    """The text of a chat message."""
    content = message["content"] if isinstance(message, dict) else message.content
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))


def _role(message: Any) -> Any:
    return message["role"] if isinstance(message, dict) else message.role


def _calls(text: str) -> list[tuple[str, Any]]:
    """smolagents writes calls into the prompt as the repr of a list."""
    try:
        listed = ast.literal_eval(text.partition("\n")[2])
        return [(call["function"]["name"], call["function"]["arguments"]) for call in listed]
    except (ValueError, SyntaxError, KeyError, TypeError):  # not written by smolagents: counts as one call
        return [("?", {})]


def _read_error(scene: Scene, text: str) -> None:
    """A call that failed left no tool call in the transcript, only this text."""
    failed = _FAILED.search(text)
    if failed:
        scene.failed.add(failed[1])
    scene.called.append((failed[1] if failed else "?", {}))
    scene.other.append(text)


def _add(scene: Scene, lines: Sequence[Seen]) -> None:
    known = {line.finding for line in scene.seen}
    scene.seen += [line for line in lines if line.finding not in known]
