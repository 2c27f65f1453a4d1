"""Tool calls held to a schema: what may be said, how it is read, and that agents of smolagents can do it."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from smolagents import (
    ActionStep,
    ChatMessage,
    CodeAgent,
    FinalAnswerTool,
    LogLevel,
    Model,
    PlanningStep,
    Tool,
    ToolCallingAgent,
    tool,
)
from smolagents.models import MessageRole, TokenUsage

from dionysus import Runtime
from dionysus.errors import MissingExtra
from dionysus.models import open_model
from dionysus.models.call_schemas import arguments_of, cleaned, understood
from dionysus.models.constrained import ConstrainedModel
from dionysus.models.metering import measure
from openai_server import openai_server

Said = str | Callable[[dict[str, Any]], str]


class Says(Model):
    """An endpoint that answers what it is told to, and keeps what it was asked."""

    def __init__(self, *answers: Said, cut_off: Sequence[int] = ()) -> None:
        super().__init__(model_id="says")
        self._answers, self._cut_off = list(answers), cut_off
        self.schemas: list[dict[str, Any]] = []
        self.prompts: list[str] = []

    def generate(self, messages: Any, *args: Any, response_format: Any = None, **kwargs: Any) -> ChatMessage:
        number = len(self.prompts)
        schema = response_format["json_schema"]["schema"] if response_format else {}
        self.schemas.append(schema)
        self.prompts.append("\n".join(f"[{m.role.value}] {part['text']}" for m in messages for part in m.content))
        said = self._answers[number]
        reason = "length" if number in self._cut_off else "stop"
        usage = {"prompt_tokens_details": {"cached_tokens": 60}}
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=said(schema) if callable(said) else said,
            raw={"choices": [{"finish_reason": reason}], "usage": usage},
            token_usage=TokenUsage(100, 10),
        )


def call(name: str, thought: str = "so", **arguments: Any) -> str:
    return json.dumps({"thought": thought, "action": {"name": name, "arguments": arguments}})


def names_in(schema: dict[str, Any]) -> list[str]:
    return [choice["properties"]["name"]["enum"][0] for choice in schema["properties"]["action"]["anyOf"]]


@tool  # type: ignore[untyped-decorator]
def look() -> str:
    """Looks around."""
    return "a door and a key"


@tool  # type: ignore[untyped-decorator]
def take(thing: str, times: int = 1) -> str:
    """Takes a thing.

    Args:
        thing: Which.
        times: How often.
    """
    return f"taken: {thing} × {times}"


def agent_of(model: Any, *tools: Tool, **options: Any) -> ToolCallingAgent:
    return ToolCallingAgent([*tools], model, verbosity_level=LogLevel.OFF, **options)


def steps_of(agent: Any) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


def test_an_agent_gets_calls_that_are_offered_and_typed() -> None:
    model = Says(call("look"), call("take", thing="key", times=2), call("final_answer", answer="open"))
    agent = agent_of(ConstrainedModel(model), look, take)
    assert agent.run("Open the door.") == "open"
    assert [step.observations for step in steps_of(agent)][:2] == ["a door and a key", "taken: key × 2"]
    assert all(step.error is None for step in steps_of(agent))
    for schema in model.schemas:
        Draft202012Validator.check_schema(schema)
    assert list(model.schemas[0]["properties"]) == ["thought", "action"]  # it thinks before it chooses


def test_the_final_answer_is_offered_once_a_tool_was_tried() -> None:
    model = Says(call("take", thing="key"), call("final_answer", answer="done"))
    agent_of(ConstrainedModel(model), look, take).run("Go.")
    assert names_in(model.schemas[0]) == ["look", "take"]
    assert names_in(model.schemas[1]) == ["look", "take", "final_answer"]


def test_a_call_that_failed_may_be_made_once_more() -> None:
    tries = []

    @tool  # type: ignore[untyped-decorator]
    def broken() -> str:
        """Breaks."""
        tries.append(1)
        raise ValueError("broken")

    model = Says(call("broken"), call("broken"), call("final_answer", answer="it is broken"))
    assert agent_of(ConstrainedModel(model), broken).run("Go.") == "it is broken"
    assert len(tries) == 2
    assert [names_in(schema) for schema in model.schemas] == [["broken"], ["broken"], ["final_answer"]]


def test_code_that_printed_before_it_failed_used_no_tool() -> None:
    @tool  # type: ignore[untyped-decorator]
    def broken(thing: str) -> str:
        """Breaks.

        Args:
            thing: Which.
        """
        raise ValueError("broken")

    printing = "So.\n<code>\nprint('before')\nbroken(thing='x')\n</code>"
    agent = CodeAgent([broken, look], Says(printing), verbosity_level=LogLevel.OFF, max_steps=1)
    with suppress(Exception):
        agent.run("Go.")
    model = Says(call("look"), call("final_answer", answer="done"))
    agent.model, agent.max_steps = ConstrainedModel(model), 3
    agent.memory.steps = agent.memory.steps[:2]
    messages = agent.write_memory_to_messages()
    agent.model.generate(messages, stop_sequences=["Observation:", "Calling tools:", "</code>"])
    assert "before" in model.prompts[0]
    assert names_in(model.schemas[0]) == ["broken", "look"]


def test_an_answer_that_was_refused_may_be_given_again() -> None:
    seen = []

    def check(answer: Any, memory: Any, agent: Any) -> bool:
        seen.append(answer)
        return len(seen) > 1

    done = call("final_answer", answer="done")
    model = Says(call("look"), done, done)
    assert agent_of(ConstrainedModel(model), look, final_answer_checks=[check]).run("Go.") == "done"
    assert seen == ["done", "done"]


def test_an_early_answer_does_not_slip_through_as_text() -> None:
    early = json.dumps({"name": "final_answer", "arguments": {"answer": "early"}})
    model = Says(early, early, call("look"), call("final_answer", answer="late"))
    assert agent_of(ConstrainedModel(model), look).run("Go.") == "late"
    coded = "So.\n<code>\nfinal_answer('early')\n</code>"
    coder = code_agent(Says(coded, coded, call("look"), call("final_answer", answer="late")), look)
    assert coder.run("Go.") == "late"


def test_a_call_without_arguments_is_not_offered_twice_in_a_row() -> None:
    model = Says(call("look"), call("take", thing="key"), call("final_answer", answer="done"))
    agent_of(ConstrainedModel(model), look, take).run("Go.")
    assert names_in(model.schemas[1]) == ["take", "final_answer"]


def test_the_same_call_again_is_asked_for_once_more_without_that_tool() -> None:
    first = call("take", thing="key", times=1)
    model = Says(first, first, call("final_answer", answer="done"))
    constrained = ConstrainedModel(model)
    assert agent_of(constrained, look, take).run("Go.") == "done"
    assert names_in(model.schemas[2]) == ["look", "final_answer"]
    assert (constrained.counts.calls, constrained.counts.retried, constrained.counts.given_up) == (2, 1, 0)


def test_going_round_in_circles_ends_after_one_round() -> None:
    one, other = call("take", thing="key"), call("drop", thing="key")

    @tool  # type: ignore[untyped-decorator]
    def drop(thing: str) -> str:
        """Drops a thing.

        Args:
            thing: Which.
        """
        return "dropped"

    model = Says(one, other, one, other, one, call("look"), other, call("final_answer", answer="done"))
    agent = agent_of(ConstrainedModel(model), look, take, drop)
    agent.run("Go.")
    assert names_in(model.schemas[4]) == ["look", "take", "final_answer"]  # after drop came nothing new
    assert names_in(model.schemas[5]) == ["look", "final_answer"]
    made = [step.tool_calls[0].name for step in steps_of(agent) if step.tool_calls]
    assert made == ["take", "drop", "take", "look", "drop", "final_answer"]  # and after look they may come again


def test_a_call_may_be_made_again_after_something_new() -> None:
    check = call("look")
    changes = [call("take", thing=thing) for thing in ("key", "door")]
    model = Says(check, changes[0], check, changes[1], check, call("final_answer", answer="done"))
    agent = agent_of(ConstrainedModel(model), look, take)
    assert agent.run("Go.") == "done"
    assert len(model.prompts) == 6


def test_a_new_task_begins_afresh() -> None:
    model = Says(call("look"), call("final_answer", answer="one"), call("look"), call("final_answer", answer="two"))
    agent = agent_of(ConstrainedModel(model), look)
    assert agent.run("First.") == "one"
    assert agent.run("Second.", reset=False) == "two"
    assert names_in(model.schemas[2]) == ["look"]


@pytest.mark.parametrize(
    "text",
    [
        "```json\n" + call("look") + "\n```",
        "I will look.\n" + call("look"),
        call("look")[:-1] + ",}",
        call("look").replace('"', "'"),
    ],
)
def test_what_is_not_json_but_meant_so_is_repaired_and_counted(text: str) -> None:
    constrained = ConstrainedModel(Says(text, call("final_answer", answer="done")))
    agent = agent_of(constrained, look)
    agent.run("Go.")
    assert steps_of(agent)[0].observations == "a door and a key"
    assert (constrained.counts.repaired, constrained.counts.retried) == (1, 0)


def test_what_was_cut_off_is_not_guessed_but_asked_for_again_shorter() -> None:
    whole = call("take", thing="the long golden key", times=1)
    model = Says(whole[:70], call("take", thing="key", times=1), call("final_answer", answer="done"), cut_off=[0])
    constrained = ConstrainedModel(model)
    agent = agent_of(constrained, take)
    agent.run("Go.")
    assert steps_of(agent)[0].observations == "taken: key × 1"
    bounds = [
        schema["properties"]["action"]["anyOf"][0]["properties"]["arguments"]["properties"]["thing"]["maxLength"]
        for schema in model.schemas[:2]
    ]
    assert bounds[1] < bounds[0] / 4
    assert (constrained.counts.repaired, constrained.counts.retried) == (0, 1)


def test_what_is_wrong_twice_is_told_to_the_agent_which_goes_on() -> None:
    model = Says("no idea", "still none", call("look"), call("final_answer", answer="done"))
    constrained = ConstrainedModel(model)
    agent = agent_of(constrained, look)
    assert agent.run("Go.") == "done"
    assert "Error while parsing tool call" in str(steps_of(agent)[0].error)
    assert constrained.counts.given_up == 1


def test_what_was_asked_twice_is_paid_twice() -> None:
    model = ConstrainedModel(Says("no", call("look")))
    answer = model.generate([], tools_to_call_from=[look])
    usage = measure(model, answer, 0)
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.mended) == (200, 120, 20, 1)


def test_the_model_is_shown_its_calls_in_the_form_that_is_asked_for_and_once() -> None:
    model = Says(call("look", thought="first"), call("take", thing="key", times=1), call("final_answer", answer="x"))
    agent_of(ConstrainedModel(model), look, take).run("Go.")
    last = model.prompts[-1]
    assert "[assistant] " + call("look", thought="first") in last
    assert "Calling tools:" not in last
    assert last.count('"name": "take"') == 1
    assert model.prompts[1].startswith(model.prompts[0])  # what a prefix cache needs


@tool  # type: ignore[untyped-decorator]
def everything(
    text: str,
    count: int,
    share: float,
    flag: bool,
    names: list[str],
    more: dict[str, Any],
    whatever: Any,
    maybe: str | None = None,
) -> str:
    """Takes everything.

    Args:
        text: A text.
        count: A number.
        share: A share.
        flag: A flag.
        names: Some.
        more: More.
        whatever: Whatever.
        maybe: Or not.
    """
    return repr((text, count, share, flag, names, more, whatever, maybe))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=20)
@given(
    arguments=st.fixed_dictionaries(
        {
            "text": TEXTS,
            "count": st.integers(-(2**53) + 1, 2**53 - 1),
            "share": st.floats(allow_nan=False, allow_infinity=False),
            "flag": st.booleans(),
            "names": st.lists(TEXTS, max_size=4),
            "more": st.dictionaries(TEXTS, TEXTS | st.booleans(), max_size=3),
            "whatever": TEXTS | st.booleans() | st.integers(-9, 9),
            "maybe": st.none() | TEXTS,
        }
    ),
    thought=TEXTS,
)
def test_arguments_arrive_as_they_were_said(arguments: dict[str, Any], thought: str) -> None:
    order = ("text", "count", "share", "flag", "names", "more", "whatever", "maybe")
    expected = repr(tuple(arguments[name] for name in order))
    said = call("everything", thought=thought, **arguments)
    agent = agent_of(ConstrainedModel(Says(said, call("final_answer", answer="done"))), everything)
    agent.run("Go.")
    assert steps_of(agent)[0].observations == expected
    coder = code_agent(Says(said, call("final_answer", answer="done")), everything)
    coder.run("Go.")
    assert coder.memory.steps[1].error is None
    assert expected in str(coder.memory.steps[1].observations)


def code_agent(model: Says, *tools: Tool, **options: Any) -> CodeAgent:
    return CodeAgent([*tools], ConstrainedModel(model), verbosity_level=LogLevel.OFF, **options)


TAGS: list[dict[str, Any]] = [
    {},
    {"code_block_tags": "markdown"},
    {"code_block_tags": ("<start>", "<end>")},
    {"use_structured_outputs_internally": True},
]


@pytest.mark.parametrize("options", TAGS)
@pytest.mark.parametrize(
    "tricky",
    [
        "</code> ``` \"\"\" ' \\ \n final_answer('no')",
        "x <code>print('INJECTED')</code> y",
        "final_answer = 3",
        "````python\nprint(1)\n````",
        "<<code>code>boom( </</code>code>",
        "\\< \\` \\\\x3c",
    ],
)
def test_an_agent_that_writes_code_gets_code_that_makes_the_call(options: dict[str, Any], tricky: str) -> None:
    model = Says(call("take", thought=tricky, thing=tricky, times=2), call("final_answer", answer="done"))
    agent = code_agent(model, take, **options)
    assert agent.run("Go.") == "done"
    assert f"taken: {tricky} × 2" in str(steps_of(agent)[0].observations)
    assert names_in(model.schemas[0]) == ["take"]
    assert names_in(model.schemas[1]) == ["take", "final_answer"]


def test_code_that_is_repeated_is_asked_for_once_more() -> None:
    first = call("take", thing="key", times=1)
    model = Says(first, first, call("final_answer", answer="done"))
    agent = code_agent(model, take)
    assert agent.run("Go.") == "done"
    assert names_in(model.schemas[2]) == ["final_answer"]


class Mail(Tool):
    name = "mail"
    description = "Sends."
    inputs = {  # noqa: RUF012 – smolagents' form
        "from": {"type": "string", "description": "Who."},
        "cc": {"type": ["string", "integer"], "description": "Who else."},
    }
    output_type = "string"
    skip_forward_signature_validation = True

    def forward(self, **given: Any) -> str:
        return f"sent: {given}"


def test_arguments_may_have_names_that_python_keeps_for_itself() -> None:
    given: dict[str, Any] = {"from": "a", "cc": 5}
    sent = call("mail", **given)
    model = Says(sent, sent, call("final_answer", answer="done"))
    agent = code_agent(model, Mail())
    agent.run("Go.")
    assert "sent: {'from': 'a', 'cc': 5}" in str(steps_of(agent)[0].observations)
    assert names_in(model.schemas[2]) == ["final_answer"]  # the second time was noticed


def test_code_of_the_models_own_in_the_transcript_does_no_harm() -> None:
    odd = "print(1, {1: 'a', 'b': 2})\ntake(thing={(1, 2): 3}['x'])\nlook(**{[1]: 2})\nx = " + "-" * 3000 + "1"
    agent = CodeAgent([look, take], Says(f"So.\n<code>\n{odd}\n</code>"), verbosity_level=LogLevel.OFF, max_steps=1)
    agent.model.generate_stream = None
    with suppress(Exception):  # what becomes of it is not ours
        agent.run("Go.")
    agent.model = ConstrainedModel(Says(call("look"), call("final_answer", answer="done")))
    agent.max_steps = 3
    assert agent.run("Go on.", reset=False) == "done"


@pytest.mark.parametrize("wrong", ["1e999", "NaN", '"\\ud800"', "[" * 5000, "Infinity"])
def test_numbers_and_letters_that_there_are_not_are_asked_for_again(wrong: str) -> None:
    spec: dict[str, Any] = {"x": {"type": ["number", "string"]}}
    schema = arguments_of(spec, 100)
    assert understood(f'{{"x": {wrong}}}', schema, cut_off=False) == (None, False)
    assert understood('{"x": 1.5}', schema, cut_off=False) == ({"x": 1.5}, False)


def test_what_was_cut_off_is_not_repaired_even_if_it_looks_whole() -> None:
    schema = arguments_of({"text": {"type": "string"}}, 100)
    cut = '{"text": "a {brace}'
    assert understood(cut, schema, cut_off=True) == (None, False)
    assert understood(cut[:-1], schema, cut_off=False) == (None, False)  # nor where the server does not say so


def test_strings_share_the_room_of_the_answer() -> None:
    one = arguments_of({"a": {"type": "string"}}, 1000)["properties"]["a"]["maxLength"]
    two = arguments_of({"a": {"type": "string"}, "b": {"type": "string"}}, 1000)["properties"]["a"]["maxLength"]
    assert (one, two) == (1000, 500)


def test_recall_is_offered_where_something_was_cut() -> None:
    class Recall(Tool):
        name = "recall_observation"
        description = "Recalls."
        inputs = {"step": {"type": "integer", "description": "Which."}}  # noqa: RUF012 – smolagents' form
        output_type = "string"

        def forward(self, step: int) -> str:
            return "whole"

    model = Says(call("look"), call("recall_observation", step=1), call("final_answer", answer="done"))
    agent = agent_of(ConstrainedModel(model), look, Recall())

    def cut(step: ActionStep) -> None:
        if step.step_number == 1:
            step.observations = "[cut 800 chars; recall_observation(1)] door"

    agent.step_callbacks.register(ActionStep, cut)
    agent.run("Go.")
    assert names_in(model.schemas[0]) == ["look"]
    assert names_in(model.schemas[1]) == ["recall_observation", "final_answer"]


def test_whole_numbers_are_integers_and_lists_hold_what_they_may() -> None:
    spec: dict[str, Any] = {
        "times": {"type": "integer"},
        "names": {"type": "array", "items": {"type": "string", "nullable": True}},
        "odd": {"type": "array", "items": True},
        "deep": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}, "b": True}}},
        "map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "type": "string", "nullable": True},
    }
    given = {
        "times": 5.0,
        "names": ["a", None],
        "odd": [1, "x"],
        "deep": [{"a": 2.0, "b": None}],
        "map": {"k": [1, 2]},
        "limit": "3",
    }
    schema = arguments_of(spec, 1000)
    Draft202012Validator.check_schema(schema)
    said, repaired = understood(json.dumps(given), schema, cut_off=False)
    assert (said, repaired) == (given, False)
    assert said is not None
    assert cleaned(said, spec) == {**given, "times": 5, "deep": [{"a": 2}]}


def test_members_are_called_with_a_task_alone() -> None:
    member = agent_of(
        ConstrainedModel(Says(call("look"), call("final_answer", answer="a door"))),
        look,
        name="scout",
        description="Looks.",
    )
    model = Says(call("scout", task="Look around."), call("final_answer", answer="seen"))
    agent = code_agent(model, managed_agents=[member])
    assert agent.run("Go.") == "seen"
    assert "a door" in str(steps_of(agent)[0].observations)
    arguments = model.schemas[0]["properties"]["action"]["anyOf"][0]["properties"]["arguments"]
    assert list(arguments["properties"]) == ["task"]


def test_plans_are_lists_of_tools_and_say_later_what_is_known() -> None:
    plan = json.dumps({"steps": [{"name": "look", "why": "to see"}, {"name": "take", "why": "to have"}]})
    later = json.dumps({"known": "there is a key", "steps": [{"name": "final_answer", "why": "enough"}]})
    model = Says(plan, call("look"), later, call("final_answer", answer="done"))
    agent = agent_of(ConstrainedModel(model), look, take, planning_interval=1, max_steps=2)
    agent.run("Go.")
    plans = [step.plan for step in agent.memory.steps if isinstance(step, PlanningStep)]
    assert "1. look – to see\n2. take – to have" in plans[0]
    assert "Known: there is a key\n1. final_answer – enough" in plans[1]
    assert model.schemas[0]["properties"]["steps"]["items"]["properties"]["name"]["enum"][:2] == ["look", "take"]


def test_strict_mode_is_asked_for_where_the_schema_is_one_for_it() -> None:
    """OpenAI's rules: objects say all their properties, require them all, and allow no others."""
    action: dict[str, Any] = {"name": "take", "arguments": {"thing": "key", "times": None}}
    final: dict[str, Any] = {"name": "final_answer", "arguments": {"answer": "done"}}
    with openai_server([action, final]) as played:
        model = open_model("openai:small", api_base=played.url, tool_calls="schema")
        assert agent_of(model, look, take).run("Go.") == "done"
        forms = [request["response_format"]["json_schema"] for request in played.requests]
        assert all(form["strict"] for form in forms)
        assert all("tools" not in request for request in played.requests)
        for part in _objects(forms[0]["schema"]):
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False
        agent_of(open_model("openai:small", api_base=played.url, tool_calls="schema"), everything).run("Go.")
        assert played.requests[-1]["response_format"]["json_schema"]["strict"] is False


def _objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for part in schema for found in _objects(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for part in schema.values() for found in _objects(part)]


def test_an_attached_agent_on_an_endpoint_counts_what_was_mended(tmp_path: Any) -> None:
    actions: list[dict[str, Any]] = [
        {"text": '{"thought": "I', "reason": "length"},
        {"name": "look", "arguments": {}},
        {"text": "Here it is: " + call("final_answer", answer="done")},
    ]
    with openai_server(actions) as played, Runtime(store=f"sqlite:///{tmp_path}/mind.db") as runtime:
        model = open_model("openai:small", api_base=played.url, tool_calls="schema")
        result = runtime.attach(agent_of(model, look)).run("Go.")
        assert result.output == "done"
        assert result.usage.mended == 2
        assert result.usage.input_tokens == sum(usage["prompt_tokens"] for usage in played.reported)
        trace = runtime.traces.get_trace(result.trace_id)
        assert trace.trace.mended_calls == 2
        assert [call.usage.mended for step in trace.steps for call in step.model_calls] == [1, 1]


def test_without_its_libraries_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dionysus.models.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"dionysus-agents\[openai\]"):
        open_model("openai:x", api_base="http://127.0.0.1:1/v1", tool_calls="schema")


def test_a_plan_may_name_members() -> None:
    scout = agent_of(Says(), look, name="scout", description="Looks.")
    plan = json.dumps({"steps": [{"name": "scout", "why": "to see"}]})
    model = Says(plan, call("look"), call("final_answer", answer="done"))
    agent_of(ConstrainedModel(model), look, managed_agents=[scout], planning_interval=3).run("Go.")
    names = model.schemas[0]["properties"]["steps"]["items"]["properties"]["name"]["enum"]
    assert {"look", "scout"} <= set(names)


def test_arguments_that_are_no_identifiers_are_offered_to_code_wherever_they_stand() -> None:
    class Page(Tool):
        name = "page"
        description = "Pages."
        inputs = {  # noqa: RUF012 – smolagents' form
            "q": {"type": "string", "description": "What."},
            "user-id": {"type": "string", "description": "Who."},
        }
        output_type = "string"
        skip_forward_signature_validation = True

        def forward(self, **given: Any) -> str:
            return f"paged: {given}"

    given: dict[str, Any] = {"q": "a", "user-id": "b"}
    agent = code_agent(Says(call("page", **given), call("final_answer", answer="done")), Page())
    agent.run("Go.")
    assert "paged: {'q': 'a', 'user-id': 'b'}" in str(steps_of(agent)[0].observations)


def test_steps_whose_model_said_nothing_beside_its_calls_are_read_one_by_one() -> None:
    """As models with tool calls of their own leave them: a call that came back, then one that failed."""
    shown = [
        ("user", "New task:\nGo."),
        ("tool-call", "Calling tools:\n[{'function': {'name': 'look', 'arguments': {}}}]"),
        ("tool-response", "Observation:\na door"),
        ("tool-response", "Error:\nError executing tool 'take'"),
    ]
    messages = [ChatMessage(role=MessageRole(role), content=[{"type": "text", "text": text}]) for role, text in shown]
    model = Says(call("take", thing="key"))
    ConstrainedModel(model).generate(messages, tools_to_call_from=[look, take, FinalAnswerTool()])
    assert names_in(model.schemas[0]) == ["take", "final_answer"]


def test_a_whole_number_is_a_number_where_only_those_are_taken() -> None:
    spec: dict[str, Any] = {"x": {"type": ["number", "string"]}}
    assert [type(cleaned({"x": value}, spec)["x"]) for value in (3, "3", 3.5)] == [float, str, float]
