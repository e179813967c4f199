"""The base of streamed answers: the methods of ``str``, and cleanup of unfinished streams."""

import atexit
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import Any, ClassVar, Concatenate, NoReturn, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from talu.chat.answer import Answer
from talu.chat.builder import Token
from talu.chat.interrupts import run_without_loop
from talu.chat.outcome import ChatT, State
from talu.chat.turn import Turn
from talu.exceptions import StateError
from talu.types import FinishReason, Handle

__all__ = ["Stream", "not_json"]

P = ParamSpec("P")
R = TypeVar("R")
LOGGER = logging.getLogger("talu.chat")
OPEN: WeakValueDictionary[int, "Stream[Any]"] = WeakValueDictionary()
DROPPED: dict[int, "Stream[Any]"] = {}  # dropped streams whose cleanup has not finished


def not_json(self: object) -> NoReturn:
    """Refuse the conversion to a dictionary, with which web frameworks begin to make JSON."""
    raise TypeError(
        f"{type(self).__name__} is not JSON: return fastapi.responses.StreamingResponse(stream, "
        "media_type='text/plain') from the web handler, or a complete answer (ask, or "
        "stream=False), which is text"
    )


def _of_text(
    method: Callable[Concatenate[str, P], R],
) -> Callable[Concatenate["TextLike", P], R]:
    """A method that calls this method of ``str`` on the object's text."""

    def call(self: "TextLike", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self._as_text(), *args, **kwargs)

    update_wrapper(call, method)
    return call


class TextLike(ABC):
    """Compares, hashes, searches and joins like its text."""

    @abstractmethod
    def _as_text(self) -> str:
        """The text."""

    def __str__(self) -> str:
        return self._as_text()

    def __len__(self) -> int:
        return len(self._as_text())

    def __contains__(self, part: "str | TextLike") -> bool:
        return _plain(part) in self._as_text()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | TextLike):
            return self._as_text() == _plain(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._as_text())

    def __add__(self, other: "str | TextLike") -> str:
        return (
            self._as_text() + _plain(other) if isinstance(other, str | TextLike) else NotImplemented
        )

    def __radd__(self, other: str) -> str:
        return other + self._as_text() if isinstance(other, str) else NotImplemented

    def format(self, *args: object, **kwargs: object) -> str:
        """Like ``str.format`` on the text."""
        return self._as_text().format(*args, **kwargs)

    __format__ = _of_text(str.__format__)
    __getitem__ = _of_text(str.__getitem__)
    __lt__ = _of_text(str.__lt__)
    __le__ = _of_text(str.__le__)
    __gt__ = _of_text(str.__gt__)
    __ge__ = _of_text(str.__ge__)
    __mod__ = _of_text(str.__mod__)
    __mul__ = _of_text(str.__mul__)
    __rmul__ = _of_text(str.__rmul__)
    capitalize = _of_text(str.capitalize)
    casefold = _of_text(str.casefold)
    center = _of_text(str.center)
    count = _of_text(str.count)
    encode = _of_text(str.encode)
    endswith = _of_text(str.endswith)
    expandtabs = _of_text(str.expandtabs)
    find = _of_text(str.find)
    format_map = _of_text(str.format_map)
    index = _of_text(str.index)
    isalnum = _of_text(str.isalnum)
    isalpha = _of_text(str.isalpha)
    isascii = _of_text(str.isascii)
    isdecimal = _of_text(str.isdecimal)
    isdigit = _of_text(str.isdigit)
    isidentifier = _of_text(str.isidentifier)
    islower = _of_text(str.islower)
    isnumeric = _of_text(str.isnumeric)
    isprintable = _of_text(str.isprintable)
    isspace = _of_text(str.isspace)
    istitle = _of_text(str.istitle)
    isupper = _of_text(str.isupper)
    join = _of_text(str.join)
    ljust = _of_text(str.ljust)
    lower = _of_text(str.lower)
    lstrip = _of_text(str.lstrip)
    partition = _of_text(str.partition)
    removeprefix = _of_text(str.removeprefix)
    removesuffix = _of_text(str.removesuffix)
    replace = _of_text(str.replace)
    rfind = _of_text(str.rfind)
    rindex = _of_text(str.rindex)
    rjust = _of_text(str.rjust)
    rpartition = _of_text(str.rpartition)
    rsplit = _of_text(str.rsplit)
    rstrip = _of_text(str.rstrip)
    split = _of_text(str.split)
    splitlines = _of_text(str.splitlines)
    startswith = _of_text(str.startswith)
    strip = _of_text(str.strip)
    swapcase = _of_text(str.swapcase)
    title = _of_text(str.title)
    translate = _of_text(str.translate)
    upper = _of_text(str.upper)
    zfill = _of_text(str.zfill)


def _plain(text: str | TextLike) -> str:
    return text._as_text() if isinstance(text, TextLike) else text


class Stream(Answer[ChatT], TextLike, Handle):
    """Base of the sync and the async stream."""

    _instead = (
        "read it, and take its text or to_dict(); a whole answer (stream=False) can be copied"
    )
    _how_to_read: ClassVar[str]
    _turn: Turn[ChatT]

    def __init__(self, turn: Turn[ChatT]) -> None:
        super().__init__(turn.outcome)
        self._turn = turn
        self._process = os.getpid()
        OPEN[id(self)] = self
        _watch_exit()

    @property
    def _unfinished(self) -> bool:
        """Whether this process has to end it; a forked child leaves it to the parent."""
        return not self._outcome.ended and self._process == os.getpid()

    def __del__(self) -> None:
        if self._unfinished:
            DROPPED[id(self)] = self
            self._turn.stop.signal()
            self._turn.io.run_later(self._finalize)

    async def _finalize(self) -> None:
        try:
            await self._end()
            await self._turn.cancel()
        except Exception:
            LOGGER.warning("the cleanup of a dropped stream failed", exc_info=True)
        finally:
            DROPPED.pop(id(self), None)

    async def _end_at_exit(self) -> None:
        await self._finalize()

    @abstractmethod
    async def _end(self) -> None:
        """Close the stream."""

    def _end_piece(self, last: Token | None) -> list[Token]:
        """The piece with the finish reason, for a reader whose stream was closed by others."""
        cut_short = last is not None and last.finish_reason is None
        if cut_short and self.finish_reason is FinishReason.CANCELLED:
            return [Token(finish_reason=FinishReason.CANCELLED)]
        return []

    def __len__(self) -> int:
        """Length of the text; a ``TypeError`` before the end, which ``list`` ignores."""
        if not self._outcome.ended:
            raise TypeError("a stream has no length before it is read: use len(stream.text)")
        return super().__len__()

    def __bool__(self) -> bool:
        return True

    keys = not_json

    @property
    def __dict__(self) -> NoReturn:  # type: ignore[override]
        """Hidden from ``vars``, with which web frameworks make JSON of an object's internals."""
        raise AttributeError("__dict__")

    def _check_superseded(self) -> None:
        if self._outcome.state is State.SUPERSEDED:
            raise StateError(
                "this answer ended unread when its chat was used or edited again: read a stream "
                "first (print it, loop over it), or fork() the chat for a second conversation",
                "STATE_SUPERSEDED",
            )

    def _state(self) -> list[str]:
        match self._outcome.state:
            case State.UNREAD:
                return [f"pending: {self._how_to_read}"]
            case State.SUPERSEDED:
                return ["cancelled before it was read"]
            case State.FINISHED:
                return ["exhausted"]
            case State.CANCELLED | State.FAILED as state:
                return [state.name.lower()]
        return ["pending"]


@cache
def _watch_exit() -> None:
    """Register the exit handler once, with the first stream, so that it runs while hooks exist."""
    atexit.register(_end_all)


def _end_all() -> None:
    for stream in (*OPEN.values(), *DROPPED.values()):
        if stream._unfinished:
            run_without_loop(stream._end_at_exit())
