"""The options of embedding calls that reach a model behind an endpoint, or are refused."""

from typing import Any

import pytest
from tests.remote import replies

from talu import EndpointError, GenerationError, ValidationError
from talu.router import Fallback


@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
def test_a_pooling_that_the_server_is_not_told_is_refused(
    remote: Any, serve: Any, pooling: str
) -> None:
    client = remote.client(serve())
    with pytest.raises(ValidationError, match="pooling is the server's choice") as caught:
        remote.embed(client, ["a"], pooling=pooling)
    assert caught.value.details["param"] == "pooling"


def test_the_servers_own_pooling_is_taken(remote: Any, serve: Any) -> None:
    server = serve(always=lambda _: replies.embeddings([1.0, 0.0]))
    client = remote.client(server)
    assert remote.embed(client, ["a"], pooling=None) == remote.embed(client, ["a"])


def test_a_text_that_is_too_long_is_asked_for_once(remote: Any, serve: Any) -> None:
    words = "input (3001 tokens) is too large to process. increase the physical batch size"
    server = serve(replies.failure(500, words))
    with pytest.raises(EndpointError) as caught:
        remote.embed(remote.client(server), ["a"])
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"


def test_embedding_with_a_policy_says_which_models_to_name(remote: Any) -> None:
    client = remote.client_of("llamacpp::a", "llamacpp::b", policy=Fallback())
    for call in (lambda: remote.embed(client, ["a"]), client.embedding_dim):
        with pytest.raises(GenerationError, match="as in model='llamacpp::a'") as caught:
            call()
        assert caught.value.code == "GENERATION_UNSUPPORTED"
