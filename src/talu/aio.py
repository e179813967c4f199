"""The names of asyncio that talu uses; asyncio itself is loaded on first use.

Programs without an event loop never load it, nor the sockets and the TLS library that it imports.
"""

import sys
from typing import TYPE_CHECKING

from talu.first_use import on_first_use

if TYPE_CHECKING:
    from asyncio import (
        FIRST_COMPLETED,
        AbstractEventLoop,
        CancelledError,
        Event,
        Future,
        Lock,
        Semaphore,
        Task,
        create_task,
        current_task,
        ensure_future,
        gather,
        get_running_loop,
        shield,
        sleep,
        to_thread,
        wait,
        wait_for,
        wrap_future,
    )

__all__ = [
    "FIRST_COMPLETED",
    "AbstractEventLoop",
    "CancelledError",
    "Event",
    "Future",
    "Lock",
    "Semaphore",
    "Task",
    "create_task",
    "current_task",
    "ensure_future",
    "gather",
    "get_running_loop",
    "shield",
    "sleep",
    "to_thread",
    "wait",
    "wait_for",
    "was_cancelled",
    "wrap_future",
]


def was_cancelled(error: BaseException | None) -> bool:
    """Whether an error is the ``CancelledError`` of asyncio."""
    asyncio = sys.modules.get("asyncio.exceptions")  # not loaded: no task can have been cancelled
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, {"asyncio": set(__all__) - {"was_cancelled"}})
