"""Blocking readers of async generations, on the real background loop."""

import asyncio
import contextlib
import contextvars
import gc
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from tests.forked import in_child

from talu import background
from talu.bridge import ROOM, Bridged, run_in_background
from talu.deadline import Deadline
from talu.exceptions import EndpointError, GenerationError, StateError
from talu.types import Done, Event, FinishReason, TextDelta, Timings, Usage

WAIT = 30.0  # seconds, for what happens at once


class Numbers:
    """An async generation of numbers as texts, which records what happens to it."""

    def __init__(self, count: int, *, wait_at: int | None = None) -> None:
        self.count, self.wait_at = count, wait_at
        self.given = 0
        self.waiting, self.closed = threading.Event(), threading.Event()
        self.was_cancelled = False
        self.thread = threading.get_ident()
        self._woken = asyncio.Event()
        self._done = False

    async def start(self) -> None:
        if self.wait_at == -1:
            await self.wait()

    async def wait(self) -> None:
        """Wait for ``cancel``."""
        self.waiting.set()
        await self._woken.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._done:
            raise StopAsyncIteration
        if self.given == self.wait_at:
            await self.wait()
        if self.was_cancelled or self.given == self.count:
            self._done = True
            return self.so_far()
        self.given += 1
        return TextDelta(str(self.given - 1))

    def cancel(self) -> None:
        self.was_cancelled = True
        self._woken.set()

    def so_far(self) -> Done:
        reason = FinishReason.CANCELLED if self.was_cancelled else FinishReason.STOP
        return Done(reason, Usage(None, self.given), Timings(), "numbers")

    async def aclose(self) -> None:
        self._done = True
        self.closed.set()


class Made:
    """Makes one generation, and keeps it for the test."""

    def __init__(self, count: int, **arguments: Any) -> None:
        self._make = lambda: Numbers(count, **arguments)
        self.bridged = Bridged(self._made)
        self.generation: Numbers

    def _made(self) -> Numbers:
        self.generation = self._make()
        return self.generation


def interrupts() -> None:
    """Send Ctrl-C to the main thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def loops() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "talu-loop"]


def in_python(code: str, *, check: bool = True) -> str:
    """What a program prints, its warnings being errors."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not check or (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_events_arrive_in_order_and_end_after_the_last_one() -> None:
    made = Made(3)
    made.bridged.start()
    events = list(made.bridged)
    assert [event.text for event in events[:-1] if isinstance(event, TextDelta)] == ["0", "1", "2"]
    assert events[-1] == made.generation.so_far()
    assert list(made.bridged) == []
    assert made.generation.closed.wait(WAIT)


def test_all_generations_of_a_process_run_on_one_loop_beside_their_readers() -> None:
    first, second = Made(1), Made(1)
    first.bridged.start()
    second.bridged.start()
    assert first.generation.thread == second.generation.thread != threading.get_ident()
    assert len(loops()) == 1
    first.bridged.close()
    second.bridged.close()


def test_it_can_be_read_inside_a_running_event_loop() -> None:
    async def main() -> int:
        made = Made(5)
        made.bridged.start()
        return len(list(made.bridged))

    assert asyncio.run(main()) == 6


def test_an_error_of_the_start_is_raised_by_the_start() -> None:
    def make() -> Numbers:
        raise EndpointError("no connection", "ENDPOINT_UNREACHABLE")

    with pytest.raises(EndpointError, match="no connection"):
        Bridged(make).start()


def test_an_error_between_events_reaches_the_reader_after_them_and_once() -> None:
    class Breaks(Numbers):
        async def __anext__(self) -> Event:
            if self.given == 2:
                raise EndpointError("it broke", "STREAM_BROKEN")
            return await super().__anext__()

    bridged = Bridged(lambda: Breaks(5))
    bridged.start()
    assert [next(bridged), next(bridged)] == [TextDelta("0"), TextDelta("1")]
    with pytest.raises(EndpointError, match="it broke"):
        next(bridged)
    assert list(bridged) == []
    assert bridged.so_far().usage.completion_tokens == 2


def test_an_interrupt_raised_by_the_model_is_raised_in_the_reader_and_the_loop_lives_on() -> None:
    class Exits(Numbers):
        async def start(self) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        Bridged(lambda: Exits(1)).start()
    assert run_in_background(lambda: asyncio.sleep(0, "alive")) == "alive"


def test_a_task_that_cancels_itself_is_an_error_of_the_generation() -> None:
    class Cancels(Numbers):
        async def start(self) -> None:
            raise asyncio.CancelledError

    with pytest.raises(GenerationError, match="was cancelled by the code that ran it"):
        Bridged(lambda: Cancels(1)).start()


def test_a_slow_reader_stops_the_model_and_still_gets_every_event() -> None:
    made = Made(5 * ROOM)
    made.bridged.start()
    assert next(made.bridged) == TextDelta("0")
    run_in_background(lambda: asyncio.sleep(0))
    for _ in range(3):  # turns of the loop, in which the model would go on
        run_in_background(lambda: asyncio.sleep(0))
    assert made.generation.given <= ROOM + 2
    assert len(list(made.bridged)) == 5 * ROOM  # and the last event


def test_the_reading_ends_when_a_reader_that_was_too_slow_closes() -> None:
    made = Made(5 * ROOM)
    made.bridged.start()
    made.bridged.close()
    assert made.generation.closed.is_set()
    assert made.generation.given <= ROOM + 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_generation_that_is_cancelled_before_its_start_ends_at_once(times: int) -> None:
    made = Made(5)
    for _ in range(times):
        made.bridged.cancel()
    made.bridged.start()
    assert [event.finish_reason for event in made.bridged if isinstance(event, Done)] == [
        FinishReason.CANCELLED
    ]
    assert made.generation.given == 0


@pytest.mark.parametrize("wait_at", [-1, 0, 2], ids=["in the start", "at first", "later"])
def test_another_thread_cancels_it_while_the_reader_waits(wait_at: int) -> None:
    made = Made(5, wait_at=wait_at)
    waiting = threading.Event()

    def make() -> Numbers:
        generation = made._made()
        generation.waiting = waiting
        return generation

    bridged = Bridged(make)

    def cancel() -> None:
        assert waiting.wait(WAIT)
        bridged.cancel()
        bridged.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    bridged.start()
    *texts, done = bridged
    thread.join()
    assert len(texts) == max(0, wait_at)
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.CANCELLED


def test_a_signal_handler_cancels_it_while_the_main_thread_waits() -> None:
    class Signals(Numbers):
        async def wait(self) -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            await super().wait()

    bridged = Bridged(lambda: Signals(5, wait_at=1))
    before = signal.signal(signal.SIGUSR1, lambda *_: bridged.cancel())
    try:
        bridged.start()
        assert len(list(bridged)) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("wait_at", [-1, 1], ids=["in the start", "in the reading"])
def test_ctrl_c_interrupts_a_waiting_reader_at_once_and_leaves_a_generation_to_close(
    wait_at: int,
) -> None:
    class Interrupts(Numbers):
        async def wait(self) -> None:
            interrupts()
            await super().wait()

    kept: list[Interrupts] = []
    bridged = Bridged(lambda: kept.append(Interrupts(5, wait_at=wait_at)) or kept[0])

    def read() -> None:
        bridged.start()
        list(bridged)

    with pytest.raises(KeyboardInterrupt):
        read()
    bridged.close()
    assert list(bridged) == []
    assert kept[0].closed.is_set()
    assert bridged.so_far().usage.completion_tokens == max(0, wait_at)


def test_closing_waits_until_the_connection_is_closed_and_keeps_what_came() -> None:
    made = Made(5, wait_at=3)
    made.bridged.start()
    assert next(made.bridged) == TextDelta("0")
    assert made.generation.waiting.wait(WAIT)
    made.bridged.close()
    assert made.generation.closed.is_set()
    assert made.bridged.so_far().usage.completion_tokens == 3
    assert list(made.bridged) == []
    made.bridged.close()


def test_a_reader_in_another_thread_ends_when_the_generation_is_closed() -> None:
    made = Made(5, wait_at=1)
    made.bridged.start()
    read: list[list[Event]] = []
    reader = threading.Thread(target=lambda: read.append(list(made.bridged)))
    reader.start()
    assert made.generation.waiting.wait(WAIT)
    made.bridged.close()
    reader.join(WAIT)
    assert read == [[TextDelta("0")]]


def test_closing_a_generation_that_was_not_started_does_nothing() -> None:
    made = Made(5)
    made.bridged.close()
    made.bridged.close()
    assert not hasattr(made, "generation")
    with pytest.raises(StateError, match="started before"):
        made.bridged.start()


def test_dropping_it_cancels_it_without_the_garbage_collector() -> None:
    made = Made(5, wait_at=2)
    made.bridged.start()
    assert made.generation.waiting.wait(WAIT)
    gc.disable()
    try:
        gone = weakref.ref(made.bridged)
        del made.bridged
        assert gone() is None
        assert made.generation.closed.wait(WAIT)
    finally:
        gc.enable()


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_keeps_a_generation_that_was_read_to_its_end(fails: bool) -> None:
    class Fails(Numbers):
        async def __anext__(self) -> Event:
            if fails:
                raise EndpointError("it broke", "STREAM_BROKEN")
            return await super().__anext__()

    kept: list[weakref.ref[Numbers]] = []

    def make() -> Numbers:
        generation = Fails(2)
        kept.append(weakref.ref(generation))
        return generation

    gc.disable()
    try:
        bridged = Bridged(make)
        bridged.start()
        with contextlib.suppress(EndpointError):
            list(bridged)
        run_in_background(lambda: asyncio.sleep(0))  # the loop forgets the task
        del bridged
        assert kept[0]() is None
    finally:
        gc.enable()


def test_a_coroutine_gives_its_result_or_its_error_to_the_caller() -> None:
    async def fail() -> None:
        raise EndpointError("no such model", "MODEL_NOT_FOUND")

    assert run_in_background(lambda: asyncio.sleep(0, 42)) == 42
    with pytest.raises(EndpointError, match="no such model"):
        run_in_background(fail)


def test_the_coroutine_sees_the_context_of_its_caller() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("of the caller")

    async def read() -> str:
        return name.get()

    assert run_in_background(read) == "of the caller"


class Forever:
    """A coroutine that waits until it is cancelled."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.ended = threading.Event()
        self._then = then

    async def __call__(self) -> None:
        try:
            self._then()
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()


def test_a_deadline_cancels_the_coroutine() -> None:
    forever = Forever()
    with pytest.raises(GenerationError, match=r"timeout=0\.01") as caught:
        run_in_background(forever, Deadline.after(0.01))
    assert caught.value.code == "GENERATION_TIMEOUT"
    # It is not begun at all, when the deadline passes first.
    assert run_in_background(lambda: asyncio.sleep(0, forever.ended.is_set() or True))


def test_ctrl_c_cancels_the_coroutine() -> None:
    forever = Forever(interrupts)
    with pytest.raises(KeyboardInterrupt):
        run_in_background(forever)
    assert forever.ended.wait(WAIT)


def test_a_blocking_call_on_the_loop_itself_is_an_error_and_does_not_hang() -> None:
    async def call() -> None:
        run_in_background(lambda: asyncio.sleep(0))

    async def read() -> None:
        Bridged(lambda: Numbers(1)).start()

    for work in (call, read):
        with pytest.raises(StateError, match="would wait for itself"):
            run_in_background(work)


def test_a_forked_child_starts_a_loop_of_its_own() -> None:
    made = Made(5, wait_at=1)
    made.bridged.start()

    def work() -> None:
        own = Made(3)
        own.bridged.start()
        assert len(list(own.bridged)) == 4
        with pytest.raises(StateError, match="before this process was forked"):
            next(made.bridged)
        made.bridged.cancel()
        made.bridged.close()
        del made.bridged

    assert in_child(work) == 0
    assert next(made.bridged) == TextDelta("0")
    assert not made.generation.was_cancelled  # the child's calls did not reach it
    made.bridged.close()


PROGRAM = """
import asyncio, logging, os, socket, sys, threading
# A step that takes long is no fault: the machine may be busy.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
from talu.bridge import Bridged, run_in_background
from talu.exceptions import StateError
from talu.types import Done, FinishReason, TextDelta, Timings, Usage

class Endless:
    def __init__(self):
        self.number = 0
    async def start(self): ...
    def __aiter__(self): return self
    async def __anext__(self):
        self.number += 1
        if self.number > 3:
            await asyncio.get_running_loop().create_future()
        return TextDelta("x")
    def cancel(self): ...
    def so_far(self): return Done(FinishReason.CANCELLED, Usage(), Timings(), "m")
    async def aclose(self):
        await asyncio.sleep(0)
        os.write(1, b"closed\\n")
"""
ENDINGS = {
    "an open generation": """
bridged = Bridged(Endless)
bridged.start()
next(bridged)
""",
    "a reader in a daemon thread": """
bridged, begun = Bridged(Endless), threading.Event()
def read():
    bridged.start()
    next(bridged)
    begun.set()
    try: list(bridged)
    except StateError: os.write(1, b"ended\\n")
threading.Thread(target=read, daemon=True).start()
begun.wait()
""",
    "an exit with an error": """
bridged = Bridged(Endless)
bridged.start()
next(bridged)
sys.exit(0)
""",
    "a program that closes its generation at exit": """
import atexit
bridged = Bridged(Endless)
atexit.register(bridged.close)
bridged.start()
next(bridged)
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_without_a_message_and_closes_the_connections(ending: str) -> None:
    printed = in_python(PROGRAM + ENDINGS[ending])
    # A daemon thread may print, or be ended before it does.
    assert printed.removesuffix("ended\n") == "closed\n"


def test_a_forked_child_that_ends_normally_is_silent() -> None:
    assert (
        in_python(
            PROGRAM
            + """
bridged = Bridged(Endless)
bridged.start()
next(bridged)
child = os.fork()
if child == 0:
    sys.exit(0)
print(os.waitpid(child, 0)[1], flush=True)
"""
        )
        == "0\nclosed\n"
    )


def test_nothing_runs_before_the_first_use_nor_after_the_end() -> None:
    code = PROGRAM + (
        "import atexit, talu.background as background\n"
        "def late():\n"
        "    try: run_in_background(lambda: asyncio.sleep(0))\n"
        "    except talu.exceptions.StateError as error: print(error)\n"
        "import talu.exceptions\n"
        "print(threading.active_count(), background.RUNNING)\n"
        "atexit.unregister(background._end); atexit.register(late)\n"
        "atexit.register(background._end)\n"
    )
    assert in_python(code) == "1 []\nno request can run: the interpreter is ending\n"


@pytest.fixture(autouse=True)
def _one_loop() -> Iterator[None]:
    """No test leaves work on the loop, or a second loop."""
    yield
    gc.collect()
    for _ in range(5):
        run_in_background(lambda: asyncio.sleep(0))
    tasks = {id(each): len(each._tasks) for each in background.RUNNING}
    assert len(tasks) == 1
    assert max(tasks.values()) <= 1  # the last ``sleep`` may be on its way out
