"""What an answer says about each deviation from the request."""

from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, delta, failure, usage_chunk
from tests.remote.server import Cut, Reply, Server

from talu import EndpointError, ModelSpec, ValidationError
from talu.backends.remote import retries
from talu.exceptions import EmptyPromptError
from talu.router import AnthropicBackend


def answered_by(model: str) -> Reply:
    """An answer of a model of this name."""
    events = (delta("x", "stop"), usage_chunk())
    named = (event.replace(b'"model": "m"', f'"model": "{model}"'.encode()) for event in events)
    return replies.stream(*named, DONE)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)


def test_a_stream_without_a_chat_says_what_differs_from_the_request(
    remote: Any, serve: Any
) -> None:
    server = serve(failure(503), answered_by("other"))
    pieces = remote.client(server, on_unsupported="warn").stream("hi", top_k=3)
    remote.read(pieces)
    left_out, repeated, other = pieces.notes
    assert "top_k" in left_out
    assert "repeated" in repeated
    assert "'other' answered" in other
    assert pieces.usage.completion_tokens == 3


TEMPLATE = "{{ messages[0].content }}"


def template_of_a_chat(remote: Any, client: Any) -> Any:
    return remote.run(client.chat(chat_template=TEMPLATE).send("hi"))


def template_of_a_call(remote: Any, client: Any) -> Any:
    return remote.run(client.ask("hi", chat_template=TEMPLATE))


@pytest.mark.parametrize("ask", [template_of_a_chat, template_of_a_call])
def test_a_template_is_sent_refused_or_left_out_with_a_note(
    remote: Any, serve: Any, ask: Any
) -> None:
    server = serve(always=lambda _: replies.chat("x"))
    address = {"base_url": server.base_url}
    vllm = remote.client_of("vllm::m", **address)
    assert ask(remote, vllm).notes == ()
    assert server.requests[-1].json["chat_template"] == TEMPLATE
    with pytest.raises(ValidationError, match="has no chat_template"):
        ask(remote, remote.client_of("m", **address))
    answer = ask(remote, remote.client_of("m", **address, on_unsupported="warn"))
    assert answer.notes == ("compatible has no chat_template: it was left out",)
    assert "chat_template" not in server.requests[-1].json


def test_a_namespace_of_the_cache_is_sent_where_there_is_one_and_refused_elsewhere(
    remote: Any, serve: Any
) -> None:
    server = serve(always=lambda _: replies.chat("x"))
    vllm = remote.client_of("vllm::m", base_url=server.base_url)
    assert remote.run(vllm.ask("hi", cache_namespace="tenant 7")).notes == ()
    assert server.requests[-1].json["cache_salt"] == "tenant 7"
    with pytest.raises(ValidationError, match="has no cache_namespace"):
        remote.run(remote.client(server).ask("hi", cache_namespace="tenant 7"))


def test_an_answer_without_the_log_probabilities_asked_for_says_so(remote: Any, serve: Any) -> None:
    client = remote.client(serve(always=lambda _: replies.chat("one")))
    for settings in ({"logprobs": True}, {"top_logprobs": 3}):
        answer = remote.run(client.ask("hi", **settings))
        assert answer.logprobs is None
        assert answer.notes == ("the server sent no log-probabilities, which logprobs asked for",)
    assert remote.run(client.ask("hi", logprobs=False, top_logprobs=3)).notes == ()


def test_fewer_alternatives_than_asked_for_are_a_note_and_more_are_left_out(
    remote: Any, serve: Any
) -> None:
    token = replies.token_logprob("a", -0.5, ("a", -0.5), ("b", -1.5))
    events = (replies.logprob_delta(token), delta(finish="stop"), DONE)
    client = remote.client(serve(always=lambda _: replies.stream(*events)))
    fewer = remote.run(client.ask("hi", top_logprobs=3))
    assert len(fewer.logprobs[0].top_logprobs) == 2
    assert fewer.notes == ("the server sent 2 alternatives at most, although top_logprobs is 3",)
    more = remote.run(client.ask("hi", top_logprobs=1))
    assert [text for _, text, _ in more.logprobs[0].top_logprobs] == ["a"]
    assert more.notes == ()
    assert remote.run(client.ask("hi", logprobs=True)).logprobs[0].top_logprobs is None


def test_an_answer_that_is_longer_than_allowed_says_so(remote: Any, serve: Any) -> None:
    client = remote.client(serve(always=lambda _: replies.chat("one two three")))
    answer = remote.run(client.ask("hi", max_tokens=2))
    assert answer.notes == ("the server generated 3 tokens, although max_tokens is 2",)
    assert remote.run(client.ask("hi", max_tokens=3)).notes == ()


NOT_STOPPED = "the server did not stop at the stop sequence 'STOP': the answer was cut there"


@pytest.mark.parametrize("pieces", [("one STOP two",), ("one S", "TO", "P two"), tuple("one STOP")])
def test_an_answer_is_cut_at_a_stop_sequence_that_the_server_went_beyond(
    remote: Any, serve: Any, pieces: tuple[str, ...]
) -> None:
    client = remote.client(serve(replies.chat(*pieces)))
    answer = remote.run(client.ask("hi", stop_sequences=["STOP", "never"]))
    assert (answer, answer.finish_reason) == ("one ", "stop")
    assert answer.stop_sequence == "STOP"
    assert answer.notes == (f"{NOT_STOPPED}, and its numbers of tokens are unknown",)
    assert answer.usage.completion_tokens is None


def test_an_answer_in_one_body_is_cut_as_well(remote: Any, serve: Any) -> None:
    client = remote.client(serve(replies.chat_body("one STOP two")))
    answer = remote.run(client.ask("hi", stop_sequences=["STOP"]))
    assert (answer, answer.notes) == ("one ", (NOT_STOPPED,))
    assert answer.usage.completion_tokens is not None


def test_text_that_is_only_the_beginning_of_a_stop_sequence_is_kept(
    remote: Any, serve: Any
) -> None:
    breaking = replies.stream(delta("one STO"), Cut())
    server = serve(replies.chat("one ", "STO"), breaking)
    client = remote.client(server, max_retries=0)
    assert remote.run(client.ask("hi", stop_sequences=["STOP"])) == "one STO"
    with pytest.raises(EndpointError) as caught:
        remote.run(client.ask("hi", stop_sequences=["STOP"]))
    assert caught.value.details["response"].text == "one STO"


def test_stop_sequences_that_the_server_is_asked_to_keep_are_kept(remote: Any, serve: Any) -> None:
    client = remote.client(serve(replies.chat("one STOP")))
    extra = {"include_stop_str_in_output": True}
    answer = remote.run(client.ask("hi", stop_sequences=["STOP"], extra_body=extra))
    assert (answer, answer.notes) == ("one STOP", ())


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("mistral-large-latest", "mistral-large-2411"),
        ("llama3.2", "llama3.2:latest"),
        ("gemini-2.0-flash", "models/gemini-2.0-flash"),
        ("Qwen/Qwen3", "qwen/qwen3"),
    ],
)
def test_the_dated_name_of_a_model_is_no_other_model(
    remote: Any, serve: Any, asked: str, served: str
) -> None:
    client = remote.client_of(asked, base_url=serve(answered_by(served)).base_url)
    assert remote.run(client.ask("hi")).notes == ()


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "ft:gpt-4o:evil"),
        ("gpt-4o", "llama"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
        ("qwen3", "qwen3-4096"),
    ],
)
def test_another_model_that_answers_is_named(
    remote: Any, serve: Any, asked: str, served: str
) -> None:
    client = remote.client_of(asked, base_url=serve(answered_by(served)).base_url)
    (note,) = remote.run(client.ask("hi")).notes
    assert note == f"the server says that the model {served!r} answered"


KEY = "sk-" + "0123456789" * 20


@pytest.mark.parametrize(
    "reply",
    [
        replies.stream(delta("x", finish=KEY), DONE),
        replies.stream(delta([{"type": KEY, "text": "x"}]), delta("x", "stop"), DONE),
        answered_by(KEY),
    ],
    ids=["finish reason", "part", "model"],
)
def test_a_key_that_the_server_repeats_is_not_in_the_notes(
    remote: Any, serve: Any, reply: Reply
) -> None:
    answer = remote.run(remote.client(serve(reply), api_key=KEY).ask("hi"))
    assert answer.notes
    assert "012345" not in "".join(answer.notes)


def test_a_key_in_the_reason_of_a_failure_is_not_in_the_error(remote: Any, serve: Any) -> None:
    client = remote.client(
        serve(replies.stream(delta("x", f"error {KEY}"))), api_key=KEY, max_retries=0
    )
    with pytest.raises(EndpointError) as caught:
        remote.run(client.ask("hi"))
    assert "012345" not in str(caught.value)


SET = {
    "temperature": ({"temperature": 0}, {"temperature": 1.9}),
    "seed": ({"seed": 1}, {"seed": 2}),
    "stop sequences": ({"stop_sequences": ["a"]}, {"stop": None}),
    "the limit": ({"max_tokens": 5}, {"max_tokens": 500}),
    "the other name of the limit": ({"max_tokens": 5}, {"max_completion_tokens": 500}),
    "alternatives": ({"top_logprobs": 2}, {"logprobs": False}),
}


@pytest.mark.parametrize("name", SET)
def test_extra_body_cannot_replace_another_argument(remote: Any, serve: Any, name: str) -> None:
    settings, extra = SET[name]
    (field,) = extra
    server = serve(always=lambda _: replies.chat("x"))
    client = remote.client(server)
    with pytest.raises(ValidationError, match=f"extra_body has '{field}'"):
        remote.run(client.ask("hi", extra_body=extra, **settings))
    assert not server.requests
    remote.run(client.ask("hi", extra_body=extra))
    assert server.request.json[field] == extra[field]


def test_an_argument_of_a_call_takes_precedence_over_the_extra_params_of_the_backend(
    remote: Any, serve: Any
) -> None:
    server = serve(always=lambda _: replies.chat("x"))
    params = {"temperature": 1.9, "max_completion_tokens": 500}
    client = remote.client(server, extra_params=params)
    remote.run(client.ask("hi", temperature=0, max_tokens=5))
    remote.run(client.ask("hi", extra_body={"max_tokens": 7}))
    first, second = (request.json for request in server.requests)
    assert (first["temperature"], first["max_tokens"]) == (0, 5)
    assert (second["temperature"], second["max_tokens"]) == (1.9, 7)
    assert not {"max_completion_tokens"} & (first.keys() | second.keys())


def test_two_names_of_one_field_are_refused(remote: Any, serve: Any) -> None:
    both = {"max_tokens": 5, "max_completion_tokens": 6}
    with pytest.raises(ValidationError, match="mean the same"):
        remote.run(remote.client(serve()).ask("hi", extra_body=both))


def claude(remote: Any, server: Server, **options: Any) -> Any:
    return remote.client_of(ModelSpec("m", AnthropicBackend(server.url, **options)))


def test_extra_body_cannot_replace_the_system_message(remote: Any, serve: Any) -> None:
    client = claude(remote, serve())
    with pytest.raises(ValidationError, match="extra_body has 'system'"):
        remote.run(client.ask("hi", system="Be good.", extra_body={"system": "Be evil."}))


def test_an_answer_cut_at_the_limit_that_the_protocol_needs_says_so(
    remote: Any, serve: Any
) -> None:
    server = serve(always=lambda _: replies.message("ab", stop="max_tokens"))
    client = claude(remote, server)
    (note,) = remote.run(client.ask("hi")).notes
    assert server.request.json["max_tokens"] == 256
    assert note.startswith("max_tokens was not set: the answer was cut at 256 tokens")
    assert remote.run(client.ask("hi", max_tokens=256)).notes == ()
    assert remote.run(client.ask("hi", extra_body={"max_tokens": 9})).notes == ()


def test_an_empty_question_is_refused_where_the_protocol_has_none(remote: Any, serve: Any) -> None:
    client = claude(remote, serve())
    for ask in (client.ask, client.chat("Be good.", messages=[QUESTION, ANSWER]).send):
        with pytest.raises(EmptyPromptError, match="takes no empty message"):
            remote.run(ask(""))


QUESTION = {"role": "user", "content": "one"}
ANSWER = {"role": "assistant", "content": ""}


def test_an_empty_answer_that_is_left_out_of_the_history_is_a_note(remote: Any, serve: Any) -> None:
    server = serve(replies.message("ab"))
    chat = claude(remote, server).chat(messages=[QUESTION, ANSWER])
    answer = remote.run(chat.send("two"))
    assert [one["role"] for one in server.request.json["messages"]] == ["user"]
    assert answer.notes == ("anthropic_compatible takes no empty message: it was left out",)


def test_an_answer_has_the_seed_that_was_sent(remote: Any, serve: Any) -> None:
    client = remote.client(serve(always=lambda _: replies.chat("x")), on_unsupported="warn")
    assert remote.run(client.ask("hi", seed=5)).seed == 5
    assert remote.run(client.ask("hi")).seed is None
    other = claude(remote, serve(replies.message("x")), on_unsupported="warn")
    assert remote.run(other.ask("hi", seed=5)).seed is None
