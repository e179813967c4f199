"""What a turn does to the outside, for both faces, and how the sync one runs without a loop.

``AsyncIO`` awaits. ``SyncIO`` has the same methods as coroutines that never suspend, so ``run``
and ``iterate`` drive them by hand: no event loop is involved, and it works inside a running one.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import closing
from typing import Any, Protocol, TypeVar

from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.types import Event, Request

__all__ = ["IO", "AsyncIO", "SyncIO", "iterate", "run"]

T = TypeVar("T")


class IO(Protocol):
    """Everything that a turn does to the outside world."""

    async def open(self, request: Request) -> AsyncGenerator[Event]:
        """Begin a generation and give its events; closing or dropping them cancels it."""

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a function of the user: a hook, ``on_token``."""

    async def save(self, write: Callable[[], None]) -> None:
        """Write to the store, to the end even when the caller is cancelled meanwhile."""


class SyncIO:
    """For callers that block: nothing in here ever suspends."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def open(self, request: Request) -> AsyncGenerator[Event]:
        """The backend's blocking stream as one that can be awaited, and never waits."""
        return _as_async(self._backend.stream(request))

    async def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call a plain function; one that would have to be awaited is refused."""
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ValidationError(
                f"{function!r} is async: give it to AsyncClient, or make it a plain function"
            )

    async def save(self, write: Callable[[], None]) -> None:
        """Write, and wait for the disk."""
        write()


class AsyncIO:
    """For callers on an event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

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
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([writing])
            raise cancelled from writing.exception()


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
