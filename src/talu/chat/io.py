"""The side effects of a turn, for sync and async callers.

``AsyncIO`` awaits. The coroutines of ``SyncIO`` never suspend, so ``run`` and ``iterate`` can drive
them without an event loop, even inside a running one.
"""

import asyncio
import inspect
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from inspect import GEN_CLOSED, GEN_CREATED, GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from typing import Any, Protocol, Self, TypeVar
from weakref import WeakSet

from talu.chat.builder import Token
from talu.exceptions import StateError, ValidationError
from talu.protocols import AsyncGeneration, Backend, Generation
from talu.router.abilities import check_settings
from talu.threads import beside_loop
from talu.types import Done, Event, FinishReason, Request, Timings, Usage

__all__ = [
    "IO",
    "AsyncIO",
    "Ending",
    "NeverStarted",
    "Reading",
    "SyncIO",
    "iterate",
    "run",
    "run_without_loop",
    "runs",
]

T = TypeVar("T")
Ending = Callable[[], Coroutine[Any, Any, None]]


class IO(Protocol):
    """The side effects of a turn."""

    async def open(self, request: Request) -> AsyncGeneration:
        """Open the model, unless it is open; returns a generation that has not started.

        Raises:
            ValidationError: the model does not honour a setting of the request.
            Stopped: the stop flag was signalled while the model was being opened.
        """

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a user function: a hook or ``on_token``."""

    async def save(self, write: Callable[[], None]) -> None:
        """Write to the store; the write completes even if the caller is cancelled."""

    def run_later(self, ending: Ending) -> None:
        """Run a cleanup in the background; called from finalizers, which can run at any point."""

    @property
    def working(self) -> bool:
        """Whether the call that started the turn is still running.

        On an event loop always true: there a turn is cancelled, not interrupted, and cleans up
        after itself.
        """


class SyncIO:
    """Side effects for blocking callers; none of the coroutines ever suspends."""

    def __init__(self, open: Callable[[], Backend]) -> None:
        self._open = open
        self._work: Coroutine[Any, Any, Any] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the call that starts a turn, and that also finishes it unless it is streamed."""
        self._work = work
        return run(work)

    @property
    def working(self) -> bool:
        """Whether ``run`` is still running."""
        return self._work is not None and runs(self._work)

    async def open(self, request: Request) -> AsyncGeneration:
        """Open the model; its blocking generation becomes an async one that never suspends."""
        backend = self._open()
        check_settings(backend, request)
        return _NeverSuspended(backend.generate(request))

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a plain function; an async one is an error."""
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            named = getattr(result, "__qualname__", repr(function))
            raise ValidationError(
                f"{named} is async: give it to AsyncClient, or make it a plain function"
            )

    async def save(self, write: Callable[[], None]) -> None:
        """Write, and block until the write is complete."""
        write()

    def run_later(self, ending: Ending) -> None:
        """Run it in a new thread, or in this one when no thread can be started."""
        try:
            if not sys.is_finalizing():
                thread = threading.Thread(
                    target=lambda: run_without_loop(ending()), name="talu-ending"
                )
                thread.start()
                return
        except RuntimeError:  # the limit of threads is reached
            pass
        run_without_loop(ending())


class AsyncIO:
    """Side effects for callers on an event loop."""

    def __init__(self, open: Callable[[], Awaitable[Backend]]) -> None:
        self._open = open
        self._loop = asyncio.get_running_loop()

    @property
    def working(self) -> bool:
        """Always true; see ``IO``."""
        return True

    async def open(self, request: Request) -> AsyncGeneration:
        """Open the model beside the loop."""
        backend = await self._open()
        check_settings(backend, request)
        return backend.agenerate(request)

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a function, and await the result if it is awaitable."""
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            await result

    async def save(self, write: Callable[[], None]) -> None:
        """Write in a thread, so that neither the disk nor a lock blocks the loop."""
        if not _in_task():
            write()
            return
        writing = asyncio.ensure_future(beside_loop(write))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([writing])
            raise cancelled from writing.exception()

    def run_later(self, ending: Ending) -> None:
        """Run it as a task of the loop, or at once when the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._start, ending)
        except RuntimeError:  # the loop is closed
            run_without_loop(ending())

    def _start(self, ending: Ending) -> None:
        async def end() -> None:
            await asyncio.sleep(0)  # first let the loop close dropped generators itself
            await ending()

        # A loop that shuts down also cancels tasks that have not started.
        task = self._loop.create_task(end())
        task.add_done_callback(
            lambda done: run_without_loop(ending()) if done.cancelled() else None
        )


class NeverStarted:
    """A generation that was cancelled before its model was open."""

    def __init__(self, model: str, notes: tuple[str, ...]) -> None:
        self._done = Done(FinishReason.CANCELLED, Usage(), Timings(), model, notes=notes)
        self._ended = False

    async def start(self) -> None:
        """Do nothing."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        self._ended = True
        return self._done

    def cancel(self) -> None:
        """Do nothing: it is cancelled."""

    def so_far(self) -> Done:
        """Its only event."""
        return self._done

    async def aclose(self) -> None:
        """Give no event any more."""
        self._ended = True


class _NeverSuspended:
    """A blocking generation with the methods of an async one."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    async def start(self) -> None:
        self._generation.start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return next(self._generation)
        except StopIteration:
            raise StopAsyncIteration from None

    def cancel(self) -> None:
        self._generation.cancel()

    def so_far(self) -> Done:
        return self._generation.so_far()

    async def aclose(self) -> None:
        self._generation.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine suspended in a sync call")


def runs(coroutine: Coroutine[Any, Any, object]) -> bool:
    """Whether the coroutine is running now; false for good once an exception has left it."""
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_RUNNING


def run_without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine whose event loop has ended; anything that would suspend it raises."""
    with suppress(StopIteration):
        coroutine.send(None)
        while True:
            coroutine.throw(RuntimeError("nothing can be awaited: the event loop has ended"))


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no running loop
        return False


def iterate(pieces: AsyncGenerator[T]) -> Generator[T]:
    """Iterate over an async generator that never suspends; closing the iterator closes it."""
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
    """Reads the pieces of a turn without an event loop, and tracks whether it has a reader."""

    def __init__(self, pieces: AsyncGenerator[Token]) -> None:
        self._pieces = iterate(pieces)
        self._readers: WeakSet[Generator[Token]] = WeakSet()

    @property
    def has_reader(self) -> bool:
        """Whether a reader may still continue; an interrupt can leave the pieces without one."""
        state = getgeneratorstate(self._pieces)
        if state == GEN_SUSPENDED:
            return any(getgeneratorstate(reader) != GEN_CLOSED for reader in self._readers)
        return state in (GEN_CREATED, GEN_RUNNING)

    def track(self, reader: Generator[Token]) -> Generator[Token]:
        """Register a reader, which counts until it is closed, and return it."""
        self._readers.add(reader)
        return reader

    def next(self) -> Token | None:
        """The next piece, None after the last one.

        Raises:
            StateError: another reader is waiting for it.
        """
        try:
            return next(self._pieces, None)
        except ValueError as error:
            inside = error.__traceback__.tb_next if error.__traceback__ else None
            if inside is not None:
                raise
        # Raised by the interpreter: "generator already executing".
        raise StateError("this stream is being read already", "STATE_BUSY")

    def close(self, unread: Callable[[], None]) -> None:
        """Close the pieces; a reader that is waiting for one reaches the end by itself.

        Args:
            unread: abandons a turn that was never read; called on each attempt.
        """
        # A reader in another thread may start or finish at any time.
        while getgeneratorstate(self._pieces) not in (GEN_RUNNING, GEN_CLOSED):
            with suppress(ValueError):  # "generator already executing"
                self._pieces.close()
                unread()
