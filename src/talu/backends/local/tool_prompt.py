"""Decides how a local model is shown its tools and the calls of the history."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from talu.error_text import shown as shown_value
from talu.exceptions import ValidationError
from talu.template.adaptation import Messages
from talu.template.render import RAW, traits
from talu.tool_formats.derive import derive
from talu.tool_formats.description import Reasoning, ToolFormat, without_ends
from talu.tool_formats.prompted import PROMPTED, described, with_calls_as_text

__all__ = ["Shown", "shown"]

DESCRIBED = "the chat template does not show tools to the model: the system message describes them"
INSTRUCTED = "the chat template does not show how the model calls tools: the system message does"
AS_TEXT = "the chat template does not show tool calls: those of the history are text of the prompt"


class Shown(NamedTuple):
    """What the template gets.

    Attributes:
        messages: the conversation.
        tools: the tools.
        calls: how the model writes calls; None if it was offered no tools.
        reasoning: the texts around reasoning; None for ``<think>``.
        begins_reasoning: how a prompt ends that begins reasoning without its tag.
        notes: what was done instead of what was asked.
    """

    messages: Messages
    tools: Messages
    calls: ToolFormat | None = None
    reasoning: Reasoning | None = None
    begins_reasoning: str = ""
    notes: tuple[str, ...] = ()


def shown(source: str, messages: Messages, tools: Messages, ends: Sequence[str]) -> Shown:
    """Messages and tools in a form that the template shows to the model.

    Args:
        source: the template.
        messages: the conversation.
        tools: OpenAI-style definitions.
        ends: the texts of the tokens that end an answer.

    Raises:
        ValidationError: there is no template that could show tools, or a tool has no name.
    """
    if source == RAW:
        raise ValidationError(
            "PromptTemplate.RAW has no place for tools; choose a chat template, or leave tools out",
            details={"param": "tools"},
        )
    found = derive(source)
    tools = [_complete(tool) for tool in tools]
    rest = (found.reasoning, found.begins_reasoning)
    if found.format is not None and (traits(source).tools or not tools):
        calls = without_ends(found.format, ends) if tools else None
        return Shown(messages, tools, calls, *rest)
    notes = []
    if found.format is None and any(map(_has_calls, messages)):
        messages = with_calls_as_text(messages)
        notes.append(AS_TEXT)
    if not tools:
        return Shown(messages, [], None, *rest, tuple(notes))
    form, listed = without_ends(found.format or PROMPTED, ends), traits(source).tools
    system_role = traits(source).system_role
    messages = described(messages, tools, form, system_role=system_role, listed=listed)
    notes.append(INSTRUCTED if listed else DESCRIBED)
    return Shown(messages, tools if listed else [], form, *rest, tuple(notes))


def _has_calls(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls")) or message.get("role") == "tool"


def _complete(tool: dict[str, Any]) -> dict[str, Any]:
    """A definition with everything that templates read without asking whether it is there."""
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValidationError(
            f"a tool has no name: {shown_value(tool)}", details={"param": "tools"}
        )
    empty = {"type": "object", "properties": {}, "required": []}
    parameters = {**empty, **(function.get("parameters") or {})}
    whole = {"description": "", **function, "parameters": parameters}
    whole.pop("strict", None)  # for providers; here a grammar holds the arguments
    return {"type": "function", **tool, "function": whole}
