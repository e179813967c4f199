"""What an answer says about each deviation from the request."""

from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, delta, failure, usage_chunk
from tests.remote.server import Reply

from talu import ValidationError
from talu.backends.remote import retries


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
