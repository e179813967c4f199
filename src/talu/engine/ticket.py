"""Delivers the pieces of a generation from the engine's thread to its reader.

The reader waits in the calling thread or in an event loop. The engine never waits for the reader:
unread pieces stay in the mailbox, at most one for each token of the context.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Generic, NamedTuple, Self, TypeAlias, TypeVar

import talu.aio as aio
from talu.deadline import Deadline
from talu.exceptions import TaluError
from talu.forks import check_process
from talu.types import FinishReason, Timings, TokenLogprob, Usage

__all__ = ["Channel", "Doorbell", "Mailbox", "Piece", "Progress", "Result", "Ticket"]


class Piece(NamedTuple):
    """The text that a step added to the answer; see ``talu.types.TextDelta``."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Result(NamedTuple):
    """The end of a generation; see ``talu.types.Done``."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    stop_sequence: str | None = None
    notes: tuple[str, ...] = ()


logger = logging.getLogger("talu.engine")
Item = Piece | Result | TaluError
T = TypeVar("T")
Waiter: TypeAlias = "aio.Future[None]"
Cancel = Callable[[], None]


@dataclass(slots=True)
class Progress:
    """The progress of a generation; the engine's thread writes it, any thread may read it.

    Times are from ``perf_counter``; None for a stage that was not reached. The numbers of draft
    tokens are None without speculation.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    draft_tokens: int | None = None
    accepted_draft_tokens: int | None = None
    submitted: float = field(default_factory=perf_counter)
    started: float | None = None
    first: float | None = None
    last: float | None = None

    def start(self, cached_tokens: int) -> None:
        """Record the start of a step; ``cached_tokens`` of the prompt were in the cache."""
        self.cached_tokens = cached_tokens
        self.started = self.started or perf_counter()

    def token(self) -> None:
        """Record a sampled token."""
        self.completion_tokens += 1
        self.last = perf_counter()
        self.first = self.first or self.last

    def draft(self, tokens: int = 0, accepted: int = 0) -> None:
        """Record that speculation is on, and how many tokens were drafted or accepted now."""
        self.draft_tokens = (self.draft_tokens or 0) + tokens
        self.accepted_draft_tokens = (self.accepted_draft_tokens or 0) + accepted

    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            draft_tokens=self.draft_tokens,
            accepted_draft_tokens=self.accepted_draft_tokens,
        )

    def timings(self) -> Timings:
        """The durations so far; an unfinished stage is measured up to now."""
        now, tokens = perf_counter(), self.completion_tokens
        started, first, last = self.started or now, self.first or now, self.last or now
        seconds = last - first
        return Timings(
            queue_ms=(started - self.submitted) * 1e3,
            prefill_ms=(first - started) * 1e3,
            generation_ms=seconds * 1e3,
            time_to_first_token_ms=(first - self.submitted) * 1e3,
            tokens_per_second=(tokens - 1) / seconds if tokens > 1 and seconds else None,
        )


class Doorbell:
    """Wakes the readers that wait in event loops, with one call per loop.

    Waking a loop takes a system call that releases the GIL; one call per reader would cost the
    engine's thread more than the rest of the step. Not safe for use by several threads.
    """

    def __init__(self) -> None:
        self._waiting: dict[aio.AbstractEventLoop, list[tuple[Waiter, Cancel]]] = {}

    def add(self, loop: "aio.AbstractEventLoop", waiter: Waiter, cancel: Cancel) -> None:
        """Register a reader to be woken; ``cancel`` is called if its loop is closed."""
        self._waiting.setdefault(loop, []).append((waiter, cancel))

    def ring(self) -> None:
        """Wake all registered readers."""
        for loop, readers in list(self._waiting.items()):
            try:
                loop.call_soon_threadsafe(_wake, [waiter for waiter, _ in readers])
            except Exception:  # the loop is closed: its readers are gone
                logger.debug("an event loop could not be woken", exc_info=True)
                for _, cancel in readers:
                    cancel()
            del self._waiting[
                loop
            ]  # only now, so that the next ring wakes readers that this one missed


class Channel(Generic[T]):
    """Sends items from the engine's thread to one reader; in a fork, reading raises StateError.

    Attributes:
        cancelled: whether the reader cancelled; the engine checks it before every step.
        received: whether the engine's thread has taken the request from its inbox.
        deadline: time at which the request fails; the engine checks it before every step.
    """

    def __init__(self, bell: Doorbell | None = None, deadline: Deadline | None = None) -> None:
        """Open a channel; with a ``bell``, readers in event loops are woken by ``ring``."""
        self.cancelled = False
        self.received = False
        self.deadline = deadline
        self._bell = bell or Doorbell()
        self._rings = bell is None
        self._ended: Callable[[], object] | None = None
        self._process = os.getpid()
        self._items: SimpleQueue[T] = SimpleQueue()
        self._waiter: tuple[aio.AbstractEventLoop, Waiter] | None = None

    def cancel(self) -> None:
        """Ask the engine to end the request."""
        self.cancelled = True

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call this once the last item has been delivered."""
        self._ended = callback

    def end(self, item: T) -> None:
        """Deliver the last item. For the engine's thread."""
        self.put(item)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def put(self, item: T) -> None:
        """Deliver an item. For the engine's thread."""
        self._items.put(item)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._bell.add(*waiter, self.cancel)
        if self._rings:
            self._bell.ring()

    def take(self) -> T:
        """Wait for the next item in this thread."""
        self._check_process()
        return self._items.get()

    async def take_async(self) -> T:
        """Await the next item."""
        self._check_process()
        while True:
            with contextlib.suppress(Empty):
                return self._items.get_nowait()
            loop = aio.get_running_loop()
            future = loop.create_future()
            self._waiter = loop, future
            # An item that was put before the waiter was set wakes nobody, so check again.
            with contextlib.suppress(Empty):
                return self._items.get_nowait()
            await future

    def _check_process(self) -> None:
        what, remedy = "this request was started", "submit it again in this process"
        check_process(self._process, what, remedy)


class Mailbox(Channel[Item]):
    """The engine's side of a generation: receives pieces, then the result or an error.

    It does not refer to the ticket, so that dropping the ticket cancels the generation.

    Attributes:
        progress: the generation's.
    """

    def __init__(
        self,
        prompt_tokens: int = 0,
        bell: Doorbell | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        super().__init__(bell, deadline)
        self.progress = Progress(prompt_tokens)


class Ticket:
    """A running generation: read it with ``next`` or ``await anext``, from one place at a time.

    It yields ``Piece``s and then ends with ``result`` set, or raises an error. Cancelling, closing
    or dropping it, or cancelling the task that awaits it, has the same effect: the engine ends the
    sequence before its next step.

    Attributes:
        result: the end of the generation; None before it, after an error, and after ``close``.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self.result: Result | None = None
        self._mailbox = mailbox
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        piece = None if self._ended else self._open(self._wait())
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        piece = None if self._ended else self._open(await self._wait_async())
        if piece is None:
            raise StopAsyncIteration
        return piece

    def cancel(self) -> None:
        """Ask the engine to stop; pieces already sent and a result can still be read."""
        self._mailbox.cancel()

    def close(self) -> None:
        """Cancel, and end the iteration; idempotent."""
        self.cancel()
        self._ended = True

    def so_far(self) -> Result:
        """The result as if the engine had been cancelled now."""
        progress = self._mailbox.progress
        return Result(FinishReason.CANCELLED, progress.usage(), progress.timings())

    def __del__(self) -> None:
        self.cancel()

    def _wait(self) -> Item:
        try:
            return self._mailbox.take()
        except BaseException:  # KeyboardInterrupt
            self.cancel()
            raise

    async def _wait_async(self) -> Item:
        try:
            return await self._mailbox.take_async()
        except aio.CancelledError:
            self.cancel()
            raise

    def _open(self, item: Item) -> Piece | None:
        if isinstance(item, Piece):
            return item
        self._ended = True
        if isinstance(item, TaluError):
            raise item
        self.result = item
        return None


def _wake(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():  # its task may have been cancelled
            waiter.set_result(None)
