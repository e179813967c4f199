"""Converts a conversation to the form that a chat template supports.

OpenAI's API allows several forms of the same message: content as text, as a list of parts or
absent, arguments of a tool call as JSON text or as an object. Most templates support one form and
render nothing or garbage for the others. So each template is tried once on small conversations. A
message that already has the supported form is not changed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from talu.template.plain import invalid

__all__ = ["Messages", "Traits", "adapt"]

Messages = list[dict[str, Any]]
Render = Callable[
    [Messages, Messages | None], str | None
]  # messages and tools to a prompt; None if that failed

_MARK = "Zq7probe"
_FUNCTION = {"name": _MARK, "description": "d", "parameters": {"type": "object", "properties": {}}}
_TOOLS: Messages = [{"type": "function", "function": _FUNCTION}]
SHORT = 9  # characters of an id in Mistral's templates
_REASONING = ("reasoning_content", "thinking", "reasoning")


class Traits:
    """What a template shows, found on demand by rendering small conversations."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._empty: dict[str | None, bool] = {}

    @cached_property
    def system_role(self) -> bool:
        """Whether the template shows the content of a system message."""
        system = {"role": "system", "content": self._form(_MARK)}
        return _MARK in self._rendered(system, self._ask)

    @cached_property
    def tools(self) -> bool:
        """Whether the template shows the offered tools."""
        return _MARK in (self._render([self._ask], _TOOLS) or "")

    @cached_property
    def names(self) -> bool:
        """Whether the template shows the name of a user message."""
        return _MARK in self._rendered(self._ask | {"name": _MARK})

    @cached_property
    def text(self) -> bool:
        """Whether the template shows content that is a text."""
        return _MARK in self._rendered(_user(_MARK)) or not self.parts

    @cached_property
    def parts(self) -> bool:
        """Whether the template shows content that is a list of text parts."""
        shown = self._rendered(_user(_parts(_MARK)))
        return _MARK in shown and "'type'" not in shown and '"type"' not in shown

    @cached_property
    def conversation(self) -> str:
        """A short conversation rendered without and with a system message."""
        system = {"role": "system", "content": self._form("z")}
        turns = [self._ask, {"role": "assistant", "content": self._form("y")}, self._ask]
        return self._rendered(*turns) + self._rendered(system, *turns)

    def repeated(self, count: int) -> str:
        """A rendered conversation of this many empty messages of the user and the assistant."""
        roles = ("user", "assistant")
        turns = ({"role": roles[n % 2], "content": self._form("")} for n in range(count))
        return self._rendered(*turns)

    def empty(self, content: str | None) -> str | None:
        """The empty content that makes the template show a tool call, preferably ``content``."""
        other = "" if content is None else None
        if self._shown_with(content) or not self._shown_with(other):
            return content
        return other

    @cached_property
    def arguments(self) -> bool:
        """Whether arguments of a tool call must be an object instead of JSON text."""
        contents = (None, self._form(""), self._form("y"))
        return any(self._shows_call(content, {_MARK: 1}) for content in contents) or not any(
            self._shows_call(content, json.dumps({_MARK: 1})) for content in contents
        )

    @cached_property
    def short_ids(self) -> bool:
        """Whether ids of tool calls must be nine letters and digits, as Mistral's templates say."""
        if self._shows_call_with("call_zq7long0001"):
            return False
        return self._shows_call_with("call00000")

    def _shows_call_with(self, id: str) -> bool:
        arguments: object = {_MARK: 1} if self.arguments else json.dumps({_MARK: 1})
        return self._shows_call(self.empty(""), arguments, id)

    def _shown_with(self, content: str | None) -> bool:
        if content not in self._empty:
            arguments: object = {_MARK: 1} if self.arguments else json.dumps({_MARK: 1})
            self._empty[content] = self._shows_call(content, arguments)
        return self._empty[content]

    @property
    def _ask(self) -> dict[str, Any]:
        return _user(self._form("x"))

    def _form(self, text: str) -> object:
        return text if self.text else _parts(text)

    def _shows_call(self, content: object, arguments: object, id: str = "call00000") -> bool:
        function = {"name": "f", "arguments": arguments}
        call = {"id": id, "type": "function", "function": function}
        message = {"role": "assistant", "content": content, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": id, "name": "f", "content": "r"}
        turns = [self._ask, message, *([] if id == "call00000" else [result])]
        shown = self._rendered(*turns)
        return _MARK in shown and f"'{_MARK}'" not in shown and "None" not in shown

    def _rendered(self, *messages: dict[str, Any]) -> str:
        # some templates can render only conversations with tools
        return self._render([*messages], None) or self._render([*messages], _TOOLS) or ""


def adapt(messages: Iterable[dict[str, Any]], traits: Traits) -> Messages:
    """The same conversation in the form that the template supports.

    Raises:
        ValidationError: a message is malformed, or has content that is not text.
    """
    if isinstance(messages, str | dict) or not isinstance(messages, Iterable):
        raise invalid("messages", f"is of type {type(messages).__name__}, not a list of messages")
    return [_adapt(message, f"messages[{place}]", traits) for place, message in enumerate(messages)]


def _adapt(message: dict[str, Any], where: str, traits: Traits) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise invalid(where, "is not an object with a role")
    message = _without_provider_data(message)
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = _parts_or_text(content, where, traits)
    elif not content and message.get("tool_calls"):
        filled = traits.empty(content)
        if filled != content:
            message["content"] = filled
    elif isinstance(content, str) and not traits.text:
        message["content"] = _parts(content)
    elif content is not None and not isinstance(content, str):
        raise invalid(f"{where}['content']", "is neither a text nor a list of parts")
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise invalid(f"{where}['tool_calls']", "is not a list of objects")
        message["tool_calls"] = [_adapt_call(call, traits) for call in calls]
    if isinstance(message.get("tool_call_id"), str):
        message["tool_call_id"] = _adapt_id(message["tool_call_id"], traits)
    reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if reasoning is not None:  # templates use one of two names
        message = {"thinking": reasoning} | message | {"reasoning_content": reasoning}
    return message


def _without_provider_data(message: dict[str, Any]) -> dict[str, Any]:
    """A copy of the message without ``provider_data``, and without the reasoning it belongs to.

    Tool calls stay. The data and the reasoning of a remote model are for its provider only.
    """
    foreign = message.get("provider_data") is not None
    hidden = ("provider_data", *(_REASONING if foreign else ()))
    return {key: value for key, value in message.items() if key not in hidden}


def _parts_or_text(parts: list[Any], where: str, traits: Traits) -> list[Any] | str:
    for at, part in enumerate(parts):
        match part:
            case {"type": "text", "text": str()}:
                pass
            case _:
                raise invalid(
                    f"{where}['content'][{at}]", "is not a text part; this model reads text only"
                )
    return parts if traits.parts else "\n".join(part["text"] for part in parts)


def _adapt_call(call: dict[str, Any], traits: Traits) -> dict[str, Any]:
    call = {key: value for key, value in call.items() if key != "provider_data"}
    if isinstance(call.get("id"), str):
        call["id"] = _adapt_id(call["id"], traits)
    match call:
        case {"function": {"arguments": str(arguments)}} if traits.arguments:
            try:
                values = json.loads(arguments)
            except (ValueError, RecursionError):
                return call
            values = values if isinstance(values, dict) else arguments
            return call | {"function": call["function"] | {"arguments": values}}
        case {"function": {"arguments": dict(values)}} if not traits.arguments:
            arguments = json.dumps(values, ensure_ascii=False)
            return call | {"function": call["function"] | {"arguments": arguments}}
        case _:
            return call


def _adapt_id(id: str, traits: Traits) -> str:
    """An id in the shape that the template wants, the same for a call and its result."""
    fits = len(id) == SHORT and id.isascii() and id.isalnum()
    if fits or not traits.short_ids:
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:SHORT]


def _user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
