"""Writes conversations for people to read: as plain lines, or as Markdown."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from talu.cli.terminal import visible

__all__ = ["as_markdown", "as_text", "fenced", "local_time"]

Messages = Iterable[Mapping[str, Any]]


def local_time(milliseconds: int) -> str:
    """A stored time, as the clock of the user shows it."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"


def as_text(messages: Messages) -> str:
    """Each message with its role before it; a line for each call."""
    return "".join(f"{line}\n" for message in messages for line in _lines(message))


def as_markdown(messages: Messages, *, title: str | None, about: Iterable[str]) -> str:
    """A document with a heading for each message.

    Args:
        messages: of the conversation.
        title: its heading; None for a general one.
        about: what stands below that heading, such as time and model.
    """
    heading = " ".join(visible(title or "").split()) or "Chat"
    parts = [f"# {heading}", " · ".join(visible(each) for each in about)]
    for message in messages:
        parts += _sections(message)
    return "\n\n".join(part for part in parts if part) + "\n"


def fenced(text: str, language: str = "") -> str:
    """A block of code, with a fence that is longer than any in the text."""
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    calls = message.get("tool_calls", ())
    if message["content"] or not calls:
        yield f"{message['role']}: {visible(_content(message))}"
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield f"{message['role']}: calls {visible(f'{name}({arguments})')}"


def _sections(message: Mapping[str, Any]) -> Iterator[str]:
    content = visible(_content(message))
    name = f" `{visible(message['name'])}`" if "name" in message else ""
    yield f"## {message['role'].capitalize()}{name}"
    if reasoning := message.get("reasoning_content"):
        yield "\n".join(f"> {line}".rstrip() for line in visible(reasoning).splitlines())
    if message["role"] == "tool":
        yield fenced(content)
    elif content:
        yield content
    for call in message.get("tool_calls", ()):
        function = call["function"]
        yield f"Calls `{visible(function['name'])}`:"
        yield fenced(visible(function["arguments"]), "json")


def _content(message: Mapping[str, Any]) -> str:
    """The content as text; that of images and files as JSON."""
    content = message["content"]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
