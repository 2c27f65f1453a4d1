"""Whether an agent finds again what it saw sixty actions ago, and what that costs: facts, lines of files, table rows.

An attached smolagents agent looks at many things, then is asked about details of them, one after the other. It is a
script that knows nothing but its prompt: what is visible it reads there; else it calls `recall_observation` with the
name that it was asked for – on the step whose stub holds that name, if it is one; else, or if it is not there, on all.
Each answer is compared with the original byte for byte. Without pruning, the same is asked of the whole history.
"""

import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents import ChatMessage, LogLevel, Model, Tool, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus import Runtime
from dionysus.callbacks.see_once import Rule
from dionysus.counting import count, counter

LOOKS = 60
QUESTIONS = 8
_STUB = re.compile(r"\[cut \d+ chars; recall_observation\((\d+)\)\]([^\n]*)")
_KINDS = {
    "fact": lambda name: re.compile(rf"the code of {re.escape(name)} is \S+(?=\.)"),
    "file": lambda name: re.compile(rf"^ *(?:async )?def {re.escape(name)}\(.*$", re.M),
    "table": lambda name: re.compile(rf"^{re.escape(name)},.*$", re.M),
}


@dataclass(frozen=True)
class Question:
    """What is asked: what is said of `name`, in an observation of that kind."""

    kind: str
    name: str
    answer: str


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Figures per kind of detail, with and without pruning.

    Args:
        data: A folder whose Python files are looked at; default: this project's.
    """
    rounds = 1 if short else 10
    rows = []
    for kind in _KINDS:
        found: dict[Rule, dict[str, int]] = {}
        rules: tuple[Rule, ...] = ("off", "see-once")
        for rule in rules:
            totals: dict[str, int] = {}
            for number in range(rounds):
                played = _play(kind, rule, random.Random(f"{seed} {kind} {number}"), data, LOOKS // (4 if short else 1))
                totals = {name: totals.get(name, 0) + value for name, value in played.items()}
            found[rule] = totals
        whole, cut = found["off"], found["see-once"]
        rows.append(
            {
                "kind": kind,
                "questions": cut["questions"],
                "answered_to_the_byte": {"off": whole["right"], "see-once": cut["right"]},
                "visible_in_prompt": {"off": whole["visible"], "see-once": cut["visible"]},
                "named_by_its_stub": cut["named"],
                "recalls": cut["recalls"],
                "prompt_tokens": {"off": whole["tokens"], "see-once": cut["tokens"]},
                "tokens_reduction": round(1 - cut["tokens"] / whole["tokens"], 4),
                "of_them_in_prompts_for_recalls": round(cut["recall_tokens"] / cut["tokens"], 4),
            }
        )
    return {"looks": LOOKS // (4 if short else 1), "runs_per_kind": rounds, "counted_by": counter(), "rows": rows}


def _play(kind: str, rule: Rule, chance: random.Random, data: Path | None, looks: int) -> dict[str, int]:
    things, questions = _things(kind, chance, data, looks)
    model = Archivist(questions, looks)
    agent = ToolCallingAgent([Look(things)], model, max_steps=looks + 200, verbosity_level=LogLevel.OFF)
    with tempfile.TemporaryDirectory() as own, Runtime(store=f"sqlite:///{own}/mind.db") as runtime:
        result = runtime.attach(agent, pruning=rule).run("Look at everything, then answer what you are asked.")
    assert result.status == "success", result.error
    right = sum(said == question.answer for said, question in zip(model.said, questions, strict=True))
    return {"questions": len(questions), "right": right, **model.figures}


class Look(Tool):
    """Shows one thing after the other."""

    name = "look"
    description = "Shows the next thing."
    inputs = {"number": {"type": "integer", "description": "Which."}}  # noqa: RUF012 – smolagents' form
    output_type = "string"
    idempotent = True

    def __init__(self, things: list[str]) -> None:
        super().__init__()
        self._things = things

    def forward(self, number: int) -> str:
        """The thing of that number, from 1 on."""
        return self._things[number - 1]


class Archivist(Model):
    """Looks, then finds what it is asked for – in its prompt, or by recalling."""

    def __init__(self, questions: list[Question], looks: int) -> None:
        super().__init__(model_id="archivist")
        self._work = self._works(questions, looks)
        self._messages: list[ChatMessage] = []
        self._calls = 0
        self._is_recalling = False
        self.said: list[str | None] = []
        self.figures = dict.fromkeys(("visible", "named", "recalls", "tokens", "recall_tokens"), 0)

    def generate(self, messages: list[ChatMessage], *args: Any, **kwargs: Any) -> ChatMessage:
        """The next call."""
        self._messages = messages
        tokens = sum(count(part["text"]) for message in messages for part in message.content)
        self.figures["tokens"] += tokens
        name, arguments = next(self._work)
        if name == "recall_observation":
            self.figures["recall_tokens"] += tokens
        self._calls += 1
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        call = ChatMessageToolCall(id=f"call_{self._calls}", type="function", function=function)
        return ChatMessage(
            role=MessageRole.ASSISTANT, content=None, tool_calls=[call], token_usage=TokenUsage(tokens, 0)
        )

    def _works(self, questions: list[Question], looks: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(1, looks + 1):
            yield "look", {"number": number}
        for question in questions:
            answer = _KINDS[question.kind](question.name)
            found = answer.search(self._seen())
            self.figures["visible"] += found is not None
            if found is None:
                naming = {int(step) for step, names in _STUB.findall(self._seen()) if question.name in names.split()}
                self.figures["named"] += bool(naming)
                for step in [*naming, None] if len(naming) == 1 else [None]:
                    if found is None:
                        self.figures["recalls"] += 1
                        yield "recall_observation", {"step": step, "query": question.name}
                        found = answer.search(self._newest())
            self.said.append(found[0] if found is not None else None)
        yield "final_answer", {"answer": "all answered"}

    def _seen(self) -> str:
        return "\n".join(_text(message) for message in self._messages if message.role == MessageRole.TOOL_RESPONSE)

    def _newest(self) -> str:
        return _text(self._messages[-1])


def _text(message: ChatMessage) -> str:
    return "\n".join(part["text"] for part in message.content)


def _things(kind: str, chance: random.Random, data: Path | None, looks: int) -> tuple[list[str], list[Question]]:
    """What is looked at, and questions about what comes early."""
    root = data or Path(__file__).parents[1] / "src"
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(root.rglob("*.py"))]
    pieces = [text[at : at + 5_000] for text in texts for at in range(0, len(text), 5_000)]
    if len(pieces) < looks:
        raise SystemExit(f"{root} holds too little Python to look at: {len(pieces)} pieces of 5,000 characters")
    things = [chance.choice(pieces) for _ in range(looks)]
    early = range(min(10, looks // 2))
    questions = []
    if kind == "fact":
        for number in range(QUESTIONS):
            name, code = f"HANGAR_{chance.randrange(10**6)}", f"{chance.randrange(10**8):08x}-{chance.randrange(10**4)}"
            at = chance.choice(early)
            place = things[at].find("\n", chance.randrange(len(things[at]))) + 1  # 0: before all
            fact = f"the code of {name} is {code}"
            things[at] = f"{things[at][:place]}# Note {number}: {fact}.\n{things[at][place:]}"
            questions.append(Question(kind, name, fact))
    elif kind == "file":
        defined = [
            (at, match) for at in early for match in re.finditer(r"^ *(?:async )?def (\w+)\(.*$", things[at], re.M)
        ]
        names = [match[1] for thing in things for match in re.finditer(r"def (\w+)\(", thing)]
        once = [(at, match) for at, match in defined if names.count(match[1]) == 1]
        questions = [Question(kind, match[1], match[0]) for _, match in chance.sample(once, min(QUESTIONS, len(once)))]
    else:
        for at in early:
            rows = [
                f"item_{chance.randrange(10**7)},{chance.uniform(0, 1e6):.4f},"
                f"{chance.randrange(2000, 2030)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
                for _ in range(120)
            ]
            things[at] = "item,price,date\n" + "\n".join(rows)
            questions.append(Question(kind, (row := chance.choice(rows)).partition(",")[0], row))
        questions = questions[:QUESTIONS]
    return things, questions
