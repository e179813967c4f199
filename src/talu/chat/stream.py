"""What the streamed answers share: above all that they end, whatever becomes of them.

Refuses to know how they are read.
"""

import atexit
import logging
import os
from abc import abstractmethod
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

from talu.chat.answer import Answer, ChatT
from talu.chat.builder import Token
from talu.chat.io import run_alone
from talu.chat.turn import Turn
from talu.types import FinishReason, Handle

__all__ = ["Stream"]

LOGGER = logging.getLogger("talu.chat")
OPEN: WeakValueDictionary[int, "Stream[Any]"] = WeakValueDictionary()
DROPPED: dict[int, "Stream[Any]"] = {}  # until they have ended


class Stream(Answer[ChatT], Handle):
    """What the blocking and the awaited stream share."""

    _instead = (
        "read it, and take its text or to_dict(); a whole answer (stream=False) can be copied"
    )
    _turn: Turn[ChatT]

    def __init__(self, turn: Turn[ChatT]) -> None:
        super().__init__(turn)
        self._process = os.getpid()
        OPEN[id(self)] = self
        _watch_exit()

    @property
    def _left_open(self) -> bool:
        """Whether it has not ended; in a fork of its process it is not ours to end."""
        return not self._turn.ended and self._process == os.getpid()

    def __del__(self) -> None:
        if self._left_open:
            DROPPED[id(self)] = self
            self._turn.request.stop.signal()
            self._turn.io.later(self._give_up)

    async def _give_up(self) -> None:
        try:
            await self._end()
            await self._turn.abandon()
        except Exception:
            LOGGER.warning("a stream that was dropped did not end well", exc_info=True)
        finally:
            DROPPED.pop(id(self), None)

    @abstractmethod
    async def _end(self) -> None:
        """Do what ``close`` does."""

    def _end_piece(self, last: Token | None) -> list[Token]:
        """The piece that says why, for a loop whose stream was closed amid its pieces."""
        cut = last is not None and last.finish_reason is None
        if cut and self.finish_reason is FinishReason.CANCELLED:
            return [Token(finish_reason=FinishReason.CANCELLED)]
        return []

    def __len__(self) -> int:
        """Length of the text, once the stream has ended: ``list`` asks for it before it reads."""
        if not self._turn.ended:
            raise TypeError("a stream has no length before it is read: use len(stream.text)")
        return super().__len__()

    def __bool__(self) -> bool:
        return True

    def _state(self) -> list[str]:
        return super()._state() or ["exhausted"]


@cache
def _watch_exit() -> None:
    """Once, with the first stream: whoever is told of ends should be there longer than this."""
    atexit.register(_end_all)


def _end_all() -> None:
    for stream in (*OPEN.values(), *DROPPED.values()):
        if stream._left_open:
            run_alone(stream._give_up())
