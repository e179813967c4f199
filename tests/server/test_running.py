"""Running answers: clients that go, limits of number and time, slow readers, the end."""

import asyncio
import json
import logging
import re
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import Any

import httpx2
import pytest
from tests.server.conftest import PATIENCE, serving

QUESTION = [{"role": "user", "content": "Tell me a story about a fox."}]
CHAT = "/v1/chat/completions"


class Pause:
    """A step of a script at which the server waits until the test lets it go on."""

    def __init__(self) -> None:
        self._reached, self._gone = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def step(self) -> None:
        self._loop, self._go = asyncio.get_running_loop(), asyncio.Event()
        self._reached.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self._gone.set()
            raise

    def wait_reached(self) -> None:
        assert self._reached.wait(PATIENCE)

    def wait_cancelled(self) -> None:
        assert self._gone.wait(PATIENCE)

    def go_on(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._go.set)


@pytest.fixture
def pause() -> Pause:
    return Pause()


def body(model: str = "script", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, **fields}


def connected(server: Any, fields: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent, and nothing is read."""
    connection = socket.create_connection((server.host, server.port), timeout=PATIENCE)
    content = json.dumps(fields).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def read_until(wanted: bytes, connection: socket.socket) -> None:
    seen = b""
    while wanted not in seen:
        data = connection.recv(100_000)
        assert data
        seen += data


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_before_the_first_piece_stops_its_answer(
    scripted, pause: Pause, *, stream: bool
) -> None:
    _, server = scripted([pause.step, "one"])
    connection = connected(server, body(stream=stream))
    pause.wait_reached()
    connection.close()
    pause.wait_cancelled()


def test_a_client_that_goes_in_the_middle_of_a_stream_stops_its_answer(
    scripted, pause: Pause
) -> None:
    _, server = scripted(["one", pause.step, "two"])
    with httpx2.stream("POST", server.url + CHAT, json=body(stream=True)) as answer:
        assert "one" in next(answer.iter_text())
        pause.wait_reached()
    pause.wait_cancelled()


def test_the_engine_stops_computing_for_a_client_that_went() -> None:
    with serving("talu/pocket") as server:
        fields = body("talu/pocket", stop_token_ids=[], stream=True)
        with httpx2.stream("POST", server.url + CHAT, json=fields) as answer:
            next(answer.iter_text())
        end = monotonic() + PATIENCE
        text = ""
        while 'finish_reason="cancelled"} 1' not in text:
            assert monotonic() < end, "the answer goes on"
            text = httpx2.get(f"{server.url}/metrics").text
    found = re.search(r'^talu_completion_tokens_total\{model="talu/pocket"\} (\d+)', text, re.M)
    assert found is not None
    assert int(found[1]) < 900  # of about 1,000 that the context holds


def test_a_client_that_goes_stops_all_choices_of_its_request(scripted) -> None:
    pauses = [Pause(), Pause()]
    _, server = scripted([pauses[0].step], [pauses[1].step])
    connection = connected(server, body(n=2))
    for each in pauses:
        each.wait_reached()
    connection.close()
    for each in pauses:
        each.wait_cancelled()


def test_a_failed_choice_stops_the_others(scripted, pause: Pause) -> None:
    async def fail() -> None:
        await asyncio.to_thread(pause.wait_reached)
        raise RuntimeError

    _, server = scripted([pause.step], [fail])
    assert httpx2.post(server.url + CHAT, json=body(n=2)).status_code == 500
    pause.wait_cancelled()


def test_more_answers_than_allowed_are_told_when_to_come_again(scripted, pause: Pause) -> None:
    _, server = scripted([pause.step, "one"], "two", max_requests=1)
    held = connected(server, body())
    pause.wait_reached()
    refused = httpx2.post(server.url + CHAT, json=body())
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "SERVER_BUSY")
    assert refused.headers["retry-after"] == "1"
    assert httpx2.get(f"{server.url}/health").is_success
    assert "talu_requests_running 1\n" in httpx2.get(f"{server.url}/metrics").text
    pause.go_on()
    read_until(b"one", held)
    held.close()
    assert httpx2.post(server.url + CHAT, json=body()).is_success


@pytest.mark.parametrize("stream", [False, True])
def test_each_choice_counts_as_an_answer(scripted, *, stream: bool) -> None:
    _, server = scripted(max_requests=3)
    assert httpx2.post(server.url + CHAT, json=body(n=4, stream=stream)).status_code == 429


def test_an_answer_that_takes_too_long_is_a_timeout_that_is_not_repeated() -> None:
    with serving("talu/pocket", timeout=0.05) as server:
        fields = body("talu/pocket", stop_token_ids=[], max_tokens=1_000)
        answer = httpx2.post(server.url + CHAT, json=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "GENERATION_TIMEOUT")
    assert answer.headers["x-should-retry"] == "false"


def test_a_model_that_does_not_look_at_the_time_is_cancelled(
    scripted, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.server.requests.GRACE", 0.0)
    _, server = scripted([pause.step], timeout=0.1)
    answer = httpx2.post(server.url + CHAT, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "REQUEST_TIMEOUT")
    pause.wait_cancelled()


def test_a_stream_that_takes_too_long_ends_with_an_error(scripted, pause: Pause) -> None:
    _, server = scripted(["one", pause.step, "two", "three"], timeout=0.2)
    with httpx2.stream("POST", server.url + CHAT, json=body(stream=True)) as answer:
        texts = answer.iter_text()
        first = next(texts)
        threading.Timer(0.3, pause.go_on).start()
        *_, last = events(first + "".join(texts))
    assert last["error"]["code"] == "GENERATION_TIMEOUT"


def test_a_reader_that_takes_nothing_does_not_hold_others(scripted) -> None:
    large = ["x" * 4_000] * 3_000  # more than the buffers between both ends hold
    _, server = scripted(large, "Hi.")
    with connected(server, body(stream=True)):
        answer = httpx2.post(server.url + CHAT, json=body())
        assert answer.json()["choices"][0]["message"]["content"] == "Hi."


def test_a_reader_that_takes_nothing_loses_its_place_in_the_end(
    scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("talu.server.requests.GRACE", 0.0)
    _, server = scripted(["x" * 4_000] * 3_000, "Hi.", timeout=0.3, max_requests=1)
    ended = threading.Event()
    journal = logging.Handler()
    monkeypatch.setattr(journal, "emit", lambda record: ended.set())
    caplog.set_level(logging.INFO, "talu.server")
    monkeypatch.setattr(logging.getLogger("talu.server"), "handlers", [journal])
    with connected(server, body(stream=True)):
        assert ended.wait(PATIENCE)
        assert httpx2.post(server.url + CHAT, json=body()).is_success


def test_running_answers_end_before_the_server_does(scripted, pause: Pause) -> None:
    _, server = scripted(["one", pause.step, " two"], shutdown_timeout=PATIENCE)
    with httpx2.stream("POST", server.url + CHAT, json=body(stream=True)) as answer:
        texts = answer.iter_text()
        first = next(texts)
        server.stop()
        pause.go_on()
        chunks = events(first + "".join(texts))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one two"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_answers_that_outlast_the_shutdown_end_with_an_error() -> None:
    with serving("talu/pocket", shutdown_timeout=0.05) as server:
        fields = body("talu/pocket", stop_token_ids=[], max_tokens=1_000, stream=True)
        with httpx2.stream("POST", server.url + CHAT, json=fields) as answer:
            texts = answer.iter_text()
            first = next(texts)
            server.stop()
            *_, last = events(first + "".join(texts))
    assert last["error"]["code"] == "SERVER_STOPPING"


def test_no_connection_is_accepted_after_the_end(scripted) -> None:
    _, server = scripted(own=True)
    server.join()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/health")


def test_half_a_request_does_not_hold_the_server_and_is_closed(scripted) -> None:
    _, server = scripted("Hi.", body_timeout=0.1)
    halves = [socket.create_connection((server.host, server.port), 30.0) for _ in range(50)]
    for half in halves:
        half.sendall(b"POST /v1/chat")
    assert httpx2.post(server.url + CHAT, json=body()).is_success
    for half in halves:
        with half, suppress(ConnectionResetError):
            assert half.recv(1) == b""


def test_a_connection_whose_reader_takes_nothing_is_closed(
    scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.server.requests.GRACE", 0.0)
    _, server = scripted(["x" * 4_000] * 3_000, timeout=0.1, body_timeout=0.1)
    with connected(server, body(stream=True)) as held:
        held.recv(1)
        server.wait_without_connections()
