"""Runs work in threads, and turns a thread that cannot be started into a typed error."""

import contextvars
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import talu.aio as aio
from talu.error_text import NO_THREAD
from talu.exceptions import ResourceError, TaluError

__all__ = ["InTurn", "beside_loop", "in_daemon_thread", "thread_starts"]

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def thread_starts() -> Generator[None]:
    """Raise ``ResourceError`` in place of Python's own error when no thread can be started."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, TaluError) or "start new thread" not in str(error):
            raise
        raise ResourceError(NO_THREAD) from error


async def beside_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread and return its result.

    Raises:
        ResourceError: the system cannot start another thread.
    """
    with thread_starts():
        return await aio.to_thread(function, *args, **kwargs)


async def in_daemon_thread(
    name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call ``function``, which may hang, in a daemon thread of its own and return its result.

    The interpreter and the executor of the event loop wait for the threads of ``beside_loop``, and
    their number is limited; neither is true of this one. When the task is cancelled, the thread
    goes on, and nobody gets its result.

    Args:
        name: of the thread.
        function: what to call.
        args: its arguments.
        kwargs: its keyword arguments.

    Raises:
        ResourceError: the system cannot start another thread.
    """
    loop = aio.get_running_loop()
    found: aio.Future[T] = loop.create_future()
    call = partial(contextvars.copy_context().run, function, *args, **kwargs)

    def settle(end: Callable[[Any], None], outcome: object) -> None:
        if not found.done():  # the task may have been cancelled
            end(outcome)

    def work() -> None:
        end: Callable[[Any], None] = found.set_result
        outcome: object
        try:
            outcome = call()
        except BaseException as error:  # noqa: BLE001 - it is raised on the loop
            end, outcome = found.set_exception, error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, end, outcome)

    with thread_starts():
        threading.Thread(target=work, name=name, daemon=True).start()
    return await found


class InTurn:
    """Calls functions in a thread, one at a time for each event loop.

    The work holds the GIL most of the time, so several threads would not be faster than one, but
    each of them would make the loop wait for the GIL, 5 ms at a time.
    """

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[aio.AbstractEventLoop, aio.Lock] = WeakKeyDictionary()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``function``; cancelling the task lets the next call run."""
        turn = self._turns.setdefault(aio.get_running_loop(), aio.Lock())
        async with turn:
            return await beside_loop(function, *args, **kwargs)
