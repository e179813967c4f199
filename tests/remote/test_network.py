"""Connections to a host: its addresses, long answers, and encryption."""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from tests.remote.server import PATIENCE

from talu.backends.remote.network import Connection, Network

ANSWER = bytes(range(256)) * 8192  # 2 MiB, more than is taken unread
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server at an address, which sends the answer to everybody; its port."""
    with ExitStack() as sockets:

        def answer(server: socket.socket, tls: ssl.SSLContext | None) -> None:
            try:
                plain, _ = server.accept()
            except OSError:  # the test has ended
                return
            with (
                tls.wrap_socket(plain, server_side=True) if tls else plain as opened,
                suppress(ConnectionError),  # the client reads a part of it
            ):
                opened.sendall(ANSWER)

        def started(host: str = "127.0.0.1", port: int = 0, tls: Any = None) -> int:
            server = sockets.enter_context(socket.create_server((host, port)))
            threading.Thread(target=answer, args=(server, tls), daemon=True).start()
            return int(server.getsockname()[1])

        yield started


@pytest.fixture
def full() -> Iterator[int]:
    """A port of 127.0.0.2 that answers nobody."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


def run(work: Callable[[], Awaitable[Any]], *hosts: str) -> Any:
    """Run it on a loop on which every host has these addresses."""

    async def main() -> Any:
        return await asyncio.wait_for(work(), PATIENCE)

    def addresses(_: Any, port: int, **options: Any) -> list[Any]:
        if "flags" in options:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    with pytest.MonkeyPatch.context() as patched:
        if hosts:
            patched.setattr(socket, "getaddrinfo", addresses)
        return asyncio.run(main())


async def whole(port: int, tls: ssl.SSLContext | None = None) -> bytes:
    """Everything that a server sends."""
    connection = await Network().connect_tcp("localhost", port)
    if tls is not None:
        connection = await connection.start_tls(tls, "localhost")
    assert isinstance(connection, Connection)
    parts = []
    while part := await connection.read(1 << 16):
        parts.append(part)
        await asyncio.sleep(0)
    await connection.aclose()
    return b"".join(parts)


def test_an_answer_longer_than_what_is_taken_unread_arrives_whole(start: Start) -> None:
    port = start()
    assert run(lambda: whole(port)) == ANSWER


def test_an_encrypted_answer_arrives_whole(
    start: Start, tls: ssl.SSLContext, certificate: Path
) -> None:
    port = start(tls=tls)
    trusting = ssl.create_default_context(cafile=str(certificate))
    assert run(lambda: whole(port, trusting)) == ANSWER


def test_the_next_address_of_a_host_is_tried_when_one_refuses(start: Start) -> None:
    port = start()
    assert run(lambda: whole(port), "127.0.0.2", "127.0.0.1") == ANSWER


def test_the_next_address_of_a_host_is_tried_when_one_does_not_answer(
    start: Start, full: int
) -> None:
    start("127.0.0.1", full)
    assert run(lambda: whole(full), "127.0.0.2", "127.0.0.1") == ANSWER


def test_a_host_whose_addresses_all_refuse_has_refused(closed_port: int) -> None:
    with pytest.raises(httpcore2.ConnectError) as caught:
        run(lambda: whole(closed_port), "127.0.0.1", "127.0.0.2")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_bytes_that_nobody_has_read_are_seen_without_waiting(start: Start) -> None:
    port = start()

    async def readable() -> bool:
        connection = await Network().connect_tcp("127.0.0.1", port)
        while not connection.get_extra_info("is_readable"):
            await asyncio.sleep(0)
        await connection.read(1)
        seen = bool(connection.get_extra_info("is_readable"))
        await connection.aclose()
        return seen

    assert run(readable)


def test_what_a_socks_proxy_does_is_a_part_of_the_connection() -> None:
    async def silent(server: socket.socket) -> None:
        connection = await Network().connect_tcp(*server.getsockname(), timeout=0.1)
        try:
            await connection.write(b"\x05\x01\x00")
            await connection.read(1)
        finally:
            await connection.aclose()

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(httpcore2.ConnectTimeout),
    ):
        run(lambda: silent(server))


def test_an_answer_is_no_part_of_the_connection() -> None:
    async def late(server: socket.socket) -> None:
        connection = await Network().connect_tcp(*server.getsockname(), timeout=0.1)
        try:
            await connection.write(b"GET / HTTP/1.1\r\n\r\n")
            await connection.read(1, timeout=0.2)
        finally:
            await connection.aclose()

    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(httpcore2.ReadTimeout):
        run(lambda: late(server))


def test_connections_that_are_made_at_once_look_a_host_up_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def counted(host: str, *arguments: Any, **options: Any) -> Any:
        if not options.get("flags"):
            looked_up.append(host)
        return real(host, *arguments, **options)

    async def several(network: Network, port: int, *hosts: str) -> None:
        connections = [network.connect_tcp(host, port) for host in hosts]
        for connection in await asyncio.gather(*connections):
            await connection.aclose()

    async def work(port: int) -> None:
        network = Network()
        await several(network, port, *["localhost"] * 5, "127.0.0.1")
        await several(network, port, "localhost")

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    with socket.create_server(("127.0.0.1", 0)) as server:
        run(lambda: work(server.getsockname()[1]))
    assert looked_up == ["localhost"] * 2


ENDLESS = """
import asyncio, socket, threading
from talu import AsyncClient, Client, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError

def hang(*_, flags=0, **__):
    if flags:
        raise socket.gaierror
    threading.Event().wait()

socket.getaddrinfo = hang
options = OpenAICompatibleBackend("http://host.invalid/v1", max_retries=0, connect_timeout_ms=100)

async def main():
    async with AsyncClient(ModelSpec("m", options)) as client:
        await client.ask("hi")

for ask in (lambda: asyncio.run(main()), lambda: Client(ModelSpec("m", options)).ask("hi")):
    try:
        ask()
    except EndpointError as error:
        print(error.code)
"""


def test_a_look_up_that_does_not_end_delays_neither_the_loop_nor_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == ("ENDPOINT_TIMEOUT\n" * 2, "")
