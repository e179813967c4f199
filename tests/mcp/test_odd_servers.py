"""What servers do wrong is a typed error that names the server."""

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.mcp.conftest import called, odd, tool_of

from talu.error_text import shown
from talu.exceptions import ToolServerError
from talu.mcp import MCP

SCHEMA = {"type": "object"}


def listing(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"tools/list": {"tools": [{"inputSchema": SCHEMA} | tool for tool in tools]}}


def failure(source: MCP) -> ToolServerError:
    """The error of opening."""
    with source, pytest.raises(ToolServerError) as caught:
        source.open()
    assert caught.value.server == source.name
    assert source.name in str(caught.value)
    return caught.value


def test_a_program_that_does_not_exist() -> None:
    error = failure(MCP("talu-no-such-program --port 1"))
    assert error.code == "TOOL_SERVER_NOT_STARTED"
    assert "cannot be started: the program was not found" in str(error)


def test_a_folder_that_does_not_exist() -> None:
    error = failure(MCP("cat", cwd="/no/such/folder"))
    assert error.code == "TOOL_SERVER_NOT_STARTED"
    assert "the folder cwd does not exist" in str(error)


def test_a_program_that_ends_at_once_with_what_it_said() -> None:
    code = "import sys; sys.exit('no database is there')"
    error = failure(MCP(sys.executable, args=["-c", code]))
    assert error.code == "TOOL_SERVER_ENDED"
    assert "ended with the exit status 1; it said: no database is there" in str(error)


def test_a_program_that_is_killed() -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    error = failure(MCP(sys.executable, args=["-c", code]))
    assert "was ended by the signal SIGKILL" in str(error)


def test_a_program_that_prints_something_else_and_ends() -> None:
    error = failure(MCP("echo Usage: serve --port PORT"))
    assert error.code == "TOOL_SERVER_ENDED"
    assert "it printed what is not the protocol: Usage: serve" in str(error)


def test_a_program_that_says_nothing_is_given_up() -> None:
    error = failure(MCP("cat /dev/zero", timeout=0.3))
    assert error.code == "TOOL_SERVER_TIMEOUT"
    assert "within timeout=0.3 seconds" in str(error)


def test_a_program_that_ignores_its_end_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    error = failure(MCP(sys.executable, args=["-c", code], timeout=0.3))
    assert error.code == "TOOL_SERVER_TIMEOUT"


def test_a_line_beside_the_protocol_is_passed_over() -> None:
    answers = {"initialize": 'Starting {"port": 1}\n' + _handshake()} | listing({"name": "a"})
    with odd(answers) as source:
        assert [tool.name for tool in source.open()] == ["a"]


def test_a_message_that_is_broken() -> None:
    error = failure(odd({"tools/list": '{"jsonrpc":"2.0","id":ID,"result":\xff'}))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "sent a message that is not valid" in str(error)


def test_a_result_in_another_form() -> None:
    error = failure(odd({"tools/list": {"tools": [{"name": 7}]}}))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "did not list its tools in the form of the protocol" in str(error)


def test_an_error_in_place_of_the_tools_is_shown() -> None:
    text = '{"jsonrpc":"2.0","id":ID,"error":{"code":-32603,"message":"the shop is closed"}}'
    error = failure(odd({"tools/list": text}))
    assert error.code == "TOOL_SERVER_REFUSED"
    assert "did not list its tools: the shop is closed" in str(error)


def test_a_list_of_tools_without_end() -> None:
    error = failure(odd({"tools/list": {"tools": [], "nextCursor": "more"}}))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "in more than 100 pages" in str(error)


def test_too_many_tools() -> None:
    error = failure(odd(listing(*({"name": f"t{number}"} for number in range(1_001)))))
    assert "lists more than 1,000 tools" in str(error)


@pytest.mark.parametrize(
    ("tool", "wrong"),
    [
        ({"name": "a b"}, "must be 1 to 64 letters"),
        ({"name": "x" * 65}, "must be 1 to 64 letters"),
        ({"name": "auto"}, "cannot be called 'auto'"),
        ({"name": "a", "description": "LONG"}, "text of at most 100,000 characters"),
        ({"name": "a", "inputSchema": SCHEMA | {"$ref": "#/nothing"}}, "#/nothing"),
        ({"name": "a", "inputSchema": SCHEMA | {"minProperties": "b"}}, "at '#/minProperties'"),
        ({"name": "a", "inputSchema": SCHEMA | {"$ref": "#"}}, "JSON Schema of the tool 'a'"),
        ({"name": "a", "inputSchema": SCHEMA | {"enum": ["LONG"] * 50}}, "the limit is 524,288"),
    ],
    ids=["space", "long", "reserved", "description", "ref", "draft", "cycle", "large"],
)
def test_a_tool_that_cannot_be_used_is_left_out_and_named(tool: dict[str, Any], wrong: str) -> None:
    with odd(listing(tool, {"name": "good"})) as source:
        assert [tool.name for tool in source.open()] == ["good"]
        (note,) = source.notes
    assert f"the tool {shown(tool['name'])} of the MCP server" in note
    assert "cannot be used, and was left out: " in note
    assert wrong in note


def test_a_tool_that_cannot_be_used_is_an_error_where_it_is_asked_for_by_name() -> None:
    error = failure(odd(listing({"name": "a b"}, {"name": "c"}), include=["a b", "c"]))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "'a b'" in str(error)


def test_a_tool_that_is_left_out_by_name_has_no_note() -> None:
    with odd(listing({"name": "a b"}, {"name": "c"}), exclude=["a b"]) as source:
        assert ([tool.name for tool in source.open()], source.notes) == (["c"], ())


def test_an_answer_says_which_tools_of_a_server_were_left_out(faces: Any) -> None:
    schema = SCHEMA | {"properties": {"a": {"type": "strin"}}}
    with odd(listing({"name": "a", "inputSchema": schema}, {"name": "c"})) as source:
        answer = faces.run(faces.client("Hi.").ask("q", tools=[source]))
    assert "the tool 'a' of the MCP server" in answer.notes[0]
    assert "is wrong at '#/properties/a/type'" in answer.notes[0]


def test_a_schema_that_describes_no_object() -> None:
    error = failure(odd(listing({"name": "a", "inputSchema": {"type": "array"}})))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "tools.0.inputSchema.type: Input should be 'object'" in str(error)


def test_a_tool_that_is_listed_twice() -> None:
    assert "is listed twice" in str(failure(odd(listing({"name": "a"}, {"name": "a"}))))


def test_two_tools_with_one_name_here() -> None:
    error = failure(odd(listing({"name": "a.b"}, {"name": "a/b"})))
    assert "has the name 'a_b' here, and so has 'a.b'" in str(error)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({"content": []}, ""),
        ({"content": [], "structuredContent": {"a": [1]}}, {"a": [1]}),
        ({"content": [{"type": "text", "text": "7"}]}, "7"),
        ({"content": [{"type": "text", "text": "[1, 2]"}], "structuredContent": {"result": [1, 2]}},
         [1, 2]),
        ({"content": [{"type": "text", "text": "no"}], "structuredContent": {"result": "yes"}},
         {"text": "no", "structured_content": {"result": "yes"}}),
    ],
    ids=["nothing", "structured", "text", "wrapped", "both"],
)  # fmt: skip
def test_a_result_keeps_all_that_it_says(result: dict[str, Any], value: object) -> None:
    with odd(listing({"name": "a"}) | {"tools/call": result}) as source:
        assert called(tool_of(source, "a")) == value


@pytest.mark.parametrize(
    ("result", "code", "wrong"),
    [
        ({"content": 7}, "TOOL_SERVER_BAD_ANSWER", "in the form of the protocol"),
        ({"content": [{"type": "smell"}]}, "TOOL_SERVER_BAD_ANSWER", "in the form of the"),
        ({"content": [], "isError": True}, "TOOL_FAILED", "the server gives no reason"),
        (
            {"content": [], "structuredContent": {"a": float("nan")}},
            "TOOL_SERVER_BAD_ANSWER",
            "plain JSON",
        ),
        (
            '{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"no such tool"}}',
            "TOOL_SERVER_REFUSED",
            "did not answer the call of 'a': no such tool",
        ),
        (["bye"], "TOOL_SERVER_ENDED", "ended with the exit status 0"),
    ],
    ids=["form", "kind", "no reason", "nan", "unknown", "end"],
)
def test_a_call_that_fails(result: Any, code: str, wrong: str) -> None:
    with odd(listing({"name": "a"}) | {"tools/call": result}) as source:
        with pytest.raises(ToolServerError, match=wrong) as caught:
            called(tool_of(source, "a"))
        assert caught.value.code == code
        assert source.name in str(caught.value)


def test_a_message_that_is_too_large() -> None:
    code = "print('x' * (1 << 25), flush=True); input()"
    error = failure(MCP(sys.executable, args=["-c", code]))
    assert error.code == "TOOL_SERVER_BAD_ANSWER"
    assert "sent a message of more than 16,777,216 bytes" in str(error)


def test_an_address_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
    error = failure(MCP(f"http://127.0.0.1:{port}/mcp"))
    assert error.code == "TOOL_SERVER_UNREACHABLE"


@contextmanager
def web_server(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that gives the same answer to every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/mcp?key=canary-in-query"
        server.shutdown()
        thread.join()


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "wrong"),
    [
        (401, {}, b"", "TOOL_SERVER_REFUSED", r"\(status 401\): check headers="),
        (404, {}, b"", "TOOL_SERVER_REFUSED", "status 404"),
        (500, {}, b"broken", "TOOL_SERVER_REFUSED", "status 500"),
        (307, {"location": "http://127.0.0.2/x"}, b"", "TOOL_SERVER_REFUSED", "edirect"),
        (200, {"content-type": "text/html"}, b"<p>", "TOOL_SERVER_BAD_ANSWER", "text/html"),
        (200, JSON, b"nonsense", "TOOL_SERVER_BAD_ANSWER", "JSON"),
        (200, JSON | {"content-encoding": "gzip"}, b"", "TOOL_SERVER_BAD_ANSWER", "compressed"),
        (200, JSON, bytes((1 << 24) + 1), "TOOL_SERVER_BAD_ANSWER", "more than 16,777,216 bytes"),
        (200, {"content-type": "text/event-stream"}, b"", "TOOL_SERVER_ENDED", "before an answer"),
    ],
    ids=["401", "404", "500", "redirect", "html", "json", "gzip", "large", "cut"],
)
def test_a_web_server_that_is_none_of_the_protocol(
    status: int, headers: dict[str, str], body: bytes, code: str, wrong: str
) -> None:
    with web_server(status, headers, body) as url:
        error = failure(MCP(url, timeout=20))
    assert error.code == code
    assert wrong.replace("\\", "") in str(error)
    assert "canary" not in str(error)


def _handshake() -> str:
    result = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "serverInfo": {"name": "odd", "version": "1"},
    }
    return json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).replace('"id": 0', '"id": ID')
