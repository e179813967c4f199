"""A call with a time limit ends in time with a clear error, which has what had arrived."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from talu import (
    AsyncClient,
    Client,
    GenerationError,
    LocalBackend,
    ModelNotFoundError,
    ModelSpec,
    ScriptedModel,
    StateError,
    StopFlag,
    ValidationError,
)
from talu.chat import ItemStatus
from talu.deadline import Deadline
from talu.router import router

ENDLESS: Any = {"max_tokens": 900, "stop_token_ids": [], "temperature": 0}


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("talu/pocket") as client:
        client.ask("Hello!", max_tokens=1)
        yield client


def test_an_answer_that_takes_too_long_is_an_error_and_the_chat_goes_on(client: Client) -> None:
    chat = client.chat(system="You are a pirate.")
    with pytest.raises(GenerationError, match=r"timeout=0\.02 seconds.*max_tokens") as caught:
        chat.send("Tell me a story.", timeout=0.02, **ENDLESS)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert caught.value.details["timeout"] == 0.02
    assert chat.send("What is 2+2?", max_tokens=1, timeout=60).usage.completion_tokens == 1


@pytest.fixture
def time_is_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that lets every deadline pass."""
    return lambda *_: monkeypatch.setattr("talu.deadline.perf_counter", lambda: math.inf)


def error_of(faces: Any, call: Callable[[], Any], *, stream: bool) -> GenerationError:
    """The error of an answer whose time runs out, read as a stream or as a whole."""
    with pytest.raises(GenerationError, match="timeout=60") as caught:
        faces.read(faces.run(call())) if stream else faces.run(call())
    return caught.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_had_arrived_of_a_local_answer_stays_in_the_error_and_in_the_history(
    faces, time_is_up, stream: bool
) -> None:
    client = faces.face.client_class("talu/pocket")
    chat = client.chat(system="You are a pirate.")
    seen: list[str] = []

    def read(piece: str) -> None:
        seen.append(piece)
        time_is_up()

    arguments = {"timeout": 60, "on_token": read, "stream": stream, **ENDLESS}
    error = error_of(faces, lambda: chat("Tell me a story.", **arguments), stream=stream)
    partial = error.details["response"]
    assert partial.text.startswith(seen[0])
    assert (error.code, partial.finish_reason) == ("GENERATION_TIMEOUT", "error")
    assert partial.usage.completion_tokens >= len(seen)
    system, question, answer = chat.items
    assert (system.status, question.text) == (ItemStatus.COMPLETED, "Tell me a story.")
    assert (answer.text, answer.status) == (partial.text, ItemStatus.INCOMPLETE)
    faces.run(client.close()) if faces.name == "async" else client.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_time_out_before_the_first_piece_leaves_the_chat_as_it_was(
    faces, time_is_up, stream: bool
) -> None:
    chat = faces.chat("fine", [time_is_up, "late"])
    faces.run(chat.send("Hi"))
    before = list(chat.items)
    error = error_of(faces, lambda: chat("And?", timeout=60, stream=stream), stream=stream)
    assert error.details == {"timeout": 60.0}
    assert list(chat.items) == before


def test_a_time_out_of_regenerate_keeps_the_old_answer(faces, time_is_up) -> None:
    chat = faces.chat("fine", ["Once", time_is_up, " upon"])
    faces.run(chat.send("Hi"))
    before = list(chat.items)
    error = error_of(faces, lambda: chat.regenerate(timeout=60), stream=False)
    assert error.details["response"].text == "Once"
    assert list(chat.items) == before


CUT_SHORT = {
    "ask": lambda client: client.ask("q", timeout=60),
    "many questions": lambda client: client.ask(["q"], timeout=60),
    "raw_complete": lambda client: client.raw_complete("q", timeout=60),
}


@pytest.mark.parametrize("call", CUT_SHORT)
def test_every_call_that_runs_out_of_time_has_its_text_in_the_error(
    faces, time_is_up, call: str
) -> None:
    client = faces.client(["Once", time_is_up, " upon"])
    error = error_of(faces, lambda: CUT_SHORT[call](client), stream=False)
    assert error.details["response"].text == "Once"


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


class SlowModel(ScriptedModel):
    """A model that opens when it is told to."""

    go = threading.Event()
    made: "list[SlowModel]" = []  # noqa: RUF012 - for the test

    def __init__(self, ref: str, *_: object, **__: object) -> None:
        assert self.go.wait(60)
        if ref == "missing":
            raise ModelNotFoundError("no such model")
        super().__init__("a", "b", "c", model=ref)
        self.made.append(self)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowModel]]:
    """A model that takes until ``go`` is set to open, in place of the local ones."""
    monkeypatch.setitem(router.BACKENDS, LocalBackend, (__name__, "SlowModel"))
    SlowModel.go.clear()
    SlowModel.made.clear()
    yield SlowModel
    SlowModel.go.set()


CALLS = {
    "ask": lambda client, **limits: client.ask("q", **limits),
    "many questions": lambda client, **limits: client.ask(["q", "r"], **limits),
    "raw_complete": lambda client, **limits: client.raw_complete("q", **limits),
    "chat": lambda client, **limits: client.chat().send("q", **limits),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_waits_no_longer_for_a_model_that_is_being_opened(faces, slow, call: str) -> None:
    client = faces.face.client_class("slow")
    for _ in range(2):
        with pytest.raises(GenerationError, match=r"timeout=0\.2 .*still being opened") as caught:
            faces.run(CALLS[call](client, timeout=0.2))
        assert caught.value.code == "GENERATION_TIMEOUT"
    assert [each.name for each in threading.enumerate()].count("talu-opening") == 1
    slow.go.set()
    assert faces.run(client.ask("q")) == "a"
    assert len(slow.made) == 1
    faces.run(client.close()) if faces.name == "async" else client.close()
    assert slow.made[0].closed


@pytest.mark.parametrize("call", ["ask", "raw_complete", "chat"])
def test_a_stop_flag_ends_the_wait_for_a_model_that_is_being_opened(faces, slow, call: str) -> None:
    client = faces.face.client_class("slow")
    flag = StopFlag()
    threading.Timer(0.05, flag.signal).start()
    answer = faces.run(CALLS[call](client, stop_flag=flag))
    assert (answer.text, answer.finish_reason) == ("", "cancelled")
    assert answer.notes == ("it was stopped while its model was being opened",)
    slow.go.set()
    assert faces.run(client.ask("q")).finish_reason == "stop"


def test_embedding_waits_no_longer_either(slow) -> None:
    client = Client("slow")
    with pytest.raises(GenerationError, match="still being opened"):
        client.embed("a", timeout=0.01)
    with pytest.raises(GenerationError, match="still being opened"):
        next(client.embed_iter(["a"], timeout=0.01))


def test_a_caller_with_enough_time_gets_the_model_or_its_error(faces, slow) -> None:
    slow.go.set()
    client = faces.face.client_class(["slow", "missing"])
    assert faces.run(client.ask("q", timeout=60)) == "a"
    for _ in range(2):
        with pytest.raises(ModelNotFoundError, match="no such model"):
            faces.run(client.ask("q", model="missing", timeout=60))


def test_closing_a_client_does_not_wait_for_a_model_that_is_being_opened(slow) -> None:
    with pytest.raises(GenerationError, match="still being opened"), Client("slow") as client:
        client.ask("q", timeout=0.01)
    with pytest.raises(StateError, match="closed"):
        client.ask("q", timeout=0.01)
    (opening,) = (each for each in threading.enumerate() if each.name == "talu-opening")
    slow.go.set()
    opening.join()
    assert [model.closed for model in slow.made] == [True]


def test_a_request_whose_client_is_closed_while_its_model_is_opened_is_cancelled(slow) -> None:
    client = Client("slow")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.ask, "q", timeout=60)
        while not any(thread.name == "talu-opening" for thread in threading.enumerate()):
            pass
        client.close()
        slow.go.set()
        answer = asking.result(60)
    assert (answer.text, answer.finish_reason) == ("", "cancelled")
    assert "its client was closed while it ran" in answer.notes


def test_the_time_of_an_iteration_over_embeddings_is_limited(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    embed_iter = client.embed_iter if faces.name == "sync" else client.aembed_iter
    vectors = embed_iter(["word " * 200] * 3000, timeout=0.05)
    with pytest.raises(GenerationError, match=r"timeout=0\.05"):
        faces.read(vectors)
    with pytest.raises(ValidationError, match="timeout must be"):
        embed_iter(["a"], timeout=0)


def test_a_client_that_closes_right_after_its_model_opened_closes_the_model(
    slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.go.set()
    closing = router.Router("slow")
    opened = closing._opened

    def open_and_close(*arguments: Any, **options: Any) -> Any:
        backend = opened(*arguments, **options)
        closing.close()
        return backend

    monkeypatch.setattr(closing, "_opened", open_and_close)
    closing.backend(deadline=Deadline.after(60))
    for thread in threading.enumerate():
        if thread.name == "talu-opening":
            thread.join()
    assert [model.closed for model in slow.made] == [True]


NESTED = (
    "{% for i in range(90000) %}{% for j in range(90000) %}{% set x=1 %}{% endfor %}{% endfor %}"
)


def test_a_slow_template_ends_at_the_deadline_if_that_comes_before_its_own_limit(
    client: Client,
) -> None:
    begun = time.perf_counter()
    with pytest.raises(GenerationError) as caught:
        client.ask("Hi", chat_template=NESTED, timeout=0.1)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert time.perf_counter() - begun < 1.5  # its own limit is 2 s of processor time


class Slow(list[Any]):
    """Messages that count how often one was read."""

    read = 0

    def __iter__(self) -> Iterator[Any]:
        for entry in super().__iter__():
            self.read += 1
            yield entry


@pytest.mark.parametrize("method", ["ask", "stream"])
def test_checking_the_messages_of_a_conversation_ends_at_the_deadline(
    client: Client, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Slow([{"role": "user", "content": "x"}] * 10_000)
    monkeypatch.setattr("talu.deadline.perf_counter", lambda: messages.read / 1000)  # 1 ms each
    with pytest.raises(GenerationError) as caught:
        getattr(client, method)(messages, timeout=0.1)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert messages.read < 1_000


class Numbers(Mapping[str, list[int]]):
    """Lists of numbers by name; each takes 1 ms to read."""

    read = 0

    def __len__(self) -> int:
        return 5_000

    def __iter__(self) -> Iterator[str]:
        yield from map(str, range(len(self)))

    def __getitem__(self, key: str) -> list[int]:
        self.read += 1
        return [0] * 100


def test_copying_the_variables_of_a_template_ends_at_the_deadline(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = Numbers()
    monkeypatch.setattr("talu.deadline.perf_counter", lambda: values.read / 1000)
    with pytest.raises(GenerationError) as caught:
        client.ask("Hi", extra_context={"entries": [values, values]}, timeout=0.1)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert values.read == 5_000  # of two
