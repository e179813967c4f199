"""OpenAI's chat completions: bodies become requests, and answers become bodies.

https://platform.openai.com/docs/api-reference/chat. What has no effect here is not accepted with
another value than the one that says so.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from talu.chat.answer import Answer
from talu.chat.builder import ReasoningPiece, Token, ToolCallPiece
from talu.chat.requests import chat_request
from talu.deadline import Deadline
from talu.server.asked import Asked
from talu.server.bodies import MAX_MESSAGES, Body, without_unset
from talu.server.encoders import END, Event, Head, about
from talu.server.failures import Failure, invalid, naming, openai_error
from talu.server.openai_fields import (
    MAX_CHOICES,
    AllText,
    FunctionName,
    FunctionTool,
    JsonObjectForm,
    JsonSchemaForm,
    Sampling,
    StreamOptions,
    repeated,
    token_entries,
    tools_of,
    usage_of,
)
from talu.types import Request

__all__ = ["ChatBody", "ChatEncoder", "asked"]

NAMES = {"stop_sequences": "stop", "extra_context": "chat_template_kwargs"}


class TextPart(Body):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """The function of a call, with its arguments as JSON text."""

    name: str
    arguments: str


class Call(Body):
    """A tool call of an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """A message; which fields belong to which role is checked as well."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChosenFunction(Body):
    """The function that has to be called."""

    type: Literal["function"]
    function: FunctionName


class ChatBody(Sampling):
    """The body of a chat completion.

    ``user``, ``safety_identifier`` and ``prompt_cache_key`` are accepted and have no effect.
    """

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    response_format: (
        Annotated[AllText | JsonObjectForm | JsonSchemaForm, Field(discriminator="type")] | None
    ) = None
    reasoning_effort: Literal["none"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def asked(body: ChatBody, deadline: Deadline | None, namespace: str | None) -> Asked:
    """What a body asks for.

    Args:
        body: the body.
        deadline: the time by which the request has to be answered.
        namespace: of the prefix cache.

    Raises:
        Failure: the body is not valid.
    """
    names = dict(NAMES)
    if body.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    with naming(names):
        requests = repeated(_request(body, deadline, namespace), body.n or 1)
    return Asked(body.model, requests, bool(body.stream), names)


def _request(body: ChatBody, deadline: Deadline | None, namespace: str | None) -> Request:
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options needs stream=true")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs", "top_logprobs needs logprobs=true")
    config = body.config(
        max_tokens=_max_tokens(body),
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs,
        response_format=_form(body),
        extra_context=body.chat_template_kwargs,
        cache_namespace=namespace,
    )
    if body.reasoning_effort is not None:
        config.allow_thinking = False
    choice = body.tool_choice
    use = tools_of(
        [tool.function for tool in body.tools or ()],
        choice.function.name if isinstance(choice, ChosenFunction) else choice,
        body.parallel_tool_calls,
    )
    messages = [without_unset(message) for message in body.messages]
    return chat_request(messages, config, tools=use, deadline=deadline)


def _max_tokens(body: ChatBody) -> int | None:
    new, old = body.max_completion_tokens, body.max_tokens
    if new is not None and old is not None and new != old:
        raise invalid(
            "max_tokens", "max_tokens contradicts max_completion_tokens: give one of them"
        )
    return old if new is None else new


def _form(body: ChatBody) -> dict[str, Any] | None:
    match body.response_format:
        case JsonSchemaForm() as form:
            return form.json_schema.schema_
        case JsonObjectForm():
            return {"type": "object"}
    return None


class ChatEncoder:
    """Encodes the answers to one request, whole or in pieces."""

    def __init__(self, body: ChatBody, head: Head) -> None:
        """Prepare it; the body says what an answer has."""
        options = body.stream_options
        self._counts = options is not None and bool(options.include_usage)
        self._logprobs = bool(body.logprobs)
        self._head = head
        self._choices = [_Choice() for _ in range(body.n or 1)]

    def whole(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        """The body of the whole answers."""
        choices = [self._whole_choice(index, answer) for index, answer in enumerate(answers)]
        return {
            **self._described("chat.completion"),
            "choices": choices,
            "usage": usage_of([answer.usage for answer in answers]),
        }

    def _whole_choice(self, index: int, answer: Answer[Any]) -> dict[str, Any]:
        calls = answer.tool_calls
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text or (None if calls else ""),
            "refusal": None,
        }
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["tool_calls"] = [call.to_dict() for call in calls]
        entries = token_entries(answer.logprobs or []) if self._logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": None if entries is None else {"content": entries, "refusal": None},
            "finish_reason": str(answer.finish_reason),
            "talu": about(answer),
        }

    def _described(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._head.id}",
            "object": kind,
            "created": self._head.created,
            "model": self._head.model,
        }

    def piece(self, index: int, piece: Token, answer: Answer[Any]) -> list[Event]:
        """The events of a piece of the answer with this index."""
        choice = self._choices[index]
        delta = choice.delta(piece)
        if not delta and piece.finish_reason is None:
            return []
        sent: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        if self._logprobs:
            entries = token_entries(choice.new_logprobs(answer))
            sent["logprobs"] = {"content": entries, "refusal": None}
        if piece.finish_reason is not None:
            sent |= {"finish_reason": str(piece.finish_reason), "talu": about(answer)}
        return [self._chunk([sent])]

    def end(self, answers: Sequence[Answer[Any]]) -> list[Event]:
        """The events after the last piece of the last answer."""
        usage = usage_of([answer.usage for answer in answers])
        return [*([self._chunk([], usage)] if self._counts else []), END]

    def _chunk(self, choices: list[Any], usage: dict[str, Any] | None = None) -> Event:
        chunk = {**self._described("chat.completion.chunk"), "choices": choices}
        return Event(chunk | ({"usage": usage} if self._counts else {}))

    def failed(self, failure: Failure) -> list[Event]:
        """The last event of a stream that breaks."""
        return [Event(openai_error(failure))]


class _Choice:
    """What has been sent of an answer."""

    def __init__(self) -> None:
        self._begun = False
        self._calls: dict[str, int] = {}  # the index of each call, by its id
        self._logprobs = 0

    def delta(self, piece: Token) -> dict[str, Any]:
        """What a piece adds to the message; empty if that is nothing."""
        delta: dict[str, Any] = {}
        match piece:
            case ReasoningPiece():
                delta["reasoning_content"] = piece.reasoning
            case ToolCallPiece():
                if call := self._call(piece):
                    delta["tool_calls"] = [call]
            case _ if piece:
                delta["content"] = str(piece)
            case _ if not self._begun:
                delta["content"] = ""
        if delta and not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        return delta

    def _call(self, piece: ToolCallPiece) -> dict[str, Any] | None:
        index = self._calls.get(piece.call_id)
        if index is not None:
            function = {"arguments": piece.arguments}
            return {"index": index, "function": function} if piece.arguments else None
        self._calls[piece.call_id] = index = len(self._calls)
        function = {"name": piece.name, "arguments": piece.arguments}
        return {"index": index, "id": piece.call_id, "type": "function", "function": function}

    def new_logprobs(self, answer: Answer[Any]) -> list[Any]:
        """The log-probabilities of the tokens that have come since the last piece."""
        known = answer.logprobs or []
        new, self._logprobs = known[self._logprobs :], len(known)
        return new
