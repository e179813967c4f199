"""Samples tokens from logits in the native module.

What is constant for a sequence is in its ``SamplerSettings``, which are made and checked once.
Settings apply in this order: bias, repetition penalty, presence and frequency penalty, mask,
temperature, top-k, top-p, min-p.
"""

from collections.abc import Sequence
from typing import NamedTuple

from talu import _native
from talu._native import SamplerSettings
from talu.arrays import Floats, Ints
from talu.protocols import Sampled

__all__ = ["SampleRow", "SamplerSettings", "sample"]


class SampleRow(NamedTuple):
    """What a sequence needs for its next token.

    Attributes:
        settings: the sequence's settings.
        position: of the token, which with the seed is the key of the counter-based generator: one
            uniform number for each pair.
        seen: tokens so far, prompt included, for the penalties; may repeat.
        mask: the allowed tokens: bit i % 32 of word i // 32 stands for token i. None allows all.
    """

    settings: SamplerSettings
    position: int = 0
    seen: Ints | None = None
    mask: Ints | None = None


def sample(logits: Floats, rows: Sequence[SampleRow], *, num_threads: int = 1) -> list[Sampled]:
    """Sample one token from each row, as ``numpy_sampler`` defines it.

    A row's token depends only on its logits and parameters, not on other rows or earlier calls.
    Tokens that cannot occur (-inf) are not among ``top_logprobs``. Runs without the GIL.

    Args:
        logits: (n, vocabulary), C-contiguous; -inf is allowed.
        rows: n sets of parameters.
        num_threads: threads that sample, each of them other rows.

    Raises:
        ValueError: a token id is outside the vocabulary, a logit is NaN or +inf, or no token is
            left; the message names the row.
        TypeError: ``logits`` has the wrong type or layout.
    """
    return [Sampled(*sampled) for sampled in _native.sample(logits, rows, num_threads)]
