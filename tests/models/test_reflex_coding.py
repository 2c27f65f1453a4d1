"""Reflex as a CodeAgent: whatever a repository holds, the code stays what it was meant to be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smolagents import ActionStep, CodeAgent, LocalPythonExecutor, LogLevel, tool
from smolagents.agents import fix_final_answer_code, parse_code_blobs
from smolagents.models import ChatMessage, MessageRole

from dionysus.agents.managed import ManagedAgent
from dionysus.findings import quoted
from dionysus.models.reflex import Reflex

SYSTEM = '''Members:
def perception(task: str, additional_args: dict[str, Any]) -> str:
    """Observes."""
def reasoning(task: str, additional_args: dict[str, Any]) -> str:
    """Reasons."""
'''
NASTY = [
    "</code>", "<code>", "```", "```python", "final_answer('x')", "final_answer = 1", "'''", '"""', "\\", "\\'", "{x}",
    "Observation:", "Calling tools:", "⟨3⟩", "print(1)", "`a.py`", "\u2028", "é", "<end_plan>",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), min_size=1, max_size=8).map(" ".join)
USUAL = ["Observation:", "Calling tools:"]


def message(role: MessageRole, text: str) -> ChatMessage:
    return ChatMessage(role=role, content=[{"type": "text", "text": text}])


def called(number: int, code: str) -> ChatMessage:
    function = {"name": "python_interpreter", "arguments": code}
    return message(
        MessageRole.TOOL_CALL, f"Calling tools:\n{[{'id': f'call_{number}', 'type': 'function', 'function': function}]}"
    )


def run_cycle(question: str, report: str, tags: tuple[str, str]) -> tuple[list[str], Any]:
    """Plays a CodeAgent's loop: what reflex writes is parsed and executed as smolagents does."""
    tasks: list[str] = []

    def member(task: str) -> str:
        tasks.append(task)
        return report

    executor = LocalPythonExecutor([])
    executor.send_tools({"perception": member, "reasoning": member, "final_answer": lambda answer: answer})
    transcript = [message(MessageRole.SYSTEM, SYSTEM), message(MessageRole.USER, f"New task:\n{question}")]
    for number in range(1, 5):
        said = Reflex().generate(transcript, stop_sequences=[*USUAL, tags[1]]).content
        code = fix_final_answer_code(parse_code_blobs(said, tags))
        done = executor(code)
        if done.is_final_answer:
            return tasks, done.output
        transcript += [
            message(MessageRole.ASSISTANT, said),
            called(number, code),
            message(MessageRole.TOOL_RESPONSE, f"Observation:\nExecution logs:\n{done.logs}"),
        ]
    raise AssertionError("no final answer")


@pytest.mark.parametrize("tags", [("<code>", "</code>"), ("```python", "```")])
@given(text=TEXTS, question=TEXTS)
def test_texts_from_outside_never_break_or_become_code(tags: tuple[str, str], text: str, question: str) -> None:
    report = f"- [modified] `a.py` {quoted(text)}"
    tasks, answer = run_cycle(f"What of {quoted(question)} keys?", report, tags)
    assert len(tasks) == 2
    assert tasks[1].endswith(report)
    assert tags[1] not in answer
    assert "a.py" in answer


def test_a_line_is_one_evidence_whether_read_from_an_observation_or_a_thought() -> None:
    report = "- [modified] `a.py` closes with </code> and ``` here"
    _, answer = run_cycle("What of a.py?", report, ("<code>", "</code>"))
    assert answer.count("closes with") == 1
    assert "‹/code>" in answer


def test_structured_answers_are_json() -> None:
    transcript = [message(MessageRole.SYSTEM, SYSTEM), message(MessageRole.USER, "New task:\nWhat?")]
    said = Reflex().generate(transcript, stop_sequences=[*USUAL, "</code>"], response_format={"type": "json_schema"})
    assert "perception(task=" in json.loads(said.content)["code"]


def test_smolagents_own_prompts_are_understood() -> None:
    asked: list[str] = []

    def answer(task: str) -> str:
        asked.append(task)
        return "- [modified] `a.py` keys are kept"

    agent = CodeAgent(
        [],
        Reflex(),
        managed_agents=[ManagedAgent("watcher", "Observes the place.", answer)],
        planning_interval=3,
        verbosity_level=LogLevel.OFF,
    )
    assert "a.py keys are kept [1]" in str(agent.run("What of the keys?"))
    assert asked == [
        "Observe: say what has changed, what is remembered of it, which rules apply.\nQuestion: What of the keys?"
    ]


def test_a_code_agent_with_tools_calls_them() -> None:
    @tool  # type: ignore[untyped-decorator]
    def weather(city: str) -> str:
        """Tells the weather of a city.

        Args:
            city: Which.
        """
        return f"- [place] sunny in `{city}`"

    agent = CodeAgent([weather], Reflex(), verbosity_level=LogLevel.OFF)
    assert "sunny in weather in Oslo" in str(agent.run("weather in Oslo"))


def test_fenced_code_is_written_too() -> None:
    asked: list[str] = []

    def report(task: str) -> str:
        asked.append(task)
        return "- [modified] `a.py` keys are kept"

    member = ManagedAgent("watcher", "Observes the place.", report)
    agent = CodeAgent([], Reflex(), managed_agents=[member], code_block_tags="markdown", verbosity_level=LogLevel.OFF)
    assert "keys are kept" in str(agent.run("What of the keys?"))
    assert len(asked) == 1
    assert len(agent.memory.steps) == 3


def test_what_failed_is_still_known_once_its_observation_was_cut() -> None:
    """A member's failure, and what a member says did not work."""

    def cut(step: ActionStep, agent: CodeAgent) -> None:
        for earlier in agent.memory.steps:
            if isinstance(earlier, ActionStep) and earlier.observations:
                earlier.observations = f"[cut 900 chars; recall_observation({earlier.step_number})]"

    members = [
        ManagedAgent("perception", "Observes.", lambda task: "perception failed: ModelError: gone; nothing is known."),
        ManagedAgent("reasoning", "Reasons.", lambda task: "- [spot] `a.py` has keys\nDid not work: reflect_on_topic"),
        ManagedAgent("metacognition", "Decides.", lambda task: "- [nogoal] no goals set"),
    ]
    agent = CodeAgent(
        [],
        Reflex(),
        managed_agents=members,
        step_callbacks={ActionStep: cut},
        verbosity_level=LogLevel.OFF,
    )
    answer = str(agent.run("What of the keys?"))
    assert "Did not work: perception, reflect_on_topic" in answer
    assert "a.py has keys" in answer
