"""Whatever fails in the engine's thread: every reader is told, and nobody waits for ever."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from talu.engine.embedding import Embedder, EmbeddingRequest
from talu.engine.engine import Engine
from talu.engine.scheduler import Limits, Scheduler
from talu.engine.sequence import Sequence
from talu.engine.ticket import Doorbell
from talu.exceptions import GenerationError, StateError
from talu.protocols import Executor
from talu.sampling import SamplingParams

NewEngine = Callable[..., Engine]
LONG = SamplingParams(max_tokens=40, temperature=0.0)
SHORT = replace(LONG, max_tokens=3)
PROMPT = list(range(40, 60))


class Panic(BaseException):
    """What a library may raise beside ``Exception``."""


class Held:
    """The real executor; it steps when it is let, and raises once it is told what."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.entered = threading.Event()
        self.go = threading.Event()
        self.error: BaseException | None = None
        self.closed = False

    def step(self, *arrays: Any) -> Any:
        self.entered.set()
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return self._executor.step(*arrays)

    def close(self) -> None:
        self.closed = True
        self._executor.close()


@pytest.fixture
def held(new_engine: NewEngine) -> Callable[[], tuple[Engine, Held]]:
    """An engine with two running requests at most, and the executor of its generations."""

    def new() -> tuple[Engine, Held]:
        executors: list[Held] = []

        def wrap(executor: Executor) -> Executor:
            if executors:  # that of the embeddings is not held
                return executor
            executors.append(Held(executor))
            return executors[-1]

        return new_engine(wrap=wrap, limits=Limits(jobs=2)), executors[0]

    return new


def read(ticket: Any) -> BaseException | None:
    """What the reader of a ticket of any kind gets as an error."""
    try:
        ticket.wait() if hasattr(ticket, "wait") else list(ticket)
    except (GenerationError, StateError) as error:
        return error
    return None


async def read_async(ticket: Any) -> BaseException | None:
    try:
        if hasattr(ticket, "wait_async"):
            await ticket.wait_async()
        else:
            async for _ in ticket:
                pass
    except (GenerationError, StateError) as error:
        return error
    return None


def failures(engine: Engine, held: Held) -> list[BaseException | None]:
    """What seven readers get: of running, waiting and embedding requests, blocking and awaited."""
    tickets: list[Any] = [engine.submit(PROMPT, LONG) for _ in range(4)]
    tickets.append(engine.submit_embedding([PROMPT, PROMPT], ["mean"]))
    awaited: list[Any] = [engine.submit(PROMPT, LONG)]
    awaited.append(engine.submit_embedding([PROMPT], ["last"]))
    assert held.entered.wait(30)

    async def read_all() -> list[BaseException | None]:
        reading = asyncio.gather(*map(read_async, awaited))
        await asyncio.sleep(0)
        held.go.set()
        return await asyncio.wait_for(reading, 30)

    with ThreadPoolExecutor(len(tickets)) as pool:
        reading = [pool.submit(read, ticket) for ticket in tickets]
        errors = asyncio.run(read_all())
        return errors + [each.result(30) for each in reading]


def assert_it_ended(engine: Engine, held: Held, cause: BaseException) -> None:
    engine._worker._thread.join(30)
    assert not engine._worker._thread.is_alive()
    assert engine.failed
    assert held.closed
    for request in (lambda: engine.submit(PROMPT, SHORT), lambda: submit_text(engine)):
        with pytest.raises(
            StateError, match=r"has failed and is closed.*create a new one"
        ) as caught:
            request()
        assert caught.value.code == "STATE_ENGINE_FAILED"
        assert caught.value.__cause__ is cause
    engine.close()


def submit_text(engine: Engine) -> object:
    return engine.submit_embedding([PROMPT], ["mean"])


@pytest.mark.parametrize("kind", [Panic, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_error_outside_of_exception_ends_the_engine_and_reaches_every_reader(
    kind: type[BaseException], held: Callable[[], tuple[Engine, Held]]
) -> None:
    engine, executor = held()
    executor.error = kind("out of order")
    errors = failures(engine, executor)
    assert [type(error) for error in errors] == [GenerationError] * 7
    assert all(error is not None and error.__cause__ is executor.error for error in errors)
    assert len({id(error) for error in errors}) == 7
    assert_it_ended(engine, executor, executor.error)


PLACES = [
    (Scheduler, "plan"),
    (Scheduler, "complete"),
    (Scheduler, "remove"),
    (Embedder, "drop_cancelled"),
    (Embedder, "forget_begun"),
    (Doorbell, "ring"),
    (Sequence, "accept"),
    (Sequence, "end"),
    (EmbeddingRequest, "finish"),
]


@pytest.mark.parametrize("kind", [MemoryError, SystemExit, Panic])
@pytest.mark.parametrize(("owner", "name"), PLACES)
def test_a_failure_anywhere_in_the_thread_leaves_no_reader_waiting(
    owner: type,
    name: str,
    kind: type[BaseException],
    held: Callable[[], tuple[Engine, Held]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, executor = held()
    error = kind("out of order")
    left = [1]  # failures; a bell that stays broken could wake nobody

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*args: Any, **options: Any) -> Any:
            mine = threading.current_thread() is engine._worker._thread
            if mine and executor.go.is_set() and left[0]:
                left[0] -= 1
                raise error
            return real(*args, **options)

        return fail

    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    if name == "forget_begun":  # it is called when something else has failed
        monkeypatch.setattr(EmbeddingRequest, "finish", failing(EmbeddingRequest.finish))
    errors = failures(engine, executor)
    assert error in [each.__cause__ for each in errors if each is not None]
    monkeypatch.undo()
    if engine.failed:
        assert_it_ended(engine, executor, error)
    else:
        assert len(list(engine.submit(PROMPT, SHORT))) == 3


def test_a_failure_while_the_engine_closes_leaves_no_reader_waiting(
    held: Callable[[], tuple[Engine, Held]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, executor = held()
    tickets = [engine.submit(PROMPT, LONG) for _ in range(3)]
    weights = engine._worker._weights.packed
    assert executor.entered.wait(30)

    def fail(*_: Any) -> None:
        raise MemoryError("out of order")

    monkeypatch.setattr(Sequence, "drop", fail)
    monkeypatch.setattr(executor, "close", fail)
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, ticket) for ticket in tickets]
        closing = pool.submit(engine.close)
        while not engine._worker._closed:
            pass
        executor.go.set()
        closing.result(30)
        assert ["out of order" in str(each.result(30)) for each in reading] == [True] * 3
    assert not weights


def test_a_token_that_cannot_be_decoded_fails_only_its_own_request(
    held: Callable[[], tuple[Engine, Held]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, executor = held()
    executor.go.set()
    expected = [piece.tokens for piece in engine.submit(PROMPT, SHORT)]
    broken, whole = engine.submit(PROMPT, LONG), engine.submit(PROMPT, SHORT)
    real = Sequence.accept

    def accept(self: Sequence, sampled: Any) -> Any:
        if self.params is LONG:
            raise ValueError("no such token")
        return real(self, sampled)

    monkeypatch.setattr(Sequence, "accept", accept)
    error = read(broken)
    assert "no such token" in str(error)
    assert [piece.tokens for piece in whole] == expected
    assert not engine.failed


def test_a_thread_that_cannot_be_started_is_a_typed_error(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    class Watched:
        step = None

        def close(self) -> None:
            closed.append(1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(Exception, match=r"another thread.*ulimit") as caught:
        new_engine(wrap=lambda _: Watched())
    assert type(caught.value).__name__ == "ResourceError"
    assert closed == [1]


def test_an_embedding_that_fails_late_does_not_wait_for_its_other_texts(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    real = EmbeddingRequest.finish

    def finish(self: EmbeddingRequest, text: Any) -> None:
        if text.number == 1:
            raise ValueError("it does not fit")
        real(self, text)

    monkeypatch.setattr(EmbeddingRequest, "finish", finish)
    ticket = engine.submit_embedding([[1, 2, 3]] * 500, ["mean"])
    with pytest.raises(GenerationError, match="does not fit"):
        ticket.wait()
    monkeypatch.undo()
    assert np.isfinite(engine.submit_embedding([[1, 2, 3]], ["mean"]).wait()).all()
