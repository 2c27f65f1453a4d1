"""River flow: what it calls a run, and what the next member gets."""

from typing import Any

import pytest

from dionysus.callbacks.flow import Flow, flow_of
from dionysus.journal import FinishedStep


def step(
    number: int, thought: str, observation: str | None, *, error: str | None = None, call: str = ""
) -> FinishedStep:
    return FinishedStep(
        key=f"action.{number}",
        step_type="action",
        number=number,
        thought=thought,
        calls=(("look", {"at": call or thought}),),
        observation=observation,
        error=error,
    )


def state(steps: list[FinishedStep]) -> str:
    flow = flow_of("Find where the tokens of planning are counted", steps)
    assert isinstance(flow, Flow)
    return flow.state


GOOD = [
    step(1, "tokens of planning", "monitor.py counts tokens, metering.py prices calls"),
    step(2, "monitor.py counts", "the update method adds usage of each action, totals leave planning out"),
    step(3, "update method totals", "callbacks register update for ActionStep alone, history 12 commits"),
]


def test_a_run_that_takes_up_what_it_finds_flows() -> None:
    assert state(GOOD) == "flowing"


def test_failures_make_it_turbulent() -> None:
    failed = [step(n, f"monitor.py {n}", None, error=f"no such tool {n}") for n in (4, 5)]
    assert state([*GOOD, *failed]) == "turbulent"


def test_the_same_again_is_stagnant() -> None:
    again = [step(n, "update method totals", GOOD[2].observation) for n in (4, 5, 6)]
    assert state([*GOOD, *again]) == "stagnant"


def test_what_has_nothing_to_do_with_what_was_found_drifts() -> None:
    words: list[Any] = ["bananas ripen", "giraffes sleep", "violins squeak"]
    lost = [step(n + 4, text, f"{text} unlike kettles{n} lamps{n} rivers{n}") for n, text in enumerate(words)]
    lost[1] = step(5, "giraffes sleep deeply under ripen umbrellas while whistling opera", lost[1].observation)
    assert state([*GOOD, *lost]) == "drifting"


def test_nothing_done_has_no_flow() -> None:
    assert flow_of("task", []) is None


@pytest.mark.parametrize("observation", ["", None])
def test_a_silent_tool_is_no_error(observation: str | None) -> None:
    flow = flow_of("task", [step(1, "task", observation)])
    assert flow is not None
    assert flow.errors == 0
