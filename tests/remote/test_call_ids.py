"""The ids of tool calls are sent in the form that a provider takes, whoever made them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.remote import replies
from tests.remote.server import Server

from talu import AnthropicBackend, Client, ModelSpec
from talu.backends.remote.call_ids import sent_ids
from talu.backends.remote.providers import PLAIN, CallIds, provider_named

Serve = Callable[..., Server]
ODD = ["functions.get:0", "a b/ü", "x" * 80, "toolu_1", "AbCdEf123"]
TAKEN = {
    "openai": r"(?s:.{1,40})",
    "anthropic": r"[a-zA-Z0-9_-]{1,64}",
    "mistral": r"[a-zA-Z0-9]{9}",
}


def called(*ids: str) -> list[dict[str, Any]]:
    """A conversation with a call and a result for each id."""
    function = {"name": "look", "arguments": "{}"}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    results = [{"role": "tool", "tool_call_id": each, "content": "sun"} for each in ids]
    question = {"role": "user", "content": "Weather?"}
    return [question, {"role": "assistant", "content": "", "tool_calls": calls}, *results]


def form_of(provider: str) -> CallIds:
    form = provider_named(provider).call_ids
    assert form is not None
    return form


@pytest.mark.parametrize("provider", TAKEN)
def test_an_id_in_another_form_is_replaced_and_any_other_stays(provider: str) -> None:
    sent = sent_ids(called(*ODD), form_of(provider))
    for each, given_on in sent.items():
        assert re.fullmatch(TAKEN[provider], given_on)
        assert (given_on == each) is bool(re.fullmatch(TAKEN[provider], each))


@pytest.mark.parametrize("provider", TAKEN)
@given(ids=st.lists(st.text(min_size=1, max_size=70), max_size=8))
def test_distinct_ids_stay_distinct(provider: str, ids: list[str]) -> None:
    sent = sent_ids(called(*ids), form_of(provider))
    assert sent.keys() == set(ids)
    assert len(set(sent.values())) == len(sent)


def test_an_id_that_another_call_has_is_not_given_twice() -> None:
    form = form_of("mistral")
    derived = sent_ids(called("a b"), form)["a b"]
    sent = sent_ids(called("a b", derived), form)
    assert sent[derived] == derived
    assert sent["a b"] != derived


def test_an_id_is_replaced_by_the_same_one_in_a_longer_conversation() -> None:
    form = form_of("anthropic")
    assert sent_ids(called("a b"), form).items() <= sent_ids(called("a b", "c d"), form).items()


def test_a_server_of_which_only_the_address_is_known_gets_ids_as_they_are() -> None:
    assert PLAIN.call_ids is None
    assert sent_ids(called(*ODD), None) == {each: each for each in ODD}


def test_a_call_and_its_result_are_sent_with_one_id(serve: Serve) -> None:
    server = serve(replies.message("Sunny."))
    backend = AnthropicBackend(base_url=server.url, max_retries=0)
    with Client(ModelSpec("m", backend)) as client:
        client.ask(called("functions.get:0"))
    _, call, result = server.request.json["messages"]
    sent = call["content"][0]["id"]
    assert re.fullmatch(TAKEN["anthropic"], sent)
    assert result["content"][0]["tool_use_id"] == sent


def test_a_provider_with_openais_protocol_gets_one_id_for_a_call_and_its_result(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(replies.chat("Sunny."))
    monkeypatch.setenv("MISTRAL_BASE_URL", server.base_url)
    with Client("mistral::m", api_key="k") as client:
        client.ask(called("functions.get:0"))
    _, call, result = server.request.json["messages"]
    assert re.fullmatch(TAKEN["mistral"], call["tool_calls"][0]["id"])
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
