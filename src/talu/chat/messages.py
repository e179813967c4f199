"""Converts items to OpenAI-style dictionaries and back, and checks the messages of a user.

This module is pure. An unknown key or value is an error that names its index and key, so that no
part of a restored conversation is dropped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from copy import deepcopy
from typing import Any, NoReturn

from talu.chat.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
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

__all__ = [
    "BYTES",
    "Message",
    "MessageList",
    "check_count",
    "items_from_messages",
    "messages_from_items",
    "user_items",
    "without_provider_data",
]

Message = str | InputText | MessageItem | Mapping[str, Any] | Sequence[Any]

BYTES = bytes | bytearray | memoryview
SHOWN = 80  # characters of a text in a repr
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
MEDIA_PARTS = ("audio", "file", "image", "image_url", "input_audio", "input_file", "input_image")


class MessageList(list[dict[str, Any]]):
    """Messages of a chat as dictionaries; read-only, because a change would not reach the chat."""

    def _read_only(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            "chat.messages is a read-only copy: use chat.append, insert, remove, pop or clear"
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _read_only
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _read_only

    def __repr__(self) -> str:
        lines = "".join(f"  {_line(message)},\n" for message in self)
        return f"MessageList([\n{lines}])" if lines else "MessageList([])"

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        """Copy and pickle as a plain list, which can be changed."""
        return list, (list(self),)


def _line(message: Mapping[str, Any]) -> str:
    """One line that describes a message: its role, and the start of its content and calls."""
    answers = f" {message['tool_call_id']}" if "tool_call_id" in message else ""
    line = f"{message['role']}{answers}: {_beginning(message['content'])}"
    if "reasoning_content" in message:
        line += f", reasoning: {_beginning(message['reasoning_content'])}"
    for call in message.get("tool_calls", ()):
        function = call["function"]
        line += f", call {call['id']}: {function['name']}({_beginning(function['arguments'])})"
    return line


def _beginning(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def messages_from_items(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The messages for backends and templates; tool calls join the preceding assistant message.

    A message has the joined text of its blocks of reasoning as ``reasoning_content``. If they came
    from a remote model, it also has ``provider_data``: the provider's name, and under
    ``"reasoning"`` a list of the blocks, each with its text and what the provider wants back. A
    tool call can have ``provider_data`` as well.
    """
    messages: list[dict[str, Any]] = []
    blocks: list[ReasoningItem] = []  # that precede the next message
    for item in items:
        match item:
            case ReasoningItem():
                blocks.append(item)
                continue
            case MessageItem():
                messages.append(dict(item.to_message_dict()))
            case FunctionCallItem():
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(_call_dict(item))
            case FunctionCallOutputItem():
                named = {} if item.name is None else {"name": item.name}
                output = {"content": item.output, "tool_call_id": item.call_id}
                messages.append({"role": "tool", **named, **output})
        if blocks and messages[-1]["role"] == "assistant":
            messages[-1] |= _reasoning(blocks)
        blocks = []
    return messages


def _reasoning(blocks: Sequence[ReasoningItem]) -> dict[str, Any]:
    """The keys of a message for these blocks, as far as they come from the provider of the last."""
    provider = blocks[-1].provider
    own = [block for block in blocks if block.provider == provider]
    keys: dict[str, Any] = {}
    if text := "".join(block.text for block in own):
        keys["reasoning_content"] = text
    if provider is not None:
        listed = [
            {"text": block.text, **deepcopy(dict(block.provider_data or {}))} for block in own
        ]
        for entry in listed:
            del entry["provider"]
        keys["provider_data"] = {"provider": provider, "reasoning": listed}
    return keys


def without_provider_data(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message without the data that only its provider can read, for people and logs."""
    calls = message.get("tool_calls")
    if "provider_data" not in message and not calls:
        return message
    shown = {key: value for key, value in message.items() if key != "provider_data"}
    if calls:
        shown["tool_calls"] = [without_provider_data(call) for call in calls]
    return shown


def _call_dict(item: FunctionCallItem) -> dict[str, Any]:
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    return (
        call
        if item.provider_data is None
        else call | {"provider_data": deepcopy(item.provider_data)}
    )


def user_items(message: Message) -> list[MessageItem]:
    """The user's messages, from text, content parts, dictionaries, messages or a list of them.

    Raises:
        ValidationError: it holds anything else, such as images or audio.
    """
    if isinstance(message, MessageItem):
        return [message]
    if not isinstance(message, Sequence) or isinstance(message, str | BYTES):
        return [MessageItem.create("user", [_input(message)])]
    check_count(message, "a message", "parts")
    items: list[MessageItem] = []
    parts: list[InputText] = []
    for entry in message:
        if isinstance(entry, MessageItem):
            items += _message_of(parts)
            items.append(entry)
            parts = []
        else:
            parts.append(_input(entry))
    items += _message_of(parts)
    return items or [MessageItem.create("user", "")]


def _message_of(parts: list[InputText]) -> list[MessageItem]:
    return [MessageItem.create("user", parts)] if parts else []


def _input(part: object) -> InputText:
    match part:
        case InputText():
            return part
        case str():
            check_unicode("the message", part)
            return InputText(str(part))
        case {"type": str(kind), "text": str(text), **rest} if kind in ("text", "input_text"):
            _check_no_more("message part", PART_KEYS, rest)
            check_unicode("a part of the message", text)
            return InputText(text)
        case {"type": str(kind)} if kind in MEDIA_PARTS:
            wrong = f"a part of type {shown(kind)}: this version of talu takes text only"
        case {"role": _}:
            wrong = (
                f"{shown(part)}: ask and stream take messages with roles in a list, and "
                "client.chat(messages=[…]) starts from them; send takes the text alone"
            )
        case list() | tuple():
            wrong = f"a list in a list, {shown(part)}: give one flat list"
        case bytes() | bytearray() | memoryview():
            wrong = f"{shown(part)}: decode bytes to text first"
        case _:
            wrong = f"{shown(part)}: use text, InputText, MessageItem or {{'type': 'text', …}}"
    raise ValidationError(f"a message cannot hold {wrong}", details={"param": "message"})


def items_from_messages(messages: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Restore items from OpenAI-style dictionaries.

    Raises:
        ValidationError: a dictionary is malformed; the message names its index and key.
    """
    if isinstance(messages, str | Mapping) or not is_iterable(messages):
        _refuse("messages", f"must be a list of dictionaries, got {shown(messages)}")
    check_count(messages)
    items: list[Item] = []
    calls: set[str] = set()  # ids of all calls so far
    for index, message in enumerate(messages):
        if index == MAX_MESSAGES:
            raise _too_many("a conversation", "messages", "more")
        where = f"messages[{index}]"
        if isinstance(message, MessageItem):
            items.append(message)
        elif isinstance(message, Mapping):
            new = _items_of(where, message, calls)
            calls.update(item.call_id for item in new if isinstance(item, FunctionCallItem))
            items += new
        else:
            _refuse(where, f"must be a dictionary, got {shown(message)}")
    return distinct(items)


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
    _check_no_more(where, KEYS[role], message, f"a message of role {role!r}")
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
    _check_no_more(at, {"provider", "reasoning"}, data, "the provider's data")
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


def _check_no_more(
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
                _check_no_more(f"{where}[{number}]", PART_KEYS, rest)
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
    _check_no_more(where, CALL_KEYS, call, "a tool call")
    _check_no_more(f"{where}['function']", {"name", "arguments"}, function, "a function call")
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
