"""Immutable counts and histograms of one model's generations."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from talu.types import FinishReason

__all__ = ["Histogram", "ModelMetrics", "ToolMetrics"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """The distribution of a measured value.

    Attributes:
        bounds: inclusive upper bounds of the buckets, ascending.
        counts: number of values per bucket, not cumulative; one more than there are bounds, the
            last without an upper bound.
        sum: sum of all values, in the unit of the bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolMetrics:
    """The calls of one tool by one model that talu has carried out.

    Attributes:
        outcomes: number of calls by outcome: ``ok``, or the code of ``ToolExecutionError``.
        duration: seconds of each call whose function was called.
    """

    outcomes: Mapping[str, int]
    duration: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """The metrics of one model's generations since the hook was created.

    Attributes:
        started: number of started generations.
        ended: number of ended generations by finish reason: ``error`` when they failed,
            ``cancelled`` when they were closed, dropped or interrupted.
        prompt_tokens: tokens of the prompts.
        cached_tokens: the part of the prompt tokens that came from the prefix cache.
        completion_tokens: sampled tokens. All three exclude generations whose usage is unknown:
            those that failed, and those that were never read.
        time_to_first_token: seconds from the start to the reading of the first token.
        tokens_per_second: speed of each generation after its first token, for those with at least
            two tokens.
        tools: the calls of its tools by the name of the tool: ``(unknown)`` for all tools that do
            not exist, and ``(other)`` for those after the first 200 names.
    """

    started: int
    ended: Mapping[FinishReason, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    time_to_first_token: Histogram
    tokens_per_second: Histogram
    tools: Mapping[str, ToolMetrics] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Generations that ended with an error."""
        return self.ended[FinishReason.ERROR]

    @property
    def cancelled(self) -> int:
        """Generations that were cancelled."""
        return self.ended[FinishReason.CANCELLED]

    @property
    def running(self) -> int:
        """Generations that have not ended."""
        return self.started - sum(self.ended.values())
