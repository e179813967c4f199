"""Limits the requests to a model, as values without a clock."""

from collections import deque
from dataclasses import dataclass
from math import inf

from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["Gate", "Limits", "Slot", "check_wait"]

SLOT_S = 0.1  # requests that begin within this time are counted together
WINDOW_S = 60.0 + SLOT_S
MAX_LIMIT = 1_000_000_000
LIMITS = ("concurrency", "requests_per_minute", "tokens_per_minute")
WAIT_S = 600.0
MAX_WAIT_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a model. Requests above them wait for their turn; embeddings are not counted.

    Attributes:
        concurrency: requests that are answered at the same time; None for no limit.
        requests_per_minute: requests that begin within any minute; None for no limit.
        tokens_per_minute: tokens of prompts and answers within any minute; None for no limit. They
            are estimated when a request begins (four characters for a token, and ``max_tokens``)
            and corrected by its usage. A request above the limit begins when nothing else counts.
        wait: seconds for which a request without a time limit waits for its turn.
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    wait: float = WAIT_S

    def __post_init__(self) -> None:
        """``ValidationError`` for a limit that is not a whole number from 1 on."""
        for name in LIMITS:
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= MAX_LIMIT):
                raise ValidationError(
                    f"{name} must be a whole number from 1 to {MAX_LIMIT:,}, or None for no limit, "
                    f"got {shown(value)}",
                    details={"param": name},
                )
        check_wait(self.wait)

    @property
    def given(self) -> dict[str, int]:
        """The limits that are not None, by name."""
        each = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in each.items() if value is not None}


def check_wait(wait: object) -> None:
    """``ValidationError`` unless ``wait`` is a number of seconds up to 1,000,000."""
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT_S:
        wrong = f"wait must be seconds from 0 to 1,000,000, got {shown(wait)}"
        raise ValidationError(wrong, details={"param": "wait"})


@dataclass(slots=True)
class Slot:
    """What began at about the same time."""

    at: float
    requests: int = 0
    tokens: int = 0


class Gate:
    """Decides when the next request may begin. Times are seconds of any one clock.

    Attributes:
        limited: whether there is any limit.
    """

    def __init__(self, limits: Limits) -> None:
        self.limited = bool(limits.given)
        self._limits = limits
        self._slots: deque[Slot] = deque()
        self._running = 0

    def delay(self, now: float, tokens: int) -> float:
        """Seconds until a request may begin, as far as is known; infinite until another ends."""
        self._forget(now)
        limits = self._limits
        if limits.concurrency is not None and self._running >= limits.concurrency:
            return inf
        return max(
            self._until_free(now, limits.requests_per_minute, 1, "requests"),
            self._until_free(now, limits.tokens_per_minute, tokens, "tokens"),
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
