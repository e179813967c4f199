"""The time limit of a call, measured from the moment at which the call was made."""

import math
from dataclasses import dataclass
from numbers import Real
from time import perf_counter

from talu.error_text import shown
from talu.exceptions import GenerationError, ValidationError

__all__ = ["Deadline"]

MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a call has to be done.

    Attributes:
        seconds: what the caller gave it.
        at: the moment, by ``perf_counter``.
    """

    seconds: float
    at: float

    @classmethod
    def after(cls, timeout: object) -> "Deadline | None":
        """The moment in ``timeout`` seconds; None, which is no limit, and a deadline are returned.

        Raises:
            ValidationError: it is no positive number of seconds.
        """
        if timeout is None or isinstance(timeout, Deadline):
            return timeout
        number = isinstance(timeout, Real) and not isinstance(timeout, bool)
        if not number or not 0 < timeout <= MAX_SECONDS or math.isnan(timeout):  # type: ignore[operator,arg-type]
            raise ValidationError(
                "timeout must be a number of seconds above 0 and at most 1,000,000,000, or None "
                f"for no limit, got {shown(timeout)}",
                details={"param": "timeout"},
            )
        seconds = float(timeout)  # type: ignore[arg-type]
        return cls(seconds, perf_counter() + seconds)

    @property
    def left(self) -> float:
        """The seconds until the moment; 0 after it."""
        return max(0.0, self.at - perf_counter())

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return perf_counter() >= self.at

    def check(self) -> None:
        """Raise ``error`` if the moment has passed."""
        if self.expired:
            raise self.error()

    def error(self, *, opening: bool = False) -> GenerationError:
        """The error of a call that was not done in time, or whose model was still being opened."""
        wrong = f"the call was not done within timeout={self.seconds:g} seconds"
        if opening:
            wrong += (
                ": its model is still being opened, which goes on in the background for later "
                "calls; give the first call more time"
            )
        else:
            wrong += " and was stopped; give it more time, or ask for less (max_tokens)"
        return GenerationError(wrong, "GENERATION_TIMEOUT", {"timeout": self.seconds})
