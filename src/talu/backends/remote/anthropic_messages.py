"""Anthropic's messages protocol: encodes requests, and decodes the events of a streamed answer.

https://docs.anthropic.com/en/api/messages. This module is pure.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from talu.backends.remote.answers import Decoded, Malformed, number, part_of, text_of
from talu.backends.remote.encoding import Body, Target, extras, set_values
from talu.exceptions import ValidationError
from talu.types import (
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Request,
    TextDelta,
    ToolCallEvent,
    Usage,
)

__all__ = ["MessagesDecoder", "encode_messages"]

REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
PAUSED = "the server paused its turn (pause_turn): send the conversation again to continue it"
SYSTEM = ("system", "developer")


def encode_messages(request: Request, target: Target) -> Body:
    """The body of a streamed request.

    ``max_tokens``, which the protocol requires, is that of the settings or its default.

    Raises:
        ValidationError: it is a raw completion, or has settings that cannot be sent.
    """
    if request.messages is None:
        wrong = f"{target.provider.name} has no raw completions: use ask or a chat"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "prompt"})
    values, notes = set_values(target, request, raw=False)
    messages = list(request.messages)
    first = next((i for i, one in enumerate(messages) if one["role"] not in SYSTEM), len(messages))
    if any(message["role"] in SYSTEM for message in messages[first:]):
        notes += ("system messages amid the conversation were moved to its start",)
    if any("name" in message for message in messages if message["role"] != "tool"):
        notes += (f"{target.provider.name} has no names of authors: they were left out",)
    system = "\n\n".join(m["content"] for m in messages if m["role"] in SYSTEM and m["content"])
    body: dict[str, Any] = {
        "model": target.name,
        "max_tokens": request.config.max_tokens,
        "messages": _joined(m for m in (_message(m, target) for m in messages) if m["content"]),
        "stream": True,
    }
    if system:
        body["system"] = system
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    body |= target.provider.body
    body |= values
    body |= extras(target, request)
    return Body("v1/messages", body, notes)


def _message(message: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """A message with content blocks; without any for one of the system."""
    role, text = message["role"], message.get("content") or ""
    blocks: list[dict[str, Any]] = []
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text}
        return {"role": "user", "content": [result]}
    if role == "assistant":
        blocks += _thoughts(message.get("provider_data") or {}, target)
    if text and role not in SYSTEM:
        blocks.append({"type": "text", "text": text})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        use = {"id": call["id"], "name": function["name"], "input": _input(function["arguments"])}
        blocks.append({"type": "tool_use", **use})
    return {"role": role, "content": blocks}


def _thoughts(data: Mapping[str, Any], target: Target) -> list[dict[str, Any]]:
    """The provider's own blocks of reasoning, as it sent them."""
    if data.get("provider") != target.provider.name:
        return []
    blocks: list[dict[str, Any]] = []
    for block in data.get("reasoning", ()):
        if "redacted" in block:
            blocks.append({"type": "redacted_thinking", "data": block["redacted"]})
        elif block.get("signature"):
            thought = {"thinking": block.get("text", ""), "signature": block["signature"]}
            blocks.append({"type": "thinking", **thought})
    return blocks


def _input(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        found = None
    # The protocol wants an object; text that a model wrote wrongly is kept inside one.
    return found if isinstance(found, dict) else {"arguments": arguments}


def _joined(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with neighbours of one role as one: all results of tools come together."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1]["content"] += message["content"]
        else:
            joined.append(message)
    return joined


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool)
    sent = {"name": function["name"], "input_schema": function.get("parameters", {})}
    if "description" in function:
        sent["description"] = function["description"]
    return sent


class MessagesDecoder(Decoded):
    """Decodes the events of one streamed answer, or a whole one."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._provider = target.provider.name
        self._blocks: dict[int, dict[str, Any]] = {}
        self._reason: str | None = None

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """The events of one event of the server.

        Raises:
            Malformed: it is not one of the protocol.
        """
        match data.get("type"):
            case "message_start":
                self._start(_object(data, "message"))
            case "content_block_start":
                return self._open(_index(data), _object(data, "content_block"))
            case "content_block_delta":
                return self._delta(_index(data), _object(data, "delta"))
            case "content_block_stop":
                return self._close(_index(data))
            case "message_delta":
                self._end(_object(data, "delta"), data.get("usage"))
            case "message_stop":
                self._stop()
            case "message":
                return self._whole(data)
            case None:
                raise Malformed("an event without a type")
        return []  # a ping, or an event of a later version

    def _start(self, message: Mapping[str, Any]) -> None:
        if isinstance(message.get("model"), str):
            self.model = message["model"]
        self._count(message.get("usage"))

    def _count(self, usage: object) -> None:
        """Update the counts, which are cumulative; a later event may leave some out."""
        if not isinstance(usage, Mapping):
            return
        cached = number(usage.get("cache_read_input_tokens"))
        prompt = number(usage.get("input_tokens"))
        if prompt is not None:
            prompt += (cached or 0) + (number(usage.get("cache_creation_input_tokens")) or 0)
        before, completion = self.usage, number(usage.get("output_tokens"))
        thinking = part_of(usage.get("output_tokens_details"), "thinking_tokens")
        self.usage = Usage(
            before.prompt_tokens if prompt is None else prompt,
            before.completion_tokens if completion is None else completion,
            before.cached_tokens if cached is None else cached,
            before.reasoning_tokens if thinking is None else thinking,
        )

    def _open(self, index: int, block: Mapping[str, Any]) -> list[Event]:
        self._blocks[index] = {"type": block.get("type"), "signature": "", "arguments": ""}
        opened = self._blocks[index]
        match block.get("type"):
            case "text":
                return _text(block.get("text"))
            case "thinking":
                opened["signature"] = text_of(block.get("signature"))
                return self._thought(block.get("thinking"))
            case "redacted_thinking":
                opened["redacted"] = text_of(block.get("data"))
            case "tool_use":
                opened |= {"id": text_of(block.get("id")), "name": text_of(block.get("name"))}
                opened["input"] = block.get("input")
            case kind:
                self.note(f"the answer has a part of type {str(kind)[:50]!r}, which is left out")
        return []

    def _delta(self, index: int, delta: Mapping[str, Any]) -> list[Event]:
        block = self._blocks.get(index)
        if block is None:
            raise Malformed("a piece of a block that has not been opened")
        match delta.get("type"):
            case "text_delta":
                return _text(delta.get("text"))
            case "thinking_delta":
                return self._thought(delta.get("thinking"))
            case "signature_delta":
                block["signature"] += text_of(delta.get("signature"))
            case "input_json_delta":
                block["arguments"] += text_of(delta.get("partial_json"))
            case "citations_delta":
                self.note("the answer has citations, which are left out")
        return []

    def _close(self, index: int) -> list[Event]:
        block = self._blocks.pop(index, None)
        match block and block["type"]:
            case "thinking" if block:
                data = {"provider": self._provider, "signature": block["signature"]}
                return [ReasoningEnd(data)]
            case "redacted_thinking" if block:
                return [ReasoningEnd({"provider": self._provider, "redacted": block["redacted"]})]
            case "tool_use" if block:
                given = json.dumps(block.get("input") or {}, ensure_ascii=False)
                return [ToolCallEvent(block["id"], block["name"], block["arguments"] or given)]
        return []

    def _thought(self, text: object) -> list[Event]:
        found = text_of(text)
        return [ReasoningDelta(found, provider=self._provider)] if found else []

    def _end(self, delta: Mapping[str, Any], usage: object) -> None:
        self._count(usage)
        if isinstance(reason := delta.get("stop_reason"), str):
            self._reason = reason
        if isinstance(stop := delta.get("stop_sequence"), str):
            self.stop_sequence = stop

    def _stop(self) -> None:
        if self._reason is None:
            return
        self.reason = REASONS.get(self._reason)
        if self._reason == "pause_turn":
            self.note(PAUSED)
        elif self.reason is None:
            self.note(f"the server named the stop reason {self._reason[:100]!r}")
        self.reason = self.reason or FinishReason.STOP

    def _whole(self, message: Mapping[str, Any]) -> list[Event]:
        """The events of an answer that was not streamed."""
        self._start(message)
        events: list[Event] = []
        blocks = message.get("content")
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if not isinstance(block, Mapping):
                raise Malformed("a block that is not an object")
            events += self._open(index, block)
            events += self._close(index)
        self._end(message, None)
        self._stop()
        return events


def _text(text: object) -> list[Event]:
    found = text_of(text)
    return [TextDelta(found)] if found else []


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    if not isinstance(found, Mapping):
        raise Malformed(f"an event without {name}")
    return found


def _index(data: Mapping[str, Any]) -> int:
    index = data.get("index")
    if not isinstance(index, int):
        raise Malformed("a block without a number")
    return index
