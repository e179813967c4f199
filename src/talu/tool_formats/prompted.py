"""Describes tools and calls in messages, for templates that do not show them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from talu.contents import joined
from talu.tool_formats.description import Id, Index, Part, ToolFormat

__all__ = ["PROMPTED", "described", "with_calls_as_text"]

PROMPTED = ToolFormat(
    opening=('<tool_call>\n{"name": "',),
    after_name=('", "arguments": ',),
    closing=("}\n</tool_call>",),
    following=('}\n</tool_call>\n<tool_call>\n{"name": "',),
)

Message = dict[str, Any]


def described(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    form: ToolFormat,
    *,
    system_role: bool,
    listed: bool,
) -> list[Message]:
    """Messages of which the first describes the tools, and how they are called.

    Args:
        messages: the conversation.
        tools: OpenAI-style definitions.
        form: how calls are written.
        system_role: whether the template shows a system message; else the text is put before the
            first message of the user.
        listed: the template shows the tools itself, but not how they are called.
    """
    lines = [
        "You can call functions. Each line within <tools></tools> is a JSON object with the name "
        "of a function, what it does, and the JSON Schema of its arguments:",
        "<tools>",
        *(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools),
        "</tools>",
    ]
    text = "\n".join(
        [
            *([] if listed else lines),
            "To call a function, write a call like this one, and nothing after it:",
            example(form),
            "The result is given to you within <tool_response></tool_response>.",
        ]
    )
    role = "system" if system_role else "user"
    found = [dict(message) for message in messages]
    for message in found:
        if message.get("role") == role:
            if system_role:
                message["content"] = joined(message.get("content"), text)
            else:
                message["content"] = joined(text, message.get("content"))
            return found
    return [{"role": role, "content": text}, *found]


def with_calls_as_text(messages: Sequence[Message]) -> list[Message]:
    """Messages in which calls are text of the assistant, and results text of the user."""
    found: list[Message] = []
    results: list[str] = []
    for message in messages:
        if message.get("role") == "tool":
            content = joined(message.get("content"), "", between="")
            results.append(f"<tool_response>\n{content}\n</tool_response>")
            continue
        if results:
            found.append({"role": "user", "content": "\n".join(results)})
            results = []
        if message.get("tool_calls"):
            calls = "\n".join(_written(message["tool_calls"]))
            rest = {key: each for key, each in message.items() if key != "tool_calls"}
            content = joined(message["content"], calls) if message.get("content") else calls
            message = {**rest, "content": content}
        found.append(message)
    if results:
        found.append({"role": "user", "content": "\n".join(results)})
    return found


def example(form: ToolFormat) -> str:
    """A call of a function ``NAME`` with one argument."""
    tagged = form.tagged
    match form.style:
        case "pythonic":
            arguments = 'ARGUMENT="VALUE"'
        case "gemma":
            arguments = f"{{ARGUMENT:{form.quote}VALUE{form.quote}}}"
        case "tagged" if tagged is not None:
            arguments = f"{tagged.opening}ARGUMENT{tagged.value('string')}VALUE{tagged.closing}"
        case _:
            arguments = '{"ARGUMENT": "VALUE"}'
    return _text(form.opening) + "NAME" + _text(form.after_name) + arguments + _text(form.closing)


def _text(parts: tuple[Part, ...]) -> str:
    return "".join(
        part if isinstance(part, str) else "123456789" if isinstance(part, Id) else str(part.first)
        for part in parts
        if isinstance(part, str | Id | Index)
    )


def _written(calls: Any) -> Iterator[str]:
    """Calls of the history, in the prompted format."""
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments") or "{}"
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(function.get("name"), ensure_ascii=False)
        yield f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
