"""Decides when a second model is asked because the first one is slow, as values without a clock."""

from collections import deque
from collections.abc import Sequence

__all__ = ["Hedging", "percentile"]

OBSERVED = 200  # recent times
ENOUGH = 20  # times before the first hedge
COST = 10  # requests that pay for one additional request
SAVED = 100  # requests that count at most


def percentile(times: Sequence[float], share: float) -> float | None:
    """The time that this share of the times does not exceed; None without times."""
    if not times:
        return None
    ordered = sorted(times)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Hedging:
    """The times to the first token of a policy's requests, and the budget of additional requests.

    Attributes:
        requests: number of requests so far.
        hedged: number of additional requests so far.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=OBSERVED)
        self._saved = 0
        self.requests = 0
        self.hedged = 0

    def observe(self, seconds: float) -> None:
        """Add the time to a first token, or the time after which a slow attempt was given up."""
        self._times.append(seconds)

    def request(self) -> None:
        """A request begins, which saves a tenth of an additional one."""
        self.requests += 1
        self._saved = min(self._saved + 1, SAVED)

    def delay(self) -> float | None:
        """Seconds after which to ask a second model; None when there is no budget for one."""
        if len(self._times) < ENOUGH or self._saved < COST:
            return None
        return percentile(self._times, 0.95)

    def spend(self) -> bool:
        """Take an additional request from the budget; false when another one took it."""
        if self._saved < COST:
            return False
        self._saved -= COST
        self.hedged += 1
        return True
