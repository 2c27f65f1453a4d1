"""`reflex`, System 1: a production system that stands in for an LLM. It is none, and says so.

It looks only at the transcript and the offered tools, knows tools by what they are for, never particular inputs, and
writes nothing that is not in a tool's result or in its tables. `scene` reads a transcript, `rules` choose the next
action, `report` ranks what to do next and writes the answer.
"""

from typing import Any

from smolagents import ChatMessage, Model
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole, TokenUsage

from dionysus.models.reflex.report import report
from dionysus.models.reflex.rules import decide, plan
from dionysus.models.reflex.scene import kept_lines, read

MODEL_ID = "reflex (rules, not an LLM)"


class Reflex(Model):
    """Answers the prompts of smolagents' loop by rules.

    Which prompt it faces is told by what is asked for: tools offered → an action; the stop sequence of a plan → a
    plan; neither → the report, as after the last allowed step.
    """

    is_reflex = True
    free = True
    spec = "reflex"

    def __init__(self) -> None:
        super().__init__(model_id=MODEL_ID)

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """The next action, plan or report; no tokens."""
        if tools_to_call_from:
            scene = read(messages, {tool.name: tool for tool in tools_to_call_from})
            action = decide(scene)
            call = ChatMessageToolCall(
                id=f"call_{len(scene.called) + 1}",
                type="function",
                function=ChatMessageToolCallFunction(name=action.tool, arguments=action.arguments),
            )
            thought = "\n".join([action.thought, *kept_lines(scene)])
            return _say(thought, [call])
        if "<end_plan>" in (stop_sequences or ()):
            return _say(plan(messages))
        return _say(report(read(messages, {})))


def _say(text: str, calls: list[ChatMessageToolCall] | None = None) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text, tool_calls=calls, token_usage=TokenUsage(0, 0))


__all__ = ["Reflex"]
