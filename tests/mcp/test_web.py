"""Servers behind an address: sessions, broken connections, secrets and TLS."""

import asyncio
import http.server
import json
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.mcp.conftest import KEY, called, tool_of

from talu.exceptions import ToolServerError
from talu.mcp import MCP
from talu.mcp.servers import WebServer
from talu.mcp.web import Guarded, WebTransport

TOOLS = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}


class Older(http.server.ThreadingHTTPServer):
    """A server of the protocol before 2026, with sessions, which can forget them.

    Attributes:
        calls: how often a tool was called.
        breaks: it breaks the connection during a call.
        sessions: those that it knows.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls = 0
        self.breaks = False
        self.sessions: set[str] = set()
        self.paths: set[str] = set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Older

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.paths.add(self.path)
        session = self.headers.get("mcp-session-id")
        match request["method"]:
            case "initialize":
                self.server.sessions.add("one")
                about = {"name": "older", "version": "1"}
                version = request["params"]["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": {}, "serverInfo": about}
                self.answer(200, {"id": request["id"], "result": result}, "one")
            case _ if session not in self.server.sessions:
                self.answer(404, None)
            case "tools/list":
                self.answer(200, {"id": request["id"], "result": TOOLS})
            case "tools/call":
                self.server.calls += 1
                self.close_connection = self.server.breaks
                if not self.server.breaks:
                    self.answer(200, {"id": request["id"], "result": {"content": []}})
            case _:
                self.answer(202, None)

    def do_GET(self) -> None:
        self.answer(405, None)

    def do_DELETE(self) -> None:
        self.server.sessions.clear()
        self.answer(200, None)

    def answer(self, status: int, message: dict[str, Any] | None, session: str = "") -> None:
        body = b"" if message is None else json.dumps({"jsonrpc": "2.0"} | message).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if session:
            self.send_header("mcp-session-id", session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def older() -> Iterator[Older]:
    with Older() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def source(older: Older) -> Iterator[MCP]:
    with MCP(f"http://127.0.0.1:{older.server_port}/{KEY}/mcp?key={KEY}") as opened:
        yield opened


def test_a_server_of_the_older_protocol_is_used(source: MCP) -> None:
    assert called(tool_of(source, "a")) == ""


def test_the_session_is_ended_with_the_connection(source: MCP, older: Older) -> None:
    source.open()
    assert older.sessions == {"one"}
    source.close()
    assert older.sessions == set()


def test_a_session_that_the_server_has_forgotten_is_an_error_of_a_call(
    source: MCP, older: Older
) -> None:
    tool = tool_of(source, "a")
    older.sessions.clear()
    with pytest.raises(ToolServerError, match="status 404") as caught:
        called(tool)
    assert caught.value.code == "TOOL_SERVER_ENDED"
    assert called(tool_of(source, "a")) == ""


def test_an_opening_makes_a_new_session_if_the_server_has_forgotten_it(
    source: MCP, older: Older
) -> None:
    source.open()
    older.sessions.clear()
    assert called(tool_of(source, "a")) == ""


def test_a_call_is_not_sent_again_when_its_connection_breaks(source: MCP, older: Older) -> None:
    tool = tool_of(source, "a")
    assert called(tool) == ""
    older.breaks = True
    with pytest.raises(ToolServerError, match="ended the connection before an answer") as caught:
        called(tool)
    assert (caught.value.code, older.calls) == ("TOOL_SERVER_ENDED", 2)
    older.breaks = False
    assert called(tool_of(source, "a")) == ""


def test_path_and_query_are_sent_and_not_logged(
    source: MCP, older: Older, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        source.open()
    assert older.paths == {f"/{KEY}/mcp?key={KEY}"}
    assert "HTTP Request: POST" in caplog.text
    assert KEY not in caplog.text


def test_a_key_that_a_server_repeats_is_hidden(address: str) -> None:
    with MCP(address, headers={"Authorization": f"Bearer {KEY}"}) as source:
        assert KEY in called(tool_of(source, "header"), name="authorization")
        with pytest.raises(ToolServerError, match=r"wrong key: \*\*\*") as caught:
            called(tool_of(source, "refuse"))
    assert KEY not in str(caught.value) + str(caught.value.details)


@pytest.mark.parametrize("key", ["sekret", "sekret1", "sekret12"])
def test_a_short_key_that_a_server_repeats_is_hidden(address: str, key: str) -> None:
    with (
        MCP(address, headers={"Authorization": f"Bearer {key}"}) as source,
        pytest.raises(ToolServerError, match=r"wrong key: \*\*\*") as caught,
    ):
        called(tool_of(source, "refuse"))
    assert key not in str(caught.value) + str(caught.value.details)


def test_a_call_behind_an_address_has_a_time_limit(address: str) -> None:
    with MCP(address, timeout=2) as source:
        with pytest.raises(ToolServerError, match="within timeout=2 seconds") as caught:
            called(tool_of(source, "wait"))
        assert caught.value.code == "TOOL_SERVER_TIMEOUT"
        assert called(tool_of(source, "add"), a=1, b=2) == 3


def test_a_certificate_that_nobody_trusts(older: Older, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    older.socket = context.wrap_socket(older.socket, server_side=True)
    with MCP(f"https://localhost:{older.server_port}/mcp") as source:
        with pytest.raises(ToolServerError, match=r"(?i)certificate") as caught:
            source.open()
        assert caught.value.code == "TOOL_SERVER_UNREACHABLE"


def test_a_host_that_does_not_exist() -> None:
    with (
        MCP("https://no-such-host.invalid/mcp") as source,
        pytest.raises(ToolServerError) as caught,
    ):
        source.open()
    assert caught.value.code == "TOOL_SERVER_UNREACHABLE"


def test_a_request_to_another_address_is_not_sent(source: MCP, older: Older) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = source._server
    assert isinstance(server, WebServer)
    guarded = Guarded(WebTransport(server, tls, 1), server, tls)

    async def sent() -> None:
        url = f"http://localhost:{older.server_port}/mcp-server"
        async with httpx2.AsyncClient(transport=guarded) as client:
            await client.post(url)

    with pytest.raises(ToolServerError, match="redirects to another address"):
        asyncio.run(sent())
    assert older.paths == set()
