"""The side effects of a turn, for sync and async callers.

``AsyncIO`` awaits. ``SyncIO`` has the same methods as coroutines that never suspend, so ``run``
and ``iterate`` drive them by hand: no event loop is involved, and it works inside a running one.
"""

import asyncio
import inspect
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import closing, suppress
from inspect import GEN_CLOSED, GEN_CREATED, GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from talu.chat.builder import Token
from talu.exceptions import StateError, ValidationError
from talu.protocols import Backend
from talu.threads import beside_loop
from talu.types import Event, Request

__all__ = ["IO", "AsyncIO", "Ending", "Reading", "SyncIO", "iterate", "run", "run_alone", "runs"]

T = TypeVar("T")
Ending = Callable[[], Coroutine[Any, Any, None]]


class IO(Protocol):
    """The side effects of a turn."""

    async def open(self, request: Request) -> AsyncGenerator[Event]:
        """Begin a generation and give its events; closing or dropping them cancels it."""

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a function of the user: a hook, ``on_token``."""

    async def save(self, write: Callable[[], None]) -> None:
        """Write to the store; the write is finished even if the caller is cancelled."""

    def later(self, ending: Ending) -> None:
        """Run an ending in the background; finalizers call this, which may run at any point."""

    @property
    def working(self) -> bool:
        """Whether the call that began the turn has not come back.

        Always on an event loop: there a turn is cancelled and not interrupted, and ends itself.
        """


class SyncIO:
    """For blocking callers: none of its coroutines ever suspends."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._work: Coroutine[Any, Any, Any] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Begin a turn, and end it too when it is read whole."""
        self._work = work
        return run(work)

    @property
    def working(self) -> bool:
        """Whether ``run`` has not come back."""
        return self._work is not None and runs(self._work)

    async def open(self, request: Request) -> AsyncGenerator[Event]:
        """The backend's blocking stream as one that can be awaited, and never waits."""
        return _as_async(self._backend.stream(request))

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a plain function; one that would have to be awaited is refused."""
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            named = getattr(result, "__qualname__", repr(function))
            raise ValidationError(
                f"{named} is async: give it to AsyncClient, or make it a plain function"
            )

    async def save(self, write: Callable[[], None]) -> None:
        """Write, and wait for the disk."""
        write()

    def later(self, ending: Ending) -> None:
        """Run it in a separate thread, or here when no thread can be started."""
        try:
            if not sys.is_finalizing():
                threading.Thread(target=lambda: run_alone(ending()), name="talu-ending").start()
                return
        except RuntimeError:  # the limit of threads is reached
            pass
        run_alone(ending())


class AsyncIO:
    """For callers on an event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()

    @property
    def working(self) -> bool:
        """Always true: see ``IO``."""
        return True

    async def open(self, request: Request) -> AsyncGenerator[Event]:
        """The backend's awaited stream."""
        return await self._backend.astream(request)

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a function, and await what it gives if it can be awaited."""
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            await result

    async def save(self, write: Callable[[], None]) -> None:
        """Write in a thread, so that neither disk nor lock blocks the loop."""
        if not _in_task():
            write()
            return
        writing = asyncio.ensure_future(beside_loop(write))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([writing])
            raise cancelled from writing.exception()

    def later(self, ending: Ending) -> None:
        """Run it as a task of the loop, or here and now when the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._start, ending)
        except RuntimeError:  # it is closed
            run_alone(ending())

    def _start(self, ending: Ending) -> None:
        async def end() -> None:
            await asyncio.sleep(0)  # the loop closes dropped generators itself, and goes first
            await ending()

        # A loop that ends cancels its tasks, also those that have not made their first step.
        task = self._loop.create_task(end())
        task.add_done_callback(lambda done: run_alone(ending()) if done.cancelled() else None)


async def _as_async(events: Generator[Event]) -> AsyncGenerator[Event]:
    with closing(events):
        for event in events:
            yield event


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a sync call was given something that awaits")


def runs(coroutine: Coroutine[Any, Any, object]) -> bool:
    """Whether the coroutine is being run just now; never again once an exception has left it."""
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_RUNNING


def run_alone(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end where its event loop is gone: whatever would suspend it raises."""
    with suppress(StopIteration):
        coroutine.send(None)
        while True:
            coroutine.throw(RuntimeError("nothing can be awaited: the event loop has ended"))


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop runs here
        return False


def iterate(pieces: AsyncGenerator[T]) -> Generator[T]:
    """Iterate an async generator that never suspends; closing this one closes it."""
    try:
        while True:
            try:
                piece = run(pieces.asend(None))
            except StopAsyncIteration:
                return
            yield piece
    finally:
        run(pieces.aclose())


class Reading:
    """Reads the pieces of a turn without an event loop, and knows whether a reader is left."""

    def __init__(self, pieces: AsyncGenerator[Token]) -> None:
        self._pieces = iterate(pieces)
        self._readers: WeakSet[Generator[Token]] = WeakSet()

    @property
    def waited_for(self) -> bool:
        """Whether a reader exists that may go on; an interrupt can leave the pieces without one."""
        state = getgeneratorstate(self._pieces)
        if state == GEN_SUSPENDED:
            return any(getgeneratorstate(reader) != GEN_CLOSED for reader in self._readers)
        return state in (GEN_CREATED, GEN_RUNNING)

    def known(self, reader: Generator[Token]) -> Generator[Token]:
        """The same reader, counted as one who waits as long as it is not left."""
        self._readers.add(reader)
        return reader

    def next(self) -> Token | None:
        """The next piece that has not been taken, None after the last one.

        Raises:
            StateError: another reader waits for it just now.
        """
        try:
            return next(self._pieces, None)
        except ValueError as error:
            inside = error.__traceback__.tb_next if error.__traceback__ else None
            if inside is not None:
                raise
        # It is the interpreter's own: "generator already executing".
        raise StateError("this stream is being read already", "STATE_BUSY")

    def close(self, unread: Callable[[], None]) -> None:
        """Take no more pieces; a reader that waits for a piece sees the end by itself.

        Args:
            unread: ends what was never read; called each time.
        """
        # A reader may start or finish at any moment.
        while getgeneratorstate(self._pieces) not in (GEN_RUNNING, GEN_CLOSED):
            with suppress(ValueError):  # "generator already executing"
                self._pieces.close()
                unread()
