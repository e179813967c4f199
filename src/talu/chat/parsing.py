"""Parses OpenAI-style dictionaries into items.

This module is pure. An unknown key or value is an error that names its index and key, so that no
part of a restored conversation is dropped.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Set, Sized
from typing import Any, NoReturn

from talu.chat.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    MessageItem,
    ReasoningItem,
    ReasoningText,
    check_name,
    checked_provider_data,
    distinct,
)
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError
from talu.types import is_iterable
from talu.unicode import check_unicode

__all__ = ["PART_KEYS", "check_count", "check_no_more", "items_from_messages"]

ROLES = ("system", "developer", "user", "assistant", "tool")
COMMON_KEYS = {"role", "content", "name"}
KEYS = {  # role: keys that its dictionary may have
    **dict.fromkeys(ROLES, COMMON_KEYS),
    "assistant": COMMON_KEYS | {"tool_calls", "reasoning_content", "provider_data"},
    "tool": COMMON_KEYS | {"tool_call_id"},
}
CALL_KEYS = {"id", "type", "function", "index", "provider_data"}
PART_KEYS = {"type", "text"}
TEXT_PARTS = ("text", "input_text", "output_text")
MAX_MESSAGES = 100_000  # of a conversation that is given at once; also parts of a message


def items_from_messages(messages: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Restore items from OpenAI-style dictionaries.

    Raises:
        ValidationError: a dictionary is malformed; the message names its index and key.
    """
    if isinstance(messages, str | Mapping) or not is_iterable(messages):
        _refuse("messages", f"must be a list of dictionaries, got {shown(messages)}")
    check_count(messages)
    items: list[Item] = []
    calls: Counter[str] = Counter()  # how many of an id have no result, for all calls so far
    for index, message in enumerate(messages):
        if index == MAX_MESSAGES:
            raise _too_many("a conversation", "messages", "more")
        where = f"messages[{index}]"
        if isinstance(message, MessageItem):
            items.append(message)
        elif isinstance(message, Mapping):
            new = _items_of(where, message, calls.keys())
            _check_results(where, new, calls)
            items += new
        else:
            _refuse(where, f"must be a dictionary, got {shown(message)}")
    return distinct(items)


def _check_results(where: str, new: Iterable[Item], calls: Counter[str]) -> None:
    """Refuse a second result of a call, and count the calls that have none."""
    for item in new:
        if isinstance(item, FunctionCallItem):
            calls[item.call_id] += 1
        elif isinstance(item, FunctionCallOutputItem):
            if not calls[item.call_id]:
                wrong = f"is that of a call that has a result already: {shown(item.call_id)}"
                _refuse(f"{where}['tool_call_id']", wrong)
            calls[item.call_id] -= 1


def check_count(entries: object, owner: str = "a conversation", kind: str = "messages") -> None:
    """Refuse too many messages, or parts of a message, before any of them is checked."""
    if isinstance(entries, Sized) and len(entries) > MAX_MESSAGES:
        raise _too_many(owner, kind, f"{len(entries):,}")


def _too_many(owner: str, kind: str, given: str) -> ValidationError:
    wrong = f"{owner} has at most {MAX_MESSAGES:,} {kind}, got {given}"
    return ValidationError(wrong, details={"param": "messages"})


def _items_of(where: str, message: Mapping[str, Any], known_calls: Set[str]) -> list[Item]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ""
        _refuse(f"{where}['role']", f"must be one of {', '.join(ROLES)}, got {shown(role)}{hint}")
    check_no_more(where, KEYS[role], message, f"a message of role {role!r}")
    if role == "tool":
        return [_output_item(where, message, known_calls)]
    items: list[Item] = [*_reasoning_items(where, message)]
    calls = message.get("tool_calls")
    if calls is None:
        calls = []
    if not isinstance(calls, list | tuple):
        _refuse(f"{where}['tool_calls']", f"must be a list, got {shown(calls)}")
    if message.get("content") is not None or not calls:
        if "content" not in message:
            _refuse(f"{where}['content']", "is missing", "VALIDATION_MISSING_CONTENT")
        text = _text(f"{where}['content']", message["content"])
        if text or not calls:
            items.append(MessageItem.create(role, text, name=_name(where, message)))
    if message.get("name") is not None and not any(isinstance(i, MessageItem) for i in items):
        _refuse(f"{where}['name']", "needs content: a message of tool calls alone has no name")
    return items + [
        _call_item(f"{where}['tool_calls'][{number}]", call) for number, call in enumerate(calls)
    ]


def _reasoning_items(where: str, message: Mapping[str, Any]) -> list[ReasoningItem]:
    """The blocks of reasoning of a message; see ``messages_from_items``."""
    given = message.get("reasoning_content")
    text = "" if given is None else _text(f"{where}['reasoning_content']", given)
    data = message.get("provider_data")
    if data is None:
        return [ReasoningItem(content=(ReasoningText(text),))] if text else []
    at = f"{where}['provider_data']"
    if not isinstance(data, Mapping) or not isinstance(data.get("reasoning"), list | tuple):
        wanted = 'a dictionary {"provider": …, "reasoning": [{"text": …}, …]}'
        _refuse(at, f"must be {wanted}, got {shown(data)}")
    check_no_more(at, {"provider", "reasoning"}, data, "the provider's data")
    check_count(data["reasoning"], at, "blocks of reasoning")
    blocks = [
        _block(f"{at}['reasoning'][{number}]", data.get("provider"), block)
        for number, block in enumerate(data["reasoning"])
    ]
    if text and text != "".join(block.text for block in blocks):
        _refuse(
            f"{where}['reasoning_content']",
            "must be the joined texts of provider_data, or be left out",
        )
    return blocks


def _block(where: str, provider: object, block: object) -> ReasoningItem:
    if not isinstance(block, Mapping) or not isinstance(block.get("text"), str):
        _refuse(where, f"must be a dictionary with a text, got {shown(block)}")
    if "provider" in block:
        _refuse(f"{where}['provider']", "is not allowed: provider_data names the provider once")
    check_unicode(f"{where}['text']", block["text"])
    data = {key: value for key, value in block.items() if key != "text"}
    data = _provider_data(where, data | {"provider": provider})
    return ReasoningItem(content=(ReasoningText(block["text"]),), provider_data=data)


def _provider_data(where: str, data: object) -> dict[str, Any]:
    try:
        return checked_provider_data(data)
    except ValidationError as error:
        _refuse(where, str(error).removeprefix("provider_data "))


def check_no_more(
    where: str, known: Set[str], given: Mapping[Any, Any], what: str = "a text part"
) -> None:
    """Raise for a key that would be lost, unless its value is None or empty."""
    for key, value in given.items():
        if key in known or value is None or (isinstance(value, Sized) and not len(value)):
            continue
        _refuse(f"{where}[{shown(key)}]", f"is not a key of {what}{nearest(str(key), known)}")


def _name(where: str, message: Mapping[str, Any]) -> str | None:
    name = message.get("name")
    try:
        check_name(name)
    except ValidationError as error:
        _refuse(f"{where}['name']", str(error).removeprefix("name "))
    return name


def _text(where: str, content: object) -> str:
    """Text of a content: a string, or a list of text parts."""
    if isinstance(content, str):
        check_unicode(where, content)
        return content
    if not isinstance(content, list | tuple):
        _refuse(where, f"must be text or a list of text parts, got {shown(content)}")
    check_count(content, where, "parts")
    texts: list[str] = []
    for number, part in enumerate(content):
        match part:
            case {"type": str(kind), "text": str(text), **rest} if kind in TEXT_PARTS:
                check_no_more(f"{where}[{number}]", PART_KEYS, rest)
                check_unicode(f"{where}[{number}]['text']", text)
                texts.append(text)
            case _:
                _refuse(f"{where}[{number}]", f"must be a text part, got {shown(part)}")
    return "".join(texts)


def _call_item(where: str, call: object) -> FunctionCallItem:
    if not isinstance(call, Mapping):
        _refuse(where, f"must be a dictionary, got {shown(call)}")
    call_id = call.get("id")
    if not isinstance(call_id, str) or not call_id:
        _refuse(f"{where}['id']", f"must be text that is not empty, got {shown(call_id)}")
    function = call.get("function")
    if not isinstance(function, Mapping):
        _refuse(f"{where}['function']", f"must be a dictionary, got {shown(function)}")
    kind = call.get("type", "function")
    if not isinstance(kind, str) or kind != "function":
        _refuse(f"{where}['type']", f"must be 'function', got {shown(kind)}")
    check_no_more(where, CALL_KEYS, call, "a tool call")
    check_no_more(f"{where}['function']", {"name", "arguments"}, function, "a function call")
    name, arguments = function.get("name"), function.get("arguments", "{}")
    if not isinstance(name, str) or not name:
        _refuse(
            f"{where}['function']['name']", f"must be text that is not empty, got {shown(name)}"
        )
    if isinstance(arguments, Mapping):
        arguments = _json(f"{where}['function']['arguments']", arguments)
    if not isinstance(arguments, str):
        _refuse(f"{where}['function']['arguments']", f"must be JSON text, got {shown(arguments)}")
    data = call.get("provider_data")
    if data is not None:
        data = _provider_data(f"{where}['provider_data']", data)
    return FunctionCallItem(name=name, call_id=call_id, arguments=arguments, provider_data=data)


def _json(where: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        _refuse(where, f"must be plain JSON: {error}")


def _output_item(
    where: str, message: Mapping[str, Any], known_calls: Set[str]
) -> FunctionCallOutputItem:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str) or call_id not in known_calls:
        wanted = "must be the id of a tool call in a message before it"
        _refuse(f"{where}['tool_call_id']", f"{wanted}, got {shown(call_id)}")
    if "content" not in message:
        _refuse(f"{where}['content']", "is missing", "VALIDATION_MISSING_CONTENT")
    text = _text(f"{where}['content']", message["content"])
    return FunctionCallOutputItem(call_id=call_id, output=text, name=_name(where, message))


def _refuse(where: str, wrong: str, code: str | None = None) -> NoReturn:
    raise ValidationError(f"{where} {wrong}", code, {"param": "messages", "where": where})
