"""Prevents deadlocks in forked processes.

A child has only the thread that called ``fork``. A lock that another thread held at that moment is
never released in the child. So locks are replaced by new ones in the child, and a fork waits until
imports have finished.
"""

import logging  # noqa: F401 - see the end of this file
import os
import threading
from importlib import import_module
from types import ModuleType
from weakref import WeakSet

from talu.descriptors import descriptor_opens
from talu.exceptions import StateError

__all__ = ["ForkSafeLock", "check_process", "import_whole"]


class ForkSafeLock:
    """A lock that is free in a forked child even if a thread of the parent held it.

    Use it as ``with self._gate.lock:``. The data that it protects may be in an inconsistent state
    in the child, if another thread was changing it during the fork.

    Attributes:
        lock: the lock of this process, a ``threading.Lock`` or ``RLock``.
    """

    __slots__ = ("__weakref__", "_make", "lock")

    def __init__(self, *, reentrant: bool = False) -> None:
        """Create the lock; the thread that holds a reentrant one can acquire it again."""
        self._make = threading.RLock if reentrant else threading.Lock
        self.renew()
        LOCKS.add(self)

    def renew(self) -> None:
        """Replace the lock by a new one; a running ``with`` block releases the old one."""
        self.lock = self._make()


LOCKS: WeakSet[ForkSafeLock] = WeakSet()
IMPORTING = threading.RLock()


def import_whole(name: str) -> ModuleType:
    """Import a module; a fork in another thread waits until the import has finished.

    A child that is forked during an import cannot import the same modules, because Python's import
    locks stay locked in it.

    Raises:
        ResourceError: no file descriptor is left to read it.
    """
    with IMPORTING, descriptor_opens():
        return import_module(name)


def check_process(process: int, what: str, remedy: str) -> None:
    """Refuse an object that was opened before this process was forked.

    Args:
        process: id of the process that opened the object.
        what: what that process did, such as ``"the model was opened"``.
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


# A fork calls first what was registered last. It has to wait for imports before it takes the lock
# of ``logging``, which modules take while they are imported, so ``logging`` has to register first.
os.register_at_fork(
    before=IMPORTING.acquire, after_in_parent=IMPORTING.release, after_in_child=_renew_all
)
