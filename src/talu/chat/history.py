"""The items of a chat, which one turn or edit at a time may change."""

from collections.abc import Iterable

from talu.chat.interrupts import Claim
from talu.chat.items import Item
from talu.exceptions import StateError
from talu.forks import ForkSafeLock

__all__ = ["History"]

BUSY = (
    "this chat has an answer that is not finished: read it to the end, or close it with "
    "chat.last_response.close() (awaited for an AsyncChat), or fork() the chat for a second "
    "conversation"
)


class History:
    """The items of a chat; only the holder of the claim changes them, in a single step."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.items: list[Item] = list(items)
        self._latest: Claim | None = None
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may use the chat

    def stop(self) -> None:
        """Stop the turn that is running, if there is one."""
        turn = self._latest.turn if self._latest is not None else None
        if turn is not None:
            turn.stop.signal()

    def claim(self, claim: Claim) -> None:
        """Acquire the right to change the items, then clean up after interrupted work.

        Raises:
            StateError: another turn or edit holds it.
        """
        with self._gate.lock:
            while True:
                before = self._latest
                if before is not None and before.active:
                    raise StateError(BUSY, "STATE_BUSY")
                claim.before = before
                if before is self._latest:  # otherwise a signal handler has just claimed it
                    self._latest = claim
                    break
        claim.clean_up_before()
