"""Turns what a tool of a server returned into one value for the model and the program."""

import json
from collections.abc import Iterable
from typing import Any

from talu.error_text import size_text
from talu.json_values import json_copy

__all__ = ["result_value", "text_of"]

MAX_RESULT = 1_000_000  # characters, as JSON
WRAPPED = "result"  # servers put a result that is no object into an object with this only key


def result_value(blocks: Iterable[Any], structured: Any) -> Any:
    """The value of a result.

    Servers send structured content again as text, for clients that read only text. The texts are
    left out if they say the same; otherwise the value has both.

    Args:
        blocks: the content, as objects of the SDK.
        structured: the structured content; None if there is none.

    Returns:
        The text if there is no structured content; the structured content if the texts repeat it
        or there are none; else ``{"text": ..., "structured_content": ...}``. A value that the
        server only wrapped into an object, because it is a text, a number or a list, comes without
        this object.

    Raises:
        ValidationError: it is no JSON, is nested too deeply, or is too large.
    """
    texts = list(map(_described, blocks))
    if structured is None:
        return json_copy("a result", "\n".join(texts), max_length=MAX_RESULT)
    structured = json_copy("a result", structured, max_length=MAX_RESULT)
    if not texts or _repeats(texts, structured):
        return structured
    if isinstance(structured, dict) and list(structured) == [WRAPPED]:
        inner = structured[WRAPPED]
        if _repeats(texts, inner):
            return inner
    both = {"text": "\n".join(texts), "structured_content": structured}
    return json_copy("a result", both, max_length=MAX_RESULT)


def text_of(blocks: Iterable[Any]) -> str:
    """The content as one text, which describes what is no text."""
    return "\n".join(map(_described, blocks))


def _repeats(texts: list[str], value: Any) -> bool:
    """Whether the texts say what a value says, as JSON or as they are."""
    if isinstance(value, list) and len(texts) == len(value) != 1:
        return all(map(_says, texts, value))
    return len(texts) == 1 and _says(texts[0], value)


def _says(text: str, value: Any) -> bool:
    if isinstance(value, str):
        return text == value
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return json.dumps(read, sort_keys=True) == json.dumps(value, sort_keys=True)


def _described(block: Any) -> str:
    """A block as text; one that is no text is described, so that the model knows of it."""
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return _unread(block.type, block.mime_type, block.data)
        case "resource" if hasattr(block.resource, "text"):
            return f"{block.resource.uri}:\n{block.resource.text}"
        case "resource":
            what = f"resource {block.resource.uri}"
            return _unread(what, block.resource.mime_type, block.resource.blob)
        case "resource_link":
            about = [block.title or block.name, block.description, block.mime_type]
            said = ", ".join(text for text in about if text)
            return f"[link to the resource {block.uri}: {said}]"
    return f"[content of the kind {block.type!r}, which cannot be read here]"


def _unread(what: str, kind: str | None, data: str) -> str:
    """The description of data in base64."""
    size = size_text(len(data) * 3 // 4)
    return f"[{what} of the type {kind}, {size}, which is not shown: results of tools are text]"
