"""The time limit of a call, measured from the start of the call."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from numbers import Real
from time import perf_counter
from typing import NamedTuple, TypeVar

from talu.error_text import shown
from talu.exceptions import GenerationError, ValidationError

__all__ = ["Deadline", "checked"]

T = TypeVar("T")
MAX_SECONDS = 1e9
PER_CHECK = 256  # elements between two checks of the deadline


class Deadline(NamedTuple):
    """The time by which a call has to finish.

    Attributes:
        seconds: the limit that the caller gave.
        at: the time, by ``perf_counter``.
    """

    seconds: float
    at: float

    @classmethod
    def after(cls, timeout: object) -> "Deadline | None":
        """The deadline in ``timeout`` seconds; None (no limit) and a deadline are returned as is.

        Raises:
            ValidationError: it is not a positive number of seconds.
        """
        if timeout is None or isinstance(timeout, Deadline):
            return timeout
        seconds = math.nan
        if isinstance(timeout, int | float | Real) and not isinstance(timeout, bool):
            with contextlib.suppress(OverflowError, TypeError, ValueError):
                seconds = float(timeout)
        if not 0 < seconds <= MAX_SECONDS:
            raise ValidationError(
                "timeout must be a number of seconds above 0 and at most 1,000,000,000, or None "
                f"for no limit, got {shown(timeout)}",
                details={"param": "timeout"},
            )
        return cls(seconds, perf_counter() + seconds)

    @property
    def left(self) -> float:
        """The seconds until the deadline; 0 after it."""
        return max(0.0, self.at - perf_counter())

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return perf_counter() >= self.at

    def check(self) -> None:
        """Raise ``error`` if the deadline has passed."""
        if self.expired:
            raise self.error()

    def error(self, *, opening: bool = False) -> GenerationError:
        """The error for a call that did not finish in time, perhaps while its model was opened."""
        wrong = f"the call did not finish within timeout={self.seconds:g} seconds"
        if opening:
            wrong += (
                ": its model is still being opened, which goes on in the background for later "
                "calls; give the first call more time"
            )
        else:
            wrong += " and was stopped; give it more time, or ask for less (max_tokens)"
        return GenerationError(wrong, "GENERATION_TIMEOUT", {"timeout": self.seconds})


def checked(elements: Iterable[T], deadline: Deadline | None) -> Iterator[T]:
    """The same elements; raises between them once the deadline has passed."""
    for number, element in enumerate(elements):
        if deadline is not None and number % PER_CHECK == 0:
            deadline.check()
        yield element
