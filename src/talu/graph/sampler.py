"""Calls the native sampler, which samples a token from each row of logits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.protocols import Sampled, SampleRow

__all__ = ["sample"]


def sample(logits: NDArray[np.float32], rows: Sequence[SampleRow]) -> list[Sampled]:
    """Sample one token from each row, as ``numpy_sampler`` defines it.

    A row's token depends only on its logits and parameters, not on other rows or earlier calls.
    Tokens that cannot occur (-inf) are not among ``top_logprobs``. Runs without the GIL.

    Args:
        logits: (n, vocabulary), C-contiguous; -inf is allowed.
        rows: n sets of parameters.

    Raises:
        ValueError: a parameter is out of range, a logit is NaN or +inf, or no token is left; the
            message names the row.
        TypeError: ``logits`` has the wrong type or layout.
    """
    return [Sampled(*sampled) for sampled in _native.sample(logits, rows)]
