"""Runs a function in a forked child."""

import os
import signal
from collections.abc import Callable


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child and give its exit status; one that hangs is killed."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
