"""What ``stream`` of the clients returns: an iterator that shows its model and its state."""

import asyncio
import pickle
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, get_type_hints

import pytest

import talu
from talu import AsyncClient, Client, ModelSpec, ScriptedModel, StateError, Token
from talu.chat import Hook
from talu.chat.pieces import AsyncPieces, Pieces
from talu.router import Limits


async def closed(pieces: Any) -> None:
    await pieces.aclose()


def close(faces: Any, pieces: Any) -> None:
    if faces.name == "sync":
        pieces.close()
    else:
        faces.run(closed(pieces))


HOW = {"sync": 'loop over it, or "".join(it)', "async": "loop over it with async for"}
KIND = {"sync": "Pieces", "async": "AsyncPieces"}


def test_its_representation_says_how_to_read_it_and_later_how_it_ended(faces) -> None:
    pieces = faces.client("one two").stream("q")
    kind = KIND[faces.name]
    assert repr(pieces) == f"{kind}(model='scripted', pending: {HOW[faces.name]})"
    faces.read(pieces)
    assert repr(pieces) == f"{kind}(model='scripted', exhausted)"


def test_the_representation_of_a_stream_that_is_being_read_is_pending() -> None:
    with Client(ModelSpec("m", ScriptedModel("one two"))) as client:
        pieces = client.stream("q")
        next(pieces)
        assert repr(pieces) == "Pieces(model='m', pending)"


@pytest.mark.parametrize("read", [0, 1])
def test_closing_it_stops_the_generation_and_leaves_nothing_to_read(faces, read: int) -> None:
    model = ScriptedModel("one two three")
    pieces = faces.client_of(model).stream("q")
    if read:
        faces.read_some(pieces, read)
    close(faces, pieces)
    close(faces, pieces)
    assert model.active == 0
    assert faces.read(pieces) == []
    assert "cancelled" in repr(pieces)


def test_a_with_block_stops_the_generation_at_its_end(faces) -> None:
    model = ScriptedModel("one two three")
    client = faces.client_of(model)

    async def leave() -> str:
        async with client.stream("Hi") as pieces:
            return await anext(pieces)

    if faces.name == "async":
        assert faces.run(leave()) == "one"
    else:
        with client.stream("Hi") as pieces:
            assert next(pieces) == "one"
    assert model.active == 0


def test_two_readers_at_once_are_refused() -> None:
    read: list[object] = []

    def read_again() -> None:
        with pytest.raises(StateError, match="being read already") as caught:
            next(pieces)
        read.append(caught.value.code)

    pieces = Client(ModelSpec("m", ScriptedModel([read_again, "one"]))).stream("Hi")
    assert "".join(pieces) == "one"
    assert read == ["STATE_BUSY"]


def test_dropping_it_stops_the_generation() -> None:
    model = ScriptedModel("one two three")
    pieces = Client(ModelSpec("m", model)).stream("q")
    next(pieces)
    assert model.active == 1
    del pieces
    assert model.active == 0


def test_an_exception_thrown_into_it_stops_the_generation() -> None:
    model = ScriptedModel("one two three")
    pieces = Client(ModelSpec("m", model)).stream("q")
    next(pieces)
    with pytest.raises(KeyError):
        pieces.throw(KeyError("x"))
    assert model.active == 0


def test_it_cannot_be_pickled_and_the_error_names_the_alternative(faces) -> None:
    with pytest.raises(StateError, match="cannot be copied or pickled: read it"):
        pickle.dumps(faces.client("a").stream("q"))


def test_its_pieces_are_tokens_for_a_type_checker_too(faces) -> None:
    assert {type(piece) for piece in faces.read(faces.client("one two").stream("q"))} == {Token}
    assert get_type_hints(Client.stream)["return"] is Pieces
    assert get_type_hints(talu.stream)["return"] is Pieces
    assert get_type_hints(AsyncClient.stream)["return"] is AsyncPieces
    bases = Pieces.__orig_bases__ + AsyncPieces.__orig_bases__
    assert {Generator[Token, None, None], AsyncGenerator[Token, None]} <= set(bases)


def test_a_stream_is_closed_while_another_thread_reads_it() -> None:
    reached, go, read = threading.Event(), threading.Event(), []
    client = Client(ModelSpec("m", ScriptedModel(["a", reached.set, go.wait, "b"])))
    stream = client.stream("q")
    reader = threading.Thread(target=lambda: read.extend(stream))
    reader.start()
    assert reached.wait(30)
    stream.close()
    go.set()
    reader.join(30)
    assert "".join(read) == "a"


def test_a_stream_is_cancelled_while_another_thread_reads_it() -> None:
    reached, go, read = threading.Event(), threading.Event(), []
    client = Client(ModelSpec("m", ScriptedModel(["a", reached.set, go.wait, "b"])))
    stream = client.stream("q")
    reader = threading.Thread(target=lambda: read.extend(stream))
    reader.start()
    assert reached.wait(30)
    stream.cancel()
    go.set()
    reader.join(30)
    assert ("".join(read), stream.finish_reason) == ("a", "cancelled")


async def read(stream: AsyncPieces) -> str:
    return "".join([piece async for piece in stream])


async def stopped(stream: AsyncPieces, until: Callable[[], bool]) -> str:
    """Close a stream that another task reads, once this is true; the text that the task read."""
    reading = asyncio.create_task(read(stream))
    while not (until() or reading.done()):
        await asyncio.sleep(0)
    await stream.aclose()
    return await asyncio.wait_for(reading, 30)


def test_a_stream_that_waits_for_its_turn_is_closed_by_another_task() -> None:
    async def main() -> None:
        model = ModelSpec("m", ScriptedModel("one", "two"), limits=Limits(requests_per_minute=1))
        client = AsyncClient(model)
        await client.ask("q")
        stream = client.stream("q")
        waits = lambda: any(target.waiting for target in client.router.status().targets)  # noqa: E731
        assert await stopped(stream, waits) == ""
        assert stream.finish_reason == "cancelled"

    asyncio.run(main())


def test_a_stream_of_a_local_model_is_closed_by_another_task() -> None:
    async def main() -> None:
        async with AsyncClient("talu/pocket") as client:
            stream = client.stream("Hi", stop_token_ids=[], max_tokens=900)
            text = await stopped(stream, lambda: bool(stream.text))
            assert text == stream.text
            assert stream.finish_reason == "cancelled"
            assert stream.usage is not None
            assert stream.usage.completion_tokens < 900

    asyncio.run(main())


def test_a_stream_that_begins_is_closed_by_another_task() -> None:
    async def main() -> None:
        begins = asyncio.Event()
        closed = asyncio.Event()

        class Slow(Hook):
            async def on_generation_start(self, *_: object, **__: object) -> None:
                begins.set()
                await closed.wait()

        client = AsyncClient(ModelSpec("m", ScriptedModel("one")), hooks=[Slow()])
        stream = client.stream("q")
        reading = asyncio.ensure_future(read(stream))
        await begins.wait()
        await stream.aclose()
        closed.set()
        assert await reading == ""
        assert stream.finish_reason == "cancelled"

    asyncio.run(main())


def test_two_tasks_that_read_at_once_are_refused_and_submit_one_request() -> None:
    async def main() -> None:
        refused = asyncio.Event()
        model = ScriptedModel([refused.wait, "one"], "two")
        stream = AsyncClient(ModelSpec("m", model)).stream("q")
        first, second = (asyncio.create_task(read(stream)) for _ in range(2))
        with pytest.raises(StateError, match="being read already"):
            await second
        refused.set()
        assert await first == "one"
        assert len(model.requests) == 1

    asyncio.run(main())


RESULTS = (
    "text",
    "reasoning",
    "tokens",
    "logprobs",
    "tool_calls",
    "finish_reason",
    "stop_sequence",
    "usage",
    "timings",
    "model",
    "prompt",
    "seed",
    "notes",
    "attempts",
)


def test_at_its_end_it_has_every_property_of_the_answer(faces) -> None:
    answer = faces.run(faces.client("one two").ask("q"))
    pieces = faces.client("one two").stream("q")
    faces.read(pieces)
    known = {name: getattr(pieces, name) for name in RESULTS}
    assert known == {name: getattr(answer, name) for name in RESULTS}
    assert pieces.to_dict() == answer.to_dict()
    assert pieces.usage.completion_tokens == 2


def test_before_its_end_its_properties_show_what_has_arrived(faces) -> None:
    pieces = faces.client("one two").stream("q")
    assert (pieces.text, pieces.usage, pieces.notes) == ("", None, ())
    assert pieces.finish_reason is None
    assert pieces.model == "scripted"
    faces.read_some(pieces, 1)
    close(faces, pieces)
    assert pieces.text == "one"
    assert pieces.finish_reason == "cancelled"
    assert pieces.usage is not None
