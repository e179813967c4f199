"""How often a request is sent, as the server counts it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import delta, failure
from tests.remote.server import Cut, Reply

from talu import ModelSpec, OpenAICompatibleBackend, StopFlag
from talu.backends.remote import attempts, retries
from talu.chat import Hook
from talu.exceptions import EndpointError, GenerationError
from talu.types import Attempt

TRANSIENT = {
    **{str(status): failure(status) for status in (408, 409, 425, 429, 500, 502, 503, 529)},
    "an error object": failure(200, "busy", type="overloaded_error"),
    "an error event": replies.stream(replies.ERRORS_IN_EVENTS["vllm"]),
    "a cut": Reply(before=(Cut(),)),
    "a stream without events": replies.stream(),
    "a stream that breaks before its first token": replies.stream(delta("", role="assistant")),
}
FINAL = {
    **{str(status): failure(status) for status in (400, 401, 402, 403, 404, 413, 422)},
    "a redirect": replies.redirect("/v1/"),
    "a page": replies.html(),
    "garbage": replies.stream(replies.event("{garbage")),
    "the wish of the server": failure(500, headers=[("x-should-retry", "false")]),
    "a long wait": failure(429, headers=[("retry-after", "61")]),
    "an error event": replies.stream(
        replies.event({"error": {"message": "no", "type": "invalid_request_error"}})
    ),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a millisecond in place of half a second."""
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)


def failed(work: Callable[[], object]) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        work()
    return caught.value


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", TRANSIENT)
def test_a_request_is_repeated_until_it_succeeds(remote: Any, serve: Any, name: str) -> None:
    server = serve(TRANSIENT[name], TRANSIENT[name], replies.chat("ab"))
    answer = remote.run(remote.client(server).ask("hi"))
    assert answer == "ab"
    assert any("repeated 2 times" in note for note in answer.notes)
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.usefixtures("quick")
def test_a_request_is_repeated_no_more_often_than_allowed(remote: Any, serve: Any) -> None:
    for most, sent in ((0, 1), (None, 3), (4, 5)):
        server = serve(*[failure(503)] * sent)
        client = remote.client(server, max_retries=most)
        error = failed(lambda client=client: remote.run(client.ask("hi")))
        assert (error.code, error.details["attempts"]) == ("SERVER_ERROR", sent)
        assert len(server.requests) == sent


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", FINAL)
def test_what_would_fail_again_is_not_repeated(remote: Any, serve: Any, name: str) -> None:
    server = serve(FINAL[name])
    failed(lambda: remote.run(remote.client(server, max_retries=5).ask("hi")))
    assert len(server.requests) == 1


@pytest.mark.usefixtures("quick")
def test_embeddings_are_repeated_as_well(remote: Any, serve: Any) -> None:
    server = serve(failure(503), replies.embeddings([1.0, 0.0]))
    assert remote.embed(remote.client(server), ["a"]) == [[1.0, 0.0]]


def test_the_wait_that_the_server_asks_for_is_kept(remote: Any, serve: Any) -> None:
    busy = failure(429, headers=[("retry-after-ms", "250")])
    server = serve(busy, replies.chat("ab"))
    began = time.monotonic()
    assert remote.run(remote.client(server).ask("hi")) == "ab"
    assert 0.25 <= time.monotonic() - began < 10


def test_no_wait_is_begun_that_ends_after_the_call(remote: Any, serve: Any) -> None:
    server = serve(failure(429, headers=[("retry-after", "30")]))
    client = remote.client(server)
    began = time.monotonic()
    with pytest.raises(GenerationError):
        remote.run(client.ask("hi", timeout=5))
    assert time.monotonic() - began < 4
    assert len(server.requests) == 1


@pytest.mark.usefixtures("quick")
def test_a_connection_that_the_server_dropped_meanwhile_is_no_failure(
    remote: Any, serve: Any
) -> None:
    server = serve(replies.chat("a"), replies.chat("b"))
    client = remote.client(server, max_retries=1)
    assert remote.run(client.ask("hi")) == "a"
    server.drop_connections()
    assert remote.run(client.ask("hi")) == "b"


class Attempts(Hook):
    """Keeps the attempts of every generation."""

    def __init__(self) -> None:
        self.seen: list[Attempt] = []

    def on_attempt(self, chat: Any, attempt: Attempt) -> None:
        self.seen.append(attempt)


def client_with(remote: Any, server: Any, hook: Hook) -> Any:
    spec = ModelSpec("m", OpenAICompatibleBackend(server.base_url))
    return remote.client_of(spec, hooks=[hook])


@pytest.mark.usefixtures("quick")
def test_hooks_and_the_answer_see_every_request_that_was_repeated(remote: Any, serve: Any) -> None:
    hook = Attempts()
    server = serve(failure(503), failure(429), replies.chat("ab"), replies.chat("c"))
    client = client_with(remote, server, hook)
    answer = remote.run(client.ask("hi"))
    assert tuple(hook.seen) == answer.attempts
    assert [each.error for each in hook.seen] == ["SERVER_ERROR", "RATE_LIMITED", None]
    assert {each.model for each in hook.seen} == {"m"}
    assert {each.location for each in hook.seen} == {server.base_url}
    starts = [each.started_ms for each in hook.seen]
    assert starts == sorted(starts)
    assert hook.seen[-1].first_token_ms > 0
    assert remote.run(client.ask("hi")).attempts == ()
    assert len(hook.seen) == 3


@pytest.mark.usefixtures("quick")
def test_hooks_see_the_requests_of_a_call_that_failed(remote: Any, serve: Any) -> None:
    hook = Attempts()
    client = client_with(remote, serve(always=lambda _: failure(503)), hook)
    error = failed(lambda: remote.run(client.ask("hi")))
    assert [each.error for each in hook.seen] == ["SERVER_ERROR"] * 3
    assert tuple(hook.seen) == error.attempts


def test_an_attempt_lasts_until_its_failure_without_the_wait_after_it(
    remote: Any, serve: Any
) -> None:
    server = serve(failure(503, headers=[("retry-after-ms", "400")]), replies.chat("ab"))
    first, second = remote.run(remote.client(server).ask("hi")).attempts
    assert second.started_ms - (first.started_ms + first.duration_ms) >= 399


def test_an_answer_that_is_stopped_in_a_wait_has_the_attempts_before_it(
    remote: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = StopFlag()

    def wait(*_: object) -> float:
        flag.signal()
        return 60.0

    monkeypatch.setattr(attempts, "wait_before_retry", wait)
    answer = remote.run(remote.client(serve(failure(503))).chat().send("hi", stop_flag=flag))
    assert str(answer.finish_reason) == "cancelled"
    assert [each.error for each in answer.attempts] == ["SERVER_ERROR"]
    assert answer.notes == ()  # it was not repeated
