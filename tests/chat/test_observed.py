"""Every course of a generation, on both clients and two models, has one start, one end, and one
first token if a token was read."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import Hook
from talu.client import AsyncClient, Client
from talu.exceptions import GenerationError, ModelNotFoundError, StorageError
from talu.profile import Profile
from talu.router import ModelSpec
from talu.types import Done, FinishReason, TextDelta, Timings, ToolCallEvent, Usage

CUT = Done(FinishReason.LENGTH, Usage(3, 4), Timings(), "scripted")
FOUR = ["one", " two", " three", " four", CUT]


class Watch(Hook):
    """Records the calls of each generation in a separate list."""

    def __init__(self) -> None:
        self.generations: list[list[str]] = []
        self.ended = threading.Semaphore(0)

    def for_generation(self, generation) -> Hook:
        self.generations.append([])
        return One(self.generations[-1], self.ended)


class One(Hook):
    def __init__(self, calls: list[str], ended: threading.Semaphore) -> None:
        self.calls, self.ended = calls, ended

    def on_generation_start(self, chat, input_text, *, config=None) -> None:
        self.calls.append("start")

    def on_first_token(self, chat, time_ms) -> None:
        self.calls.append("first")

    def on_generation_end(self, chat, response, *, error=None) -> None:
        assert (response is None) == (error is not None)
        self.calls.append(type(error).__name__ if error else str(response.finish_reason))
        self.ended.release()


class AwaitedOne(One):
    """The async version, which yields to the event loop before each call."""

    async def on_generation_start(self, chat, input_text, *, config=None) -> None:
        await asyncio.sleep(0)
        super().on_generation_start(chat, input_text)

    async def on_first_token(self, chat, time_ms) -> None:
        await asyncio.sleep(0)
        super().on_first_token(chat, time_ms)

    async def on_generation_end(self, chat, response, *, error=None) -> None:
        await asyncio.sleep(0)
        super().on_generation_end(chat, response, error=error)


class AwaitedWatch(Watch):
    def for_generation(self, generation) -> Hook:
        self.generations.append([])
        return AwaitedOne(self.generations[-1], self.ended)


WHOLE = ["start", "first", "length"]
LEFT = ["start", "first", "cancelled"]
UNREAD = ["start", "cancelled"]


def read(faces, client) -> None:
    faces.read(faces.run(client.chat()("Hi", max_tokens=4)))


def sent(faces, client) -> None:
    faces.run(client.chat().send("Hi", max_tokens=4))


def asked(faces, client) -> None:
    faces.run(client.ask("Hi", max_tokens=4))


def streamed(faces, client) -> None:
    faces.read(client.stream("Hi", max_tokens=4))


def completed(faces, client) -> None:
    faces.run(client.raw_complete("Hi", max_tokens=4))


def answered_again(faces, client) -> None:
    chat = client.chat()
    faces.run(chat.send("Hi", max_tokens=4))
    faces.run(chat.regenerate(max_tokens=4))


def continued_in_place_and_in_a_fork(faces, client) -> None:
    chat = client.chat()
    first = faces.run(chat.send("Hi", max_tokens=4))
    faces.run(first.append("And?", max_tokens=4))
    assert faces.run(first.append("Or?", max_tokens=4)).chat is not chat


def left_early(faces, client) -> None:
    faces.read_some(faces.run(client.chat()("Hi", max_tokens=4)), 1)


def left_early_without_a_chat(faces, client) -> None:
    faces.read_some(client.stream("Hi", max_tokens=4), 1)


def closed_in_the_middle(faces, client) -> None:
    stream = faces.run(client.chat()("Hi", max_tokens=4))
    faces.read_some(stream, 1)
    faces.run(stream.close())
    faces.run(stream.close())


def closed_unread(faces, client) -> None:
    faces.run(faces.run(client.chat()("Hi", max_tokens=4)).close())


def closed_with_its_chat(faces, client) -> None:
    chat = client.chat()
    stream = faces.run(chat("Hi", max_tokens=4))
    faces.run(chat.close())
    faces.run(stream.close())


def dropped_unread(faces, client) -> None:
    faces.run(client.chat()("Hi", max_tokens=4))


def dropped_in_the_middle(faces, client) -> None:
    stream = faces.run(client.chat()("Hi", max_tokens=4))

    async def begin() -> object:
        reader = aiter(stream)
        await anext(reader)
        return reader

    if faces.name == "async":
        faces.run(begin())
    else:
        next(iter(stream))


def failed_in_on_token(faces, client) -> None:
    def fail(token) -> None:
        raise KeyError(token)

    with pytest.raises(KeyError):
        faces.run(client.chat().send("Hi", max_tokens=4, on_token=fail))


WAYS: dict[Callable, list[list[str]]] = {
    read: [WHOLE],
    sent: [WHOLE],
    asked: [WHOLE],
    streamed: [WHOLE],
    completed: [WHOLE],
    answered_again: [WHOLE] * 2,
    continued_in_place_and_in_a_fork: [WHOLE] * 3,
    left_early: [LEFT],
    left_early_without_a_chat: [LEFT],
    closed_in_the_middle: [LEFT],
    closed_unread: [UNREAD],
    closed_with_its_chat: [UNREAD],
    dropped_unread: [UNREAD],
    dropped_in_the_middle: [LEFT],
    failed_in_on_token: [["start", "first", "KeyError"]],
}


@pytest.fixture(scope="module")
def pocket() -> Iterator[Client]:
    """Keeps talu/pocket open from test to test."""
    with Client("talu/pocket") as client:
        client.ask("Hi", max_tokens=1)
        yield client


@pytest.fixture(params=["scripted", "pocket"])
def make(request, faces, pocket) -> Callable:
    """Makes clients of the tested model, whose answers have four tokens."""

    def client(*hooks: Hook):
        if request.param == "pocket":
            return faces.face.client_class("talu/pocket", hooks=hooks)
        return faces.client(FOUR, FOUR, FOUR, hooks=hooks)

    return client


def settled(faces, watch: Watch, ends: int) -> list[list[str]]:
    """The calls, after waiting for this many ends; a dropped stream ends a little later."""

    async def turn_the_loop() -> None:
        while not watch.ended.acquire(blocking=False):
            await asyncio.sleep(0)

    gc.collect()
    for _ in range(ends):
        if faces.name == "async":
            faces.run(asyncio.wait_for(turn_the_loop(), 10))
        else:
            assert watch.ended.acquire(timeout=10)
    assert not watch.ended.acquire(blocking=False)
    return watch.generations


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_generation_has_one_start_and_one_end(faces, make, way) -> None:
    watch = Watch()
    way(faces, make(watch))
    assert settled(faces, watch, len(WAYS[way])) == WAYS[way]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_async_hooks_are_called_in_the_same_way(awaited, way) -> None:
    watch = AwaitedWatch()
    way(awaited, awaited.client(FOUR, FOUR, FOUR, hooks=[watch]))
    assert settled(awaited, watch, len(WAYS[way])) == WAYS[way]


def test_a_prompt_that_is_too_long_has_an_end_and_no_first_token(faces, pocket) -> None:
    watch = Watch()
    client = faces.face.client_class("talu/pocket", hooks=[watch])
    with pytest.raises(GenerationError, match="the prompt has"):
        faces.run(client.ask("word " * 3000))
    assert settled(faces, watch, 1) == [["start", "GenerationError"]]


@pytest.mark.parametrize("way", [read, sent, asked, streamed, completed], ids=lambda w: w.__name__)
def test_a_model_that_cannot_be_opened_is_a_generation_that_failed(faces, way) -> None:
    watch = Watch()
    client = faces.face.client_class("./no/such/folder", hooks=[watch])
    with pytest.raises(ModelNotFoundError):
        way(faces, client)
    assert settled(faces, watch, 1) == [["start", "ModelNotFoundError"]]


def test_a_question_to_a_model_that_cannot_be_opened_is_not_kept(faces, home) -> None:
    client = faces.face.client_class("./no/such/folder", profile=Profile("work"))
    chat = client.chat(session_id="s")
    with pytest.raises(ModelNotFoundError):
        faces.run(chat.send("Hi"))
    assert len(chat.items) == 0
    assert list(Profile("work").sessions()) == []


def test_closing_a_client_ends_its_generations(faces, pocket) -> None:
    watch = Watch()
    client = faces.face.client_class("talu/pocket", hooks=[watch])
    stream = faces.run(client.chat()("Hi", max_tokens=900, stop_token_ids=[]))
    faces.run(client.close())
    faces.read(stream)
    assert settled(faces, watch, 1)[0][-1] == "cancelled"


@pytest.mark.parametrize(
    "script",
    [[ToolCallEvent("c", "f", "{}")], [TextDelta("", (7,))], [CUT]],
    ids=["a call of a tool", "a token without text", "tokens that only the end speaks of"],
)
def test_every_kind_of_output_has_a_first_token(faces, script) -> None:
    watch = Watch()
    faces.run(faces.client(script, hooks=[watch]).ask("Hi"))
    assert settled(faces, watch, 1)[0][:2] == ["start", "first"]


def test_a_task_that_is_cancelled_has_one_end() -> None:
    async def main() -> None:
        waits = asyncio.Event()

        async def wait() -> None:
            waits.set()
            await asyncio.Event().wait()

        client = AsyncClient(ModelSpec("m", ScriptedModel([wait])), hooks=[watch])
        task = asyncio.create_task(client.ask("Hi"))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    watch = Watch()
    asyncio.run(main())
    assert watch.generations == [UNREAD]


def test_a_task_that_is_cancelled_before_the_model_began_has_one_end() -> None:
    class Slow(Hook):
        async def on_generation_start(self, chat, input_text, *, config=None) -> None:
            begun.set()
            await asyncio.Event().wait()

    async def main() -> None:
        client = AsyncClient(ModelSpec("m", ScriptedModel("one")), hooks=[Slow(), watch])
        task = asyncio.create_task(client.ask("Hi"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun, watch = asyncio.Event(), Watch()
    asyncio.run(main())
    assert watch.generations == [["start", "CancelledError"]]


@pytest.mark.parametrize("pieces", [0, 1], ids=["unread", "in the middle"])
@pytest.mark.parametrize(
    ("by_hand", "dropped"),
    [(False, False), (False, True), (True, False)],
    ids=["held", "dropped at its end", "closed by hand"],
)
def test_a_stream_whose_event_loop_ends_has_one_end(pieces, by_hand, dropped, caplog) -> None:
    async def main() -> object:
        client = AsyncClient(ModelSpec("m", ScriptedModel(FOUR)), hooks=[watch])
        stream = await client.chat()("Hi")
        reader = aiter(stream)
        for _ in range(pieces):
            await anext(reader)
        if not dropped:
            return stream, reader
        del stream, reader
        gc.collect()
        return None

    watch = Watch()
    if by_hand:
        loop = asyncio.new_event_loop()
        held = loop.run_until_complete(main())
        loop.close()
    else:
        held = asyncio.run(main())
    del held
    gc.collect()
    assert watch.ended.acquire(timeout=10)
    assert watch.generations == [LEFT if pieces else UNREAD]
    assert caplog.records == []


def test_an_awaited_hook_whose_loop_has_ended_is_logged(caplog) -> None:
    async def main() -> None:
        client = AsyncClient(ModelSpec("m", ScriptedModel(FOUR)), hooks=[AwaitedWatch(), watch])
        leave.append(await client.chat()("Hi"))

    watch, leave = Watch(), []
    asyncio.run(main())
    leave.clear()
    gc.collect()
    assert watch.ended.acquire(timeout=10)
    assert watch.generations == [UNREAD]
    assert [record.message for record in caplog.records] == [
        "AwaitedWatch.on_generation_end failed"
    ]
    assert "the event loop has ended" in str(caplog.records[0].exc_info[1])


def test_a_stream_that_the_loop_also_closes_has_one_end_and_no_warning(caplog) -> None:
    async def main() -> None:
        client = AsyncClient(ModelSpec("m", ScriptedModel(FOUR)), hooks=[watch])
        stream = await client.chat()("Hi")
        held: list = [stream, aiter(stream)]
        await anext(held[1])
        held.append(held)  # a cycle, so that the garbage collector finds reader and stream together
        del stream, held
        gc.collect()
        while not watch.ended.acquire(blocking=False):
            await asyncio.sleep(0)
        gc.collect()

    watch = AwaitedWatch()
    asyncio.run(asyncio.wait_for(main(), 10))
    assert watch.generations == [LEFT]
    assert caplog.records == []


def test_a_dropped_stream_that_cannot_be_stored_has_its_end_and_is_logged(
    faces, home, caplog
) -> None:
    watch, profile = Watch(), Profile("work")
    client = faces.client(FOUR, profile=profile, hooks=[watch])
    faces.run(client.chat(session_id="s")("Hi"))
    profile.delete("s")
    assert settled(faces, watch, 1) == [UNREAD]
    for thread in threading.enumerate():
        if thread.name == "talu-ending":
            thread.join()
    faces.face.end()  # with the tasks of the loop
    assert [(record.name, record.message) for record in caplog.records] == [
        ("talu.chat", "the cleanup of a dropped stream failed")
    ]
    assert isinstance(caplog.records[0].exc_info[1], StorageError)


AT_EXIT = """
import atexit
from talu.backends.scripted import ScriptedModel
from talu.chat import Hook
from talu.client import {client}
from talu.router import ModelSpec

class Tell(Hook):
    def on_generation_end(self, chat, response, *, error=None):
        print(response.finish_reason, repr(response.text), flush=True)

atexit.register(print, "the program's own exit")
client = {client}([{model}], hooks=[Tell()])
"""
OPEN = {
    "sync": """
stream = client.chat()("Tell me a story.")
pieces = iter(stream)
next(pieces)
unread = client.chat()("Hi")
""",
    "async": """
import asyncio

async def main():
    global stream, pieces, unread
    stream = await client.chat()("Tell me a story.")
    pieces = aiter(stream)
    await anext(pieces)
    unread = await client.chat()("Hi")

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
}


@pytest.mark.parametrize("model", ["scripted", "pocket"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_streams_open_at_exit_have_an_end(face, model) -> None:
    client = "Client" if face == "sync" else "AsyncClient"
    scripted = "ModelSpec('m', ScriptedModel('one two', 'three'))"
    begin = AT_EXIT.format(
        client=client, model=scripted if model == "scripted" else "'talu/pocket'"
    )
    shown = subprocess.run(
        [sys.executable, "-c", begin + OPEN[face]], capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    *ends, last = shown.stdout.splitlines()
    first, second = sorted(ends)
    assert first == "cancelled ''"
    assert second.startswith("cancelled '")
    assert last == "the program's own exit"


LATE = """
@atexit.register
def begin_late():
    global stream
    stream = client.chat()("Hi")

client.chat()("Hi").close()
"""


def test_a_stream_started_at_exit_does_not_delay_the_exit() -> None:
    begin = AT_EXIT.format(client="Client", model="ModelSpec('m', ScriptedModel('one', 'two'))")
    shown = subprocess.run(
        [sys.executable, "-c", begin + LATE],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "cancelled ''",
        "the program's own exit",
        "cancelled ''",
    ]


def test_a_forked_child_does_not_end_the_parents_streams(faces, monkeypatch) -> None:
    watch = Watch()
    stream = faces.run(faces.client(FOUR, FOUR, hooks=[watch]).chat()("Hi"))
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        del stream
        gc.collect()
    closed_unread(faces, faces.client(FOUR, hooks=[watch]))
    assert settled(faces, watch, 1) == [["start"], UNREAD]
