"""The side effects of a turn, for sync and async callers.

``AsyncIO`` awaits. The coroutines of ``SyncIO`` never suspend, so that they need no event loop, and
can run inside a running one.
"""

import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, Self, TypeVar, cast

import talu.aio as aio
from talu.chat.interrupts import run_without_loop
from talu.deadline import Deadline
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.protocols import AsyncGeneration, Backend, Generation
from talu.router.abilities import check_settings
from talu.threads import beside_loop
from talu.types import Done, Event, Request

__all__ = ["IO", "AsyncIO", "Ending", "SyncIO"]

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

    async def call(
        self, function: Callable[..., Awaitable[T] | T], *args: object, **kwargs: object
    ) -> T:
        """The result of a user function: a hook or ``on_token``."""

    async def open_source(self, source: Any) -> Sequence[Any]:
        """The tools of a source."""

    async def next_run(
        self, wait: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline | None
    ) -> T:
        """Wait for the end of a tool call; raises once the deadline has passed."""

    async def save(self, write: Callable[[], None]) -> None:
        """Write to the store; the write completes even if the caller is cancelled."""

    def run_later(self, ending: Ending) -> None:
        """Run a cleanup in the background; called from finalizers, which can run at any point."""


class SyncIO:
    """Side effects for blocking callers; none of the coroutines ever suspends."""

    def __init__(self, open: Callable[[], Backend]) -> None:
        self._open = open

    async def open(self, request: Request) -> AsyncGeneration:
        """Open the model; its blocking generation becomes an async one that never suspends."""
        backend = self._open()
        check_settings(backend, request)
        return _NeverSuspended(backend.generate(request))

    async def call(
        self, function: Callable[..., Awaitable[T] | T], *args: object, **kwargs: object
    ) -> T:
        """The result of a plain function; an async one is an error."""
        result: Any = function(*args, **kwargs)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            named = getattr(result, "__qualname__", repr(function))
            raise ValidationError(
                f"{named} is async: give it to AsyncClient, or make it a plain function"
            )
        return cast("T", result)

    async def open_source(self, source: Any) -> Sequence[Any]:
        """The tools of a source, blocking."""
        tools: Sequence[Any] = source.open()
        return tools

    async def next_run(
        self, wait: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline | None
    ) -> T:
        """Block until a tool call has ended, on the background loop."""
        run: T = loaded("talu.bridge", "run_in_background")(wait, deadline)
        return run

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
        self._loop = aio.get_running_loop()

    async def open(self, request: Request) -> AsyncGeneration:
        """Open the model beside the loop."""
        backend = await self._open()
        check_settings(backend, request)
        return backend.agenerate(request)

    async def call(
        self, function: Callable[..., Awaitable[T] | T], *args: object, **kwargs: object
    ) -> T:
        """The result of a function, awaited if it is awaitable."""
        result: Any = function(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        return cast("T", result)

    async def open_source(self, source: Any) -> Sequence[Any]:
        """The tools of a source, awaited."""
        tools: Sequence[Any] = await source.aopen()
        return tools

    async def next_run(
        self, wait: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline | None
    ) -> T:
        """Await the end of a tool call."""
        try:
            return await aio.wait_for(wait(), None if deadline is None else deadline.left)
        except TimeoutError:
            if deadline is None:
                raise
            raise deadline.error() from None

    async def save(self, write: Callable[[], None]) -> None:
        """Write in a thread, so that neither the disk nor a lock blocks the loop."""
        if not _in_task():
            write()
            return
        writing = aio.ensure_future(beside_loop(write))
        try:
            await aio.shield(writing)
        except aio.CancelledError as cancelled:
            await aio.wait([writing])
            raise cancelled from writing.exception()

    def run_later(self, ending: Ending) -> None:
        """Run it as a task of the loop, or at once when the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._start, ending)
        except RuntimeError:  # the loop is closed
            run_without_loop(ending())

    def _start(self, ending: Ending) -> None:
        async def end() -> None:
            await aio.sleep(0)  # first let the loop close dropped generators itself
            await ending()

        # A loop that shuts down also cancels tasks that have not started.
        task = self._loop.create_task(end())
        task.add_done_callback(
            lambda done: run_without_loop(ending()) if done.cancelled() else None
        )


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


def _in_task() -> bool:
    try:
        return aio.current_task() is not None
    except RuntimeError:  # no running loop
        return False
