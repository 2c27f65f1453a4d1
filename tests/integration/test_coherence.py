"""Coherence at work: rules that act, runs that are taken up after them, reports, calibration by an agent's own runs."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from smolagents import MultiStepAgent

from conftest import Clock, Repository
from dionysus import Runtime
from dionysus.coherence import DEFAULT, DETECTOR
from dionysus.errors import BadInput
from dionysus.settings import Settings, load_settings
from dionysus.stores.contract import AgentExecutionStep
from dionysus.testing import _as_recorded
from transcripts import act, add, agent_of, answer, call, read

LOOP = act(call("add", a=1, b=1))


def opened(path: Path, clock: Clock, **more: Any) -> Runtime:
    ask = more.pop("ask_person", None)
    return Runtime(settings=Settings(store=f"sqlite:///{path}/mind.db", **more), clock=clock, ask_person=ask)


@pytest.fixture
def asked() -> list[str]:
    return []


def agent(turns: Sequence[Any], **options: Any) -> MultiStepAgent:
    made: MultiStepAgent = agent_of(turns, [add, read], max_steps=20, **options)
    return made


def shown(model: Any) -> list[str]:
    """Every prompt as one text."""
    return ["\n".join(str(message.content) for message in prompt) for prompt in model.prompts]


def actions(runtime: Runtime, trace_id: str) -> list[AgentExecutionStep]:
    return [step for step in runtime.traces.get_trace(trace_id).steps if step.step_type == "action"]


def test_nothing_but_plans_shows_coherence_by_default(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock) as runtime:
        looping = agent([LOOP] * 6 + [answer()])
        result = runtime.attach(looping).run("add")
        assert result.status == "success"
        assert not any("[IWMT]" in prompt for prompt in shown(looping.model))
        assert {step.coherence for step in actions(runtime, result.trace_id)} == {None}


def test_the_third_equal_call_is_told_within_its_observation(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, coherence_loops=3) as runtime:
        looping = agent([LOOP] * 4 + [act(call("add", a=2, b=2)), answer()])
        result = runtime.attach(looping).run("add", run_id="r1")
        told = [step.observation or "" for step in actions(runtime, result.trace_id)]
        assert [("[IWMT]" in text) for text in told] == [False, False, True, True, False, False]
        assert told[2] == (
            "2\n[IWMT] This is call 3 in a row of add 1, 1, with the same result each time. Calling it again will not "
            "change that: do something else."
        )
        assert "call 4 in a row" in told[3]
        assert "[IWMT] This is call 3" in shown(looping.model)[3]
        again = runtime.replay("r1", agent([]))
        assert (again.status, again.output) == ("success", "done")


def test_calls_with_other_results_are_no_loop_that_is_told(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, coherence_loops=2) as runtime:
        looking = agent([act(call("read", page=n)) for n in range(1, 6)] + [answer()])
        result = runtime.attach(looking).run("read")
        assert not any("[IWMT]" in (step.observation or "") for step in actions(runtime, result.trace_id))


def test_calls_that_fail_alike_are_told_too(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, coherence_loops=2) as runtime:
        failing = agent([act(call("read", page=-1))] * 3 + [answer()])
        result = runtime.attach(failing).run("read")
        told = actions(runtime, result.trace_id)[1].observation or ""
        assert "call 2 in a row of read -1" in told
        assert "[IWMT] This is call 2" in shown(failing.model)[2]


def test_incoherence_that_lasts_brings_about_a_plan_and_then_the_usual_ones(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, incoherent="replan", incoherent_after=2) as runtime:
        other = [act(call("read", page=n), thought=f"page {n}") for n in range(1, 8)]
        looping = agent([LOOP] * 3 + other + [answer()], planning_interval=6)
        result = runtime.attach(looping).run("add", run_id="r1")
        full = runtime.traces.get_trace(result.trace_id)
        plans = [step.step_number for step in full.steps if step.step_type == "planning"]
        assert plans[:2] == [1, 4], plans  # below the threshold after actions 2 and 3
        assert plans[-1] == 7
        assert looping.planning_interval == 6
        replayed = runtime.replay("r1", agent([], planning_interval=6))
        assert replayed.status == "success"


def test_an_agent_without_plans_gets_one(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, incoherent="replan", incoherent_after=1) as runtime:
        looping = agent([LOOP] * 2 + [act(call("read", page=1), thought="other"), answer()])
        result = runtime.attach(looping).run("add")
        full = runtime.traces.get_trace(result.trace_id)
        assert [s.step_number for s in full.steps if s.step_type == "planning"] == [3]
        plan = next(step.plan or "" for step in full.steps if step.step_type == "planning")
        assert "WARNING: coherence is below 50%: do not call add like that again; try something else." in plan


def test_a_stop_ends_with_status_incoherent_and_the_run_can_go_on(tmp_path: Path, clock: Clock) -> None:
    rules = {"incoherent": "stop", "incoherent_after": 2}
    with opened(tmp_path, clock, **rules) as runtime:
        looping = agent([LOOP] * 5 + [answer()])
        result = runtime.attach(looping).run("add", run_id="r1")
        assert (result.status, result.model_calls) == ("incoherent", 3)
        assert result.error is not None
        assert "has been incoherent, at" in result.error
        assert "steps 1–3 call add 1, 1, the same each time" in result.error
        trace = runtime.traces.get_trace(result.trace_id).trace
        assert (trace.status, trace.step_count) == ("incoherent", 3)
        assert trace.coherence_min is not None
        assert trace.coherence_min < 0.5
    with opened(tmp_path, clock, **rules) as runtime:
        better = agent([LOOP] * 3 + [act(call("read", page=1), thought="other"), answer("at last")])
        done = runtime.resume("r1", better)
        assert (done.status, done.output) == ("success", "at last")
        assert len(better.model.prompts) == 2  # what was finished is not made again


def test_a_person_is_asked_and_the_answer_is_told(tmp_path: Path, clock: Clock, asked: list[str]) -> None:
    def person(question: str) -> str:
        asked.append(question)
        return "read page 7 instead, my key is sk-proj-" + "a1B2" * 8

    with opened(tmp_path, clock, incoherent="ask", incoherent_after=2, ask_person=person) as runtime:
        looping = agent([LOOP] * 3 + [act(call("read", page=7), thought="other"), answer()])
        result = runtime.attach(looping).run("add", run_id="r1")
        assert result.status == "success"
        assert len(asked) == 1
        assert "steps 1–3 call add" in asked[0]
        told = actions(runtime, result.trace_id)[2].observation or ""
        assert "[IWMT] A person was asked about this, and says: read page 7 instead" in told
        assert "a1B2a1B2" not in told
        assert runtime.replay("r1", agent([])).status == "success"
        assert len(asked) == 1


def test_where_nobody_can_be_asked_the_run_stops(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, incoherent="ask", incoherent_after=2) as runtime:
        assert runtime.attach(agent([LOOP] * 9)).run("add").status == "incoherent"


def test_rules_that_differ_are_a_change_of_the_run(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, incoherent="stop", incoherent_after=2) as runtime:
        runtime.attach(agent([LOOP] * 9)).run("add", run_id="r1")
    with opened(tmp_path, clock, incoherent="replan") as runtime, pytest.raises(BadInput, match="coherence_rules"):
        runtime.resume("r1", agent([LOOP] * 9))


def test_what_a_rule_said_of_a_loop_does_not_hide_the_loop(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock, coherence_loops=2) as runtime:
        result = runtime.attach(agent([LOOP] * 5 + [answer()])).run("add")
        levels = [step.coherence for step in actions(runtime, result.trace_id)][:5]
        assert levels == sorted(levels, key=lambda level: -(level or 0))
        assert (levels[-1] or 1) < 0.1
        assert runtime.assess(result.trace_id).steps == 6


def test_a_members_report_tells_its_coherence(repository: Repository, clock: Clock) -> None:
    with Runtime(store=f"sqlite:///{repository.path}/mind.db", clock=clock) as runtime:
        answered = runtime.ask("what changed?", repository.path)
        manager = actions(runtime, answered.trace_id)
        reports = [str(found.result) for step in manager for found in step.tool_calls if found.name == "perception"]
        assert reports
        assert re.search(r"\n\[perception: coherence \d+%", reports[0])


def test_metacognition_holds_a_run_against_those_before_it(repository: Repository, clock: Clock) -> None:
    with Runtime(store=f"sqlite:///{repository.path}/mind.db", clock=clock) as runtime:
        for number in range(6):
            repository.commit(f"change {number}", {"a.py": f"x = {number}\n"})
            report = runtime.beat(repository.path)
        texts = [step.observation or "" for step in actions(runtime, str(report.trace_id))]
        held = next(text for text in texts if "prediction error" in text)
        assert re.search(r"- \[(held|failed)\] the coherence of beat-5\S* was 0\.\d\d at its lowest; 0\.\d\d was", held)


def test_a_cassette_is_played_by_the_rules_that_it_was_made_by(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, clock, coherence_loops=3, incoherent="replan", incoherent_after=2) as runtime:
        runtime.attach(agent([LOOP] * 4 + [answer()])).run("add", run_id="r1")
        assert _as_recorded(runtime._claims.past("r1")).coherence_rules == runtime.settings.coherence_rules
    monkeypatch.setenv("DIONYSUS_INCOHERENT", "stop")
    monkeypatch.setenv("DIONYSUS_COHERENCE_LOOPS", "2")
    with opened(tmp_path, clock, incoherent="warn", coherence_loops=None) as runtime:
        runtime.attach(agent([LOOP] * 4 + [answer()])).run("add", run_id="r2")
        assert not _as_recorded(runtime._claims.past("r2")).coherence_rules.act


# -- calibration ---------------------------------------------------------------------------------------


def many(runtime: Runtime, count: int, *, name: str = "reader", family: str = "") -> None:
    """Finished runs of an agent that polls: the same call, with the same result, eight times."""
    for number in range(count):
        polling = agent([LOOP] * 8 + [answer(number)], name=name, description="d")
        runtime.attach(polling, family=family).run(f"wait for number {number}")


def test_an_agents_own_runs_calibrate_it(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock) as runtime:
        many(runtime, 60)
        before = runtime.assess()
        assert before.lowest is not None
        assert before.lowest < 0.5
        assert before.calibrated_by == 0
        (found,) = runtime.coherence.calibrate()
        assert (found.agent_name, found.runs) == ("reader", 60)
        after = runtime.assess()
        assert after.calibrated_by == 60
        assert after.lowest is not None
        assert after.lowest >= 0.5
        assert "calibrated by 60 successful runs" in found.in_words
    with opened(tmp_path, clock) as runtime:  # it is kept
        run = runtime.traces.list_traces(limit=1)[0].run_id
        assert runtime.coherence.of("reader", run).runs == runtime.assess().calibrated_by == 60
        many(runtime, 1, family="other tasks")
        assert runtime.assess().calibrated_by == 0
        mind = runtime._store.mind  # that of another detector is not used
        record = mind.coherence_record("reader", "")
        assert record is not None
        mind.save_coherence_record(replace(record, detector=DETECTOR + 1))
        assert runtime.coherence.of("reader", run) is DEFAULT


def test_too_few_runs_leave_the_default_and_say_so(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock) as runtime:
        many(runtime, 3)
        (found,) = runtime.coherence.calibrate("reader")
        assert found.threshold is None
        assert found.in_words == (
            "reader: 3 successful runs of at least 6 steps on record, 60 are needed; the default stays"
        )
        with pytest.raises(BadInput, match="no successful run of 'nobody'"):
            runtime.coherence.calibrate("nobody")
        runtime.coherence.keep_up("reader")
        runtime.coherence.keep_up("nobody")
        assert runtime._store.mind.coherence_record("nobody", "") is None


def test_calibration_is_kept_up_once_a_week(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock) as runtime:
        mind = runtime._store.mind
        many(runtime, 59)
        runtime.coherence.keep_up("reader")
        assert mind.coherence_record("reader", "") is None
        many(runtime, 1)
        runtime.coherence.keep_up("reader")
        first = mind.coherence_record("reader", "")
        assert first is not None
        assert first.runs == 60
        many(runtime, 2)
        runtime.coherence.keep_up("reader")
        assert mind.coherence_record("reader", "") == first
        clock.now += timedelta(days=8)
        runtime.coherence.keep_up("reader")
        again = mind.coherence_record("reader", "")
        assert again is not None
        assert again.runs == 62


def test_settings_say_what_rules_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIONYSUS_INCOHERENT", "stop")
    monkeypatch.setenv("DIONYSUS_COHERENCE_LOOPS", "3")
    rules = load_settings().coherence_rules
    assert (rules.incoherent, rules.loops, rules.after, rules.act) == ("stop", 3, 3, True)
    monkeypatch.setenv("DIONYSUS_INCOHERENT", "explode")
    with pytest.raises(BadInput, match="DIONYSUS_INCOHERENT"):
        load_settings()
