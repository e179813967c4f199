"""Converts items to OpenAI-style dictionaries. This module is pure."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn

from talu.chat.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    ItemStatus,
    MessageItem,
    ReasoningItem,
)

__all__ = [
    "MessageList",
    "messages_from_items",
    "without_provider_data",
    "without_unfinished_calls",
]

SHOWN = 80  # characters of a text in a repr


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


def without_unfinished_calls(items: Iterable[Item]) -> tuple[list[Item], tuple[str, ...]]:
    """The items to send, without the tool calls that nobody will answer, and a note on these.

    A call of an incomplete answer was not carried out unless its result follows. Servers refuse a
    conversation in which a call has no result.
    """
    kept: list[Item] = []
    results: set[str] = set()  # whose calls are still to come; some servers repeat their ids
    left_out = 0
    for item in reversed(list(items)):
        if isinstance(item, FunctionCallOutputItem):
            results.add(item.call_id)
        elif isinstance(item, FunctionCallItem):
            if item.status is ItemStatus.INCOMPLETE and item.call_id not in results:
                left_out += 1
                continue
            results.discard(item.call_id)
        kept.append(item)
    kept.reverse()
    if not left_out:
        return kept, ()
    what = "a tool call was" if left_out == 1 else f"{left_out} tool calls were"
    return kept, (f"{what} not sent to the model: the answer was incomplete, and no result came",)


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
