"""A request that runs when its client is closed ends as cancelled, whatever it waits for."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import delta
from tests.remote.server import Gate, Server

from talu import FinishReason, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError, StateError
from talu.router import Fallback, Limits

CLOSED = "its client was closed while it ran"
BUSY = replies.failure(429, headers=[("retry-after", "30")])


def spec(server: Server, name: str = "a", limits: Limits | None = None, **options: Any) -> Any:
    return ModelSpec(
        "m", OpenAICompatibleBackend(server.base_url, **options), name=name, limits=limits
    )


def cooling(remote: Any, serve: Any) -> Any:
    """A client whose models have just refused a request, and take no other one for 30 seconds."""
    server = serve(always=lambda _: BUSY)
    both = [spec(server, name, max_retries=0) for name in "ab"]
    client = remote.client_of(*both, policy=Fallback())
    with pytest.raises(EndpointError):
        remote.run(client.ask("hi"))
    return client


def queued(remote: Any, serve: Any) -> Any:
    """A client whose model takes no second request in this minute."""
    server = serve(always=lambda _: replies.chat("Hi"))
    client = remote.client_of(spec(server, limits=Limits(requests_per_minute=1)))
    remote.run(client.ask("hi"))
    return client


def chosen(remote: Any, serve: Any) -> Any:
    """A client whose policy has asked a model that does not answer."""
    server = serve(always=lambda _: replies.stream(Gate()))
    return remote.client_of(spec(server), spec(server, "b"), policy=Fallback())


def repeating(remote: Any, serve: Any) -> Any:
    """A client that waits until it may repeat a request."""
    return remote.client_of(spec(serve(always=lambda _: BUSY), max_retries=5))


def silent(remote: Any, serve: Any) -> Any:
    """A client whose server does not answer."""
    return remote.client_of(spec(serve(always=lambda _: replies.stream(before=(Gate(),)))))


def amid(remote: Any, serve: Any) -> Any:
    """A client that has received the beginning of an answer."""
    return remote.client_of(spec(serve(always=lambda _: replies.stream(delta("ab"), Gate()))))


def ends_of(remote: Any, ask: Callable[[], Any], close: Callable[[], Any], ready: Any) -> Any:
    """The result of a request, whose client is closed once ``ready`` returns."""
    if remote.faces.name == "async":

        async def main() -> Any:
            asking = asyncio.ensure_future(ask())
            await asyncio.to_thread(ready)
            await close()
            return await asyncio.wait_for(asking, 30)

        return remote.run(main())

    def close_when_ready() -> None:
        ready()
        close()

    closing = threading.Thread(target=close_when_ready)
    closing.start()
    try:
        return ask()
    finally:
        closing.join(30)


@pytest.mark.parametrize("made", [cooling, queued, chosen, repeating, silent, amid])
def test_a_request_that_runs_is_cancelled_with_the_text_so_far(
    remote: Any, serve: Any, made: Callable[..., Any]
) -> None:
    servers: list[Server] = []
    begun = threading.Event()

    def started(*replies: Any, **options: Any) -> Server:
        servers.append(serve(*replies, **options))
        return servers[-1]

    client = made(remote, started)
    before = len(servers[0].requests)

    def ready() -> None:
        if made is amid:
            assert begun.wait(30)
        elif made in (cooling, queued):
            while not any(target.waiting for target in client.router.status().targets):
                pass
        else:
            servers[0].wait_for(before + 1)

    chat = client.chat()
    ask = lambda: chat.send("hi", on_token=lambda _: begun.set())  # noqa: E731
    answer = ends_of(remote, ask, client.close, ready)
    assert answer.text == ("ab" if made is amid else "")
    assert answer.finish_reason is FinishReason.CANCELLED
    assert CLOSED in answer.notes


def test_a_request_after_the_end_is_refused(remote: Any, serve: Any) -> None:
    client = silent(remote, serve)
    chat = client.chat()
    closed = client.close()
    if closed is not None:
        remote.run(closed)
    for ask in (lambda: client.ask("hi"), lambda: chat.send("hi")):
        with pytest.raises(StateError) as caught:
            remote.run(ask())
        assert caught.value.code == "STATE_CLOSED"
