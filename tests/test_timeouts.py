"""A call with a time limit ends in time with a clear error, and is rolled back."""

import asyncio
from typing import Any

import pytest

from talu import AsyncClient, Client, GenerationError, ModelSpec, ScriptedModel, ValidationError

ENDLESS: Any = {"max_tokens": 900, "stop_token_ids": [], "temperature": 0}


@pytest.fixture
def client() -> Client:
    client = Client("talu/pocket")
    client.ask("Hello!", max_tokens=1)
    return client


def test_an_answer_that_takes_too_long_is_an_error_and_leaves_no_trace(client: Client) -> None:
    chat = client.chat(system="You are a pirate.")
    with pytest.raises(GenerationError, match=r"timeout=0\.02 seconds.*max_tokens") as caught:
        chat.send("Tell me a story.", timeout=0.02, **ENDLESS)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert caught.value.details == {"timeout": 0.02}
    assert [message["role"] for message in chat.messages] == ["system"]
    assert chat.send("What is 2+2?", temperature=0, timeout=60).finish_reason == "stop"


def test_a_stream_yields_the_pieces_before_the_timeout_and_then_raises(client: Client) -> None:
    stream = client.chat()("Tell me a story.", timeout=0.2, **ENDLESS)
    pieces: list[str] = []
    with pytest.raises(GenerationError, match=r"timeout=0\.2"):
        pieces.extend(stream)
    assert pieces[:1] != []


def test_the_engine_stops_after_a_timeout(client: Client) -> None:
    with pytest.raises(GenerationError, match="timeout"):
        client.chat().send("Tell me a story.", timeout=0.02, **ENDLESS)
    backend: Any = client.router.backend()
    assert not backend._lease.engine._worker._open


def test_the_time_before_the_generation_counts() -> None:
    model = ScriptedModel("never said", model="m")
    with pytest.raises(GenerationError, match="timeout=1e-09"):
        Client(ModelSpec("m", model)).chat().send("q", timeout=1e-9)
    assert model.active == 0


def test_the_async_face_has_the_same_limit() -> None:
    async def main() -> None:
        async with AsyncClient("talu/pocket") as client:
            await client.ask("Hello!", max_tokens=1)
            with pytest.raises(GenerationError, match=r"timeout=0\.02"):
                await client.chat().send("Tell me a story.", timeout=0.02, **ENDLESS)
            with pytest.raises(GenerationError, match=r"timeout=0\.02"):
                async for _ in await client.chat()("Tell me a story.", timeout=0.02, **ENDLESS):
                    pass

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0, -1, "1", float("nan")])
def test_an_invalid_time_limit_is_refused(client: Client, timeout: Any) -> None:
    with pytest.raises(ValidationError, match="timeout must be a number of seconds"):
        client.chat().send("q", timeout=timeout)
