"""Decides whether and when a failed request is sent again. This module is pure."""

from collections.abc import Callable

from talu.exceptions import EndpointError

__all__ = ["LONGEST_WAIT_S", "wait_before_retry"]

FIRST_WAIT_S = 0.5
LONGEST_BACKOFF_S = 8.0
LONGEST_WAIT_S = 60.0  # that a server may ask for; a longer one is left to the caller
JITTER = 0.25  # share of a wait that is random


def wait_before_retry(
    error: EndpointError, failed: int, retries: int, random: Callable[[], float]
) -> float | None:
    """Seconds to wait before the next attempt; None for no other attempt.

    Without a wish of the server, the waits are 0.5, 1, 2, 4 and then 8 s, each shortened by a
    random share, so that clients that failed together do not return together.

    Args:
        error: the failure of the last attempt.
        failed: number of failed attempts, at least 1.
        retries: how often to try again.
        random: draws from [0, 1).
    """
    if failed > retries or not error.transient:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= LONGEST_WAIT_S else None
    doubled = FIRST_WAIT_S * (1 << min(failed - 1, 10))
    return min(doubled, LONGEST_BACKOFF_S) * (1 - JITTER * random())
