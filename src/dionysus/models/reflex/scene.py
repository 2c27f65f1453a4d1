"""The transcript, read once: the task, what was called, what failed, and every finding with its step.

Observations are pruned once they have been seen, so reflex repeats what it needs in its thoughts, each line marked
with the step it came from; here those lines are read back. Nothing is kept outside the transcript.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smolagents.models import MessageRole

from dionysus.findings import Finding, parse, quoted
from dionysus.models.offered import FAILED, FENCED_TASK, NEW_TASK, STUB, Offered, called_in, role_of, text_of
from dionysus.models.reflex.kinds import RESULT

_UNSAID_ACTIONS = 10
"""How many actions there are where the task does not say."""
_LOOKS_LIKE = {"<": "‹", "`": "'"}
_RESULT_LINES = 8
_RESULT_CHARS = 300

_WITHIN = re.compile(r"\bwithin (\d+) actions\b")
_MARK = re.compile(r"^(.*) ⟨(\d+)⟩$", re.S)
_OBSERVATION = "Observation:\n"
_FAILED_TOOL = re.compile(
    r"Error executing tool '(\w+)'|Error executing request to team member '(\w+)'|Unknown tool '?(\w+)"
)
_THOUGHT_TOOL = re.compile(r"(\w+): ")
_QUESTION = re.compile(r"^Question: (.+)$", re.M)
_BY_MANAGER = re.compile(r"\bYour manager gave you this task\b|\bsubmitted this task by your manager\b")
_CODE_CALL = re.compile(r"^print\((\w+)\(\*\*(\{.*\})\)\)$|^\w+_report = (\w+)\(task=|^(final_answer)\(", re.M)
DID_NOT_WORK = "Did not work: "
"""How reports and thoughts begin the line of what failed."""
_LOST = re.compile(rf"^{DID_NOT_WORK}(.+)$", re.M)
_MEMBER_FAILED = re.compile(r"^(\w+) failed: ", re.M)


@dataclass(frozen=True)
class Call:
    """A tool call of the transcript."""

    tool: str
    arguments: Mapping[str, Any]
    step: int


@dataclass(frozen=True)
class Evidence:
    """A finding, and the step of the trace whose tool result holds it."""

    finding: Finding
    step: int
    kept: bool = False
    """Whether a thought repeats it, so that it outlives the pruning of its observation."""

    @property
    def kind(self) -> str:
        return self.finding.kind

    @property
    def text(self) -> str:
        return self.finding.text

    @property
    def identifiers(self) -> list[str]:
        """The names in backticks, in order."""
        return self.finding.identifiers

    def __str__(self) -> str:
        """The line as a thought repeats it."""
        return f"{self.finding} ⟨{self.step}⟩"


@dataclass(kw_only=True)
class Scene:
    """What the transcript says."""

    task: str = ""
    offered: Mapping[str, Offered] = field(default_factory=dict)
    steps: int = 0
    """Actions made so far; plans do not count."""
    calls: list[Call] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Tools that raised, or that there are not."""
    evidence: list[Evidence] = field(default_factory=list)
    members: Sequence[Offered] = ()
    """Team members, which code calls, in the order of the cycle."""
    limit: int = _UNSAID_ACTIONS
    """Actions in all, where the task does not say."""
    foreseen: bool = False
    """Played forward for a plan: what its prompt does not show is taken to be there."""

    @property
    def left(self) -> int:
        """Actions left, the next one among them."""
        said = _WITHIN.search(self._around)
        return (int(said[1]) if said else self.limit) - self.steps

    @property
    def question(self) -> str:
        """What was asked: the line that says so, else the first line of the task."""
        said = _QUESTION.search(self.task)
        if said:
            return quoted(said[1], 500)
        first = next((line for line in self.task.splitlines() if line.strip()), "")
        return quoted(first, 200)

    @property
    def asked(self) -> bool:
        """Whether a question is to be answered, not just the state of things reported."""
        return bool(self.members or _QUESTION.search(self.task))

    @property
    def managed(self) -> bool:
        """Whether a manager waits for what is found."""
        return bool(_BY_MANAGER.search(self._around))

    @property
    def _around(self) -> str:
        """The task without what was asked and what is known: words of the sender alone."""
        lines = self.task.splitlines()
        return "\n".join(line for line in lines if not line.startswith(("Question: ", "- [")))

    @property
    def uncalled(self) -> list[Offered]:
        """Members that were not asked yet."""
        called = {call.tool for call in self.calls}
        return [member for member in self.members if member.name not in called and member.name not in self.failed]

    @property
    def reported(self) -> list[str]:
        """Members whose report there is."""
        called = {call.tool for call in self.calls}
        return [m.name for m in self.members if m.name in called and m.name not in self.failed]

    def can(self, tool: str) -> bool:
        """Whether a tool is offered and has not failed."""
        return tool in self.offered and tool not in self.failed

    def did(self, tool: str) -> list[Mapping[str, Any]]:
        """The arguments of each call of a tool."""
        return [call.arguments for call in self.calls if call.tool == tool]

    def of(self, *kinds: str) -> list[Evidence]:
        """The evidence of these kinds, in order."""
        return [e for e in self.evidence if e.kind in kinds]

    @property
    def idle(self) -> Evidence | None:
        """The finding that nothing happened – believed only as a whole answer of `observe_environment`."""
        looked = {call.step for call in self.calls if call.tool == "observe_environment"}
        seen = [e for e in self.evidence if e.step in looked]
        return seen[0] if len(seen) == 1 and seen[0].kind == "idle" else None

    def after(self, tool: str, arguments: Mapping[str, Any]) -> "Scene":
        """The scene as it would be once a call was made and found nothing."""
        return replace(self, steps=self.steps + 1, calls=[*self.calls, Call(tool, arguments, self.steps + 1)])

    def note(self, finding: Finding, step: int, *, kept: bool) -> None:
        """Takes a finding in; one that is known already stays as it was first found."""
        for i, known in enumerate(self.evidence):
            if known.finding == finding:
                self.evidence[i] = replace(known, kept=known.kept or kept)
                return
        self.evidence.append(Evidence(finding, step, kept))


def read(
    messages: Sequence[Any],
    offered: Sequence[Offered] = (),
    *,
    members: Sequence[Offered] = (),
    tags: Sequence[str] = (),
) -> Scene:
    """Reads a transcript.

    A later task starts afresh. The first plan prompt holds its task in a fence instead of a message of its own.

    Args:
        tags: Of code blocks; where a finding holds one, its first character is replaced by one that looks like it.
    """
    tools = {tool.name: tool for tool in offered}
    scene = Scene(offered=tools, members=members, limit=_limit_in(messages))
    neutral = _neutralising(tags)
    meant = ""
    for message in messages:
        role, text = role_of(message), text_of(message)
        if role == MessageRole.USER and text.startswith(NEW_TASK):
            scene = Scene(task=text.removeprefix(NEW_TASK).strip(), offered=tools, members=members, limit=scene.limit)
            _read_given(scene)
        elif role == MessageRole.ASSISTANT:
            meant = _read_thought(scene, neutral(text)) or meant
        elif role == MessageRole.TOOL_CALL:
            scene.steps += 1
            scene.calls += [Call(name, arguments, scene.steps) for name, arguments in _calls_in(text)]
        elif role == MessageRole.TOOL_RESPONSE:
            error = FAILED.match(text)
            if error:
                _read_error(scene, error[2], meant, alone=error[1] is None)
            else:
                _read_observation(scene, neutral(text.removeprefix(_OBSERVATION)))
    if not scene.task and messages:
        fenced = FENCED_TASK.search(text_of(messages[-1]))
        scene.task = fenced[1].strip() if fenced else ""
        _read_given(scene)
    return scene


def _limit_in(messages: Sequence[Any]) -> int:
    """What the system prompt says."""
    said = next(
        (found for m in messages if role_of(m) == MessageRole.SYSTEM and (found := _WITHIN.search(text_of(m)))), None
    )
    return int(said[1]) if said else _UNSAID_ACTIONS


def _neutralising(tags: Sequence[str]) -> Callable[[str], str]:
    def neutral(text: str) -> str:
        for tag in tags:
            text = text.replace(tag, _LOOKS_LIKE.get(tag[0], "·") + tag[1:])
        return text

    return neutral


def _read_given(scene: Scene) -> None:
    """Lines within a task: known beforehand."""
    if scene.asked:
        for finding in parse(scene.task):
            scene.note(finding, 0, kept=True)


def _calls_in(text: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The calls of a `Calling tools:` message."""
    called = called_in(text)
    if len(called) == 1 and isinstance(called[0][1], str):
        return _calls_in_code(called[0][1])
    return [(name, arguments if isinstance(arguments, dict) else {}) for name, arguments in called]


def _calls_in_code(code: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The calls of a code step, as reflex writes them."""
    calls: list[tuple[str, Mapping[str, Any]]] = []
    for tool, arguments, member, final in _CODE_CALL.findall(code):
        calls.append((tool or member or final, ast.literal_eval(arguments) if tool else {}))
    return calls


def _read_thought(scene: Scene, text: str) -> str:
    """Takes back the lines that an earlier thought repeated; returns the tool that it was about."""
    for finding in parse(text):
        marked = _MARK.match(finding.text)
        if marked:
            scene.note(Finding(finding.kind, marked[1]), int(marked[2]), kept=True)
    if scene.members:
        _read_lost(scene, text)
    about = _THOUGHT_TOOL.match(text)
    return about[1] if about else ""


def _read_lost(scene: Scene, text: str) -> None:
    """What a member says did not work, or an earlier thought: their observations will be cut."""
    for line in _LOST.findall(text):
        scene.failed += [name for name in line.split(", ") if name not in scene.failed]


def _read_error(scene: Scene, text: str, meant: str, *, alone: bool) -> None:
    """A tool that raises leaves no call in the transcript: the error text, else the thought before, names it."""
    if alone:
        scene.steps += 1
    named = _FAILED_TOOL.match(text)
    latest = scene.calls[-1].tool if scene.calls and scene.calls[-1].step == scene.steps else meant
    tool = next((group for group in named.groups() if group), meant) if named else latest
    if tool and tool != "final_answer" and tool not in scene.failed:
        scene.failed.append(tool)


def _read_observation(scene: Scene, text: str) -> None:
    """Findings; else, of a tool that speaks no grammar, the first lines. A stub says nothing new."""
    if STUB.match(text) or any(call.step == scene.steps and call.tool == "final_answer" for call in scene.calls):
        return
    found = parse(text)
    called = [call.tool for call in scene.calls if call.step == scene.steps]
    scene.failed += [name for name in _MEMBER_FAILED.findall(text) if name in called and name not in scene.failed]
    if scene.members:  # what a member says outside of the grammar is not carried on
        _read_lost(scene, text)
        found = [f for f in found if f.kind != "nothing"]
    elif not found:
        lines = [quoted(line, _RESULT_CHARS) for line in text.splitlines()]
        found = [Finding(RESULT, line) for line in lines if line][:_RESULT_LINES]
    for finding in found:
        scene.note(finding, scene.steps, kept=False)
