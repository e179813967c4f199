"""Decides when a second model is asked because the first one is slow, as values without a clock."""

from talu.router.times import Times

__all__ = ["Hedging"]

ENOUGH = 20  # times before the first hedge
COST = 10  # requests that pay for one additional request
SAVED = 100  # requests that count at most


class Hedging:
    """The times to the first token of a policy's requests, and the budget of additional requests.

    Attributes:
        requests: number of requests so far.
        hedged: number of additional requests so far.
    """

    def __init__(self) -> None:
        self._times = Times()
        self._saved = 0
        self.requests = 0
        self.hedged = 0

    def observe(self, seconds: float) -> None:
        """Add the time to a first token, or the time after which a slow attempt was given up."""
        self._times.add(seconds)

    def request(self) -> None:
        """A request begins, which saves a tenth of an additional one."""
        self.requests += 1
        self._saved = min(self._saved + 1, SAVED)

    def delay(self) -> float | None:
        """Seconds after which to ask a second model; None when there is no budget for one."""
        if len(self._times) < ENOUGH or self._saved < COST:
            return None
        return self._times.percentile(0.95)

    def spend(self) -> bool:
        """Take an additional request from the budget; false when another one took it."""
        if self._saved < COST:
            return False
        self._saved -= COST
        self.hedged += 1
        return True

    def refund(self) -> None:
        """Undo ``spend``: nothing was sent."""
        self._saved = min(self._saved + COST, SAVED)
        self.hedged -= 1
