"""Converts messages to the format of OpenTelemetry's GenAI conventions: a role and typed parts.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from talu.chat.answer import Answer
from talu.chat.observers import Generation
from talu.types import FinishReason

__all__ = ["input_messages", "output_messages"]

Part = dict[str, object]


def input_messages(generation: Generation) -> list[dict[str, Any]]:
    """The messages sent to the model; a raw prompt becomes a user message."""
    if generation.messages is None:
        return [{"role": "user", "parts": [_text(generation.input_text)]}]
    return [{"role": m["role"], "parts": _parts(m)} for m in generation.messages]


def output_messages(response: Answer[Any]) -> list[dict[str, Any]]:
    """A list with the message of an answer, as far as it was generated."""
    parts: list[Part] = []
    if response.reasoning is not None:
        parts.append({"type": "reasoning", "content": response.reasoning})
    text = "".join(part.text for part in response.content)
    calls = response.tool_calls or []
    if text or not calls:
        parts.append(_text(text))
    parts += [_call(call.to_dict()) for call in calls]
    reason = response.finish_reason
    called = reason is FinishReason.TOOL_CALLS
    finish = "tool_call" if called else str(reason)
    return [{"role": "assistant", "parts": parts, "finish_reason": finish}]


def _parts(message: Mapping[str, Any]) -> list[Part]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        result: Part = {"type": "tool_call_response", "response": content}
        return [result | {"id": message.get("tool_call_id")}]
    parts: list[Part] = []
    if message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": message["reasoning_content"]})
    if content:
        parts.append(_text(content))
    return parts + [_call(call) for call in message.get("tool_calls", ())]


def _text(text: str) -> Part:
    return {"type": "text", "content": text}


def _call(call: Mapping[str, Any]) -> Part:
    """A call in OpenAI's format; arguments that are not valid JSON stay text."""
    function = call["function"]
    arguments = function["arguments"]
    with suppress(ValueError, RecursionError):
        arguments = json.loads(arguments)
    return {"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments}
