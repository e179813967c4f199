"""What keeps a forked child from hanging: locks that it finds free, imports that fork waits for.

Only the thread that forks exists in the child. A lock that another thread held at that moment would
never be released there, and what that thread was doing is never finished.
"""

import os
import threading
from importlib import import_module
from types import ModuleType
from weakref import WeakSet

from talu.exceptions import StateError

__all__ = ["ForkSafeLock", "check_process", "import_whole"]


class ForkSafeLock:
    """A lock that is free in a forked child, whoever held it in the parent.

    Use it as ``with self._gate.lock:``. What it guards may be half changed in the child, if another
    thread was changing it at the fork.

    Attributes:
        lock: the lock of this process, a ``threading.Lock`` or ``RLock``.
    """

    __slots__ = ("__weakref__", "_make", "lock")

    def __init__(self, *, reentrant: bool = False) -> None:
        """Make it free; a reentrant one lets the thread that holds it enter again."""
        self._make = threading.RLock if reentrant else threading.Lock
        self.renew()
        LOCKS.add(self)

    def renew(self) -> None:
        """Take a new lock; a block that is under way still releases the one that it entered."""
        self.lock = self._make()


LOCKS: WeakSet[ForkSafeLock] = WeakSet()
IMPORTING = threading.RLock()


def import_whole(name: str) -> ModuleType:
    """Import a module; a fork in another thread waits until that is done.

    A child that is forked amid an import can never import the same modules: Python's locks on
    them stay taken.
    """
    with IMPORTING:
        return import_module(name)


def check_process(process: int, what: str, remedy: str) -> None:
    """Refuse to use what another process opened: this one is its fork.

    Args:
        process: the id of the process that opened it.
        what: what happened there, such as ``"the model was opened"``.
        remedy: what to do in this process instead.

    Raises:
        StateError: ``process`` is not this process (code ``STATE_FORKED``).
    """
    if process != os.getpid():
        wrong = f"{what} before this process was forked: {remedy}"
        raise StateError(wrong, "STATE_FORKED")


def _renew_all() -> None:
    IMPORTING.release()
    for lock in LOCKS:
        lock.renew()


os.register_at_fork(
    before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=_renew_all
)
