"""Limits the requests to a model, as values without a clock."""

from collections import deque
from dataclasses import dataclass, fields
from math import inf

from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["Gate", "Limits", "Slot"]

SLOT_S = 0.1  # requests that begin within this time are counted together
WINDOW_S = 60.0 + SLOT_S
MAX_LIMIT = 1_000_000_000
MAX_CLOSED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a model. Requests above them wait for their turn; embeddings are not counted.

    Attributes:
        concurrency: requests that are answered at the same time; None for no limit.
        requests_per_minute: requests that begin within any minute; None for no limit.
        tokens_per_minute: tokens of prompts and answers within any minute; None for no limit. They
            are estimated when a request begins (four characters for a token, and ``max_tokens``)
            and corrected by its usage. A request above the limit begins when nothing else counts.
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        """``ValidationError`` for a limit that is not a whole number from 1 on."""
        for each in fields(self):
            value = getattr(self, each.name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= MAX_LIMIT):
                raise ValidationError(
                    f"{each.name} must be a whole number from 1 to {MAX_LIMIT:,}, or None for no "
                    f"limit, got {shown(value)}",
                    details={"param": each.name},
                )


@dataclass(slots=True)
class Slot:
    """What began at about the same time."""

    at: float
    requests: int = 0
    tokens: int = 0


class Gate:
    """Decides when the next request may begin. Times are seconds of any one clock."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits or Limits()
        self._slots: deque[Slot] = deque()
        self._running = 0
        self._closed_until = -inf

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._limits != Limits() or self._closed_until > -inf

    def delay(self, now: float, tokens: int) -> float:
        """Seconds until a request may begin, as far as is known; infinite until another ends."""
        self._forget(now)
        limits = self._limits
        if limits.concurrency is not None and self._running >= limits.concurrency:
            return inf
        return max(
            self._closed_until - now,
            self._until_free(now, limits.requests_per_minute, 1, "requests"),
            self._until_free(now, limits.tokens_per_minute, tokens, "tokens"),
            0.0,
        )

    def begin(self, now: float, tokens: int) -> Slot:
        """A request begins."""
        self._running += 1
        if not self._slots or now - self._slots[-1].at >= SLOT_S:
            self._slots.append(Slot(now))
        slot = self._slots[-1]
        slot.requests += 1
        slot.tokens += tokens
        return slot

    def end(self) -> None:
        """A request has ended."""
        self._running -= 1

    def close(self, now: float, seconds: float) -> None:
        """Let nothing begin for so long, because the server said so."""
        self._closed_until = max(self._closed_until, now + min(seconds, MAX_CLOSED_S))

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0].at + WINDOW_S <= now:
            self._slots.popleft()

    def _until_free(self, now: float, limit: int | None, needed: int, what: str) -> float:
        """Seconds until the window has room for what is needed."""
        if limit is None:
            return 0.0
        used: int = sum(getattr(slot, what) for slot in self._slots)
        if used == 0 or used + needed <= limit:
            return 0.0
        for slot in self._slots:
            used -= getattr(slot, what)
            if used == 0 or used + needed <= limit:
                return max(0.0, slot.at + WINDOW_S - now)
        return 0.0
