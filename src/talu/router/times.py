"""Remembers how long first tokens took, as values without a clock."""

from collections import deque
from math import inf

__all__ = ["Average", "Times"]

OBSERVED = 200  # recent times
RECENT_S = 300.0  # of the moving average
WEIGHT = 0.2  # of a new time in the moving average


class Times:
    """Recent times, in any one unit."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=OBSERVED)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time: float) -> None:
        """Add a time; the oldest one is forgotten."""
        self._times.append(time)

    def percentile(self, share: float) -> float | None:
        """The time that this share of the times does not exceed; None without times."""
        if not self._times:
            return None
        ordered = sorted(self._times)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Average:
    """A moving average that forgets times of more than five minutes ago."""

    def __init__(self) -> None:
        self._value = 0.0
        self._added_at = -inf

    def add(self, time: float, now: float) -> None:
        """Add a time that was measured now."""
        before = self.at(now)
        self._value = time if before is None else before + WEIGHT * (time - before)
        self._added_at = now

    def at(self, now: float) -> float | None:
        """The average; None without a recent time."""
        return self._value if now - self._added_at <= RECENT_S else None
