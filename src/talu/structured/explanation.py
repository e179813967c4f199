"""Explains the form of an answer to the model, in the messages of its prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from talu.contents import joined
from talu.structured.formats import ResponseFormat
from talu.structured.typescript import typescript
from talu.types import Request

__all__ = ["Explained", "explained"]

Message = Mapping[str, Any]
PLACES = ("{{ schema }}", "{{schema}}")


class Explained(NamedTuple):
    """A request whose messages explain the form of the answer.

    Attributes:
        request: it.
        strategy: how it is explained; None if it is not.
    """

    request: Request
    strategy: str | None


def explained(request: Request, *, unasked: bool) -> Explained:
    """The request with an explanation of its response format.

    It takes the place of ``{{ schema }}`` in the system message or in the user's last one. Without
    one it is added to the end of the system message, or else before the user's last one.

    Args:
        request: with or without a response format, for chats or raw.
        unasked: explain it also if ``inject_schema_prompt`` is not set.

    Raises:
        StructuredOutputError: the schema of the response format is not valid.
    """
    config, messages = request.config, request.messages
    form: ResponseFormat | None = config.response_format
    wanted = config.given.get("inject_schema_prompt")
    if form is None or messages is None or not (unasked if wanted is None else wanted):
        return Explained(request, None)
    form.check()
    strategy = config.schema_strategy
    strategy = "typescript" if strategy == "auto" else strategy
    text = _text(form, strategy)
    if text is None:
        return Explained(request, None)
    placed = replace(request, messages=_placed(messages, text))
    return Explained(placed, strategy if form.kind == "json" else form.kind)


def _text(form: ResponseFormat, strategy: str) -> str | None:
    """The explanation; None for a form that says nothing to a model."""
    if form.kind == "choice":
        options = "\n".join(f"- {option}" for option in form.options)
        return f"Answer with one of these texts, and nothing else:\n{options}"
    if form.schema is None:
        return None
    schema = json.dumps(form.schema, ensure_ascii=False)
    match strategy:
        case "json_schema":
            what, shown = "that fits this JSON Schema", f"```json\n{schema}\n```"
        case "xml_schema":
            what, shown = "that fits this JSON Schema", f"<schema>\n{schema}\n</schema>"
        case _:
            what = "of this TypeScript type"
            shown = f"```typescript\n{typescript(form.schema)}\n```"
    return f"Answer with JSON {what}, and nothing else:\n{shown}"


def _placed(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The messages with the explanation at its place."""
    found = list(messages)
    system = next((i for i, each in enumerate(found) if _is_system(each)), None)
    users = [i for i, each in enumerate(found) if each.get("role") == "user"]
    places = [i for i in (system, users[-1] if users else None) if i is not None]
    for place in places:
        filled = _filled(found[place].get("content"), text)
        if filled is not None:
            found[place] = {**found[place], "content": filled}
            return tuple(found)
    if not places:  # a tool result alone
        return ({"role": "user", "content": text}, *found)
    message = found[places[0]]
    parts = (message.get("content"), text)
    first, second = parts if system is not None else parts[::-1]
    found[places[0]] = {**message, "content": joined(first, second)}
    return tuple(found)


def _is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")


def _filled(content: Any, text: str) -> Any:
    """The content with the text in its place; None if it has no place for it."""
    if isinstance(content, str):
        for place in PLACES:
            if place in content:
                return content.replace(place, text, 1)
        return None
    for i, part in enumerate(content or ()):
        filled = _filled(part.get("text"), text) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and filled is not None:
            return [*content[:i], {**part, "text": filled}, *content[i + 1 :]]
    return None
