"""Answers of servers with OpenAI's protocol, with a row for each way in which they deviate."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, chunk, delta, tool_delta, usage_chunk
from tests.remote.server import Cut, Endless, Gate, Reply, Server, Step

from talu import CompletionOptions
from talu.backends.remote import generation

HELLO = "Grüße, 世界 👋"


@dataclass(frozen=True)
class Answer:
    """What a client should see."""

    text: str = "ab"
    finish_reason: str = "stop"
    usage: tuple[int | None, int | None, int | None] = (7, 3, None)
    reasoning: str | None = None
    calls: tuple[tuple[str, str, str], ...] = ()


def steps(*pieces: Step, finish: str = "stop", usage: bool = True) -> Reply:
    """A stream of these pieces with an end as it should be."""
    last = [usage_chunk()] if usage else []
    return replies.stream(*pieces, delta(finish=finish), *last, DONE)


def typed(*parts: dict[str, Any]) -> bytes:
    """A delta whose content is a list."""
    return chunk([{"index": 0, "delta": {"content": list(parts)}, "finish_reason": None}])


def ending_with(usage: dict[str, Any]) -> Reply:
    """An answer with this usage."""
    return replies.stream(delta("ab"), delta(finish="stop"), usage_chunk(usage), DONE)


LINES = b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "b"}}]}\n\n'
WHOLE = b"".join(replies.chat_events("a", "b"))
GREETING = b"".join(replies.chat_events(HELLO))
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3}

CHATS: dict[str, tuple[Reply, Answer]] = {
    "as OpenAI": (replies.chat("a", "b"), Answer()),
    "without [DONE]": (replies.stream(*replies.chat_events("a", "b")[:-1]), Answer()),
    "without usage": (replies.chat("a", "b", usage=None), Answer(usage=(None, None, None))),
    "all events in one packet": (replies.stream(WHOLE), Answer()),
    "each byte in its own packet": (
        replies.stream(*replies.split(GREETING)),
        Answer(text=HELLO),
    ),
    "lines that end with CRLF": (
        replies.stream(WHOLE.replace(b"\n", b"\r\n")),
        Answer(),
    ),
    "CRLF in two packets": (
        replies.stream(*replies.split(WHOLE.replace(b"\n", b"\r\n"))),
        Answer(),
    ),
    "a byte order mark": (replies.stream("\ufeff".encode(), WHOLE), Answer()),
    "comments between the events": (
        steps(b": OPENROUTER PROCESSING\n\n", delta("a"), b":\n\n", b": ping\n\n", delta("b")),
        Answer(),
    ),
    "an event over several lines": (
        steps(delta("a"), LINES),
        Answer(),
    ),
    "no space after data": (replies.stream(WHOLE.replace(b"data: ", b"data:")), Answer()),
    "fields of events": (
        replies.stream(WHOLE.replace(b"data: ", b"id: 1\nretry: 10\nevent: message\ndata: ")),
        Answer(),
    ),
    "usage in every chunk": (
        steps(*[chunk([{"index": 0, "delta": {"content": c}}], usage=COUNTS) for c in "ab"]),
        Answer(),
    ),
    "usage in the last choice": (
        replies.stream(
            delta("ab"),
            chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=COUNTS),
            DONE,
        ),
        Answer(),
    ),
    "usage in x_groq": (
        replies.stream(
            delta("ab"),
            chunk(
                [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                x_groq={"id": "req_1", "usage": COUNTS},
            ),
            DONE,
        ),
        Answer(),
    ),
    "usage of null": (
        replies.stream(
            chunk([{"index": 0, "delta": {"content": "ab"}}], usage=None),
            delta(finish="stop"),
            usage_chunk(),
            DONE,
        ),
        Answer(),
    ),
    "cached tokens": (
        ending_with({**COUNTS, "prompt_tokens_details": {"cached_tokens": 5}}),
        Answer(usage=(7, 3, 5)),
    ),
    "counts that are not numbers": (
        ending_with({"prompt_tokens": "7", "completion_tokens": -1}),
        Answer(usage=(None, None, None)),
    ),
    "content of null": (
        steps(
            chunk([{"index": 0, "delta": {"role": "assistant", "content": None}}]),
            delta("ab"),
        ),
        Answer(),
    ),
    "a delta of null": (
        steps(delta("ab"), chunk([{"index": 0, "delta": None, "finish_reason": None}])),
        Answer(),
    ),
    "a role in every delta": (steps(*[delta(c, role="assistant") for c in "ab"]), Answer()),
    "nulls everywhere": (
        steps(delta("ab", role=None, tool_calls=None, function_call=None, reasoning=None)),
        Answer(),
    ),
    "text beside the finish reason": (
        replies.stream(delta("a"), delta("b", finish="stop"), usage_chunk(), DONE),
        Answer(),
    ),
    "chunks without choices before the text": (
        steps(chunk([], prompt_filter_results=[]), delta("ab")),
        Answer(),
    ),
    "a second choice": (
        steps(delta("a"), delta("x", index=1), delta("b"), delta("y", "stop", index=1)),
        Answer(),
    ),
    "an answer that is not streamed": (replies.chat_body("ab"), Answer()),
    "length": (replies.chat("ab", finish="length"), Answer(finish_reason="length")),
    "content filter": (
        replies.chat("ab", finish="content_filter"),
        Answer(finish_reason="content_filter"),
    ),
    "an empty answer": (replies.chat(), Answer(text="")),
    "reasoning": (
        steps(delta(reasoning="h"), delta(reasoning="m"), delta("ab")),
        Answer(reasoning="hm"),
    ),
    "reasoning_content": (
        steps(delta(reasoning_content="hm", content=None), delta("ab")),
        Answer(reasoning="hm"),
    ),
    "both reasoning fields": (
        steps(delta(reasoning="hm", reasoning_content="hm"), delta("ab")),
        Answer(reasoning="hm"),
    ),
    "reasoning in typed parts": (
        steps(typed(THINKING), typed({"type": "text", "text": "a"}), delta("b")),
        Answer(reasoning="hm"),
    ),
    "a tool call in one delta": (
        steps(tool_delta(0, '{"a": 1}', id="c1", type="function", name="f"), finish="tool_calls"),
        Answer(text="", finish_reason="tool_calls", calls=(("c1", "f", '{"a": 1}'),)),
    ),
    "tool calls in pieces, interleaved": (
        steps(
            tool_delta(0, "", id="c1", type="function", name="f"),
            tool_delta(1, '{"', id="c2", type="function", name="g"),
            *[tool_delta(0, c) for c in '{"a": "é"}'],
            tool_delta(1, 'b": 2}'),
            finish="tool_calls",
        ),
        Answer(
            text="",
            finish_reason="tool_calls",
            calls=(("c1", "f", '{"a": "é"}'), ("c2", "g", '{"b": 2}')),
        ),
    ),
    "tool calls without numbers": (
        steps(
            *[
                delta(tool_calls=[{"id": c, "function": {"name": c, "arguments": "{}"}}])
                for c in "xy"
            ],
            finish="tool_calls",
        ),
        Answer(text="", finish_reason="tool_calls", calls=(("x", "x", "{}"), ("y", "y", "{}"))),
    ),
    "tool calls with the finish reason stop": (
        steps(tool_delta(0, "{}", id="c1", name="f")),
        Answer(text="", finish_reason="tool_calls", calls=(("c1", "f", "{}"),)),
    ),
}


def seen(answer: Any) -> Answer:
    """What a client saw."""
    usage = answer.usage
    return Answer(
        answer.text,
        str(answer.finish_reason),
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
        answer.reasoning,
        tuple((call.id, call.name, call.arguments) for call in answer.tool_calls or ()),
    )


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_is_read_however_the_server_sends_it(remote: Any, serve: Any, name: str) -> None:
    reply, expected = CHATS[name]
    answer = remote.run(remote.client(serve(reply)).chat().send("hi"))
    assert seen(answer) == expected


STARTED = replies.chat_events("a", "b")
AFTER_THE_END: dict[str, tuple[list[Any], Any, bool]] = {  # what follows, usage, notes
    "[DONE] and silence": ([*STARTED, Gate()], (7, 3, None), ()),
    "[DONE] and noise": ([*STARTED, Endless(b": ping\n\n")], (7, 3, None), ()),
    "[DONE] and a cut": ([*STARTED, Cut()], (7, 3, None), ()),
    "usage and silence": ([*STARTED[:-1], Gate()], (7, 3, None), (generation.UNFINISHED,)),
    "usage and a cut": ([*STARTED[:-1], Cut()], (7, 3, None), (generation.CUT,)),
    "silence": ([*STARTED[:-2], Gate()], (None, None, None), (generation.UNFINISHED,)),
    "a cut": ([*STARTED[:-2], Cut()], (None, None, None), (generation.CUT,)),
    "the end of the connection": ([*STARTED[:-2]], (None, None, None), ()),
}


@pytest.mark.parametrize("name", AFTER_THE_END)
def test_what_follows_the_end_of_an_answer_does_not_break_it(
    remote: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sent, usage, notes = AFTER_THE_END[name]
    monkeypatch.setattr(generation, "LAST_S", 0.2)
    answer = remote.run(remote.client(serve(replies.stream(*sent))).ask("hi"))
    assert seen(answer) == Answer(usage=usage)
    assert answer.notes == notes


def test_pieces_come_as_they_are_sent(remote: Any, serve: Any) -> None:
    stream = remote.stream(remote.client(serve(replies.chat("a", "b", "c"))))
    assert [str(piece) for piece in remote.read(stream)] == ["a", "b", "c", ""]


def test_a_request_has_what_was_asked_and_no_more(remote: Any, serve: Any) -> None:
    server = serve(*[replies.chat("a")] * 2)
    chat = remote.client(server).chat("Be brief.")
    remote.run(chat.send("hi"))
    remote.run(
        chat.send(
            "more",
            max_tokens=9,
            temperature=0.5,
            top_p=0.9,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            stop_sequences=["x"],
            seed=3,
            logprobs=True,
            top_logprobs=2,
            logit_bias={5: -1.0},
            extra_body={"reasoning_effort": "low"},
        )
    )
    first, second = (request.json for request in server.requests)
    system = {"role": "system", "content": "Be brief."}
    history = [system, {"role": "user", "content": "hi"}]
    common = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert first == {**common, "messages": history}
    assert second == {
        **common,
        "messages": [
            *history,
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "more"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "stop": ["x"],
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": -1.0},
        "reasoning_effort": "low",
    }


def test_an_unknown_finish_reason_is_a_note(remote: Any, serve: Any) -> None:
    answer = remote.run(remote.client(serve(replies.chat("a", finish="moon"))).ask("hi"))
    assert (answer.finish_reason, len(answer.notes)) == ("stop", 1)
    assert "moon" in answer.notes[0]


def test_another_model_than_the_asked_one_is_a_note(remote: Any, serve: Any) -> None:
    other = replies.stream(
        chunk([{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}], model="z"), DONE
    )
    answer = remote.run(remote.client(serve(other)).ask("hi"))
    assert any("'z'" in note for note in answer.notes)


def test_logprobs_of_chats_are_read(remote: Any, serve: Any) -> None:
    tokens = [
        replies.token_logprob("a", -0.5, ("a", -0.5), ("é", -1.5)),
        replies.token_logprob("b", -0.25, ("b", -0.25)),
    ]
    server = serve(
        replies.stream(
            *map(replies.logprob_delta, tokens), delta(finish="stop"), usage_chunk(), DONE
        )
    )
    answer = remote.run(remote.client(server).ask("hi", logprobs=True, top_logprobs=2))
    assert [(one.token_str, one.logprob) for one in answer.logprobs] == [("a", -0.5), ("b", -0.25)]
    assert [top[1:] for top in answer.logprobs[0].top_logprobs] == [("a", -0.5), ("é", -1.5)]


COMPLETIONS: dict[str, tuple[Reply, list[tuple[str, float]]]] = {
    "as OpenAI": (
        replies.stream(
            replies.text_chunk(
                "ab",
                logprobs={
                    "tokens": ["a", "b"],
                    "token_logprobs": [-0.5, -0.25],
                    "top_logprobs": [{"a": -0.5}, {"b": -0.25}],
                    "text_offset": [0, 1],
                },
            ),
            replies.text_chunk("", "stop"),
            DONE,
        ),
        [("a", -0.5), ("b", -0.25)],
    ),
    "as llama.cpp": (
        replies.stream(
            *[
                replies.text_chunk(c, logprobs={"content": [replies.token_logprob(c, v, (c, v))]})
                for c, v in (("a", -0.5), ("b", -0.25))
            ],
            replies.text_chunk("", "stop"),
            DONE,
        ),
        [("a", -0.5), ("b", -0.25)],
    ),
    "none": (replies.completion("a", "b"), []),
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_logprobs_of_raw_completions_are_read_in_both_shapes(
    remote: Any, serve: Any, name: str
) -> None:
    reply, expected = COMPLETIONS[name]
    server = serve(reply)
    answer = remote.run(remote.client(server).raw_complete("x", logprobs=True, top_logprobs=1))
    found = [(one.token_str, one.logprob) for one in answer.logprobs or ()]
    assert (answer.text, found) == ("ab", expected)
    assert (server.request.target, server.request.json["logprobs"]) == ("/v1/completions", 1)


def test_a_raw_completion_sends_its_prompt_as_it_is(remote: Any, serve: Any) -> None:
    server = serve(replies.completion("cd"))
    answer = remote.run(
        remote.client(server).raw_complete(
            "ab", completion_opts=CompletionOptions(echo_prompt=True)
        )
    )
    assert (answer.text, str(answer.finish_reason)) == ("abcd", "stop")
    assert server.request.json["prompt"] == "ab"
    assert seen(answer).usage == (7, 3, None)


def test_a_raw_completion_sends_token_ids(remote: Any, serve: Any) -> None:
    server = serve(replies.completion("cd"))
    options = CompletionOptions(token_ids=[1, 2], continue_from_token_id=3)
    remote.run(remote.client(server).raw_complete("", completion_opts=options))
    assert server.request.json["prompt"] == [1, 2, 3]


def test_embeddings_come_in_the_order_of_the_texts(remote: Any, serve: Any) -> None:
    body = json.loads(replies.embeddings([3, 4], [0, 2]).steps[0])  # type: ignore[arg-type]
    body["data"].reverse()
    server = serve(replies.json_reply(body))
    vectors = remote.embed(remote.client(server), ["a", "b"])
    assert [[round(value, 6) for value in vector] for vector in vectors] == [[0.6, 0.8], [0, 1]]
    assert server.request.json["input"] == ["a", "b"]


def test_embeddings_of_many_texts_are_asked_for_in_several_requests(
    remote: Any, serve: Any
) -> None:
    def answer(request: Any) -> Reply:
        return replies.embeddings(*([float(len(text)), 0.0] for text in request.json["input"]))

    server: Server = serve(always=answer)
    texts = ["x" * (number % 7 + 1) for number in range(150)]
    vectors = remote.embed(remote.client(server), texts, normalize=False)
    assert [vector[0] for vector in vectors] == [len(text) for text in texts]
    assert len(server.requests) > 1


def test_connections_are_used_again(remote: Any, serve: Any) -> None:
    server = serve(*[replies.chat("a")] * 3)
    client = remote.client(server)
    for _ in range(3):
        remote.run(client.ask("hi"))
    assert server.connections == 1


def test_a_server_may_have_an_ipv6_address(remote: Any, serve: Any) -> None:
    server = serve(replies.chat("a"), host="::1")
    assert remote.run(remote.client(server).ask("hi")) == "a"
    assert server.request.values("host") == [f"[::1]:{server.port}"]


def echo(request: Any) -> Reply:
    """The question, letter by letter."""
    return replies.chat(*request.json["messages"][-1]["content"])


def test_many_answers_at_once_are_not_mixed_up(remote: Any, serve: Any) -> None:
    client = remote.client(serve(always=echo))
    questions = [f"question {number}" for number in range(50)]
    assert remote.run(client.ask(questions)) == questions


def test_many_streams_at_once_are_not_mixed_up(awaiting: Any, serve: Any) -> None:
    client = awaiting.client(serve(always=echo))
    questions = [f"question {number}" for number in range(100)]

    async def ask(question: str) -> list[str]:
        return [str(piece) async for piece in await client.chat()(question)]

    async def ask_all() -> list[list[str]]:
        return await asyncio.gather(*map(ask, questions))

    assert awaiting.run(ask_all()) == [[*question, ""] for question in questions]


def test_a_certificate_of_the_file_that_the_environment_names_is_accepted(
    remote: Any, serve: Any, tls: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = serve(replies.chat("a"), tls=tls)
    assert remote.run(remote.client(server, api_key="key").ask("hi")) == "a"
    assert server.request.values("authorization") == ["Bearer key"]
