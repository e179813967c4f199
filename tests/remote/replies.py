"""The replies of OpenAI's and Anthropic's protocol, and of the servers that deviate from them."""

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.remote.server import Endless, Reply, Step

DONE = b"data: [DONE]\n\n"
JSON = (("content-type", "application/json"),)
EVENTS = (("content-type", "text/event-stream"),)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def json_reply(
    value: object, status: int = 200, headers: Sequence[tuple[str, str]] = (), **options: Any
) -> Reply:
    """A body of JSON."""
    return Reply((json.dumps(value).encode(),), status, (*JSON, *headers), **options)


def stream(*steps: Step, headers: Sequence[tuple[str, str]] = (), **options: Any) -> Reply:
    """Server-sent events; each step is one chunk."""
    return Reply(tuple(steps), headers=(*EVENTS, *headers), framing="chunked", **options)


def event(value: object, name: str | None = None) -> bytes:
    """A server-sent event with a value as JSON, or a text as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


def split(data: bytes, size: int = 1) -> list[bytes]:
    """The same bytes in pieces, also within a character."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def zipped(reply: Reply) -> Reply:
    """The same reply with a compressed body."""
    body = b"".join(step for step in reply.steps if isinstance(step, bytes))
    headers = (*reply.headers, ("content-encoding", "gzip"))
    return Reply((gzip.compress(body),), reply.status, headers, reply.before, reply.framing)


def bomb(size: int, around: tuple[bytes, bytes] = (b'{"x": "', b'"}')) -> bytes:
    """Few bytes that are ``size`` spaces between two texts once they are decompressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(around[0])]
    piece = b" " * (1 << 20)
    parts += [packer.compress(piece) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(around[1]), packer.flush()])


# OpenAI's protocol


def chunk(choices: Sequence[Mapping[str, Any]], **fields: Any) -> bytes:
    """An event of a chat with these choices."""
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event({**about, "choices": list(choices), **fields})


def delta(
    content: str | None = None, finish: str | None = None, index: int = 0, **fields: Any
) -> bytes:
    """An event of a chat with one delta; ``fields`` are further fields of the delta."""
    change = {**({} if content is None else {"content": content}), **fields}
    return chunk([{"index": index, "delta": change, "finish_reason": finish}])


def usage_chunk(usage: Mapping[str, Any] = USAGE, **fields: Any) -> bytes:
    """The last event of a chat, with the usage and without choices."""
    return chunk([], usage=dict(usage), **fields)


def chat(*pieces: str, finish: str = "stop", usage: Mapping[str, Any] | None = USAGE) -> Reply:
    """A streamed answer as OpenAI sends it."""
    return stream(*chat_events(*pieces, finish=finish, usage=usage))


def chat_events(
    *pieces: str, finish: str = "stop", usage: Mapping[str, Any] | None = USAGE
) -> list[bytes]:
    """The events of a streamed answer as OpenAI sends it."""
    events = [delta("", role="assistant"), *map(delta, pieces), delta(finish=finish)]
    return [*events, *([] if usage is None else [usage_chunk(usage)]), DONE]


def chat_body(text: str | None, finish: str = "stop", **fields: Any) -> Reply:
    """An answer that is not streamed; ``fields`` are further fields of the message."""
    message = {"role": "assistant", "content": text, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json_reply({**about, "choices": [choice], "usage": USAGE})


def tool_delta(index: int, arguments: str, **fields: Any) -> bytes:
    """An event with a part of a tool call; ``id`` and ``name`` only where they are given."""
    name = fields.pop("name", None)
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return delta(tool_calls=[{"index": index, "function": function, **fields}])


def token_logprob(token: str, logprob: float, *others: tuple[str, float]) -> dict[str, Any]:
    """A token's entry in the ``logprobs`` of a chat."""
    top = [
        {"token": text, "bytes": list(text.encode()), "logprob": value} for text, value in others
    ]
    entry = {"token": token, "bytes": list(token.encode()), "logprob": logprob}
    return {**entry, "top_logprobs": top}


def logprob_delta(*entries: Mapping[str, Any], finish: str | None = None) -> bytes:
    """An event of a chat with the text and the log-probabilities of these tokens."""
    text = "".join(entry["token"] for entry in entries)
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return chunk([{**choice, "logprobs": {"content": list(entries)}}])


def text_chunk(text: str, finish: str | None = None, **fields: Any) -> bytes:
    """An event of a raw completion; ``fields`` are further fields of the choice."""
    about = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, **fields}
    return event({**about, "choices": [choice]})


def completion(
    *pieces: str, finish: str = "stop", usage: Mapping[str, Any] | None = USAGE
) -> Reply:
    """A streamed raw completion."""
    last = [] if usage is None else [event({"choices": [], "usage": dict(usage)})]
    return stream(*map(text_chunk, pieces), text_chunk("", finish), *last, DONE)


def embeddings(*vectors: Sequence[float]) -> Reply:
    """The answer of ``/embeddings``."""
    data = [
        {"object": "embedding", "index": index, "embedding": list(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return json_reply({"object": "list", "data": data, "model": "m", "usage": usage})


def models(*ids: str) -> Reply:
    """The answer of ``/models``."""
    data = [{"id": each, "object": "model", "created": 1, "owned_by": "test"} for each in ids]
    return json_reply({"object": "list", "data": data})


def failure(
    status: int,
    message: str = "it failed",
    *,
    headers: Sequence[tuple[str, str]] = (),
    **fields: Any,
) -> Reply:
    """An error in OpenAI's form; ``fields`` are further fields of the error."""
    error = {"message": message, "type": "error", "param": None, "code": None, **fields}
    return json_reply({"error": error}, status, headers)


# Anthropic's protocol


def message_start(**usage: int) -> bytes:
    """The first event of a message."""
    about = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    counts = {"input_tokens": 7, "output_tokens": 1, **usage}
    message = {**about, "stop_reason": None, "stop_sequence": None, "usage": counts}
    return named({"type": "message_start", "message": message})


def named(value: Mapping[str, Any]) -> bytes:
    """An event whose name is its type."""
    return event(value, value["type"])


def block(index: int, start: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[bytes]:
    """All events of a content block."""
    first = {"type": "content_block_start", "index": index, "content_block": dict(start)}
    changes = [
        {"type": "content_block_delta", "index": index, "delta": dict(each)} for each in deltas
    ]
    return [*map(named, [first, *changes, {"type": "content_block_stop", "index": index}])]


def text_block(index: int, *pieces: str) -> list[bytes]:
    """All events of a block of text."""
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def thinking_block(index: int, signature: str, *pieces: str) -> list[bytes]:
    """All events of a block of thinking."""
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    last = {"type": "signature_delta", "signature": signature}
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas, last)


def message_end(stop: str = "end_turn", tokens: int = 3, **fields: Any) -> list[bytes]:
    """The last two events of a message."""
    change = {"stop_reason": stop, "stop_sequence": None, **fields}
    last = {"type": "message_delta", "delta": change, "usage": {"output_tokens": tokens}}
    return [named(last), named({"type": "message_stop"})]


def message(*pieces: str, stop: str = "end_turn") -> Reply:
    """A streamed message as Anthropic sends it."""
    ping = named({"type": "ping"})
    return stream(message_start(), ping, *text_block(0, *pieces), *message_end(stop))


def message_failure(
    status: int, kind: str, text: str, headers: Iterable[tuple[str, str]] = ()
) -> Reply:
    """An error in Anthropic's form."""
    error = {"type": kind, "message": text}
    body = {"type": "error", "error": error, "request_id": "req_1"}
    return json_reply(body, status, [("request-id", "req_1"), *headers])


# What no protocol allows

HTML = b"<!DOCTYPE html><html><head><title>It works!</title></head><body>It works!</body></html>"


def html(status: int = 200) -> Reply:
    """The page of another server: a wrong port, or a proxy."""
    return Reply((HTML,), status, (("content-type", "text/html; charset=utf-8"),))


def endless_line() -> Reply:
    """An event that never ends."""
    return stream(b"data: ", Endless(b"x" * 1000))


def huge_headers(size: int) -> Reply:
    """A header of that many characters."""
    return Reply((b"{}",), headers=(*JSON, ("x-padding", "x" * size)))


def not_http() -> Reply:
    """The greeting of a server that speaks no HTTP."""
    return Reply(head=b"SSH-2.0-OpenSSH_10.0\r\n", framing="close")


def redirect(target: str, status: int = 307) -> Reply:
    """A redirect to another place."""
    return Reply(status=status, headers=(("location", target),))


TOO_LONG = {  # status 400: the prompt does not fit, as each server says it
    "openai": {
        "error": {
            "message": "This model's maximum context length is 8192 tokens. However, your messages "
            "resulted in 9000 tokens. Please reduce the length of the messages.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    },
    "vllm": {
        "error": {
            "message": "This model's maximum context length is 8192 tokens. However, you requested "
            "9000 tokens (8800 in the messages, 200 in the completion). Please reduce the length "
            "of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
    },
    "vllm, no error key": {
        "object": "error",
        "message": "This model's maximum context length is 8192 tokens. However, your request has "
        "9000 input tokens. Please reduce the length of the input messages.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    "sglang": {
        "object": "error",
        "message": "The input (9000 tokens) is longer than the model's context length (8192 "
        "tokens).",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    "llamacpp": {
        "error": {
            "code": 400,
            "message": "request (9000 tokens) exceeds the available context size (8192 tokens), "
            "try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9000,
            "n_ctx": 8192,
        }
    },
    "ollama": {
        "error": {
            "message": "the input length exceeds the context length",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    },
    "mistral": {
        "object": "error",
        "message": "Prompt contains 9000 tokens, too large for model with 8192 maximum context "
        "length",
        "type": "invalid_request_error",
        "param": None,
        "code": "3051",
    },
    "xai": {
        "code": "Client specified an invalid argument",
        "error": "This model's maximum prompt length is 8192 but the request contains 9000 tokens.",
    },
    "anthropic": {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 9000 tokens > 8192 maximum",
        },
        "request_id": "req_1",
    },
}

ERRORS_IN_EVENTS = {  # after status 200, in an event, as each server says it
    "openai": event({"error": {"message": "the engine died", "type": "server_error", "code": 500}}),
    "openrouter": chunk(
        [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        error={"code": 502, "message": "the engine died", "metadata": {"provider_name": "p"}},
    ),
    "openrouter, no choices": chunk([], error={"code": 502, "message": "the engine died"}),
    "vllm": event(
        {
            "object": "error",
            "message": "the engine died",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }
    ),
    "llamacpp": event({"error": {"code": 500, "message": "the engine died", "type": "server"}}),
    "text": event({"error": "the engine died"}),
    "named event": event({"message": "the engine died"}, "error"),
}
