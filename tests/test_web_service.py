"""Answers and streams in a real FastAPI application, called as a server calls it."""

import asyncio
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from talu import AsyncClient, Client, ModelSpec, ScriptedModel

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "async.md"
TEXT = "one two three"


class Disconnected(OSError):
    """What a server raises when the user has gone."""


async def get(app: Any, url: str, *, method: str = "GET", parts: int = 100) -> tuple[int, bytes]:
    """Status and body of a request, whose user disconnects after this number of parts."""
    path, _, query = url.partition("?")
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        if len(sent) > parts:
            raise Disconnected
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(TEXT, TEXT)


def application(handler: Callable[..., object]) -> FastAPI:
    app = FastAPI()
    app.get("/")(handler)
    return app


def handlers(model: ScriptedModel) -> dict[str, Callable[..., object]]:
    """Handlers that return a stream itself, without annotations, as most are written."""
    client, awaited = (kind(ModelSpec("m", model)) for kind in (Client, AsyncClient))

    async def astream():
        return awaited.stream("q")

    async def achat():
        return await awaited.chat()("q")

    return {
        "client.stream": lambda: client.stream("q"),
        "chat": lambda: client.chat()("q"),
        "async client.stream": astream,
        "async chat": achat,
    }


STREAMS = ("client.stream", "chat", "async client.stream", "async chat")


def streaming(handler: Callable[..., Any]) -> Callable[..., object]:
    """The handler whose stream is put into a ``StreamingResponse`` of FastAPI."""

    async def awaited() -> StreamingResponse:
        return StreamingResponse(await handler(), media_type="text/plain")

    def plain() -> StreamingResponse:
        return StreamingResponse(handler(), media_type="text/plain")

    return awaited if asyncio.iscoroutinefunction(handler) else plain


@pytest.mark.parametrize("name", STREAMS)
def test_a_streaming_response_of_fastapi_sends_the_pieces(model: ScriptedModel, name: str) -> None:
    app = application(streaming(handlers(model)[name]))
    assert asyncio.run(get(app, "/")) == (200, TEXT.encode())
    assert model.active == 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_user_who_disconnects_stops_the_generation(model: ScriptedModel, name: str) -> None:
    app = application(streaming(handlers(model)[name]))

    async def leave() -> None:
        with pytest.raises(ClientDisconnect):
            await get(app, "/", parts=1)

    asyncio.run(leave())
    gc.collect()  # the error of the framework refers to the stream
    assert model.active == 0


@pytest.mark.parametrize("name", STREAMS)
def test_returning_a_stream_itself_is_an_error_that_says_what_to_return(
    model: ScriptedModel, name: str
) -> None:
    app = application(handlers(model)[name])
    with pytest.raises(ValueError, match=r"fastapi\.responses\.StreamingResponse\(stream"):
        asyncio.run(get(app, "/"))


def test_a_complete_answer_is_returned_as_text(model: ScriptedModel) -> None:
    client = Client(ModelSpec("m", model))
    assert asyncio.run(get(application(lambda: client.ask("q")), "/")) == (200, b'"one two three"')


def test_the_application_of_the_guide_answers_streams_and_refuses() -> None:
    section = GUIDE.read_text().partition("## A web backend")[2]
    source = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert source is not None
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(source[1], str(GUIDE), "exec"), names)
    app = names["app"]

    async def main() -> None:
        async with app.router.lifespan_context(app):
            status, body = await get(app, "/ask?question=What+is+2%2B2%3F", method="POST")
            assert (status, b'"text":' in body) == (200, True)
            status, body = await get(app, "/stream?question=What+is+2%2B2%3F", method="POST")
            assert (status, body != b"") == (200, True)
            long = "word+" * 3000
            status, body = await get(app, f"/stream?question={long}", method="POST")
            assert (status, b"GENERATION_CONTEXT_OVERFLOW" in body) == (422, True)

    asyncio.run(main())
