"""What an answer says about each deviation from the request."""

from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, delta, failure, usage_chunk
from tests.remote.server import Reply

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
