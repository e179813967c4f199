"""Finds and fills the places in messages that are kept for the explanation of a form."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from talu.types import Request

__all__ = ["Explained", "filled", "has_place", "is_told", "may_be_explained"]

Message = Mapping[str, Any]
PLACE = re.compile(r"\{\{\s*schema\s*\}\}")
TOLD = ("system", "developer", "user")  # the roles whose messages may have it


class Explained(NamedTuple):
    """A request whose messages explain the form of the answer.

    Attributes:
        request: it.
        strategy: how it is explained; None if it is not.
        notes: why a place for the explanation is left as it is.
    """

    request: Request
    strategy: str | None = None
    notes: tuple[str, ...] = ()


def is_told(message: Message) -> bool:
    """Whether a message is one that tells the model what to do."""
    return message.get("role") in TOLD


def may_be_explained(request: Request) -> bool:
    """Whether a request has a form, or a place for the explanation of one."""
    return request.config.response_format is not None or has_place(request)


def has_place(request: Request) -> bool:
    """Whether the messages of a request, or its raw prompt, have a place for an explanation."""
    if request.messages is None:
        return _is_in(request.prompt)
    return any(is_told(message) and _is_in(message.get("content")) for message in request.messages)


def filled(message: Message, text: str) -> Message:
    """The message with the text in all of its places; itself if it has none."""
    content = message.get("content")
    return {**message, "content": _filled(content, text)} if _is_in(content) else message


def _is_in(content: Any) -> bool:
    if isinstance(content, str):
        return "schema" in content and PLACE.search(content) is not None
    return any(isinstance(part, Mapping) and _is_in(part.get("text")) for part in content or ())


def _filled(content: Any, text: str) -> Any:
    if isinstance(content, str):
        return PLACE.sub(lambda _: text, content)
    return [
        {**part, "text": _filled(part["text"], text)}
        if isinstance(part, Mapping) and _is_in(part.get("text"))
        else part
        for part in content
    ]
