"""Keeps a chat usable when Ctrl-C hits any instruction of a blocking call.

A handler that releases something can be interrupted itself, so nothing relies on handlers alone.
The interpreter knows of every coroutine and generator whether it is running: work that is not, and
that has not ended, was interrupted, and the next use of the chat ends it. The blocking classes run
coroutines without an event loop, which works because their I/O never suspends.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from inspect import GEN_CLOSED, GEN_CREATED, GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from talu.chat.builder import Token
from talu.chat.outcome import Outcome, State
from talu.exceptions import StateError, StorageError
from talu.types import StopFlag

__all__ = ["Claim", "Guard", "Reading", "iterate", "run", "run_without_loop"]

T = TypeVar("T")


class Claimant(Protocol):
    """A turn, as its claim sees it."""

    outcome: Outcome[Any]
    stop: StopFlag

    async def finish(self) -> None:
        """Finish it, from wherever an interrupt has left it."""

    async def cancel(self, state: State = ...) -> None:
        """Cancel it."""

    async def fail(self, error: BaseException) -> None:
        """End it with an error."""


class Claim:
    """The right of one turn to change a history, until the turn has ended.

    On an event loop a turn is cancelled, not interrupted, and cleans up after itself.

    Attributes:
        turn: the turn, once there is one; None again after its end.
        before: the claim before, if an interrupt may have left its turn unfinished.
    """

    def __init__(self) -> None:
        self.turn: Claimant | None = None
        self.before: Claim | None = None
        self._released = False

    @property
    def active(self) -> bool:
        """Whether no other turn and no edit may change the history."""
        turn = self.turn  # another thread may release it
        return not self._released and not (turn is not None and turn.outcome.ended)

    def release(self) -> None:
        """Give up the right, and the reference to the turn, which refers to this claim."""
        self._released = True
        self.turn = None

    def clean_up(self) -> None:
        """End what interrupts have left of this turn, which is inactive, and of those before."""
        self.clean_up_before()

    def clean_up_before(self) -> None:
        """End what interrupts have left of earlier turns."""
        if (before := self.before) is not None:
            before.clean_up()
            self.before = None


class Guard(Claim):
    """The claim of a blocking call: an edit, a save, or a turn and the reading of its stream.

    Attributes:
        reading: the reader of the stream, once the caller can have the stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self._work: Coroutine[Any, Any, Any] | None = None
        self.reading: Reading | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run an edit, a save, or a turn up to its end, or up to the start of its stream."""
        self._work = work
        try:
            return run(work)
        except BaseException:
            self.settle()
            raise

    @property
    def active(self) -> bool:
        """Whether the call is running, or the stream is being read; an unread one gives way."""
        turn = self.turn
        if not super().active:
            return False
        unread = turn is not None and turn.outcome.unread
        return self._works or (self._has_reader and not unread)

    @property
    def _works(self) -> bool:
        """Whether ``run`` is running; false for good once an exception has left it."""
        work = self._work
        return work is not None and inspect.getcoroutinestate(work) == inspect.CORO_RUNNING

    @property
    def _has_reader(self) -> bool:
        return self.reading is not None and self.reading.has_reader

    def settle(self) -> None:
        """End the turn if an interrupt has left it without anyone who would end it."""
        turn = self.turn
        if turn is None or turn.outcome.ended or not (self._works or self._has_reader):
            self.clean_up()

    def clean_up(self) -> None:
        """End what interrupts have left of the turn, wherever they hit it."""
        self.clean_up_before()
        turn = self.turn
        if turn is None:
            return
        if turn.outcome.ended and (self._works or self._has_reader):
            return  # the hooks are being told
        with suppress(StorageError, StateError):  # the next turn or edit stores it
            if not turn.outcome.ended:
                turn.stop.signal()
                self._close_reading()
        with suppress(StorageError, StateError):
            run(_ended(turn))

    def _close_reading(self) -> None:
        if self.reading is not None:
            self.reading.close(unread=lambda: None)


async def _ended(turn: Claimant) -> None:
    match turn.outcome.state:
        case State.STARTING:
            await turn.fail(KeyboardInterrupt())
        case State.UNREAD:
            await turn.cancel(State.SUPERSEDED)
        case _:
            await turn.finish()


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
            unread: cancels a turn that was never read; called on each attempt.
        """
        # A reader in another thread may start or finish at any time.
        while getgeneratorstate(self._pieces) not in (GEN_RUNNING, GEN_CLOSED):
            with suppress(ValueError):  # "generator already executing"
                self._pieces.close()
                unread()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine suspended in a sync call")


def run_without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine whose event loop has ended; anything that would suspend it raises."""
    with suppress(StopIteration):
        coroutine.send(None)
        while True:
            coroutine.throw(RuntimeError("nothing can be awaited: the event loop has ended"))


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
