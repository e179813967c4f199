"""Waits for a server under time limits, and repeats what failed before its first result."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from talu.backends.remote.failures import Failures
from talu.backends.remote.retries import wait_before_retry
from talu.backends.remote.time_limits import TimeLimit
from talu.deadline import Deadline
from talu.exceptions import EndpointError, TaluError

__all__ = ["Cancelled", "Limits", "Waiting", "repeated"]

T = TypeVar("T")
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds, and the number of retries; see ``RemoteBackend``.

    Attributes:
        first_token_option: the option that sets the limit of the first token.
        retries: None for the default.
    """

    connect_s: float
    first_token_s: float
    piece_s: float
    total_s: float | None
    retries: int | None
    first_token_option: str = "first_token_timeout_ms"

    def retries_of(self, *, has_alternatives: bool = False) -> int:
        """How often to repeat a request; not at all by default if another model can be asked."""
        if self.retries is None:
            return 0 if has_alternatives else RETRIES
        return self.retries


class Cancelled(Exception):
    """The generation was cancelled while it waited for the server."""


class Waiting:
    """Waits for a server under several limits; can be cancelled from any thread.

    Args:
        deadline: of the call; passing it raises the call's own error.
        total_s: limit of the whole answer, from now.
        late: the error for an answer that takes longer than ``total_s``.
    """

    def __init__(
        self, deadline: Deadline | None, total_s: float | None, late: Callable[[], Exception]
    ) -> None:
        self._deadline = deadline
        self._end = None if total_s is None else perf_counter() + total_s
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._limit: TimeLimit | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Let the current and every later wait raise ``Cancelled``."""
        self.cancelled = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._limit is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._limit.end()

    def within(
        self, seconds: float, late: Callable[[], Exception]
    ) -> AbstractAsyncContextManager[None]:
        """Limit the waits in the block to these seconds; raises ``late()`` after them."""
        if self._deadline is not None and self._deadline.left < seconds:
            seconds, late = self._deadline.left, self._deadline.error
        if self._end is not None and self._end - perf_counter() < seconds:
            seconds, late = self._end - perf_counter(), self._late
        return self._cancellable(seconds, late)

    @asynccontextmanager
    async def _cancellable(
        self, seconds: float | None, late: Callable[[], Exception]
    ) -> AsyncGenerator[None]:
        """Limit the waits in the block to these seconds, or not at all; ``cancel`` ends them."""
        if self.cancelled:
            raise Cancelled
        limit = self._limit = TimeLimit(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if self.cancelled:
                raise Cancelled from None
            if not limit.expired:
                raise
            raise late() from None
        finally:
            self._limit = None

    def allows(self, seconds: float) -> bool:
        """Whether a wait of these seconds ends before the limits."""
        left = [limit.left for limit in (self._deadline,) if limit is not None]
        if self._end is not None:
            left.append(self._end - perf_counter())
        return not left or min(left) > seconds

    async def pause(self, seconds: float) -> None:
        """Wait for this time; ``cancel`` ends it."""
        async with self._cancellable(None, self._late):
            await asyncio.sleep(seconds)


async def repeated(
    attempt: Callable[[], Awaitable[T]],
    waiting: Waiting,
    failures: Failures,
    retries: int,
    repeating: Callable[[EndpointError], None] = lambda failure: None,
    *,
    waits_for_server: bool = True,
) -> T:
    """The result of an attempt, repeated while its failures allow that.

    Args:
        attempt: may raise anything.
        waiting: bounds the waits between attempts.
        failures: words what an attempt raised.
        retries: how often to repeat it.
        repeating: told of each failure after which there is another attempt, before the wait.
        waits_for_server: repeat it also after the time that the server names.

    Raises:
        EndpointError: the last failure; ``details["attempts"]`` is the number of attempts.
        Cancelled: a wait was cancelled.
    """
    failed = 0
    while True:
        try:
            return await attempt()
        except Cancelled:
            raise
        except Exception as error:
            if isinstance(error, TaluError) and not isinstance(error, EndpointError):
                raise  # such as the end of the call's time
            failure = failures.of(error)
        # After the handler, so that the SDK's error is not attached: servers repeat keys in bodies.
        failed += 1
        wait = wait_before_retry(failure, failed, retries, random.random)
        if failure.retry_after is not None and not waits_for_server:
            wait = None
        if wait is None or not waiting.allows(wait):
            failure.details["attempts"] = failed
            raise failure
        repeating(failure)
        await waiting.pause(wait)
