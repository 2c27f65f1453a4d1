"""`reflex`, System 1: rules that stand in for an LLM – from what is in the transcript to the next tool call.

It is not an LLM and says so. It knows tools and roles, never particular inputs; it uses no network, no tokens, no
chance, so the same transcript always brings the same answer. `scene` reads the transcript, `focus` says what it is
about, `rules` decides and plans, `coding` writes code for agents that act so,
`report` ranks what to do next and writes the answer.
"""

from collections.abc import Sequence
from typing import Any

from smolagents import ChatMessage, Model, Tool
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus.models.offered import END_OF_PLAN, Offered, closing_tag, functions_in, text_of, tools_listed_in
from dionysus.models.reflex.coding import code_answer, members_in_order
from dionysus.models.reflex.report import report
from dionysus.models.reflex.rules import Action, decide, plan, thought
from dionysus.models.reflex.scene import read

__all__ = ["Reflex"]


class Reflex(Model):
    """Answers the prompts of smolagents' agents by rules.

    What is asked for tells which prompt it is: tools are offered – an action; `<end_plan>` is a stop sequence – a
    plan; the closing tag of a code block is one – code; none of these – the steps are used up, and the report is due.
    """

    spec = "reflex"
    free = True
    is_reflex = True

    def __init__(self) -> None:
        super().__init__(model_id="reflex (rules, not an LLM)")

    def generate(
        self,
        messages: Sequence[Any],
        stop_sequences: Sequence[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: Sequence[Tool] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """An action with its thought, a plan, or a report.

        Args:
            messages: The transcript, as smolagents hands it to a model.
            stop_sequences: Tell what is asked for; nothing is generated that would have to be stopped.
            response_format: For code: the answer is JSON. Further arguments are passed over.
        """
        if tools_to_call_from:
            scene = read(messages, [Offered.of(tool) for tool in tools_to_call_from])
            action = decide(scene)
            return _say(thought(scene, action), action, number=scene.steps + 1)
        if END_OF_PLAN in (stop_sequences or ()):
            text = text_of(messages[-1]) if messages else ""
            offered = [*tools_listed_in(messages), *functions_in(text)]
            return _say(plan(read(messages, offered, members=members_in_order(text))))
        closing = closing_tag(stop_sequences or ())
        if closing is not None:
            return _say(code_answer(messages, closing, as_json=response_format is not None))
        return _say(report(read(messages)))


def _say(text: str, action: Action | None = None, *, number: int = 0) -> ChatMessage:
    calls = None
    if action is not None:
        called = ChatMessageToolCallFunction(name=action.tool, arguments=action.arguments)
        calls = [ChatMessageToolCall(id=f"call_{number}", type="function", function=called)]
    return ChatMessage(role=MessageRole.ASSISTANT, content=text, tool_calls=calls, token_usage=TokenUsage(0, 0))
