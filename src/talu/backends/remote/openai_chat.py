"""OpenAI's chat protocol: encodes requests, and decodes the chunks of a streamed answer.

https://platform.openai.com/docs/api-reference/chat. This module is pure. It reads the deviations of
the common servers as well: https://docs.vllm.ai, https://github.com/ggml-org/llama.cpp,
https://docs.ollama.com, https://openrouter.ai/docs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from talu.backends.remote.answers import (
    TEXT_PARTS,
    Decoded,
    Joined,
    Malformed,
    check_number_of_calls,
    count,
    json_text,
    kept,
    member,
    real,
    string,
    text_of,
)
from talu.backends.remote.call_ids import sent_ids
from talu.backends.remote.encoding import (
    Body,
    Target,
    reasoning_notes,
    set_values,
    wanted_logprobs,
    with_extras,
)
from talu.backends.remote.providers import TOOLS, Provider
from talu.backends.remote.tool_checks import chosen, strict_of
from talu.types import (
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Request,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)

__all__ = ["ChatDecoder", "encode_chat", "logprobs_of", "ours", "usage_of"]

PARTS = (*TEXT_PARTS, "thinking")
NAMED_PATH = "chat/completions"
MESSAGES = {"message_start", "message", "content_block_start", "content_block_delta", "ping"}
READ = {  # fields of a delta that are read, or say nothing about the answer
    "content",
    "function_call",
    "name",
    "object",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "role",
    "token_ids",
    "tool_calls",
    "type",
}


def encode_chat(request: Request, target: Target) -> Body:
    """The body of a streamed chat request.

    Raises:
        ValidationError: the request has settings or extra fields that cannot be sent.
    """
    provider = target.provider
    messages = request.messages or ()
    ids = sent_ids(messages, provider.call_ids)
    values, notes = set_values(target, request, raw=False)
    notes += reasoning_notes(request, target)
    wanted = wanted_logprobs(values)
    if wanted is not None:
        values["logprobs"] = True
    if values.pop("top_logprobs", None) is not None and wanted is not None:
        values["top_logprobs"] = max(1, wanted)  # llama.cpp reads 0 as no log-probabilities
    body: dict[str, Any] = {
        "model": target.name,
        "messages": [_message(message, target, ids) for message in messages],
        "stream": True,
    }
    if provider.counts_streams:
        body["stream_options"] = {"include_usage": True}
    body |= tool_fields(request, provider)
    body |= provider.body
    body |= values
    given = {*values, *(set(TOOLS) & body.keys())}
    extra = request.config.given.get("extra_body")
    return Body(NAMED_PATH, with_extras(body, target, extra_body=extra, given=given), notes)


def tool_fields(request: Request, provider: Provider) -> dict[str, Any]:
    """The fields of a body that are about tools."""
    tools, choice, name = chosen(request, provider)
    fields: dict[str, Any] = {}
    if tools:
        fields["tools"] = [_tool(tool, provider) for tool in tools]
    if name is not None:
        fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif choice is not None:
        fields["tool_choice"] = choice
    several = request.parallel_tool_calls
    if several is not None and "parallel_tool_calls" in provider.settings(raw=False):
        fields["parallel_tool_calls"] = several
    return fields


def _tool(tool: Mapping[str, Any], provider: Provider) -> dict[str, Any]:
    """A definition in the provider's form."""
    function = {k: each for k, each in tool.get("function", tool).items() if k != "strict"}
    if strict_of(tool, provider):
        function["strict"] = True
    return {**tool, "function": function} if "function" in tool else function


def _message(message: Mapping[str, Any], target: Target, ids: Mapping[str, str]) -> dict[str, Any]:
    """A message in the provider's form; reasoning goes back only to the provider it is from."""
    own = {"provider_data", "reasoning_content", "tool_calls"}
    sent = {key: value for key, value in message.items() if key not in own}
    if "tool_call_id" in sent:
        sent["tool_call_id"] = ids[sent["tool_call_id"]]
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [_call(call, target, ids) for call in calls]
    data = message.get("provider_data") or {}
    back = target.provider.reasoning_back
    if back and data.get("provider") == target.provider.name:
        if back == "reasoning_content" and (calls or not target.provider.reasoning_with_calls):
            sent[back] = message.get("reasoning_content", "")
        details = [part for block in data.get("reasoning", ()) for part in block.get("details", ())]
        if back == "reasoning_details" and details:
            sent[back] = details
    return sent


def _call(call: Mapping[str, Any], target: Target, ids: Mapping[str, str]) -> dict[str, Any]:
    sent = {key: value for key, value in call.items() if key not in ("provider_data", "index")}
    sent["id"] = ids[sent["id"]]
    data = call.get("provider_data") or {}
    if target.provider.keeps_call_data and data.get("provider") == target.provider.name:
        sent["extra_content"] = data.get("extra_content")
    return sent


class Call:
    """A tool call whose parts arrive one after the other."""

    def __init__(self, call_id: str, number: int) -> None:
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []  # the pieces, as they were given on
        self.extra: object = None
        self._number = number
        self._joined = Joined()
        self._waiting = ""  # for the name

    def add(self, part: Mapping[str, Any]) -> None:
        """Add what a delta has of it."""
        function = member(part, "function")
        self.id = self.id or string(part.get("id"), "the id of a tool call")
        name = string(function.get("name"), "the name of a tool call")
        if name != self.name:  # some servers repeat it in every delta
            self.name += name
        piece = json_text(function.get("arguments"), "the arguments of a tool call")
        self._waiting += self._joined.add(piece)
        if part.get("extra_content") is not None:
            self.extra = part["extra_content"]

    def pieces(self) -> list[ToolCallDelta]:
        """What has come of the arguments, once the name is known."""
        piece, self._waiting = self._waiting, ""
        if not piece or not self.name:
            self._waiting = piece
            return []
        self.id = self.id or f"call_{self._number}"  # it stays the same from here on
        self.arguments.append(piece)
        return [ToolCallDelta(self.id, self.name, piece)]

    def event(self, provider: str, *, cut: bool) -> list[Event]:
        """The rest of the arguments, and the call.

        Args:
            provider: from whom additional data of the call is.
            cut: the answer was cut within this call: it has no arguments if none have come.

        Raises:
            Malformed: it has no name.
        """
        if not self.name:
            raise Malformed("a tool call without a name")
        data = None
        if self.extra is not None:
            data = kept({"provider": provider, "extra_content": self.extra})
        self._waiting += self._joined.rest()
        rest = self.pieces()
        self.id = self.id or f"call_{self._number}"
        arguments = "".join(self.arguments) or ("" if cut else "{}")
        return [*rest, ToolCallEvent(self.id, self.name, arguments, data)]


class ChatDecoder(Decoded):
    """Decodes the chunks of one streamed chat answer, or a whole one."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._provider = target.provider
        self._calls: list[Call] = []
        self._open: dict[int, Call] = {}  # by the server's number of the call
        self._details: list[Any] = []
        self._reasons = False  # reasoning has come, and not ended
        self._texts, self._thoughts = Joined(), Joined()

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """See ``Decoder.push``."""
        self._note_usage(data)
        choices = data.get("choices")
        if choices is None and "choices" not in data and self.usage != Usage():
            return []
        if not isinstance(choices, list):
            if data.get("type") in MESSAGES:
                other = "an answer of Anthropic's protocol, not OpenAI's: use AnthropicBackend"
                raise Malformed(other)
            raise Malformed("an answer without choices")
        events: list[Event] = []
        for choice in ours(choices, self):
            events += self._choice(choice)
        return events

    def _note_usage(self, data: Mapping[str, Any]) -> None:
        for found in (data.get("usage"), member(data, "x_groq").get("usage")):
            if isinstance(found, Mapping):
                self.take_usage(usage_of(found))
        if isinstance(data.get("model"), str):
            self.model = string(data["model"], "model")

    def _choice(self, choice: Mapping[str, Any]) -> list[Event]:
        delta = member(choice, "delta") or member(choice, "message")
        if not delta and choice.get("text"):
            raise Malformed("a part of a raw completion in place of one of a chat")
        self._note_others(delta)
        logprobs, tokens = logprobs_of(choice), _token_ids(choice)
        events = self._reasoning(delta)
        text = self._text(delta)
        if text or ((logprobs or tokens) and not events):
            events += self._end_of_reasoning() if text else []
            events.append(TextDelta(text, tokens, logprobs))
        elif (logprobs or tokens) and isinstance(events[-1], ReasoningDelta):
            events[-1] = replace(events[-1], tokens=tokens, logprobs=logprobs)
        events += self._tool_calls(delta)
        stop, reason = choice.get("stop_reason"), choice.get("finish_reason")
        if isinstance(stop, str) and reason == "stop":
            self.stop_sequence = string(stop, "a stop sequence")
        self.finished(reason)
        return events

    def _note_others(self, delta: Mapping[str, Any]) -> None:
        """Note the fields that have something and are not read."""
        for name in delta.keys() - READ:
            if isinstance(delta[name], str | list | Mapping) and delta[name]:
                self.note(f"the answer has the field {name!r}, which is left out")

    def _reasoning(self, delta: Mapping[str, Any]) -> list[Event]:
        details = delta.get("reasoning_details")
        if isinstance(details, list):
            self._details += details
        thought = text_of(delta.get("reasoning_content"), "reasoning_content")
        other = text_of(delta.get("reasoning"), "reasoning")
        if thought and other and thought != other:
            self.note("the answer has two texts of reasoning: the field 'reasoning' is left out")
        thought = thought or other
        if isinstance(delta.get("content"), list):
            thought += "".join(_thinking(part) for part in delta["content"])
        thought = self._thoughts.add(thought)
        self._reasons = self._reasons or bool(thought)
        return [ReasoningDelta(thought, provider=self._provider.name)] if thought else []

    def _text(self, delta: Mapping[str, Any]) -> str:
        content = delta.get("content")
        text = text_of(content)
        for part in content if isinstance(content, list) else ():
            kind = part.get("type")
            if kind not in PARTS:
                self.note(f"the answer has a part of type {str(kind)!r}, which is left out")
        if refusal := text_of(delta.get("refusal"), "refusal"):
            self.note("the model refused: its answer is the refusal")
            text += refusal
        return self._texts.add(text)

    def _end_of_reasoning(self) -> list[Event]:
        if not self._reasons and not self._details:
            return []
        data: dict[str, Any] = {"provider": self._provider.name}
        if self._details:
            data["details"] = self._details
        self._details, self._reasons = [], False
        return [ReasoningEnd(kept(data))]

    def _tool_calls(self, delta: Mapping[str, Any]) -> list[Event]:
        parts = delta.get("tool_calls")
        if parts is not None and not isinstance(parts, list):
            raise Malformed("tool_calls that are not a list")
        events: list[Event] = []
        for place, part in enumerate(parts or ()):
            if not isinstance(part, Mapping):
                raise Malformed("a tool call that is not an object")
            events += self._added(self._call_of(part, place), part)
        if legacy := member(delta, "function_call"):
            events += self._added(self._call_of({"index": 0}, 0), {"function": legacy})
        return events

    def _added(self, call: Call, part: Mapping[str, Any]) -> list[Event]:
        call.add(part)
        pieces = call.pieces()
        return [*self._end_of_reasoning(), *pieces] if pieces else []

    def _call_of(self, part: Mapping[str, Any], place: int) -> Call:
        """The call that a part belongs to; a new id, or a new number, begins another call."""
        index, call_id = part.get("index"), string(part.get("id"), "the id of a tool call")
        if not isinstance(index, int) or isinstance(index, bool):
            index = len(self._calls) if call_id else place  # some servers send whole calls
        known = self._open.get(index)
        if known is None or (call_id and known.id and call_id != known.id):
            check_number_of_calls(len(self._calls))
            known = self._open[index] = Call(call_id, len(self._calls))
            self._calls.append(known)
        return known

    def finish(self) -> list[Event]:
        """See ``Decoder.finish``."""
        events: list[Event] = []
        if thought := self._thoughts.rest():
            events.append(ReasoningDelta(thought, provider=self._provider.name))
        events += self._end_of_reasoning()
        if text := self._texts.rest():
            events.append(TextDelta(text))
        calls = [
            event
            for call in self._calls
            for event in call.event(
                self._provider.name, cut=self.was_cut and call is self._calls[-1]
            )
        ]
        if self.reason is FinishReason.TOOL_CALLS and not calls:
            raise Malformed("an answer that ends with tool calls and has none")
        if calls and self.reason is FinishReason.STOP:
            self.reason = FinishReason.TOOL_CALLS
        self._calls = []
        for event in calls:
            if isinstance(event, ToolCallEvent):
                self.check_call(event.name, event.arguments)
        return [*events, *calls]


def ours(choices: list[Any], decoded: Decoded) -> Iterator[Mapping[str, Any]]:
    """The choices of the first answer; the others are noted. A choice's place is its default index.

    Raises:
        Malformed: they are not choices.
    """
    for place, choice in enumerate(choices):
        if not isinstance(choice, Mapping):
            raise Malformed("a choice that is not an object")
        index = choice.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise Malformed("a choice whose index is not a number")
        if index or (index is None and place):
            decoded.note("the server gave several answers: only the first one was read")
        else:
            yield choice


def _thinking(part: object) -> str:
    """The text of a typed chunk of reasoning, as Mistral's models send it."""
    if isinstance(part, Mapping) and part.get("type") == "thinking":
        return text_of(part.get("thinking"), "thinking")
    return ""


def usage_of(found: Mapping[str, Any]) -> Usage:
    """The token counts of an answer; None for those that it does not have."""
    cached = count(member(found, "prompt_tokens_details").get("cached_tokens"))
    if cached is None:
        cached = count(found.get("prompt_cache_hit_tokens"))
    return Usage(
        count(found.get("prompt_tokens")),
        count(found.get("completion_tokens")),
        cached,
        count(member(found, "completion_tokens_details").get("reasoning_tokens")),
    )


def logprobs_of(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice; the id of a token is -1 when it is unknown."""
    entries = member(choice, "logprobs").get("content")
    return tuple(_logprob(entry) for entry in _objects(entries, "logprobs"))


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    others = [
        (_id(other), string(other.get("token"), "a token"), real(other.get("logprob"), "logprob"))
        for other in _objects(entry.get("top_logprobs"), "top_logprobs")
    ]
    token, logprob = string(entry.get("token"), "a token"), real(entry.get("logprob"), "logprob")
    return TokenLogprob(_id(entry), token, logprob, others or None)


def _objects(entries: object, what: str) -> list[Mapping[str, Any]]:
    """A list of objects, empty for null."""
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise Malformed(f"{what} that are not a list of objects")
    return entries


def _id(entry: Mapping[str, Any]) -> int:
    """The id of a token, which some servers send; -1 when it is unknown."""
    token = count(entry.get("id"))
    return -1 if token is None else token


def _token_ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    ids = choice.get("token_ids")
    known = [count(each) for each in ids] if isinstance(ids, list) else []
    return tuple(each for each in known if each is not None)
