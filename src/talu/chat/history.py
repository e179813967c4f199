"""The items of a chat, and the claim of the one turn or edit that may change them.

A claim is never given back: it lasts as long as its work. An interrupt (Ctrl-C) may hit any code,
also code that would give a claim back. So the claim asks the interpreter whether the work goes on:
coroutines and generators know whether they run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from talu.chat.items import Item
from talu.exceptions import StateError
from talu.forks import ForkSafeLock

__all__ = ["Claim", "History"]

BUSY = (
    "this chat has an answer that is not finished: read it to its end or close() it "
    "(last_response has it), or fork() the chat for a second conversation"
)


@dataclass(slots=True, eq=False)
class Claim:
    """The right of one turn or edit to change a history.

    Attributes:
        lasts: whether the work is still under way.
        wind_up: ends work that was interrupted; does nothing when it has ended by itself.
    """

    lasts: Callable[[], bool]
    wind_up: Callable[[], None] = lambda: None


class History:
    """The items of a chat; only the holder of the claim changes them, in one step."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.items: list[Item] = list(items)
        self._latest: Claim | None = None
        self._gate = ForkSafeLock(reentrant=True)  # for a signal handler that asks

    def claimed_by(self, claim: Claim) -> bool:
        """Whether no other turn or edit has claimed the items since."""
        return self._latest is claim

    def claim(self, claim: Claim) -> None:
        """Take the right to change the items, after winding up what was interrupted.

        Raises:
            StateError: another one has it.
        """
        with self._gate.lock:
            while True:
                before = self._latest
                if before is not None and before.lasts():
                    raise StateError(BUSY, "STATE_BUSY")
                if before is self._latest:  # otherwise a signal handler has claimed it
                    self._latest = claim
                    break
        if before is not None:
            before.wind_up()
