"""A generation that stops closes its connection at once, wherever it is: the server sees it."""

import asyncio
import gc
import importlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import delta
from tests.remote.server import PATIENCE, Gate, Reply, Server

from talu import Client, ModelSpec, OpenAICompatibleBackend, StopFlag
from talu.exceptions import GenerationError

SHORT_S, SHORT_MS = 0.3, 300  # long enough for a request to arrive


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """Import what the first request imports, which is not part of its time."""
    importlib.import_module("talu.backends.remote.openai_sdk")


class Held:
    """A server that holds its reply at some place.

    Attributes:
        text: what it sends before.
    """

    def __init__(self, serve: Any, reply: Callable[[Gate], Reply], text: str) -> None:
        self.gate = Gate()
        self.server: Server = serve(reply(self.gate))
        self.text = text
        self.read = threading.Event()  # the client has read the text

    def once_reached(self, work: Callable[[], object], *, read: bool = False) -> None:
        """Do something in a thread as soon as the server holds, and the client has read so far."""

        def wait() -> None:
            self.gate.wait_reached()
            if read and self.text:
                self.read.wait(PATIENCE)
            work()

        threading.Thread(target=wait, daemon=True).start()


PLACES: dict[str, tuple[Callable[[Gate], Reply], str]] = {
    "before the headers": (lambda gate: replies.stream(before=(gate,)), ""),
    "before the first token": (
        lambda gate: replies.stream(delta("", role="assistant"), b": ping\n\n", gate),
        "",
    ),
    "amid the answer": (lambda gate: replies.stream(delta("ab"), gate), "ab"),
    "amid an event": (lambda gate: replies.stream(delta("ab"), b"data: {", gate), "ab"),
}


@pytest.fixture(params=PLACES)
def held(request: pytest.FixtureRequest, serve: Any) -> Held:
    """A server that holds its reply, at each place in turn."""
    return Held(serve, *PLACES[request.param])


@pytest.fixture
def amid(serve: Any) -> Held:
    """A server that holds its reply after the first piece."""
    return Held(serve, *PLACES["amid the answer"])


def test_a_stop_flag_closes_the_connection(remote: Any, held: Held) -> None:
    flag = StopFlag()
    held.once_reached(flag.signal, read=True)
    chat = remote.client(held.server).chat()
    answer = remote.run(chat.send("hi", stop_flag=flag, on_token=lambda _: held.read.set()))
    assert (answer.text, str(answer.finish_reason)) == (held.text, "cancelled")
    held.server.request.wait_closed()


def test_the_timeout_of_a_call_closes_the_connection(remote: Any, held: Held) -> None:
    client = remote.client(held.server)
    with pytest.raises(GenerationError) as caught:
        remote.run(client.ask("hi", timeout=SHORT_S))
    assert caught.value.code == "GENERATION_TIMEOUT"
    held.server.request.wait_closed()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_text_before_the_timeout_of_a_call_stays_in_the_error_and_in_the_history(
    remote: Any, amid: Held, stream: bool
) -> None:
    chat = remote.client(amid.server).chat()
    call = partial(chat, "hi", stream=stream, timeout=2 * SHORT_S)
    with pytest.raises(GenerationError) as caught:
        remote.read(remote.run(call())) if stream else remote.run(call())
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert caught.value.details["response"].text == "ab"
    assert [(item.text, item.status.name) for item in chat.items] == [
        ("hi", "COMPLETED"),
        ("ab", "INCOMPLETE"),
    ]


def test_the_limits_of_the_backend_close_the_connection(remote: Any, held: Held) -> None:
    client = remote.client(held.server, timeout_ms=SHORT_MS, max_retries=0)
    with pytest.raises(GenerationError) as caught:
        remote.run(client.ask("hi"))
    assert caught.value.code == "ENDPOINT_TIMEOUT"
    held.server.request.wait_closed()


def test_the_limit_of_the_whole_answer_closes_the_connection(remote: Any, held: Held) -> None:
    client = remote.client(held.server, total_timeout_ms=SHORT_MS)
    with pytest.raises(GenerationError) as caught:
        remote.run(client.ask("hi"))
    assert caught.value.code == "ENDPOINT_TIMEOUT"
    assert "total_timeout_ms" in str(caught.value)
    held.server.request.wait_closed()


def test_an_interrupt_closes_the_connection(held: Held) -> None:
    held.once_reached(lambda: os.kill(os.getpid(), signal.SIGINT))
    backend = OpenAICompatibleBackend(held.server.base_url)
    with Client(ModelSpec("m", backend)) as client, pytest.raises(KeyboardInterrupt):
        client.ask("hi")
    held.server.request.wait_closed()


def test_cancelling_a_task_closes_the_connection(awaiting: Any, held: Held) -> None:
    client = awaiting.client(held.server)

    async def ask_and_cancel() -> None:
        asking = asyncio.create_task(client.ask("hi"))
        held.once_reached(lambda: loop.call_soon_threadsafe(asking.cancel))
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(held.server.request.wait_closed)

    awaiting.run(ask_and_cancel())


def test_closing_a_stream_closes_the_connection(remote: Any, amid: Held) -> None:
    stream = remote.stream(remote.client(amid.server))
    assert remote.read_some(stream, 1) == ["ab"]
    closed = stream.close()
    if closed is not None:
        remote.run(closed)
    amid.server.request.wait_closed()
    assert (stream.text, str(stream.finish_reason)) == ("ab", "cancelled")


@pytest.mark.parametrize("close", [True, False], ids=["aclose", "cancel"])
def test_a_stream_that_a_task_reads_is_stopped_by_another_task(
    awaiting: Any, held: Held, close: bool
) -> None:
    async def main() -> None:
        stream = awaiting.client(held.server).stream("hi")

        async def read() -> None:
            async for _ in stream:
                held.read.set()

        reading = asyncio.create_task(read())
        await asyncio.to_thread(held.gate.wait_reached)
        if held.text:
            await asyncio.to_thread(held.read.wait, PATIENCE)
        if close:
            await stream.aclose()
        else:
            stream.cancel()
        await asyncio.wait_for(reading, PATIENCE)
        assert (stream.text, str(stream.finish_reason)) == (held.text, "cancelled")
        await asyncio.to_thread(held.server.request.wait_closed)

    awaiting.run(main())


def test_leaving_the_loop_closes_the_connection(remote: Any, amid: Held) -> None:
    client = remote.client(amid.server)
    stream = client.stream("hi")
    if remote.faces.name == "async" and not hasattr(stream, "__aiter__"):
        stream = remote.run(stream)
    assert remote.read_some(stream, 1) == ["ab"]
    del stream
    gc.collect()
    remote.spin()
    amid.server.request.wait_closed()


def test_cancelling_from_another_thread_closes_the_connection(remote: Any, amid: Held) -> None:
    stream = remote.stream(remote.client(amid.server), on_token=lambda _: amid.read.set())
    amid.once_reached(stream.cancel, read=True)
    assert remote.read(stream) == ["ab", ""]
    assert str(stream.finish_reason) == "cancelled"
    amid.server.request.wait_closed()


def test_closing_the_client_closes_the_connection(remote: Any, amid: Held) -> None:
    client = remote.client(amid.server)
    stream = remote.stream(client)
    assert remote.read_some(stream, 1) == ["ab"]
    remote.close()
    amid.server.request.wait_closed()


def test_a_timeout_of_an_embedding_closes_the_connection(remote: Any, serve: Any) -> None:
    server = serve(Reply(before=(Gate(),)))
    with pytest.raises(GenerationError) as caught:
        remote.embed(remote.client(server), ["a"], timeout=SHORT_S)
    assert caught.value.code == "GENERATION_TIMEOUT"
    server.request.wait_closed()


def test_a_cancelled_answer_is_not_asked_for_again(remote: Any, serve: Any) -> None:
    flag = StopFlag()
    server: Server = serve(replies.failure(503, headers=[("retry-after", "30")]))

    def stop() -> None:
        server.wait_for(1)
        flag.signal()

    threading.Thread(target=stop, daemon=True).start()
    answer = remote.run(remote.client(server).ask("hi", stop_flag=flag))
    assert str(answer.finish_reason) == "cancelled"
    assert len(server.requests) == 1


@pytest.fixture
def full() -> Iterator[str]:
    """The URL of a port whose queue of connections is full."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listening.getsockname()
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/v1"


def test_a_connection_that_is_not_answered_is_given_up(remote: Any, full: str) -> None:
    server: Any = type("Full", (), {"base_url": full})
    client = remote.client(server, connect_timeout_ms=100, max_retries=0)
    with pytest.raises(GenerationError) as caught:
        remote.run(client.ask("hi"))
    assert caught.value.code == "ENDPOINT_TIMEOUT"
    assert "connect_timeout_ms" in str(caught.value)


def test_a_stop_flag_stops_a_connection_that_is_not_answered(remote: Any, full: str) -> None:
    server: Any = type("Full", (), {"base_url": full})
    flag = StopFlag()
    client = remote.client(server, connect_timeout_ms=60_000)
    threading.Timer(0.05, flag.signal).start()
    assert str(remote.run(client.ask("hi", stop_flag=flag)).finish_reason) == "cancelled"
