"""Waits for a model that is being opened in a thread, until a time limit or a stop flag."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import talu.aio as aio
from talu.deadline import Deadline
from talu.types import StopFlag, Stopped

__all__ = ["await_opening", "wait_for_opening"]

T = TypeVar("T")


class _Bell:
    """Rings when a stop flag is signalled; the flag refers to it weakly."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring

    def ring(self) -> None:
        self._ring()


def wait_for_opening(opening: "Future[T]", deadline: Deadline | None, stop: StopFlag | None) -> T:
    """The opened model.

    Raises:
        Stopped: the flag was signalled before.
        GenerationError: the deadline has passed before.
    """
    woken: SimpleQueue[None] = SimpleQueue()  # unlike an event, it may be used in signal handlers
    bell = _Bell(lambda: woken.put(None))
    opening.add_done_callback(lambda _: woken.put(None))
    if stop is not None:
        stop.when_signalled(bell.ring)
    with suppress(Empty):
        woken.get(timeout=None if deadline is None else deadline.left)
    return _opened(opening, deadline, stop)


async def await_opening(
    opening: "Future[T]", deadline: Deadline | None, stop: StopFlag | None
) -> T:
    """Like ``wait_for_opening``, awaited."""
    loop, stopped = aio.get_running_loop(), aio.Event()

    def ring() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(stopped.set)

    bell = _Bell(ring)
    if stop is not None:
        stop.when_signalled(bell.ring)
    waiting = aio.wrap_future(opening)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved
    until_stopped = aio.ensure_future(stopped.wait())
    either: list[aio.Future[Any]] = [waiting, until_stopped]
    try:
        await aio.wait(
            either,
            timeout=None if deadline is None else deadline.left,
            return_when=aio.FIRST_COMPLETED,
        )
    finally:
        until_stopped.cancel()
    return _opened(opening, deadline, stop)


def _opened(opening: "Future[T]", deadline: Deadline | None, stop: StopFlag | None) -> T:
    if opening.done():
        return opening.result()
    if deadline is not None and not stop:
        raise deadline.error(opening=True)
    raise Stopped
