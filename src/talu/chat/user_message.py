"""Converts what a user may send, from a text to a list of parts, to messages of the user."""

from collections.abc import Mapping, Sequence
from typing import Any

from talu.chat.items import InputText, MessageItem
from talu.chat.parsing import PART_KEYS, check_count, check_no_more
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.unicode import check_unicode

__all__ = ["BYTES", "Message", "user_items"]

Message = str | InputText | MessageItem | Mapping[str, Any] | Sequence[Any]

BYTES = bytes | bytearray | memoryview
MEDIA_PARTS = ("audio", "file", "image", "image_url", "input_audio", "input_file", "input_image")


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
            check_no_more("message part", PART_KEYS, rest)
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
