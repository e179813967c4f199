"""Explains the form of an answer to the model, in the messages of its prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from talu.contents import joined
from talu.structured.formats import Kind, ResponseFormat
from talu.structured.places import Explained, filled, has_place, is_told
from talu.structured.typescript import typescript
from talu.types import Request

__all__ = ["explained"]

Message = Mapping[str, Any]


def explained(request: Request, *, unasked: bool) -> Explained:
    """The request with an explanation of its response format.

    It takes the place of ``{{ schema }}`` in all messages of the system and the user. Without one
    it is added to the end of the system message, or else before the user's last message.

    Args:
        request: with or without a response format, for chats or raw.
        unasked: explain it also if ``inject_schema_prompt`` is not set.

    Raises:
        StructuredOutputError: the schema of the response format is not valid.
    """
    config, messages = request.config, request.messages
    form: ResponseFormat | None = config.response_format
    wanted = config.given.get("inject_schema_prompt")
    if messages is None:
        return _unexplained(request, "a raw completion explains no form")
    if form is None:
        return _unexplained(request, "the answer was not asked to have a form")
    if not (unasked if wanted is None else wanted):
        return _unexplained(request, "inject_schema_prompt=True would explain the form there")
    form.check()
    strategy = config.schema_strategy
    strategy = "typescript" if strategy == "auto" else strategy
    text = _text(form.kind, form.source, strategy)
    if text is None:
        return _unexplained(request, "regular expressions and grammars are not explained")
    placed = replace(request, messages=_placed(messages, text))
    return Explained(placed, strategy if form.kind == "json" else form.kind)


def _unexplained(request: Request, reason: str) -> Explained:
    """The request as it is, with a note if it has a place for an explanation."""
    left = f"the model reads {{{{ schema }}}} in the prompt as it is: {reason}"
    return Explained(request, notes=(left,) if has_place(request) else ())


@lru_cache(maxsize=16)  # a source has at most 512 KB
def _text(kind: Kind, source: str, strategy: str) -> str | None:
    """The explanation of a valid form; None for one that says nothing to a model."""
    if kind == "choice":
        options = "\n".join(f"- {option}" for option in json.loads(source))
        return f"Answer with one of these texts, and nothing else:\n{options}"
    if kind != "json":
        return None
    schema = json.dumps(json.loads(source), ensure_ascii=False)
    match strategy:
        case "json_schema":
            what, shown = "that fits this JSON Schema", f"```json\n{schema}\n```"
        case "xml_schema":
            what, shown = "that fits this JSON Schema", f"<schema>\n{schema}\n</schema>"
        case _:
            what = "of this TypeScript type"
            shown = f"```typescript\n{typescript(json.loads(source))}\n```"
    return f"Answer with JSON {what}, and nothing else:\n{shown}"


def _placed(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The messages with the explanation at its places."""
    found = [filled(each, text) if is_told(each) else each for each in messages]
    if any(new is not old for new, old in zip(found, messages, strict=True)):
        return tuple(found)
    system = next((i for i, each in enumerate(found) if _is_system(each)), None)
    users = [i for i, each in enumerate(found) if each.get("role") == "user"]
    if system is None and not users:  # a tool result alone
        return ({"role": "user", "content": text}, *found)
    place = users[-1] if system is None else system
    message = found[place]
    parts = (message.get("content"), text)
    first, second = parts if system is not None else parts[::-1]
    found[place] = {**message, "content": joined(first, second)}
    return tuple(found)


def _is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")
