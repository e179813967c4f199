"""Anthropic's messages protocol: encodes requests, and decodes the events of a streamed answer.

https://docs.anthropic.com/en/api/messages. This module is pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from talu.backends.remote.answers import (
    Decoded,
    Joined,
    Malformed,
    check_number_of_calls,
    count,
    json_text,
    kept,
    member,
    raw,
    string,
    whole,
)
from talu.backends.remote.call_ids import sent_ids
from talu.backends.remote.encoding import Body, Target, reasoning_notes, set_values, with_extras
from talu.backends.remote.providers import Provider
from talu.backends.remote.tool_checks import chosen
from talu.exceptions import EmptyPromptError, ValidationError
from talu.json_values import json_object
from talu.types import (
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Request,
    TextDelta,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)

__all__ = ["MessagesDecoder", "encode_messages"]

PAUSED = "the server paused its turn (pause_turn): send the conversation again to continue it"
NO_OBJECT = (
    "{} takes no arguments of a call that are not a JSON object: those of the history were sent as "
    "the text of one argument, 'arguments'"
)
SYSTEM = ("system", "developer")
CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def encode_messages(request: Request, target: Target) -> Body:
    """The body of a streamed request.

    ``max_tokens``, which the protocol requires, is that of the settings or its default.

    Raises:
        ValidationError: it is a raw completion, or has settings that cannot be sent.
        EmptyPromptError: its last message is empty.
    """
    if request.messages is None:
        wrong = f"{target.provider.name} has no raw completions: use ask or a chat"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "prompt"})
    values, notes = set_values(target, request, raw=False)
    notes += reasoning_notes(request, target)
    messages = list(request.messages)
    first = next((i for i, one in enumerate(messages) if one["role"] not in SYSTEM), len(messages))
    if any(message["role"] in SYSTEM for message in messages[first:]):
        notes += ("system messages amid the conversation were moved to its start",)
    if any("name" in message for message in messages if message["role"] != "tool"):
        notes += (f"{target.provider.name} has no names of authors: they were left out",)
    system = "\n\n".join(m["content"] for m in messages if m["role"] in SYSTEM and m["content"])
    ids = sent_ids(messages, target.provider.call_ids)
    turns = [
        _message(message, target, ids, is_error=number in request.failed_results)
        for number, message in enumerate(messages)
        if message["role"] not in SYSTEM
    ]
    if not turns or not turns[-1]["content"]:
        name = target.provider.name
        raise EmptyPromptError(f"{name} takes no empty message: give at least one character")
    if any(json_object(each) is None for message in messages for each in _arguments(message)):
        notes += (NO_OBJECT.format(target.provider.name),)
    if not all(turn["content"] for turn in turns):
        notes += (f"{target.provider.name} takes no empty message: it was left out",)
    body: dict[str, Any] = {
        "model": target.name,
        "max_tokens": request.config.max_tokens,
        "messages": _joined(turn for turn in turns if turn["content"]),
        "stream": True,
    }
    if system:
        body["system"] = system
    body |= _tool_fields(request, target.provider)
    body |= target.provider.body
    body |= values
    given = {*values, *({"system", "tools", "tool_choice"} & body.keys())}
    extra = request.config.given.get("extra_body")
    full = with_extras(body, target, extra_body=extra, given=given)
    is_default = "max_tokens" not in values and full.get("max_tokens") == body["max_tokens"]
    return Body("v1/messages", full, notes, body["max_tokens"] if is_default else None)


def _message(
    message: Mapping[str, Any], target: Target, ids: Mapping[str, str], *, is_error: bool
) -> dict[str, Any]:
    """A message with content blocks; without any for an empty one.

    Args:
        message: as backends get it.
        target: the model.
        ids: those of tool calls that are sent.
        is_error: it is the result of a call that failed.
    """
    role, text = message["role"], message.get("content") or ""
    blocks: list[dict[str, Any]] = []
    if role == "tool":
        answered = ids[message["tool_call_id"]]
        result = {"type": "tool_result", "tool_use_id": answered, "content": text}
        failed = {"is_error": True} if is_error else {}
        return {"role": "user", "content": [{**result, **failed}]}
    if role == "assistant":
        blocks += _thoughts(message.get("provider_data") or {}, target)
    if text:
        blocks.append({"type": "text", "text": text})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        use = {"name": function["name"], "input": _input(function["arguments"])}
        blocks.append({"type": "tool_use", "id": ids[call["id"]], **use})
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


def _arguments(message: Mapping[str, Any]) -> list[str]:
    """The texts of the arguments of its calls."""
    return [call["function"]["arguments"] for call in message.get("tool_calls") or ()]


def _input(arguments: str) -> dict[str, Any]:
    # The protocol wants an object; text that a model wrote wrongly is kept inside one.
    found = json_object(arguments)
    return {"arguments": arguments} if found is None else found


def _joined(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with neighbours of one role as one: all results of tools come together."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1]["content"] += message["content"]
        else:
            joined.append(message)
    return joined


def _tool_fields(request: Request, provider: Provider) -> dict[str, Any]:
    """The fields of a body that are about tools."""
    tools, kind, name = chosen(request, provider)
    if not tools:
        return {}
    choice: dict[str, Any] = {} if kind is None else {"type": CHOICES[kind]}
    if name is not None:
        choice["name"] = name
    if request.parallel_tool_calls is not None and kind != "none":
        single = request.parallel_tool_calls is False
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": single}
    sent: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    return {**sent, "tool_choice": choice} if choice else sent


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
        self._reason: object = None
        self._calls: list[ToolCallEvent] = []
        self._held: ToolCallEvent | None = None  # no arguments have come for it
        self._texts, self._thoughts = Joined(), Joined()

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """See ``Decoder.push``."""
        match data.get("type"):
            case "message_start":
                self._start(_object(data, "message"))
            case "content_block_start":
                return [
                    *self._release(),
                    *self._open(_index(data), _object(data, "content_block")),
                ]
            case "content_block_delta":
                return self._delta(_index(data), _object(data, "delta"))
            case "content_block_stop":
                return [*self._release(), *self._close(_index(data))]
            case "message_delta":
                self._end(_object(data, "delta"), data.get("usage"))
            case "message_stop":
                return self._stop()
            case "message":
                return self._whole(data)
            case None:
                if "choices" in data:
                    other = "an answer of OpenAI's protocol, not Anthropic's: "
                    raise Malformed(other + "use OpenAICompatibleBackend")
                raise Malformed("an event without a type")
        return []  # a ping, or an event of a later version

    def finish(self) -> list[Event]:
        """See ``Decoder.finish``."""
        if self.reason is FinishReason.TOOL_CALLS and not self._calls:
            raise Malformed("an answer that ends with tool calls and has none")
        for call in self._calls:
            self.check_call(call.name, call.arguments)
        return []

    def _start(self, message: Mapping[str, Any]) -> None:
        if isinstance(message.get("model"), str):
            self.model = string(message["model"], "model")
        self._count(member(message, "usage"))

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Update the counts, which are cumulative; a later event may leave some out."""
        cached = count(usage.get("cache_read_input_tokens"))
        prompt = count(usage.get("input_tokens"))
        if prompt is not None:
            prompt += (cached or 0) + (count(usage.get("cache_creation_input_tokens")) or 0)
        thinking = count(member(usage, "output_tokens_details").get("thinking_tokens"))
        self.take_usage(Usage(prompt, count(usage.get("output_tokens")), cached, thinking))

    def _open(self, index: int, block: Mapping[str, Any]) -> list[Event]:
        if index in self._blocks:
            raise Malformed("a block that begins before the one with its number has ended")
        opened: dict[str, Any] = {"type": block.get("type"), "signature": "", "arguments": ""}
        self._blocks[index] = opened
        match block.get("type"):
            case "text":
                return self._text(block.get("text"))
            case "thinking":
                opened["signature"] = string(block.get("signature"), "a signature")
                return self._thought(block.get("thinking"))
            case "redacted_thinking":
                opened["redacted"] = string(block.get("data"), "redacted thinking")
            case "tool_use":
                check_number_of_calls(len(self._calls) + len(self._blocks))
                opened["id"] = string(block.get("id"), "the id of a tool call")
                opened["name"] = string(block.get("name"), "the name of a tool call")
                opened["id"] = opened["id"] or f"call_{index}"
                opened["joined"] = Joined()
                opened["input"] = json_text(block.get("input") or {}, "the input of a tool call")
            case kind:
                self.note(f"the answer has a part of type {str(kind)!r}, which is left out")
        return []

    def _delta(self, index: int, delta: Mapping[str, Any]) -> list[Event]:
        block = self._blocks.get(index)
        if block is None:
            raise Malformed("a piece of a block that has not been opened")
        match delta.get("type"):
            case "text_delta":
                return self._text(delta.get("text"))
            case "thinking_delta":
                return self._thought(delta.get("thinking"))
            case "signature_delta":
                block["signature"] += string(delta.get("signature"), "a signature")
            case "input_json_delta":
                return self._arguments(block, raw(delta.get("partial_json"), "partial_json"))
            case kind:
                self.note(f"the answer has pieces of type {str(kind)!r}, which are left out")
        return []

    def _close(self, index: int) -> list[Event]:
        block = self._blocks.pop(index, None)
        if block is None:
            raise Malformed("the end of a block that has not been opened")
        match block["type"]:
            case "text":
                rest = self._texts.rest()
                return [TextDelta(rest)] if rest else []
            case "thinking":
                rest = self._thoughts.rest()
                data = {"provider": self._provider, "signature": block["signature"]}
                thought = [ReasoningDelta(rest, provider=self._provider)] if rest else []
                return [*thought, ReasoningEnd(kept(data))]
            case "redacted_thinking":
                data = {"provider": self._provider, "redacted": block["redacted"]}
                return [ReasoningEnd(kept(data))]
            case "tool_use":
                if not block["name"]:
                    raise Malformed("a tool call without a name")
                pieces = self._arguments(block, block["joined"].rest())
                arguments = block["arguments"] or whole(block["input"])
                call = ToolCallEvent(block["id"], block["name"], arguments)
                if block["arguments"] or arguments != "{}":
                    self._calls.append(call)
                    return [*pieces, call]
                self._held = call
        return []

    def _release(self) -> list[Event]:
        """The call that was held: what follows it shows whether the answer was cut within it."""
        call, self._held = self._held, None
        if call is None:
            return []
        self._calls.append(replace(call, arguments="") if self.was_cut else call)
        return [self._calls[-1]]

    def _arguments(self, block: dict[str, Any], text: str) -> list[Event]:
        """The next piece of the arguments of a call."""
        if "joined" not in block:
            raise Malformed("arguments outside of a tool call")
        piece = block["joined"].add(text)
        block["arguments"] += piece
        return [ToolCallDelta(block["id"], block["name"], piece)] if piece else []

    def _text(self, text: object) -> list[Event]:
        found = self._texts.add(raw(text, "text"))
        return [TextDelta(found)] if found else []

    def _thought(self, text: object) -> list[Event]:
        found = self._thoughts.add(raw(text, "thinking"))
        return [ReasoningDelta(found, provider=self._provider)] if found else []

    def _end(self, delta: Mapping[str, Any], usage: object) -> None:
        if isinstance(usage, Mapping):
            self._count(usage)
        if delta.get("stop_reason") is not None:
            self._reason = delta["stop_reason"]
        if isinstance(stop := delta.get("stop_sequence"), str):
            self.stop_sequence = string(stop, "a stop sequence")

    def _stop(self) -> list[Event]:
        """Take the reason, and close the blocks whose end the server did not send."""
        events: list[Event] = []
        for index in sorted(self._blocks):
            events += [*self._release(), *self._close(index)]
        if self._reason == "pause_turn":
            self.note(PAUSED)
            self.reason = FinishReason.STOP
        else:
            self.finished(self._reason)
        return [*events, *self._release()]

    def _whole(self, message: Mapping[str, Any]) -> list[Event]:
        """The events of an answer that was not streamed."""
        self._start(message)
        events: list[Event] = []
        blocks = message.get("content")
        if not isinstance(blocks, list):
            raise Malformed("a message without content")
        for index, block in enumerate(blocks):
            if not isinstance(block, Mapping):
                raise Malformed("a block that is not an object")
            events += [*self._release(), *self._open(index, block), *self._close(index)]
        self._end(message, None)
        return [*events, *self._stop()]


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    if not isinstance(found, Mapping):
        raise Malformed(f"an event without {name}")
    return found


def _index(data: Mapping[str, Any]) -> int:
    index = data.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise Malformed("a block without a number")
    return index
