"""Which models an endpoint has, and what kind of server it is."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Gate, Reply, Server

from talu import (
    AnthropicBackend,
    Capabilities,
    Client,
    EndpointError,
    IOError,
    ValidationError,
)
from talu.backends.remote import listing
from talu.backends.remote.endpoint import endpoint_of
from talu.backends.remote.providers import provider_named
from talu.bridge import run_in_background
from talu.router import RemoteModelInfo, check_endpoint, get_model_ids, list_endpoint_models

Serve = Callable[..., Server]
NOWHERE = "http://127.0.0.1:1/v1"


def owned(by: str, **fields: Any) -> Reply:
    data = [{"id": "m", "object": "model", "created": 5, "owned_by": by, **fields}]
    return replies.json_reply({"object": "list", "data": data})


def test_the_models_are_those_that_the_server_lists(serve: Serve) -> None:
    server = serve(owned("someone"))
    assert list_endpoint_models(server.base_url) == [RemoteModelInfo("m", "model", 5, "someone")]
    assert server.request.target == "/v1/models"
    assert server.request.values("authorization") == []


def test_an_address_without_a_path_gets_the_usual_one(serve: Serve) -> None:
    server = serve(owned("a"), owned("a"))
    assert get_model_ids(server.url) == get_model_ids(f"{server.url}/") == ["m"]
    assert {request.target for request in server.requests} == {"/v1/models"}


def test_the_key_is_sent_if_there_is_one(serve: Serve) -> None:
    server = serve(owned("a"))
    get_model_ids(server.base_url, "mine")
    assert server.request.values("authorization") == ["Bearer mine"]


def test_entries_without_an_id_are_left_out_with_a_warning(serve: Serve) -> None:
    odd = [{"id": "a"}, {"name": "b"}, "c", {"id": 4}, {"id": ""}, {"id": "d", "created": "x"}]
    server = serve(always=lambda _: replies.json_reply({"data": odd}))
    with pytest.warns(UserWarning, match="4 entries in the list of models of .* have no id") as one:
        models = list_endpoint_models(server.base_url)
    assert models == [RemoteModelInfo("a"), RemoteModelInfo("d")]
    assert one[0].filename == __file__
    with pytest.warns(UserWarning, match="4 entries"):
        assert get_model_ids(server.base_url) == ["a", "d"]
    assert check_endpoint(server.base_url)


@pytest.mark.parametrize(
    "reply",
    [replies.html(), replies.json_reply({"models": []}), replies.json_reply("x"), Reply((b"",))],
    ids=["web page", "other object", "text", "nothing"],
)
def test_an_answer_that_is_not_a_list_of_models_is_refused(serve: Serve, reply: Reply) -> None:
    with pytest.raises(ValidationError, match="models"):
        list_endpoint_models(serve(reply).base_url)


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with pytest.raises(IOError, match="refused") as caught:
        list_endpoint_models(NOWHERE)
    assert caught.value.code == "CONNECTION_ERROR"


def test_a_refusal_of_the_server_has_its_code(serve: Serve) -> None:
    with pytest.raises(EndpointError) as caught:
        list_endpoint_models(serve(replies.failure(401)).base_url)
    assert caught.value.code == "AUTHENTICATION_FAILED"


def test_a_server_that_does_not_answer_is_not_waited_for(serve: Serve) -> None:
    silent = serve(always=lambda _: Reply(before=(Gate(),)))
    with pytest.raises(IOError, match=r"did not come within 0.2 seconds"):
        list_endpoint_models(silent.base_url, timeout=0.2)


def test_a_check_says_whether_the_models_are_listed(serve: Serve) -> None:
    assert check_endpoint(serve(owned("a")).base_url)
    assert not check_endpoint(serve(replies.html()).base_url)
    assert not check_endpoint(serve(replies.failure(500)).base_url)
    assert not check_endpoint(NOWHERE)


@pytest.mark.parametrize("wrong", [None, 5, b"http://h/v1", "bad", "ftp://h", "http://u:p@h/v1"])
@pytest.mark.parametrize("ask", [list_endpoint_models, get_model_ids, check_endpoint])
def test_a_wrong_address_is_refused(ask: Any, wrong: Any) -> None:
    with pytest.raises(ValidationError, match="base_url") as caught:
        ask(wrong)
    assert caught.value.details["param"] == "base_url"


@pytest.mark.parametrize("wrong", [0, -1, "soon"])
@pytest.mark.parametrize("ask", [list_endpoint_models, get_model_ids, check_endpoint])
def test_a_wrong_time_limit_is_refused(ask: Any, wrong: Any) -> None:
    with pytest.raises(ValidationError, match="timeout must be a number of seconds"):
        ask(NOWHERE, timeout=wrong)


def test_there_may_be_no_time_limit(serve: Serve) -> None:
    server = serve(always=lambda _: owned("a"))
    assert get_model_ids(server.base_url, timeout=None) == ["m"]
    assert check_endpoint(server.base_url, timeout=None)


def page(*ids: str, **fields: Any) -> Reply:
    return replies.json_reply({"data": [{"id": each} for each in ids], **fields})


def test_all_pages_of_a_list_are_read(serve: Serve) -> None:
    first, second = page("a", "b", has_more=True, last_id="b"), page("c", has_more=True)
    server = serve(first, second, page("d", has_more=False))
    assert get_model_ids(server.base_url) == ["a", "b", "c", "d"]
    targets = [request.target for request in server.requests]
    assert targets == ["/v1/models", "/v1/models?after=b", "/v1/models?after=c"]


def test_pages_that_the_server_does_not_send_are_an_error(serve: Serve) -> None:
    server = serve(always=lambda _: page("a", has_more=True, last_id="a"))
    with pytest.raises(ValidationError, match="has further pages"):
        list_endpoint_models(server.base_url)
    assert len(server.requests) == 2
    assert check_endpoint(server.base_url)  # it does list models


def test_too_many_models_are_an_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_MODELS", 2)
    with pytest.raises(ValidationError, match="more than 2 models"):
        list_endpoint_models(serve(page("a", "b", "c")).base_url)


@pytest.mark.parametrize(
    ("owner", "logprobs"), [("vllm", True), ("library", False), ("somebody", True)]
)
def test_an_unknown_server_is_recognized_by_the_owner_of_its_models(
    serve: Serve, owner: str, logprobs: bool
) -> None:
    server = serve(owned(owner))
    with Client("m", base_url=server.base_url) as client:
        assert client.capabilities().logprobs == logprobs
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [replies.html(), replies.failure(404), replies.failure(500)])
def test_a_server_that_lists_nothing_is_taken_for_a_plain_one(serve: Serve, reply: Reply) -> None:
    with Client("m", base_url=serve(reply).base_url) as client:
        assert client.capabilities().logprobs
    with Client("m", base_url=NOWHERE) as client:
        assert client.capabilities().streaming


def test_an_event_loop_goes_on_while_a_server_is_asked_what_it_is(
    awaiting: Any, serve: Serve
) -> None:
    gate = Gate()
    listed = owned("vllm")
    server = serve(Reply((gate, *listed.steps), headers=listed.headers, framing="close"))
    client = awaiting.client_of("m", base_url=server.base_url)

    async def ask() -> Capabilities:
        asking = asyncio.create_task(client.acapabilities())
        while not server.requests:
            await asyncio.sleep(0)
        gate.open()
        return await asking

    assert awaiting.run(ask()).logprobs
    assert isinstance(awaiting.run(client.acapabilities("vllm::m")), Capabilities)


@pytest.mark.parametrize("model", ["groq::m", "ollama::m", "anthropic::m", "openai::m"])
def test_a_provider_of_the_table_is_not_asked(model: str) -> None:
    with Client(model) as client:
        capable = client.capabilities()
    assert capable.streaming
    assert capable.tool_calling
    assert capable.json_schema == (model != "groq::m")


def test_no_key_reaches_the_list_of_another_host(serve: Serve, canaries: dict[str, str]) -> None:
    server = serve(owned("a"))
    list_endpoint_models(server.base_url)
    assert [secret for secret in canaries.values() if secret.encode() in server.raw] == []
    assert json.loads(server.request.body or b"null") is None


def test_the_list_of_an_anthropic_server_is_asked_for_with_its_version_and_key(
    serve: Serve,
) -> None:
    server = serve(replies.json_reply({"data": [{"id": "claude"}], "has_more": False}))
    options = AnthropicBackend(base_url=server.url, api_key="sk-canary-7d41f0")
    endpoint = endpoint_of(provider_named("anthropic"), options, {})
    assert run_in_background(lambda: listing.models_at(endpoint, options, 30.0)) == [
        {"id": "claude"}
    ]
    assert server.request.target == "/v1/models?limit=1000"
    assert server.request.values("anthropic-version") == ["2023-06-01"]
    assert server.request.values("x-api-key") == ["sk-canary-7d41f0"]
    assert server.request.values("authorization") == ["Bearer sk-canary-7d41f0"]
