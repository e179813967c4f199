"""Runs async code for blocking callers, on one background event loop for each process.

The loop starts with the first call and ends with the interpreter. A forked child starts another
one. The thread is a daemon thread, so that blocked code cannot keep the interpreter from ending.
"""

import asyncio
import atexit
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar, cast

from talu.deadline import Deadline
from talu.exceptions import GenerationError, StateError
from talu.forks import ForkSafeLock, check_process
from talu.protocols import AsyncGeneration
from talu.threads import thread_starts
from talu.types import Done, Event, FinishReason, Timings, Usage

__all__ = ["Bridged", "run_in_background"]

T = TypeVar("T")
ROOM = 256  # events that wait for the reader
CLOSING_SECONDS = 5.0  # for a generation to close, and for the loop to end
# A signal that arrives right before a thread begins to wait does not wake it. Its handler runs
# when the thread wakes by itself, after this time.
SIGNAL_SECONDS = 0.5
GATE = ForkSafeLock(reentrant=True)  # a signal handler may call in


class _Outcome(Generic[T]):
    """How a coroutine ended: with a value or an error."""

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def result(self) -> T:
        """The value, or the error, which is raised once."""
        error, self.error = self.error, None  # whose traceback may lead back to this object
        try:
            if error is not None:
                raise error
            return cast("T", self.value)
        finally:
            del error


class _Started:
    """The item that tells the reader that the generation has started."""


class Bridged:
    """A blocking ``protocols.Generation`` that reads an async one on the background loop.

    A reader that is slower than the model stops the reading on the loop. Dropping the object
    cancels the generation.
    """

    _box: "_Box | None" = None  # also if an interrupt hits the constructor

    def __init__(self, make: Callable[[], AsyncGeneration]) -> None:
        """Prepare it; ``make`` is called on the loop, at the start."""
        self._make: Callable[[], AsyncGeneration] | None = make
        self._ended = False
        self._box = _Box()

    def start(self) -> None:
        """Start the generation, and block until it has started; raises what its start raises.

        Raises:
            StateError: it was started before, or this is the background loop's own thread.
        """
        make, self._make = self._make, None
        if make is None:
            raise StateError("the generation was started before")
        box = self._started_box
        background = _background()
        box.background = background
        try:
            background.post(background.spawn, lambda: _pump(make, box), box)
            self._next_item()
        except BaseException:
            self._ended = True
            box.stop()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        item = None if self._ended else self._next_item()
        if item is None or isinstance(item, _Started):
            raise StopIteration
        return item

    def cancel(self) -> None:
        """Ask it to end soon with ``Done``; from any thread or signal handler."""
        if self._box is not None:
            self._box.cancel()

    def so_far(self) -> Done:
        """The last event as if the generation was cancelled now."""
        generation = self._started_box.generation
        if generation is None:
            return Done(FinishReason.CANCELLED, Usage(), Timings(), "")
        return generation.so_far()

    def close(self) -> None:
        """Cancel it, and block until it is closed, for at most five seconds."""
        self._ended = True
        self._make = None
        box = self._started_box
        box.stop()
        if box.background is None or box.background.is_current or not box.background.usable:
            return
        with contextlib.suppress(Empty):
            while not isinstance(box.items.get(timeout=CLOSING_SECONDS), _Outcome):
                box.make_room()
            box.items.put(_Outcome())  # for a reader in another thread

    def __del__(self) -> None:
        if self._box is not None and not self._ended:
            self._box.stop()

    @property
    def _started_box(self) -> "_Box":
        if self._box is None:
            raise RuntimeError("the constructor was interrupted")
        return self._box

    def _next_item(self) -> Event | _Started | None:
        """Wait for the next item, None after the last one; raises the generation's error."""
        box = self._started_box
        if box.background is None:
            raise RuntimeError("the generation has not been started")
        box.background.check_process()
        try:
            item = _taken(box.items)
            box.make_room()
        except BaseException:  # an interrupt
            self._ended = True
            box.stop()
            raise
        if not isinstance(item, _Outcome):
            return item
        self._ended = True
        box.items.put(_Outcome())  # for ``close``
        return item.result()


def run_in_background(
    make: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline | None = None
) -> T:
    """Run a coroutine on the background loop, and block until it ends.

    An interrupt (Ctrl-C) or the deadline cancels the coroutine.

    Args:
        make: creates the coroutine; called on the loop.
        deadline: time until which to wait.

    Returns:
        The result of the coroutine; what it raises is raised here.

    Raises:
        GenerationError: the deadline has passed (code ``GENERATION_TIMEOUT``).
        StateError: the interpreter is ending, or this is the background loop's own thread.
    """
    background = _background()
    call: _Call[T] = _Call(background)
    try:
        background.post(background.spawn, lambda: _settle(make, call), call)
        outcome = _taken(call.outcomes, deadline)
    except BaseException:  # an interrupt, or the deadline
        call.stop()
        raise
    return outcome.result()


def _taken(items: "SimpleQueue[T]", deadline: Deadline | None = None) -> T:
    """Wait for an item; raises once the deadline has passed."""
    while True:
        with contextlib.suppress(Empty):
            left = SIGNAL_SECONDS if deadline is None else min(SIGNAL_SECONDS, deadline.left)
            return items.get(timeout=left)
        if deadline is not None:
            deadline.check()


class _Work:
    """A coroutine on the loop, as the caller's thread sees it.

    Attributes:
        background: where it runs; None before it was submitted.
        task: its task; None before it began and after it has ended.
        stopped: the caller does not wait for it any more.
    """

    def __init__(self, background: "_Background | None" = None) -> None:
        self.background = background
        self.task: asyncio.Task[None] | None = None
        self.stopped = False

    def stop(self) -> None:
        """Cancel the task; from any thread, signal handler or finalizer."""
        self.stopped = True
        if self.background is not None:
            self.background.post_if_open(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def finish(self, outcome: _Outcome[Any]) -> None:
        """Tell the caller how it ended."""
        raise NotImplementedError


class _Call(_Work, Generic[T]):
    """A coroutine whose result the caller waits for."""

    def __init__(self, background: "_Background") -> None:
        super().__init__(background)
        self.outcomes: SimpleQueue[_Outcome[T]] = SimpleQueue()

    def finish(self, outcome: _Outcome[Any]) -> None:
        self.outcomes.put(outcome)


class _Box(_Work):
    """What the reader of a generation and its pump share; it refers to neither of them.

    Attributes:
        generation: the async generation, once it was made.
        items: the events that were not read yet; the last item is an outcome.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generation: AsyncGeneration | None = None
        self.items: SimpleQueue[Event | _Started | _Outcome[None]] = SimpleQueue()
        self.cancelled = False
        self._full = False
        self._room = asyncio.Event()

    def cancel(self) -> None:
        """Ask the generation to end soon."""
        self.cancelled = True
        if self.generation is not None and self.background is not None:
            self.background.post_if_open(self.generation.cancel)

    def finish(self, outcome: _Outcome[Any]) -> None:
        self.items.put(outcome)

    async def put(self, event: Event) -> None:
        """Deliver an event, and wait while there is no room for another one. For the loop."""
        self.items.put(event)
        while self.items.qsize() >= ROOM:
            self._room.clear()
            self._full = True
            # An event that was read before ``_full`` was set made no room, so check again.
            if self.items.qsize() >= ROOM:
                await self._room.wait()
            self._full = False

    def make_room(self) -> None:
        """Let the pump go on once half of the events were read. For the reader."""
        if self._full and self.background is not None and self.items.qsize() <= ROOM // 2:
            self.background.post_if_open(self._room.set)


async def _pump(make: Callable[[], AsyncGeneration], box: _Box) -> None:
    """Read a generation into its box."""
    generation = box.generation = make()
    try:
        if box.cancelled:
            generation.cancel()
        await generation.start()
        box.items.put(_Started())
        async for event in generation:
            await box.put(event)
    finally:
        await generation.aclose()


async def _settle(make: Callable[[], Coroutine[Any, Any, T]], call: _Call[T]) -> None:
    """Run a coroutine and report its result."""
    call.finish(_Outcome(await make()))


class _Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = _Loop()
        self._tasks: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="talu-loop", daemon=True)
        try:
            with thread_starts():
                self._thread.start()
        except BaseException:
            if not self._thread.is_alive():
                self._loop.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it runs, and in this process."""
        return self._process == os.getpid() and not self._ending

    @property
    def is_current(self) -> bool:
        """Whether this is its thread, which cannot wait for itself."""
        return threading.current_thread() is self._thread

    def check_process(self) -> None:
        """``StateError`` in a forked child, which does not have the thread."""
        check_process(self._process, "this request was started", "submit it again in this process")

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop, for a caller that waits for the result."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed
            raise _interpreter_ends() from None

    def post_if_open(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop unless the loop has ended or belongs to another process."""
        if self._process == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *args)

    def spawn(self, make: Callable[[], Coroutine[Any, Any, None]], work: _Work) -> None:
        """Start a task for the coroutine, unless it was stopped already. On the loop."""
        if work.stopped or self._ending:
            work.finish(_Outcome(error=None if work.stopped else _interpreter_ends()))
            return
        work.task = task = self._loop.create_task(self._guarded(make, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, make: Callable[[], Coroutine[Any, Any, None]], work: _Work) -> None:
        """Run the coroutine; the caller's thread gets every error, and the loop none."""
        outcome: _Outcome[None] = _Outcome()
        try:
            await make()
        except asyncio.CancelledError as error:
            if self._ending:
                outcome = _Outcome(error=_interpreter_ends())
            elif not work.stopped:
                outcome = _Outcome(error=_was_cancelled(error))
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            outcome = _Outcome(error=error)
        work.task = None  # which refers to the work
        work.finish(outcome)

    def end(self) -> None:
        """Cancel all tasks and end the thread, unless it belongs to another process."""
        if self._process == os.getpid() and not self._ending:
            self._ending = True
            self.post_if_open(self._loop.stop)
            self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()


RUNNING: list[_Background] = []  # in a forked child also the parent's, which must not be closed


class _Loop(asyncio.SelectorEventLoop):
    """A loop that is silent in a forked child, and whose look-ups of hosts never delay an exit."""

    _getpid = staticmethod(os.getpid)  # modules are emptied before the last objects end

    def __init__(self) -> None:
        self._process = os.getpid()
        super().__init__()

    def __del__(self, *args: Any) -> None:
        if self._process == self._getpid():
            super().__del__(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error, but nothing about the tasks of the parent process."""
        if self._process == os.getpid():
            super().call_exception_handler(context)

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Look up a host in a daemon thread: the interpreter waits for those of executors."""
        found = self.create_future()

        def settle(outcome: _Outcome[Any]) -> None:
            if found.done():  # the connection was cancelled
                return
            if outcome.error is None:
                found.set_result(outcome.value)
            else:
                found.set_exception(outcome.error)

        def look_up() -> None:
            try:
                outcome = _Outcome(socket.getaddrinfo(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - it is raised on the loop
                outcome = _Outcome(error=error)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(settle, outcome)

        with thread_starts():
            threading.Thread(target=look_up, name="talu-lookup", daemon=True).start()
        return await found


def _background() -> _Background:
    """The loop of this process, which starts now if it does not run."""
    with GATE.lock:
        if any(background.is_current for background in RUNNING):
            raise StateError(
                "a blocking call of talu inside async code of talu would wait for itself: await "
                "AsyncClient there, or make the call in another thread",
                "STATE_BUSY",
            )
        usable = [background for background in RUNNING if background.usable]
        if usable:
            return usable[0]
        if ENDED:
            raise _interpreter_ends()
        background = _Background()
        RUNNING.append(background)
        return background


ENDED: list[int] = []  # this process, once its interpreter is ending


def _end() -> None:
    ENDED.append(os.getpid())
    for background in list(RUNNING):
        background.end()


atexit.register(_end)  # at the import, so that it runs after the functions of the program


def _interpreter_ends() -> StateError:
    return StateError("no request can run: the interpreter is ending", "STATE_CLOSED")


def _was_cancelled(error: asyncio.CancelledError) -> GenerationError:
    failure = GenerationError("the request was cancelled by the code that ran it")
    failure.__cause__ = error
    return failure
