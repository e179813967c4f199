"""The event loop stays responsive during generations on the model in the package."""

import asyncio
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from talu import AsyncClient, Client
from talu.backends.local import LocalModel
from talu.graph.native_executor import NativeExecutor

STORY = "Tell me a story about a fox."
LONG = {"temperature": 0.0, "stop_token_ids": [], "max_tokens": 900}
AT_ONCE = 16
LIMIT = 0.020  # seconds of one iteration of the loop


@pytest.fixture(scope="module", autouse=True)
def opened() -> Iterator[None]:
    """One engine for all tests, so that they do not include opening it."""
    with Client("talu/pocket") as client:
        client.ask("Hello!", max_tokens=1)
        yield


class Ticker:
    """A task that ticks in every iteration of its loop; other threads can wait for ticks."""

    def __init__(self) -> None:
        self.ticks = 0
        self._ticked = threading.Condition()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            with self._ticked:
                self.ticks += 1
                self._ticked.notify_all()

    def wait(self, more: int) -> bool:
        """Block until this many more ticks; False on a timeout."""
        with self._ticked:
            goal = self.ticks + more
            return self._ticked.wait_for(lambda: self.ticks >= goal, timeout=10)


class Turns(selectors.DefaultSelector):
    """The selector of a loop, which measures what the loop does from one ``select`` to the next.

    In seconds of the thread's own processor time, not by the clock: on a machine that is busy with
    other things the loop waits for a processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self._began is not None:
            self.seconds.append(time.thread_time() - self._began)
        found = super().select(timeout)
        self._began = time.thread_time()
        return found


async def beside(ticker: Ticker, work: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    """The result of ``work`` on a client, run while the ticker ticks."""
    ticking = asyncio.create_task(ticker.run())
    async with AsyncClient("talu/pocket") as client:
        result = await work(client)
    ticking.cancel()
    return result


async def ask_and_stream(client: AsyncClient) -> list[int]:
    """The lengths of as many answers at once, whole ones and streamed ones."""

    async def stream(number: int) -> int:
        settings = LONG | {"max_tokens": 24}
        response = await client.chat()(f"{number}: {STORY}", **settings)
        return len([piece async for piece in response if piece])

    async def whole(number: int) -> int:
        answer = await client.ask(f"{number}: {STORY}", **LONG | {"max_tokens": 24})
        return len(answer.tokens)

    asks = [(stream if number % 2 else whole)(number) for number in range(AT_ONCE)]
    return list(await asyncio.gather(*asks))


def test_the_engine_never_blocks_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine is made to wait for the loop in every step. If the loop waited for the engine
    # anywhere, both would block until the step times out and fails the answers.
    ticker, step = Ticker(), NativeExecutor.step

    def after_ticks(*arguments: Any) -> Any:
        assert ticker.wait(5), "the loop does not tick while the engine computes"
        return step(*arguments)

    monkeypatch.setattr(NativeExecutor, "step", after_ticks)
    lengths = asyncio.run(beside(ticker, ask_and_stream))
    assert min(lengths) > 0
    assert ticker.ticks > 24 * 5


def test_prompts_are_prepared_in_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each additional thread could keep the loop from the interpreter's lock for up to 5 ms.
    ticker, busy, render = Ticker(), threading.Lock(), LocalModel.render

    def alone(*arguments: Any) -> Any:
        assert busy.acquire(blocking=False), "two threads prepare prompts at once"
        try:
            assert ticker.wait(2), "the loop does not tick while a prompt is prepared"
            return render(*arguments)
        finally:
            busy.release()

    monkeypatch.setattr(LocalModel, "render", alone)
    assert min(asyncio.run(beside(ticker, ask_and_stream))) > 0


def test_no_turn_of_the_loop_computes_for_twenty_milliseconds() -> None:
    turns = Turns()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(turns)) as runner:
        runner.run(beside(Ticker(), ask_and_stream))
    # Time stolen by a hypervisor counts as the thread's time. That is rare, whereas a generation
    # that computes on the loop for so long would do so sixteen times.
    assert sum(seconds for seconds in turns.seconds if seconds > LIMIT) < AT_ONCE * LIMIT / 2
    assert len(turns.seconds) > 24


def test_cancelling_a_task_frees_its_row_before_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stepping, may_step = threading.Semaphore(0), threading.Semaphore(0)
    rows: list[int] = []
    step = NativeExecutor.step

    def gated(*arguments: Any) -> Any:
        rows.append(len(arguments[3]) - 1)  # row_starts has one entry more than sequences
        stepping.release()
        assert may_step.acquire(timeout=10)
        return step(*arguments)

    async def main() -> None:
        async with AsyncClient("talu/pocket") as client:
            with monkeypatch.context() as patch:
                patch.setattr(NativeExecutor, "step", gated)
                tasks = [asyncio.create_task(client.ask(STORY, **LONG)) for _ in range(2)]
                while not rows or rows[-1] < 2:
                    await asyncio.to_thread(stepping.acquire)
                    may_step.release()
                await asyncio.to_thread(stepping.acquire)  # a step with both rows is under way
                tasks[0].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[0]
                seen = len(rows)
                may_step.release()
                await asyncio.to_thread(stepping.acquire)
                assert rows[seen:] == [1]
                tasks[1].cancel()
                for _ in range(10):
                    may_step.release()
                await asyncio.wait(tasks)

    asyncio.run(main())
