"""The mind that loops: a manager and its faculties, bare – without journal and callbacks."""

import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from smolagents import LocalPythonExecutor, Model, PlanningStep, Tool
from smolagents.local_python_executor import InterpreterError
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage

from dionysus.agents import (
    ConsciousnessManager,
    ManagedMetacognitionAgent,
    ManagedPerceptionAgent,
    ManagedReasoningAgent,
    MetacognitionAgent,
    PerceptionAgent,
    ReasoningAgent,
)
from dionysus.agents.faculties import FACULTIES, Faculty
from dionysus.agents.managed import ManagedAgent
from dionysus.models.reflex import Reflex
from dionysus.models.scripted import ScriptedModel


class Say(Tool):
    """A tool of a given name that answers with a given text."""

    inputs: ClassVar[dict[str, Any]] = {}
    output_type = "string"

    def __init__(self, name: str, says: str) -> None:
        self.name, self.description, self.says = name, f"Does {name}.", says
        super().__init__()
        self.calls = 0

    def forward(self) -> str:
        self.calls += 1
        if self.says == "!":
            raise ValueError("out of order")
        return self.says


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": name, "arguments": arguments}]}


def perception(*actions: Any, tools: Any = (), **options: Any) -> PerceptionAgent:
    return PerceptionAgent(list(tools), ScriptedModel(actions), **options)


def code(text: str) -> str:
    return f"Thought: so\n<code>\n{text}\n</code>"


LOOK = Say("observe_environment", "- [modified] `src/journal.py` +3 −1: keep secrets out")
GOALS = Say("list_goals", "- [goal] goal 1, touched by `src/journal.py` (secrets): Keep secrets out")


def mind(model: Any = None) -> ConsciousnessManager:
    reflex = Reflex()
    return ConsciousnessManager(
        [
            ManagedMetacognitionAgent(lambda: MetacognitionAgent([GOALS], reflex)),
            ManagedReasoningAgent(lambda: ReasoningAgent([], reflex)),
            ManagedPerceptionAgent(lambda: PerceptionAgent([LOOK], reflex)),
        ],
        model or reflex,
    )


def test_reflex_runs_one_cycle_in_the_order_of_the_phases() -> None:
    manager = mind()
    answer = manager.run_ooda_cycle({"task": "What about the secrets?", "since": "yesterday"})
    acts = [s for s in manager.memory.steps if isinstance(s, ActionStep)]
    called = [str(s.code_action).split(" = ")[0] for s in acts]
    assert called[:3] == ["perception_report", "reasoning_report", "metacognition_report"]
    assert len(acts) == 4
    lines = str(answer).splitlines()
    assert lines[0].startswith("Answer      ")
    assert "keep secrets out [1]" in answer
    assert "goal 1" in answer
    assert "since: yesterday" in str(manager.task)


def test_plans_come_at_the_expected_steps() -> None:
    manager = mind()
    manager.run_ooda_cycle("What about the secrets?")
    kinds = ["plan" if isinstance(s, PlanningStep) else "act" for s in manager.memory.steps[1:]]
    assert kinds == ["plan", "act", "act", "act", "plan", "act"]
    assert (manager.planning_interval, manager.max_steps) == (3, 15)
    leaf = perception(*(call("look") for _ in range(5)), tools=[Say("look", "nothing")])
    leaf.run("Look.")
    kinds = ["plan" if isinstance(s, PlanningStep) else "act" for s in leaf.memory.steps[1:]]
    assert kinds == ["plan", "act", "act", "plan", "act", "act", "plan", "act", "act"]  # the last one is forced


def test_each_faculty_has_its_own_tools_and_runs_alone() -> None:
    tools = {kind: [tool.name for tool in kind.tool_types] for kind in FACULTIES}
    assert tools == {
        PerceptionAgent: ["observe_environment", "semantic_recall", "query_wisdom_graph", "mosaeic_capture"],
        ReasoningAgent: ["reflect_on_topic", "synthesize_information"],
        MetacognitionAgent: ["list_goals", "revise_mental_model", "update_goal"],
    }
    for kind in FACULTIES:
        agent = kind([LOOK], Reflex())
        assert (agent.planning_interval, agent.max_steps) == (2, 5)
        assert "journal.py" in str(agent.run("See what is new."))


def test_the_manager_delegates_where_its_code_says() -> None:
    asked: list[str] = []

    def build(kind: type[Faculty]) -> Any:
        asked.append(kind.role)
        return kind([], ScriptedModel([call("final_answer", answer=f"{kind.role} says so")]))

    script = ScriptedModel([code("found = reasoning(task='Why?')\nprint(found)"), code("final_answer(found + '!')")])
    faces = [
        ManagedPerceptionAgent(lambda: build(PerceptionAgent)),
        ManagedReasoningAgent(lambda: build(ReasoningAgent)),
    ]
    assert ConsciousnessManager(faces, script).run_ooda_cycle("Why?") == "reasoning says so!"
    assert asked == ["reasoning"]
    assert "- [kind] text" in str(script.prompts[1][0].content)


def test_a_member_that_fails_is_said_and_the_cycle_goes_on() -> None:
    def broken() -> PerceptionAgent:
        return perception({"error": "the server is gone"})

    manager = ConsciousnessManager(
        [ManagedPerceptionAgent(broken), ManagedMetacognitionAgent(lambda: MetacognitionAgent([GOALS], Reflex()))],
        Reflex(),
    )
    answer = str(manager.run_ooda_cycle("What about the secrets?"))
    assert "Did not work: perception" in answer
    assert "goal 1" in answer
    report = ManagedPerceptionAgent(broken)(task="Look.")
    assert report.startswith("perception failed: AgentGenerationError: ")
    assert "the server is gone" in report


def test_steps_that_are_used_up_are_said() -> None:
    endless = [call("look") for _ in range(9)]

    def tired(final: Any = "A bit of everything.") -> PerceptionAgent:
        model = ScriptedModel(endless, final=final)
        return PerceptionAgent([Say("look", "- [place] 3 files")], model, max_steps=2)

    report = ManagedPerceptionAgent(tired)(task="Look.")
    assert report == "perception used up its 2 actions before it answered; from what it found:\nA bit of everything."
    report = ManagedPerceptionAgent(lambda: tired({"error": "no more"}))(task="Look.")
    assert "could not sum up what it found: Error in generating final LLM output: no more" in report


def test_parallel_calls_of_one_face_do_not_share_a_memory() -> None:
    class Echo(Model):
        def generate(self, messages: Any, **options: Any) -> ChatMessage:
            time.sleep(0.01)
            number = next(n for n in "0123456789" if f"number {n}" in str(messages))
            return ScriptedModel([call("final_answer", answer=number)]).generate(messages, tools_to_call_from=[LOOK])

    face = ManagedPerceptionAgent(lambda: PerceptionAgent([LOOK], Echo(), planning_interval=None))
    reports: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=n: reports.__setitem__(n, face(task=f"number {n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reports == {n: str(n) for n in range(8)}


@pytest.mark.parametrize(
    "reach", ["tools", "model", "memory", "run", "agent", "_answer", "_build", "build", "kind.run"]
)
def test_generated_code_reaches_nothing_through_a_face(reach: str) -> None:
    face: ManagedAgent = ManagedPerceptionAgent(lambda: perception())
    executor = LocalPythonExecutor([])
    executor.send_tools({"perception": face})
    with pytest.raises(InterpreterError, match="no attribute"):
        executor(f"perception.{reach}")


def test_no_timeout_throws_a_members_work_away() -> None:
    assert mind().python_executor.timeout_seconds is None


def test_additional_args_reach_the_member() -> None:
    seen: list[Any] = []

    class Remember(ScriptedModel):
        def generate(self, messages: Any, *args: Any, **options: Any) -> ChatMessage:
            seen.append(str(messages))
            return super().generate(messages, *args, **options)

    def build() -> PerceptionAgent:
        return PerceptionAgent([], Remember([call("final_answer", answer="ok")]), planning_interval=None)

    face = ManagedPerceptionAgent(build)
    assert face("Look.", {"depth": 3}) == "ok"
    assert face("Look.", additional_args={"depth": 3}) == "ok"
    assert all("'depth': 3" in prompt for prompt in seen)


def test_the_prompts_share_their_prefix(tmp_path: Path) -> None:
    """Nothing in them varies from call to call, so that providers can cache them."""
    first, second = mind(), mind()
    assert first.system_prompt == second.system_prompt
    assert [FACULTIES[0]([LOOK], Reflex()).system_prompt for _ in range(2)].count(
        FACULTIES[0]([LOOK], Reflex()).system_prompt
    ) == 2
