"""The mission, end to end: a heartbeat on real input, on the record, over several beats.

Every test runs with the store alone, and with Neo4j beside it: then all that it left is in the graph, too.
"""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from smolagents import ActionStep, PlanningStep
from smolagents.memory import ToolCall

from benchmarks.outage import compared, duplicates
from conftest import START, Clock, Repository
from dionysus import MetacognitionAgent, PerceptionAgent, ReasoningAgent, Runtime, Settings
from dionysus.agents.faculties import Faculty
from dionysus.errors import BadInput
from dionysus.models.reflex import Reflex
from dionysus.models.scripted import ScriptedModel
from dionysus.runtime import BeatReport
from dionysus.settings import load_settings
from dionysus.shipping import Shipper
from dionysus.stores import open_store
from dionysus.stores.neo4j import Graph
from openai_server import openai_server

NINE = [
    "observe_environment",
    "list_goals",
    "semantic_recall",
    "revise_mental_model",
    "reflect_on_topic",
    "query_wisdom_graph",
    "synthesize_information",
    "mosaeic_capture",
]


class Watching(Reflex):
    """Reflex that keeps the prompts it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []

    def generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        self.prompts.append("\n".join(p["text"] for m in messages for p in m.content))
        return super().generate(messages, *args, **options)


@pytest.fixture(params=["store", "neo4j"], autouse=True)
def shipped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph | None]:
    """The graph that traces are shipped to; None: they are not."""
    if request.param == "store":
        yield None
        return
    graph, server = request.getfixturevalue("graph"), request.getfixturevalue("bolt")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield graph
    if (tmp_path / "mind.db").exists():
        store = open_store(f"sqlite:///{tmp_path}/mind.db")
        shipper = Shipper(store, graph, drain_s=0)
        shipper.ship()
        found = compared(store, graph)
        assert found["differing"] == 0
        assert found["traces"] == duplicates(graph)["traces"] == len(store.records.traces(limit=-1))
        shipper.close()
        store.close()


def runtime_of(tmp_path: Path, clock: Clock, **options: Any) -> Runtime:
    return Runtime(store=f"sqlite:///{tmp_path}/mind.db", clock=clock, **options)


@pytest.fixture
def runtime(tmp_path: Path, clock: Clock) -> Iterator[Runtime]:
    with runtime_of(tmp_path, clock) as opened:
        yield opened


def tools_of(runtime: Runtime, report: BeatReport) -> list[str]:
    steps = runtime.traces.get_trace(str(report.trace_id)).steps
    return [call.name for step in steps for call in step.tool_calls]


@pytest.mark.not_replayed("log lines are counted")
def test_the_first_beat_uses_nine_tools_then_answers(
    runtime: Runtime, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dionysus")
    report = runtime.beat(repository.path)
    full = runtime.traces.get_trace(str(report.trace_id))
    used = tools_of(runtime, report)
    assert len(used) == 10
    assert used[-1] == "final_answer"
    assert set(NINE) <= set(used)
    plans = [s for s in full.steps if s.step_type == "planning"]
    assert [p.step_number for p in plans] == [1, 4, 7, 10]
    assert all("[IWMT] Coherence: " in str(p.plan) for p in plans)
    assert [p.coherence is None for p in plans] == [True, False, False, False]
    assert full.basins
    assert [(m.source, m.at_step) for m in full.memories] == [("beat 1", 9)]
    assert any(s.pruned for s in full.steps)
    assert (full.trace.status, full.trace.success) == ("success", True)
    assert full.trace.summary == report.text
    assert full.trace.model_calls == report.model_calls == 14
    assert all(s.completed_at and s.completed_at >= s.started_at for s in full.steps)
    messages = [r.message for r in caplog.records]
    assert sum(m.startswith("PlanningStep before action") for m in messages) == 4
    assert sum("[IWMT] Coherence: " in m for m in messages) == 4
    assert any("activated" in m for m in messages)


def test_a_trace_is_found_by_query(tmp_path: Path, clock: Clock, repository: Repository, shipped: Graph | None) -> None:
    """What the mission asks of persistence, in its own words: by Cypher."""
    if shipped is None:
        return
    with runtime_of(tmp_path, clock) as runtime:
        report = runtime.beat(repository.path)
        text = runtime.traces.get_trace(str(report.trace_id)).steps[2].observation
    rows = shipped.read(
        lambda tx: tx.run(
            "MATCH (t:AgentExecutionTrace {run_id: $run})-[h:HAS_STEP]->(s:AgentExecutionStep) "
            "OPTIONAL MATCH (t)-[a:ACTIVATED_BASIN]->(b:AttractorBasin) "
            "RETURN t.agent_name AS agent, t.status AS status, t.planning_count AS plans, t.step_count AS actions, "
            "s.step_type AS kind, s.observation AS observation, h.order AS place, "
            "count(a) AS activations ORDER BY place",
            run=report.run_id,
        ).data()
    )
    assert [row["place"] for row in rows] == list(range(1, 15))
    assert {(row["agent"], row["status"], row["plans"], row["actions"]) for row in rows} == {
        ("heartbeat", "success", 4, 10)
    }
    assert [row["kind"] for row in rows].count("planning") == 4
    assert rows[2]["observation"] == text
    assert rows[0]["activations"]


def test_recalls_are_what_the_tools_brought_back(runtime: Runtime, repository: Repository) -> None:
    """Not more: what an agent never saw led to nothing."""
    runtime.beat(repository.path)
    for number in range(3):
        repository.commit(
            f"Fix token totals of the monitor, late ({number})", {"src/monitoring.py": f"# late {number}\n"}
        )
    report = runtime.beat(repository.path)
    answer = runtime.ask("Why do token totals of the monitor keep changing?", repository.path)
    trees = [runtime.traces.get_trace(str(report.trace_id)), runtime.traces.get_trace(answer.run_id)]
    seen = 0
    for full in [*trees, *(runtime.traces.get_trace(t.id, exact=True) for t in trees[1].delegated)]:
        recalled = runtime._store.records.recalled_memories(full.trace.id)
        for step in (done for done in full.steps if done.step_type != "planning"):
            texts = [str(c.result) for c in step.tool_calls if c.name in ("semantic_recall", "query_wisdom_graph")]
            lines = [line for text in texts for line in text.splitlines() if line.startswith(("- [memory]", "- [prin"))]
            here = [memory for memory in recalled if memory.at_step == step.step_number]
            assert len(here) == len(lines)
            for memory in here:
                if memory.source.startswith("commit"):
                    assert any(memory.source[:14] in line for line in lines)
            seen += len(here)
    assert seen


def test_beats_follow_what_happens(runtime: Runtime, repository: Repository, clock: Clock) -> None:
    first = runtime.beat(repository.path)
    assert "Next " in first.text

    clock.now += timedelta(hours=1)
    source = repository.path / "src/monitoring.py"
    source.write_text(source.read_text().replace("self.total += step.tokens", "self.total += step.plan_tokens"))
    runtime.tell("the monitor's token totals leave out planning")
    goal = runtime.goals.add("Monitor token totals include planning", due_at=clock.now + timedelta(days=2))
    second = runtime.beat(repository.path)
    assert second.reasons == ("1 file changed", "1 unread note", "1 goal due")
    assert "monitoring.py" in second.text
    assert "token totals leave out planning" in second.text
    assert "beat 1" in second.text
    assert runtime.goals.get(goal.id).progress

    third = runtime.beat(repository.path)
    assert third.status == "idle"
    assert third.model_calls == 0
    assert third.since_beat == second.number

    clock.now += timedelta(hours=1)
    repository.commit(f"Count planning tokens, closes goal {goal.id}", {"src/monitoring.py": "# counted\n"})
    fourth = runtime.beat(repository.path)
    assert "1 new commit" in fourth.reasons
    assert runtime.goals.get(goal.id).status == "done"


def test_coherence_and_stubs_are_in_what_the_model_is_shown(
    tmp_path: Path, clock: Clock, repository: Repository
) -> None:
    model = Watching()
    with runtime_of(tmp_path, clock, model=model) as runtime:
        report = runtime.beat(repository.path)
        full = runtime.traces.get_trace(str(report.trace_id))
    assert len(model.prompts) == 14
    after_plan = [model.prompts[i] for i in (5, 9, 13)]
    for prompt, step in zip(after_plan, [s for s in full.steps if s.step_type == "planning"][1:], strict=True):
        line = next(line for line in str(step.plan).splitlines() if "[IWMT] Coherence: " in line)
        assert line in prompt
    pruned = [s for s in full.steps if s.pruned]
    assert pruned
    for step in pruned:
        assert step.pruned is not None
        actions = dict(zip(range(1, 11), (model.prompts[i] for i in (1, 2, 3, 5, 6, 7, 9, 10, 11, 13)), strict=True))
        if step.pruned.before_step in actions:
            assert str(step.observation) not in actions[step.pruned.before_step]
            assert step.pruned.stub in actions[step.pruned.before_step]
        assert str(step.observation) in actions[step.step_number + 1]


@pytest.mark.parametrize(
    ("settings", "look"),
    [
        ({"planning": False}, lambda full: not any(s.step_type == "planning" for s in full.steps)),
        ({"coherence": False}, lambda full: not any("[IWMT]" in (s.plan or "") for s in full.steps)),
        ({"basins": False}, lambda full: not full.basins),
        ({"pruning": "off"}, lambda full: not any(s.pruned for s in full.steps)),
        ({"memory_window": 999}, lambda full: not any(s.pruned for s in full.steps)),
    ],
)
def test_each_part_can_be_switched_off(
    tmp_path: Path, clock: Clock, repository: Repository, settings: dict[str, Any], look: Any
) -> None:
    with runtime_of(tmp_path, clock, settings=Settings(**settings)) as runtime:
        report = runtime.beat(repository.path)
        assert report.status == "success"
        assert look(runtime.traces.get_trace(str(report.trace_id)))


def test_traces_can_be_switched_off_and_the_journal_stays(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    with runtime_of(tmp_path, clock, settings=Settings(trace=False)) as runtime:
        report = runtime.beat(repository.path)
        assert report.status == "success"
        assert runtime.traces.list_traces() == []
        assert len(list(runtime._store.records.events(str(report.run_id)))) > 40


def test_the_window_of_the_environment_is_used(
    tmp_path: Path, clock: Clock, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_MEMORY_WINDOW", "5")
    with runtime_of(tmp_path, clock) as runtime:
        full = runtime.traces.get_trace(str(runtime.beat(repository.path).trace_id))
    for step in full.steps:
        if step.pruned:
            assert step.pruned.before_step == step.step_number + 6


def test_a_pruned_observation_can_be_fetched_back(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    def use(tool: str, **arguments: Any) -> dict[str, Any]:
        return {"thought": tool, "calls": [{"name": tool, "arguments": arguments}]}

    script = [
        use("observe_environment"),
        use("reflect_on_topic", topic="src/monitoring.py"),
        use("list_goals"),
        use("recall_observation", step=1),
        use("recall_observation", step=1, query="uncommitted fixes"),
        use("recall_observation", step=9),
        use("final_answer", answer="Seen."),
    ]
    model = ScriptedModel(script)
    with runtime_of(tmp_path, clock, model=model) as runtime:
        full = runtime.traces.get_trace(str(runtime.beat(repository.path).trace_id))
    actions = {s.step_number: s for s in full.steps if s.step_type == "action"}
    assert actions[1].pruned is not None
    shown = "\n".join(part["text"] for message in model.prompts[-1] for part in message.content)
    assert "recall_observation(1)]" in shown
    assert actions[4].observation == actions[1].observation
    assert str(actions[1].observation) in shown  # fetched again: it stays
    lines = str(actions[5].observation).splitlines()
    assert 0 < len(lines) < len(str(actions[1].observation).splitlines())
    assert all("fix" in line.lower() or "uncommitted" in line.lower() for line in lines if line != "…")
    assert "step 9 has no text; steps with one: 1, 2, 3, 4, 5" in str(actions[6].error)


def test_an_audit_log_on_request(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    log = repository.path / "audit.jsonl"
    with runtime_of(tmp_path, clock, settings=Settings(audit=log)) as runtime:
        runtime.beat(repository.path)
        assert len(log.read_text().splitlines()) == 14 + 2 * 10
        assert runtime.beat(repository.path).status == "idle"  # our own log is not observed


def test_an_audit_log_that_cannot_be_written_opens_no_run(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(BadInput, match="cannot write the audit log"):
        runtime_of(tmp_path, clock, settings=Settings(audit=tmp_path / "nowhere/audit.jsonl"))
    with runtime_of(tmp_path, clock) as runtime:
        assert runtime._store.records.runs() == []


def test_used_up_steps_are_an_answer_not_a_failure(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    looking = [{"calls": [{"name": "reflect_on_topic", "arguments": {"topic": str(i)}}]} for i in range(10)]
    with runtime_of(tmp_path, clock, model=ScriptedModel(looking, final="That is all.")) as runtime:
        report = runtime.beat(repository.path)
        assert (report.status, report.text) == ("max_steps", "That is all.")
        full = runtime.traces.get_trace(str(report.trace_id))
        assert [s.step_type for s in full.steps].count("final") == 1
        assert full.trace.status == "max_steps"
        assert runtime.beat(repository.path).status == "idle"


def test_users_callbacks_fire_too(runtime: Runtime, repository: Repository) -> None:
    fired: list[str] = []
    runtime.callbacks.register(PlanningStep, lambda step: fired.append("plan"))
    runtime.callbacks.register(ActionStep, lambda step: fired.append("action"))
    runtime.beat(repository.path)
    assert fired.count("plan") == 4
    assert fired.count("action") == 10


ACTIONS = [
    {"name": "observe_environment", "arguments": {}},
    {"name": "semantic_recall", "arguments": {"query": "token totals monitor"}},
    {"name": "synthesize_information", "arguments": {"information": "a", "question": "b"}},
    {"name": "final_answer", "arguments": {"answer": "Read monitoring.py [1]."}},
]


def test_a_beat_over_http_counts_what_the_server_reported(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    with openai_server(ACTIONS) as server:
        settings = Settings(model="openai:served", api_base=server.url)
        with runtime_of(tmp_path, clock, settings=settings) as runtime:
            report = runtime.beat(repository.path)
            full = runtime.traces.get_trace(str(report.trace_id))
    assert report.text == "Read monitoring.py [1]."
    assert [c.name for s in full.steps for c in s.tool_calls] == [a["name"] for a in ACTIONS]
    assert [(s.step_type, s.step_number, len(s.model_calls)) for s in full.steps] == [
        ("planning", 1, 1),
        ("action", 1, 1),
        ("action", 2, 1),
        ("action", 3, 2),  # one of them by synthesize_information
        ("planning", 4, 1),
        ("action", 4, 1),
    ]
    assert full.trace.model_calls == len(server.reported) == 7
    assert full.trace.input_tokens == sum(u["prompt_tokens"] for u in server.reported)
    assert full.trace.cached_tokens == sum(u["prompt_tokens_details"]["cached_tokens"] for u in server.reported)
    assert full.trace.output_tokens == sum(u["completion_tokens"] for u in server.reported)
    assert full.trace.cost_usd is None
    assert not full.trace.usage_estimated
    assert sum(s.input_tokens for s in full.steps) == full.trace.input_tokens


def test_a_server_without_usage_gives_a_marked_estimate(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    with openai_server(ACTIONS, report_usage=False) as server:
        settings = Settings(model="openai:served", api_base=server.url)
        with runtime_of(tmp_path, clock, settings=settings) as runtime:
            report = runtime.beat(repository.path)
    assert report.usage.estimated
    assert report.usage.input_tokens > 0


@pytest.mark.parametrize("garbage", [{"raw": b"<html>"}, {"raw": {"object": "nothing"}}, {"status": 400}])
def test_a_server_that_answers_garbage_ends_the_beat_with_an_error(
    tmp_path: Path, clock: Clock, repository: Repository, garbage: dict[str, Any]
) -> None:
    with openai_server([ACTIONS[0], garbage]) as server:
        settings = Settings(model="openai:served", api_base=server.url)
        with runtime_of(tmp_path, clock, settings=settings) as runtime:
            report = runtime.beat(repository.path)
            assert report.status == "error"
            assert report.error
            full = runtime.traces.get_trace(str(report.trace_id))
            assert (full.trace.status, full.trace.error_message) == ("error", report.error)
            assert [c.name for s in full.steps for c in s.tool_calls] == ["observe_environment"]
            # nothing is lost: the next beat sees the same, and the failed run
            again = runtime.beat(repository.path)
            assert again.reasons[0] == "first look"


def test_time_of_the_trace_is_the_clocks(runtime: Runtime, repository: Repository) -> None:
    report = runtime.beat(repository.path)
    trace = runtime.traces.get_trace(str(report.trace_id)).trace
    assert START < trace.started_at < START + timedelta(minutes=10)


def test_ask_runs_manager_and_three_faculties_on_the_record(runtime: Runtime, repository: Repository) -> None:
    answer = runtime.ask("What about the token totals of the monitor?", repository.path)
    assert (answer.status, answer.error) == ("success", None)
    assert [s.agent for s in answer.sources] == ["consciousness_manager", "perception", "reasoning", "metacognition"]
    assert [s.at_step for s in answer.sources] == [None, 1, 2, 3]
    assert answer.text.startswith("Answer      ")
    assert "monitoring.py" in answer.text
    assert any("token totals" in m.text for m in answer.memories)
    manager = runtime.traces.get_trace(answer.trace_id)
    assert [t.id for t in manager.delegated] == [s.trace_id for s in answer.sources[1:]]
    assert [s.step_number for s in manager.steps if s.step_type == "planning"] == [1, 4]
    for source in answer.sources[1:]:
        leaf = runtime.traces.get_trace(source.trace_id)
        assert leaf.trace.parent_trace_id == answer.trace_id
        plans = [s.step_number for s in leaf.steps if s.step_type == "planning"]
        assert plans == [n for n in (1, 3, 5) if n <= leaf.trace.step_count]
        assert [use.name for s in manager.steps for use in s.tool_calls][source.at_step - 1] == source.agent  # type: ignore[operator]
    assert {use.name for s in runtime.traces.get_trace(answer.sources[1].trace_id).steps for use in s.tool_calls} == {
        "observe_environment", "semantic_recall", "query_wisdom_graph", "mosaeic_capture", "final_answer",
    }  # fmt: skip


def test_an_ask_says_what_nothing_speaks_of_and_leaves_the_beat_alone(runtime: Runtime, repository: Repository) -> None:
    runtime.tell("the totals leave out planning")
    answer = runtime.ask("Where are the zeppelins?", repository.path)
    assert "Nothing found speaks of: zeppelins" in answer.text
    report = runtime.beat(repository.path)
    assert report.reasons == ("first look", "1 unread note")


def test_tokens_add_up_over_plans_and_members(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    class Counting(Reflex):
        free = False
        is_reflex = True

        def generate(self, *args: Any, **options: Any) -> Any:
            message = super().generate(*args, **options)
            message.token_usage.input_tokens, message.token_usage.output_tokens = 100, 7
            return message

    with runtime_of(tmp_path, clock, model=Counting()) as runtime:
        answer = runtime.ask("What about the token totals?", repository.path)
        traces = [runtime.traces.get_trace(s.trace_id) for s in answer.sources]
        plans = sum(t.trace.planning_count for t in traces)
        assert answer.model_calls == sum(t.trace.model_calls for t in traces)
        assert answer.model_calls == sum(t.trace.step_count for t in traces) + plans
        assert answer.usage.input_tokens == 100 * answer.model_calls
        assert answer.usage.output_tokens == sum(t.trace.output_tokens for t in traces) == 7 * answer.model_calls
        per_agent = {u.agent_name: u.input_tokens for u in runtime.traces.token_usage()}
        assert sum(per_agent.values()) == answer.usage.input_tokens
        assert len(per_agent) == 4


def test_the_flow_is_in_the_managers_plan_and_sets_the_next_members_steps(
    tmp_path: Path, clock: Clock, repository: Repository
) -> None:
    def code(text: str) -> str:
        return f"Thought: so\n<code>\n{text}\n</code>"

    failing = [code(f"print(nobody_{n})") for n in range(3)]
    look = {"calls": [{"name": "observe_environment", "arguments": {}}]}
    script = ScriptedModel(
        [*failing, code("print(perception(task='Look.'))"), look, look, look, code("final_answer('so far')")],
        final="what I have",
    )
    with runtime_of(tmp_path, clock, model=script) as runtime:
        answer = runtime.ask("What now?", repository.path)
        assert answer.text == "so far"
        manager = runtime.traces.get_trace(answer.trace_id)
        plans = [str(s.plan) for s in manager.steps if s.step_type == "planning"]
        assert "[River] turbulent: 100% errors" in plans[1]
        assert "the next member gets 3 actions" in plans[1]
        leaf = runtime.traces.get_trace(answer.sources[1].trace_id).trace
        assert (leaf.status, leaf.step_count) == ("max_steps", 4)  # three actions, and the forced answer
        assert "perception used up its 3 actions" in str(script.prompts[-1][-1].content)


def test_a_cycle_over_http(tmp_path: Path, clock: Clock, repository: Repository) -> None:
    """A hosted model that knows code only from its text, and a member that calls tools over HTTP."""

    turns: list[dict[str, Any]] = [
        {"text": "Thought: so\n<code>\nseen = perception(task='What is there?')\nprint(seen)"},
        {"name": "observe_environment", "arguments": {}},
        {"name": "final_answer", "arguments": {"answer": "- [place] a project"}},
        {"text": "Thought: so\n<code>\nfinal_answer('It is ' + seen)"},
    ]
    with (
        openai_server(turns) as server,
        Runtime(
            store=f"sqlite:///{tmp_path}/mind.db",
            clock=clock,
            settings=Settings(model="openai:test", api_base=server.url, store="sqlite://"),
        ) as runtime,
    ):
        answer = runtime.ask("What is it?", repository.path)
        assert answer.text == "It is - [place] a project\n[perception: coherence 100%]"
        assert answer.model_calls == 6
        assert not answer.usage.estimated
        assert answer.usage.input_tokens == sum(u["prompt_tokens"] for u in server.reported)


@pytest.mark.parametrize("question", ["What broke within 1 actions?", "Your manager gave you this task: the monitor?"])
def test_a_question_is_no_instruction_to_the_rules(runtime: Runtime, repository: Repository, question: str) -> None:
    answer = runtime.ask(question, repository.path)
    assert len(answer.sources) == 4
    assert answer.text.startswith("Answer  ")


def test_callbacks_fire_per_type_in_every_agent_of_a_cycle(runtime: Runtime, repository: Repository) -> None:
    fired: list[tuple[str, str]] = []

    def note(kind: str) -> Any:
        return lambda step, agent, frame: fired.append((kind, frame.agent_name))

    for kind in (PlanningStep, ActionStep, ToolCall):
        runtime.callbacks.register(kind, note(kind.__name__))
    answer = runtime.ask("What about the token totals?", repository.path)
    for source in answer.sources:
        full = runtime.traces.get_trace(source.trace_id)
        counts = {kind: fired.count((kind, source.agent)) for kind in ("PlanningStep", "ActionStep", "ToolCall")}
        assert counts == {
            "PlanningStep": full.trace.planning_count,
            "ActionStep": full.trace.step_count,
            "ToolCall": 2 * sum(len(s.tool_calls) for s in full.steps),
        }


@pytest.mark.parametrize("kind", [PerceptionAgent, ReasoningAgent, MetacognitionAgent])
def test_each_faculty_runs_directly_over_a_real_folder(
    runtime: Runtime, repository: Repository, kind: type[Faculty]
) -> None:
    with runtime.senses(repository.path) as senses:
        agent = kind(kind.tools_over(senses), runtime.model)
        bare = agent.run("What about src/monitoring.py?")
        assert agent.memory.steps
        assert runtime.traces.list_traces() == []
        result = runtime.attach(kind(kind.tools_over(senses), runtime.model)).run("What about src/monitoring.py?")
    assert (result.status, type(result.output)) == ("success", type(bare))
    used = {use.name for s in runtime.traces.get_trace(result.trace_id).steps for use in s.tool_calls}
    assert used & {tool.name for tool in kind.tool_types}  # type: ignore[attr-defined]


def test_agents_run_unchanged_without_dionysus(repository: Repository, tmp_path: Path) -> None:
    """smolagents itself is not patched by importing or using the runtime."""
    import smolagents.agents as smol

    before = {name: getattr(smol.MultiStepAgent, name) for name in ("run", "__call__", "_finalize_step")}
    with Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        runtime.ask("What is there?", repository.path)
    assert {name: getattr(smol.MultiStepAgent, name) for name in before} == before


@pytest.mark.parametrize("key", ["k", "task", "output"])
def test_a_key_that_is_an_ordinary_word_hides_nothing(repository: Repository, key: str) -> None:
    """Local servers take any key."""
    with openai_server([{"name": "final_answer", "arguments": {"answer": "the task has an output"}}]) as server:
        settings = load_settings(store="sqlite://", model="openai:m", api_base=server.url, api_key=key)
        with Runtime(settings=settings) as runtime:
            report = runtime.beat(repository.path)
            assert (report.status, report.text) == ("success", "the task has an output")
