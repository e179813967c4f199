"""Remote models in forked processes, on several event loops, and at the end of a program."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

from tests.forked import in_child
from tests.remote.replies import chat
from tests.remote.server import Server

from talu import Client
from talu.backends.remote.http import PerLoop

Serve = Callable[..., Server]
FAST = 2.0  # seconds; a child that waits for a loop of its parent takes longer


def test_a_forked_child_asks_over_its_own_connection(serve: Serve) -> None:
    server = serve(always=lambda _: chat("Hi"))
    with Client("m", base_url=server.base_url) as client:
        client.ask("1")

        def ask() -> None:
            assert client.ask("2") == "Hi"
            client.close()

        assert in_child(ask) == 0
        assert client.ask("3") == "Hi"
    assert [request.connection for request in server.requests] == [0, 1, 0]


def test_a_forked_child_closes_a_client_at_once(serve: Serve) -> None:
    server = serve(always=lambda _: chat("Hi"))
    with Client("m", base_url=server.base_url) as client:
        client.ask("1")
        began = time.perf_counter()
        assert in_child(client.close) == 0
        assert time.perf_counter() - began < FAST
        assert client.ask("2") == "Hi"
    assert server.connections == 1


def test_the_connections_of_an_event_loop_that_has_ended_are_forgotten() -> None:
    connections = PerLoop(object)

    async def get() -> object:
        assert connections.get() is connections.get()
        return connections.get()

    first, second = asyncio.run(get()), asyncio.run(get())
    assert first is not second
    assert connections.drain() == []


def test_a_function_that_a_program_registers_for_its_end_can_ask_a_model(serve: Serve) -> None:
    server = serve(always=lambda _: chat("Hi"))
    program = f"""
import atexit
from talu import Client
client = Client("m", base_url={server.base_url!r})
atexit.register(lambda: print(client.ask("Goodbye!")))
print(client.ask("Hello!"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hi\nHi\n", "")


def test_a_program_that_closes_nothing_ends_without_a_word(serve: Serve) -> None:
    server = serve(always=lambda _: chat("Hi"))
    program = f"""
import logging
from talu import Client
# A step that takes long is no fault: the machine may be busy.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
client = Client("m", base_url={server.base_url!r})
print(client.ask("Hello!"))
stream = client.stream("Hello!")
print(next(iter(stream)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hi\nHi\n", "")
