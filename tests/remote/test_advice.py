"""What errors and notes of remote models advise."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Reply, Server

from talu import AnthropicBackend, Client, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import TaluError

Serve = Callable[..., Server]
KEY_NEEDED = replies.failure(401, "who are you?")
NO_MODEL = replies.failure(404, "the model 'm' does not exist")
REFUSALS: dict[str, tuple[Reply, str]] = {
    "no key": (KEY_NEEDED, "no key was sent: give the argument api_key"),
    "a model that the server lacks": (
        NO_MODEL,
        "get_model_ids(base_url) lists the server's models",
    ),
}


def error_of(backend: OpenAICompatibleBackend | AnthropicBackend, **settings: Any) -> TaluError:
    with Client(ModelSpec("m", backend)) as client, pytest.raises(TaluError) as caught:
        client.ask("hi", **settings)
    return caught.value


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_error_of_a_refused_request_says_what_to_do(serve: Serve, refusal: str) -> None:
    reply, advice = REFUSALS[refusal]
    assert advice in str(error_of(OpenAICompatibleBackend(serve(reply).base_url, max_retries=0)))


def test_a_request_for_several_answers_is_refused(serve: Serve) -> None:
    server = serve()
    error = error_of(OpenAICompatibleBackend(server.base_url), extra_body={"n": 2})
    assert "several answers (n): ask several times" in str(error)
    assert server.requests == []


def test_the_same_header_in_upper_and_lower_case_is_refused_with_advice() -> None:
    backend = OpenAICompatibleBackend("http://localhost:1/v1", headers={"A": "x", "a": "y"})
    assert "write it once, in upper or lower case" in str(error_of(backend))


def test_a_repeated_request_is_noted_with_its_failure(serve: Serve) -> None:
    server = serve(replies.failure(503, headers=[("retry-after", "0")]), replies.chat("a"))
    with Client("m", base_url=server.base_url) as client:
        answer = client.ask("hi")
    assert answer.notes == ("the request was repeated once: SERVER_ERROR",)


def test_what_a_provider_cannot_say_of_a_conversation_is_noted(serve: Serve) -> None:
    server = serve(replies.message("a"))
    messages: list[Mapping[str, Any]] = [
        {"role": "user", "name": "Ann", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Well?"},
    ]
    with Client(ModelSpec("m", AnthropicBackend(server.url, "key"))) as client:
        answer = client.ask(messages)
    moved, unnamed = answer.notes
    assert moved == "system messages amid the conversation were moved to its start"
    assert "has no names of authors: they were left out" in unnamed
    sent = server.request.json
    assert sent["system"] == "Be brief."
    assert "Ann" not in json.dumps(sent)


def test_a_provider_without_embeddings_says_so_before_it_is_asked(serve: Serve) -> None:
    server = serve()
    with (
        Client(ModelSpec("m", AnthropicBackend(server.url, "key"))) as client,
        pytest.raises(TaluError, match="has no embeddings: use a provider that has"),
    ):
        client.embed("a")
    assert server.requests == []


@pytest.mark.parametrize("numbers", [[0, 0], [0, 2], [0, "1"]], ids=["twice", "beyond", "text"])
def test_embeddings_that_cannot_be_told_apart_are_refused(serve: Serve, numbers: list[Any]) -> None:
    data = [{"index": number, "embedding": [1.0]} for number in numbers]
    server = serve(replies.json_reply({"data": data}))
    with (
        Client("m", base_url=server.base_url) as client,
        pytest.raises(TaluError, match="embeddings with wrong numbers"),
    ):
        client.embed_batch(["a", "b"])


def test_a_model_behind_an_endpoint_is_refused_offline(serve: Serve) -> None:
    server = serve()
    with (
        Client("m", base_url=server.base_url) as client,
        pytest.raises(TaluError, match="runs behind an endpoint: offline=True excludes it"),
    ):
        client.chat(offline=True).send("hi")
    assert server.requests == []
