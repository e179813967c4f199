"""OpenAI's chat protocol: encodes requests, and decodes the chunks of a streamed answer.

https://platform.openai.com/docs/api-reference/chat. This module is pure. It reads the deviations of
the common servers as well: https://docs.vllm.ai, https://github.com/ggml-org/llama.cpp,
https://docs.ollama.com, https://openrouter.ai/docs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from talu.backends.remote.answers import Decoded, Malformed, number, part_of, text_of
from talu.backends.remote.encoding import Body, Target, extras, set_values
from talu.types import (
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Request,
    TextDelta,
    TokenLogprob,
    ToolCallEvent,
    Usage,
)

__all__ = ["REASONS", "ChatDecoder", "encode_chat", "logprobs_of", "usage_of"]

REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
NAMED_PATH = "chat/completions"
MAX_CALLS = 1_000


def encode_chat(request: Request, target: Target) -> Body:
    """The body of a streamed chat request.

    Raises:
        ValidationError: the request has settings or extra fields that cannot be sent.
    """
    provider = target.provider
    values, notes = set_values(target, request, raw=False)
    if "top_logprobs" in values and request.config.given.get("logprobs") is not False:
        values["logprobs"] = True
    body: dict[str, Any] = {
        "model": target.name,
        "messages": [_message(message, target) for message in request.messages or ()],
        "stream": True,
    }
    if provider.counts_streams:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
    body |= provider.body
    body |= values
    body |= extras(target, request)
    return Body(NAMED_PATH, body, notes)


def _message(message: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """A message in the provider's form; reasoning goes back only to the provider it is from."""
    own = {"provider_data", "reasoning_content", "tool_calls"}
    sent = {key: value for key, value in message.items() if key not in own}
    length = target.provider.call_id_length
    if "tool_call_id" in sent:
        sent["tool_call_id"] = _call_id(sent["tool_call_id"], length)
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [_call(call, target) for call in calls]
    data = message.get("provider_data") or {}
    back = target.provider.reasoning_back
    if back and data.get("provider") == target.provider.name:
        if back == "reasoning_content" and (calls or not target.provider.reasoning_with_calls):
            sent[back] = message.get("reasoning_content", "")
        details = [part for block in data.get("reasoning", ()) for part in block.get("details", ())]
        if back == "reasoning_details" and details:
            sent[back] = details
    return sent


def _call(call: Mapping[str, Any], target: Target) -> dict[str, Any]:
    sent = {key: value for key, value in call.items() if key not in ("provider_data", "index")}
    sent["id"] = _call_id(sent["id"], target.provider.call_id_length)
    data = call.get("provider_data") or {}
    if target.provider.keeps_call_data and data.get("provider") == target.provider.name:
        sent["extra_content"] = data.get("extra_content")
    return sent


def _call_id(call_id: str, length: int | None) -> str:
    """The id, or letters and digits derived from it when the provider wants a fixed length."""
    if length is None or (len(call_id) == length and call_id.isalnum()):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:length]


class ChatDecoder(Decoded):
    """Decodes the chunks of one streamed chat answer, or a whole one."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._provider = target.provider
        self._calls: dict[int, dict[str, Any]] = {}
        self._details: list[Any] = []
        self._reasons = False  # reasoning has come, and not ended

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """The events of one chunk.

        Raises:
            Malformed: it is not a chunk.
        """
        self._note_usage(data)
        choices = data.get("choices")
        if choices is None and "choices" not in data and self.usage != Usage():
            return []
        if not isinstance(choices, list):
            raise Malformed("an answer without choices")
        events: list[Event] = []
        for choice in choices:
            if not isinstance(choice, Mapping):
                raise Malformed("a choice that is not an object")
            if choice.get("index", 0) in (0, None):
                events += self._choice(choice)
        return events

    def _note_usage(self, data: Mapping[str, Any]) -> None:
        grok = data.get("x_groq")
        for found in (data.get("usage"), grok.get("usage") if isinstance(grok, Mapping) else None):
            if isinstance(found, Mapping):
                self.usage = usage_of(found)
        if isinstance(data.get("model"), str):
            self.model = data["model"]

    def _choice(self, choice: Mapping[str, Any]) -> list[Event]:
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, Mapping):
            raise Malformed("a delta that is not an object")
        logprobs, tokens = logprobs_of(choice), _token_ids(choice)
        events = self._reasoning(delta)
        if (text := self._text(delta, events)) or ((logprobs or tokens) and not events):
            events += self._end_of_reasoning() if text else []
            events.append(TextDelta(text, tokens, logprobs))
        elif (logprobs or tokens) and isinstance(events[-1], ReasoningDelta):
            events[-1] = replace(events[-1], tokens=tokens, logprobs=logprobs)
        self._tool_calls(delta)
        stop = choice.get("stop_reason")
        if isinstance(stop, str) and choice.get("finish_reason") == "stop":
            self.stop_sequence = stop
        if (reason := choice.get("finish_reason")) is not None:
            events += self._end_of_reasoning()
            events += self._finish(reason)
        return events

    def _reasoning(self, delta: Mapping[str, Any]) -> list[Event]:
        details = delta.get("reasoning_details")
        if isinstance(details, list):
            self._details += details
        thought = text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning"))
        if isinstance(delta.get("content"), list):
            thought += "".join(_thinking(part) for part in delta["content"])
        self._reasons = self._reasons or bool(thought)
        return [ReasoningDelta(thought, provider=self._provider.name)] if thought else []

    def _text(self, delta: Mapping[str, Any], events: list[Event]) -> str:
        content = delta.get("content")
        text = text_of(content)
        if refusal := text_of(delta.get("refusal")):
            self.note("the model refused: its answer is the refusal")
            text += refusal
        return text

    def _end_of_reasoning(self) -> list[Event]:
        if not self._reasons and not self._details:
            return []
        data: dict[str, Any] = {"provider": self._provider.name}
        if self._details:
            data["details"] = self._details
        self._details, self._reasons = [], False
        return [ReasoningEnd(data)]

    def _tool_calls(self, delta: Mapping[str, Any]) -> None:
        for place, part in enumerate(delta.get("tool_calls") or ()):
            if not isinstance(part, Mapping):
                raise Malformed("a tool call that is not an object")
            index = part.get("index")
            if not isinstance(index, int):  # some servers send whole calls without a number
                index = len(self._calls) if part.get("id") else place
            if len(self._calls) >= MAX_CALLS and index not in self._calls:
                raise Malformed(f"more than {MAX_CALLS:,} tool calls")
            call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
            function = part.get("function") or {}
            call["id"] = part.get("id") or call["id"]
            call["name"] += text_of(function.get("name"))
            call["arguments"] += text_of(function.get("arguments"))
            if part.get("extra_content") is not None:
                call["extra_content"] = part["extra_content"]

    def _finish(self, reason: object) -> list[Event]:
        self.reason = REASONS.get(str(reason))
        if self.reason is None:
            self.reason = FinishReason.STOP
            self.note(f"the server named the finish reason {str(reason)[:100]!r}")
        events: list[Event] = []
        for number_, call in sorted(self._calls.items()):
            data = None
            if "extra_content" in call:
                name = self._provider.name
                data = {"provider": name, "extra_content": call["extra_content"]}
            call_id = call["id"] or f"call_{number_}"
            events.append(ToolCallEvent(call_id, call["name"], call["arguments"] or "{}", data))
        if events and self.reason is FinishReason.STOP:
            self.reason = FinishReason.TOOL_CALLS
        self._calls = {}
        return events


def _thinking(part: object) -> str:
    """The text of a typed chunk of reasoning, as Mistral's models send it."""
    if isinstance(part, Mapping) and part.get("type") == "thinking":
        inner = part.get("thinking")
        if isinstance(inner, list):
            return "".join(text_of(entry.get("text")) for entry in inner if isinstance(entry, dict))
        return text_of(inner)
    return ""


def usage_of(found: Mapping[str, Any]) -> Usage:
    """The token counts of an answer; None for those that it does not have."""
    cached = part_of(found.get("prompt_tokens_details"), "cached_tokens")
    if cached is None:
        cached = number(found.get("prompt_cache_hit_tokens"))
    return Usage(
        number(found.get("prompt_tokens")),
        number(found.get("completion_tokens")),
        cached,
        part_of(found.get("completion_tokens_details"), "reasoning_tokens"),
    )


def logprobs_of(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice; the id of a token is -1 when it is unknown."""
    found = choice.get("logprobs")
    entries = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(entries, list):
        return ()
    return tuple(_logprob(entry) for entry in entries if isinstance(entry, Mapping))


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    top = entry.get("top_logprobs")
    others = [
        (_id(other), text_of(other.get("token")), float(other.get("logprob", 0)))
        for other in (top if isinstance(top, list) else ())
        if isinstance(other, Mapping)
    ]
    token, logprob = text_of(entry.get("token")), float(entry.get("logprob", 0))
    return TokenLogprob(_id(entry), token, logprob, others or None)


def _id(entry: Mapping[str, Any]) -> int:
    """The id of a token, which some servers send; -1 when it is unknown."""
    token = entry.get("id")
    return token if isinstance(token, int) else -1


def _token_ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    ids = choice.get("token_ids")
    return tuple(ids) if isinstance(ids, list) and all(isinstance(i, int) for i in ids) else ()
