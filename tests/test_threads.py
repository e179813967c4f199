"""Work beside an event loop: how many threads it takes, and who waits for whom."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from talu import Client, LocalBackend, ModelSpec
from talu.backends.local import LocalModel
from talu.backends.scripted import ScriptedModel
from talu.exceptions import ResourceError, StateError
from talu.threads import InTurn


def test_calls_of_one_loop_run_one_after_the_other_in_their_order() -> None:
    turns, busy, begun = InTurn(), threading.Lock(), []

    def work(number: int, loop: asyncio.AbstractEventLoop) -> int:
        assert busy.acquire(blocking=False), "two calls run at once"
        begun.append(number)
        # A turn of the loop, in which it would start the others.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=10)
        busy.release()
        return number

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(turns.call(work, number, loop) for number in range(20)))

    assert asyncio.run(main()) == begun == list(range(20))


def test_loops_do_not_wait_for_each_other() -> None:
    turns, meeting = InTurn(), threading.Barrier(2)

    def loop() -> None:
        asyncio.run(turns.call(meeting.wait, timeout=10))

    other = threading.Thread(target=loop)
    other.start()
    loop()
    other.join()
    assert not meeting.broken


def test_one_loop_after_the_other_may_use_it() -> None:
    turns = InTurn()

    async def two(number: int) -> list[int]:  # the second waits for the first
        return await asyncio.gather(turns.call(abs, -number), turns.call(abs, -number))

    assert [asyncio.run(two(number)) for number in range(3)] == [[0, 0], [1, 1], [2, 2]]


def test_a_call_that_is_cancelled_or_fails_gives_its_turn_to_the_next() -> None:
    turns, entered, leave = InTurn(), threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        assert leave.wait(timeout=10)

    def fail() -> None:
        raise LookupError("on purpose")

    async def main() -> int:
        first = asyncio.create_task(turns.call(stay))
        await asyncio.to_thread(entered.wait)
        second = asyncio.create_task(turns.call(abs, -2))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(LookupError, match="on purpose"):
            await turns.call(fail)
        leave.set()
        return await second

    assert asyncio.run(main()) == 2


def fail_to_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_cannot_be_started_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call() -> None:
        with monkeypatch.context() as patch:  # the loop's own end needs a thread
            patch.setattr(threading.Thread, "start", fail_to_start)
            await InTurn().call(lambda: None)

    with pytest.raises(ResourceError, match=r"another thread.*ulimit -u.*ulimit -v"):
        asyncio.run(call())


@pytest.mark.parametrize("error", [RuntimeError("mine"), StateError("mine")])
def test_an_error_of_the_function_is_raised_as_it_is(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        asyncio.run(InTurn().call(fail))
    assert caught.value is error


def test_many_questions_without_a_thread_are_a_typed_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client([ModelSpec("scripted", ScriptedModel("a", "b"))])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail_to_start)
        with pytest.raises(ResourceError, match=r"another thread.*ulimit -u.*ulimit -v"):
            client.ask(["one", "two"])


def test_a_model_dropped_without_a_thread_is_freed_when_the_next_one_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = LocalModel("talu/pocket", LocalBackend(num_threads=1))
    engine: Any = weakref.ref(model._engine)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail_to_start)
        del model
        gc.collect()
        assert not engine()._worker._closed
    LocalModel("talu/pocket", LocalBackend(num_threads=2)).close()
    assert engine() is None or engine()._worker._closed
