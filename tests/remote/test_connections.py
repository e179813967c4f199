"""Connections that are kept for the next request: what happens when one of them is of no use."""

from typing import Any

import pytest
from tests.remote import replies
from tests.remote.llama import ALIAS, LlamaCpp
from tests.remote.server import PATIENCE, Cut, Gate, Raw, Received, Reply

from talu import ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError


def connections(server: Any) -> list[int]:
    """The number of the connection of each request."""
    return [request.connection for request in server.requests]


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_on_a_kept_connection_that_was_dead_is_sent_again_uncounted(
    remote: Any, serve: Any, reset: bool
) -> None:
    server = serve(replies.chat("a"), Reply(before=(Cut(reset=reset),)), replies.chat("b"))
    client = remote.client(server, max_retries=0)
    answers = [remote.run(client.ask("hi")) for _ in range(2)]
    assert (answers, answers[1].notes, len(answers[1].attempts)) == (["a", "b"], (), 0)
    assert connections(server) == [0, 0, 1]
    assert server.requests[1].body == server.requests[2].body


def test_it_is_sent_again_for_embeddings_too(remote: Any, serve: Any) -> None:
    vector = replies.embeddings([1.0, 0.0])
    server = serve(vector, Reply(before=(Cut(reset=False),)), vector)
    client = remote.client(server, max_retries=0)
    assert remote.embed(client, ["a"]) == remote.embed(client, ["a"])


def test_it_is_sent_again_once_and_over_a_new_connection(remote: Any, serve: Any) -> None:
    died = Reply(before=(Cut(),))
    server = serve(replies.chat("a"), died, died)
    client = remote.client(server, max_retries=0)
    remote.run(client.ask("hi"))
    with pytest.raises(EndpointError) as caught:
        remote.run(client.ask("hi"))
    assert (caught.value.code, caught.value.details["attempts"]) == ("ENDPOINT_UNREACHABLE", 1)
    assert connections(server) == [0, 0, 1]


def test_it_is_not_sent_again_once_the_answer_has_begun(remote: Any, serve: Any) -> None:
    begun = Reply(before=(Raw(b"HTTP/1.1 200"), Cut(reset=False)))
    server = serve(replies.chat("a"), begun)
    client = remote.client(server, max_retries=0)
    remote.run(client.ask("hi"))
    with pytest.raises(EndpointError):
        remote.run(client.ask("hi"))
    assert len(server.requests) == 2


def test_what_follows_an_answer_is_not_the_answer_to_the_next_request(
    remote: Any, serve: Any
) -> None:
    other = replies.chat_body("the answer of somebody else")

    def body(reply: Reply) -> bytes:
        return b"".join(step for step in reply.steps if isinstance(step, bytes))

    def echo(request: Received) -> Reply:
        own = replies.chat_body(request.json["messages"][0]["content"])
        # One write, so that the surplus is there when the next request is sent.
        return Reply((Raw(body(own) + other.starts() + body(other)),), head=own.starts())

    client = remote.client(serve(always=echo), max_retries=0)
    assert [remote.run(client.ask(each)) for each in "abc"] == ["a", "b", "c"]


def test_what_comes_later_than_an_answer_ends_its_connection(remote: Any, serve: Any) -> None:
    gate, first, other = Gate(), replies.chat_body("a"), replies.chat_body("of somebody else")
    surplus = Raw(other.starts() + b"".join(s for s in other.steps if isinstance(s, bytes)))
    server = serve(
        Reply((*first.steps, gate, surplus), headers=first.headers), replies.chat_body("b")
    )
    client = remote.client(server, max_retries=0)
    assert remote.run(client.ask("hi")) == "a"
    gate.open()
    assert server.requests[0].answered.wait(PATIENCE)
    assert remote.run(client.ask("hi")) == "b"
    assert connections(server) == [0, 1]


def test_a_server_that_closes_after_each_answer_loses_no_request(
    remote: Any, llama: LlamaCpp
) -> None:
    backend = OpenAICompatibleBackend(llama.base_url, max_retries=0)
    client = remote.client_of(ModelSpec(ALIAS, backend))
    for _ in range(12):
        assert remote.run(client.ask("hi", max_tokens=1)).notes == ()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
def test_a_server_elsewhere_is_asked_through_the_proxy_of_the_environment(
    remote: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy = serve(replies.chat("a"))
    monkeypatch.setenv(name.lower(), proxy.url.replace("://", "://me:pass@"))
    client = remote.client(proxy, base_url="http://models.example/v1", max_retries=0)
    assert remote.run(client.ask("hi")) == "a"
    assert proxy.request.target == "http://models.example/v1/chat/completions"
    assert len(proxy.request.values("proxy-authorization")) == 1


def test_a_server_that_no_proxy_is_for_is_asked_directly(
    remote: Any, proxies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "other.example,models.invalid")
    client = remote.client(proxies, base_url="http://the.models.invalid/v1", max_retries=0)
    with pytest.raises(EndpointError, match="is unknown"):
        remote.run(client.ask("hi"))
    assert proxies.requests == []
