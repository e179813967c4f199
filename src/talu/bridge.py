"""Lets callers elsewhere read async generations, and call coroutines, on the background loop."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

from talu.background import (
    CLOSING_SECONDS,
    Background,
    Outcome,
    Work,
    background_loop,
    on_background,
)
from talu.deadline import Deadline
from talu.exceptions import StateError
from talu.protocols import AsyncGeneration
from talu.types import Done, Event, FinishReason, Timings, Usage

__all__ = ["Bridged", "await_in_background", "run_in_background"]

T = TypeVar("T")
ROOM = 256  # events that wait for the reader
# A signal that arrives right before a thread begins to wait does not wake it. Its handler runs
# when the thread wakes by itself, after this time.
SIGNAL_SECONDS = 0.5


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
        background = background_loop()
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
            while not isinstance(box.items.get(timeout=CLOSING_SECONDS), Outcome):
                box.make_room()
            box.items.put(Outcome())  # for a reader in another thread

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
        if not isinstance(item, Outcome):
            return item
        self._ended = True
        box.items.put(Outcome())  # for ``close``
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
    background = background_loop()
    call: _Call[T] = _Call(background)
    try:
        background.post(background.spawn, lambda: _settle(make, call), call)
        outcome = _taken(call.outcomes, deadline)
    except BaseException:  # an interrupt, or the deadline
        call.stop()
        raise
    return outcome.result()


async def await_in_background(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the background loop, and await its end on any other loop.

    Cancelling the task that awaits it cancels the coroutine.

    Args:
        make: creates the coroutine; called on the background loop.

    Returns:
        The result of the coroutine; what it raises is raised here.

    Raises:
        StateError: the interpreter is ending.
    """
    if on_background() is not None:
        return await make()
    background = background_loop()
    call: _AwaitedCall[T] = _AwaitedCall(background)
    try:
        background.post(background.spawn, lambda: _settle(make, call), call)
        outcome = await call.outcome
    except BaseException:  # the task was cancelled
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


class _Call(Work, Generic[T]):
    """A coroutine whose result the caller waits for."""

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.outcomes: SimpleQueue[Outcome[T]] = SimpleQueue()

    def finish(self, outcome: Outcome[Any]) -> None:
        self.outcomes.put(outcome)


class _AwaitedCall(Work, Generic[T]):
    """A coroutine whose result a task on another loop awaits."""

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome[T]] = self._loop.create_future()

    def finish(self, outcome: Outcome[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the other loop is closed
            self._loop.call_soon_threadsafe(self._deliver, outcome)

    def _deliver(self, outcome: Outcome[T]) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class _Box(Work):
    """What the reader of a generation and its pump share; it refers to neither of them.

    Attributes:
        generation: the async generation, once it was made.
        items: the events that were not read yet; the last item is an outcome.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generation: AsyncGeneration | None = None
        self.items: SimpleQueue[Event | _Started | Outcome[None]] = SimpleQueue()
        self.cancelled = False
        self._full = False
        self._room = asyncio.Event()

    def cancel(self) -> None:
        """Ask the generation to end soon."""
        self.cancelled = True
        if self.generation is not None and self.background is not None:
            self.background.post_if_open(self.generation.cancel)

    def finish(self, outcome: Outcome[Any]) -> None:
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


async def _settle(
    make: Callable[[], Coroutine[Any, Any, T]], call: "_Call[T] | _AwaitedCall[T]"
) -> None:
    """Run a coroutine and report its result."""
    call.finish(Outcome(await make()))
