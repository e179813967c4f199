"""The items of a chat, and the claim that lets one turn or edit at a time change them.

A claim is never released explicitly, because an interrupt (Ctrl-C) can hit any code, including the
code that would release it. A claim is active while its work runs, which the interpreter knows for
every coroutine and generator.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from talu.chat.items import Item
from talu.exceptions import StateError
from talu.forks import ForkSafeLock

__all__ = ["Claim", "History"]

BUSY = (
    "this chat has an answer that is not finished: read it to the end, or close it with "
    "chat.last_response.close() (awaited for an AsyncChat), or fork() the chat for a second "
    "conversation"
)


@dataclass(slots=True, eq=False)
class Claim:
    """The right of one turn or edit to change a history.

    Attributes:
        active: whether the work is still running.
        clean_up: ends work that was interrupted; does nothing if the work has ended.
    """

    active: Callable[[], bool]
    clean_up: Callable[[], None] = lambda: None


class History:
    """The items of a chat; only the holder of the claim changes them, in a single step."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.items: list[Item] = list(items)
        self._latest: Claim | None = None
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may use the chat

    def claimed_by(self, claim: Claim) -> bool:
        """Whether this is still the latest claim."""
        return self._latest is claim

    def claim(self, claim: Claim) -> None:
        """Acquire the right to change the items, then clean up after interrupted work.

        Raises:
            StateError: another turn or edit holds it.
        """
        with self._gate.lock:
            while True:
                before = self._latest
                if before is not None and before.active():
                    raise StateError(BUSY, "STATE_BUSY")
                if before is self._latest:  # otherwise a signal handler has just claimed it
                    self._latest = claim
                    break
        if before is not None:
            before.clean_up()
