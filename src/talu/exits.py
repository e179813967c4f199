"""Ends what runs in the background when the interpreter ends.

``talu.client`` imports this module, so that what it ends is there for the functions that a program
registers with ``atexit``.
"""

import atexit
from collections.abc import Callable

__all__ = ["at_exit"]

ENDINGS: list[Callable[[], None]] = []


def at_exit(end: Callable[[], None]) -> None:
    """Call a function at the end, before those that were given earlier."""
    ENDINGS.append(end)


def _end_all() -> None:
    while ENDINGS:
        ENDINGS.pop()()


atexit.register(_end_all)
