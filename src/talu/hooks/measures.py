"""Counts and histograms of one model's generations, as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from talu.types import FinishReason

__all__ = ["Histogram", "ModelMetrics"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """The distribution of a measure.

    Attributes:
        bounds: upper bounds of the buckets, ascending; a value that equals one belongs below it.
        counts: values in each bucket alone; one more than bounds, the last without an upper bound.
        sum: of all values, in the unit of the bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """What the generations of one model came to, since the hook was made.

    Attributes:
        started: generations that began.
        ended: of these, those that ended, by finish reason: ``error`` when they failed,
            ``cancelled`` when they were closed, dropped or interrupted.
        prompt_tokens: tokens of the prompts.
        cached_tokens: how many of these came from the prefix cache.
        completion_tokens: tokens that were sampled. All three are without the generations whose
            usage is unknown: those that failed, and those that were never read.
        time_to_first_token: seconds from the start to the first token, where it was read.
        tokens_per_second: speed of each generation after its first token; of those with at least
            two tokens.
    """

    started: int
    ended: Mapping[FinishReason, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    time_to_first_token: Histogram
    tokens_per_second: Histogram

    @property
    def failed(self) -> int:
        """Generations that ended with an error."""
        return self.ended[FinishReason.ERROR]

    @property
    def cancelled(self) -> int:
        """Generations that were stopped from outside."""
        return self.ended[FinishReason.CANCELLED]

    @property
    def running(self) -> int:
        """Generations that have not ended."""
        return self.started - sum(self.ended.values())
