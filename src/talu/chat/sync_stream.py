"""The reading of streamed answers by blocking callers."""

from collections.abc import Generator
from typing import Any, Self, cast

from talu.chat.builder import Token
from talu.chat.interrupts import Guard, Reading, run
from talu.chat.outcome import ChatT
from talu.chat.stream import Stream
from talu.chat.turn import Turn

__all__ = ["BlockingStream"]


class BlockingStream(Stream[ChatT]):
    """The base of ``StreamingResponse``, which can be read, stopped and closed."""

    _how_to_read = "print it, or loop over it"

    def __init__(self, turn: Turn[ChatT]) -> None:
        self._guard = cast("Guard", turn.claim)
        self._reading = Reading(turn.pieces())
        super().__init__(turn)
        self._guard.reading = self._reading  # last: a stream that is not whole is never read

    def __iter__(self) -> Generator[Token]:
        return self._reading.track(self._read())

    def _read(self) -> Generator[Token]:
        last: Token | None = None
        self._check_superseded()
        while (piece := self._next()) is not None:
            last = piece
            try:
                yield piece
            except BaseException:  # the loop was left
                self.cancel()
                raise
        yield from self._end_piece(last)

    def _next(self) -> Token | None:
        try:
            return self._reading.next()
        except BaseException:
            self._guard.settle()
            raise

    @property
    def text(self) -> str:
        """The whole text; reads the rest of the stream first.

        Raises:
            StateError: the stream was not read before its chat was used or edited again.
        """
        self._read_rest()
        return super().text

    @property
    def parsed(self) -> Any:
        """The value of the whole answer; reads the rest of the stream first."""
        self._read_rest()
        return super().parsed

    def _as_text(self) -> str:
        return self.text

    def _displayed(self) -> str:
        if self._outcome.unread:
            self._read_rest()
        return super()._displayed() or repr(self)

    def _read_rest(self) -> None:
        self._check_superseded()
        if not self._outcome.ended:
            for _ in self:
                pass

    def cancel(self) -> None:
        """Stop the generation, from any thread, even while another one reads the stream."""
        self._turn.stop.signal()
        self._reading.close(unread=lambda: run(self._turn.cancel()))
        self._guard.settle()

    def close(self) -> None:
        """Like ``cancel``; idempotent."""
        self.cancel()

    def __del__(self) -> None:
        if self._outcome.unread:  # otherwise the generator of the pieces cleans up
            super().__del__()

    async def _end(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
