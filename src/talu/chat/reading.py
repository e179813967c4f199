"""The pieces of a turn as one blocking reader after the other takes them.

Knows who still reads. Refuses to know what is read.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from inspect import GEN_CLOSED, GEN_CREATED, GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from weakref import WeakSet

from talu.chat.io import iterate
from talu.chat.token import Token
from talu.exceptions import StateError

__all__ = ["Reading"]


class Reading:
    """What a stream reads, without an event loop."""

    def __init__(self, pieces: AsyncGenerator[Token]) -> None:
        self._pieces = iterate(pieces)
        self._readers: WeakSet[Generator[Token]] = WeakSet()

    @property
    def waited_for(self) -> bool:
        """Whether somebody reads, or still may; an interrupt can leave pieces without a reader."""
        state = getgeneratorstate(self._pieces)
        if state == GEN_SUSPENDED:
            return any(getgeneratorstate(reader) != GEN_CLOSED for reader in self._readers)
        return state in (GEN_CREATED, GEN_RUNNING)

    def known(self, reader: Generator[Token]) -> Generator[Token]:
        """The same reader, counted as one who waits as long as it is not left."""
        self._readers.add(reader)
        return reader

    def next(self) -> Token | None:
        """The next piece that nobody has taken yet, None after the last one.

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
        """Take no more pieces; one who waits for a piece just now meets the end by himself.

        Args:
            unread: ends what was never read; called each time.
        """
        # He may begin and end at any moment.
        while getgeneratorstate(self._pieces) not in (GEN_RUNNING, GEN_CLOSED):
            with suppress(ValueError):  # "generator already executing"
                self._pieces.close()
                unread()
