"""Requests that go through a proxy of the environment, and proxies that make no connection."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Gate, Reply

from talu.exceptions import EndpointError

FAR = "https://models.example/v1"
PASSWORD = "canary-7d41f0-proxy"
Start = Callable[[bytes | None], str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a proxy that gives this reply to every request, None for no reply; its address."""
    listening: list[socket.socket] = []
    open_ones: list[socket.socket] = []

    def serve(server: socket.socket, reply: bytes | None) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # the test has ended
                return
            open_ones.append(connection)
            received = b""
            while reply is not None and b"\r\n\r\n" not in received:
                received += connection.recv(1 << 16)
            if reply is not None:
                connection.sendall(reply)
                connection.close()

    def started(reply: bytes | None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threading.Thread(target=serve, args=(server, reply), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            for spelling in (name, name.lower()):
                monkeypatch.setenv(spelling, f"http://me:{PASSWORD}@{address}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        return f"http://{address}"

    yield started
    for opened in (*listening, *open_ones):
        opened.close()


def failure(remote: Any, base_url: str = FAR, **options: Any) -> EndpointError:
    server = type("Far", (), {"base_url": base_url})
    client = remote.client(server, max_retries=0, **options)
    with pytest.raises(EndpointError) as caught:
        remote.run(client.ask("hi"))
    assert PASSWORD not in str(caught.value) + repr(caught.value.details)
    return caught.value


def refusal(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("status", "transient", "advice"),
    [
        ("407 Proxy Authentication Required", False, "another user or password"),
        ("403 Forbidden", False, "NO_PROXY"),
        ("502 Bad Gateway", True, "status 502"),
    ],
)
def test_a_proxy_that_refuses_to_connect_is_named(
    remote: Any, start: Start, status: str, transient: bool, advice: str
) -> None:
    proxy = start(refusal(status))
    error = failure(remote)
    assert (error.code, error.transient) == ("ENDPOINT_UNREACHABLE", transient)
    assert error.details["connected"] is False
    assert f"the proxy {proxy} made no connection" in str(error)
    assert advice in str(error)


def test_a_proxy_that_wants_a_password_for_plain_http_is_named(remote: Any, start: Start) -> None:
    proxy = start(refusal("407 Proxy Authentication Required"))
    error = failure(remote, "http://models.example/v1")
    assert error.code == "ENDPOINT_UNREACHABLE"
    assert f"the proxy {proxy} made no connection" in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_answer_is_named_when_the_time_is_over(
    remote: Any, start: Start, scheme: str
) -> None:
    proxy = start(None)
    error = failure(remote, f"{scheme}://models.example/v1", first_token_timeout_ms=300)
    assert error.code == "ENDPOINT_TIMEOUT"
    assert f"through the proxy {proxy}" in str(error)


@pytest.mark.parametrize("reply", [b"", b"hello\r\n\r\n", refusal("200 OK")[:-2] + b"\r\nxxxx"])
def test_a_proxy_that_breaks_off_is_named(remote: Any, start: Start, reply: bytes) -> None:
    proxy = start(reply)
    error = failure(remote)
    assert error.code in ("ENDPOINT_UNREACHABLE", "ENDPOINT_TLS")
    assert f"through the proxy {proxy}" in str(error)


def test_a_proxy_that_does_not_run_is_named(
    remote: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:{PASSWORD}@127.0.0.1:{closed_port}")
    error = failure(remote)
    assert error.code == "ENDPOINT_UNREACHABLE"
    assert "is the proxy running" in str(error)
    assert f"through the proxy http://127.0.0.1:{closed_port}" in str(error)


def test_a_status_of_a_server_reached_by_plain_http_may_be_the_proxys(
    remote: Any, start: Start
) -> None:
    proxy = start(refusal("502 Bad Gateway"))
    error = failure(remote, "http://models.example/v1")
    assert (error.code, error.status) == ("SERVER_ERROR", 502)
    assert f"through the proxy {proxy}" in str(error)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, start: Start) -> Iterator[Callable[[bytes], str]]:
    """Starts a proxy that sends this for the first request, and nothing more; its address."""
    open_ones: list[socket.socket] = []

    def serve(server: socket.socket, reply: bytes) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # the test has ended
                return
            open_ones.append(connection)
            if reply:
                connection.recv(1 << 16)
                connection.sendall(reply)

    def started(reply: bytes) -> str:
        start(None)  # sets the variables
        server = socket.create_server(("127.0.0.1", 0))
        open_ones.append(server)
        threading.Thread(target=serve, args=(server, reply), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://{address}")
        return address

    yield started
    for opened in open_ones:
        opened.close()


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 Connected\r\n\r\n"], ids=["", "half", "no TLS"]
)
def test_the_limit_of_a_connection_holds_for_a_proxy_too(
    remote: Any, silent: Callable[[bytes], str], reply: bytes
) -> None:
    address = silent(reply)
    error = failure(remote, connect_timeout_ms=100)
    assert error.code == "ENDPOINT_TIMEOUT"
    assert error.details["connected"] is False
    assert "connect_timeout_ms" in str(error)
    assert address in str(error)


@pytest.mark.parametrize("base_url", [FAR, FAR.replace("https", "http")], ids=["https", "http"])
def test_it_holds_for_a_proxy_that_speaks_tls(
    remote: Any, silent: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, base_url: str
) -> None:
    address = silent(b"")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"https://{address}")
    assert "connect_timeout_ms" in str(failure(remote, base_url, connect_timeout_ms=100))


def test_it_holds_for_the_handshake_with_a_server(
    remote: Any, silent: Callable[[bytes], str]
) -> None:
    error = failure(remote, f"https://{silent(b'')}/v1", connect_timeout_ms=100)
    assert "connect_timeout_ms" in str(error)


def test_an_answer_through_a_proxy_is_not_limited_by_the_time_of_the_connection(
    remote: Any, proxies: Any
) -> None:
    gate = Gate()
    proxies.plan(replies.chat("a"), Reply((gate, *replies.chat("b").steps)))
    client = remote.client(
        type("Far", (), {"base_url": "http://models.example/v1"}),
        connect_timeout_ms=100,
        first_token_timeout_ms=300,
        max_retries=0,
    )
    assert remote.run(client.ask("hi")) == "a"
    with pytest.raises(EndpointError, match="first_token_timeout_ms"):
        remote.run(client.ask("hi"))
