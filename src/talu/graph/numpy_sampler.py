"""Defines the sampler in float64, as the reference for the native one.

The native sampler validates the parameters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from talu.graph.sampler import SampleRow, SamplerSettings
from talu.protocols import Sampled

__all__ = ["adjusted", "kept_tokens", "philox", "sample", "uniform"]

_WORD = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four random 32-bit words: Philox 4x32-10.

    Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (
            (second >> 32) ^ b ^ low,
            second & _WORD,
            (first >> 32) ^ d ^ high,
            first & _WORD,
        )
        low, high = (low + 0x9E3779B9) & _WORD, (high + 0xBB67AE85) & _WORD
    return a, b, c, d


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) of a 64-bit seed and a 64-bit position."""
    counter = (position & _WORD, position >> 32, 0, 0)
    words = philox(counter, (seed & _WORD, seed >> 32))
    return float((words[1] << 32 | words[0]) >> 11) * 2.0**-53


def kept_tokens(scores: NDArray[np.float32], settings: SamplerSettings) -> NDArray[np.intp]:
    """Tokens that pass top-k, top-p and min-p, ascending; ``scores`` are biased and penalised."""
    order = np.argsort(-scores, kind="stable")
    kept = order[: settings.top_k or None]
    weights = _weights(scores, settings)[kept]
    if settings.top_p < 1:
        mass = np.cumsum(weights)
        kept = kept[: np.searchsorted(mass, settings.top_p * mass[-1]) + 1]
    weights = weights[: len(kept)]
    return np.sort(kept[(weights > 0) & (weights >= settings.min_p)])


def sample(logits: NDArray[np.float32], rows: Sequence[SampleRow]) -> list[Sampled]:
    """Sample one token from each row of (n, vocabulary) logits."""
    return [_sample_row(*pair) for pair in zip(logits, rows, strict=True)]


def _sample_row(logits: NDArray[np.float32], row: SampleRow) -> Sampled:
    settings = row.settings
    scores = adjusted(logits, row)
    if settings.temperature == 0:
        token = int(np.argmax(scores))
    else:
        kept = kept_tokens(scores, settings)
        mass = np.cumsum(_weights(scores, settings)[kept])
        goal = uniform(settings.seed, row.position) * mass[-1]
        token = int(kept[min(np.searchsorted(mass, goal, side="right"), len(kept) - 1)])
    if settings.top_logprobs < 0:
        return Sampled(token)
    own = logits.astype(np.float64) - logits.max()
    own -= np.log(np.exp(own).sum())
    best = np.argsort(-logits, kind="stable")[: settings.top_logprobs]
    top = tuple((int(i), float(own[i])) for i in best if own[i] > -np.inf)
    return Sampled(token, float(own[token]), top)


def adjusted(logits: NDArray[np.float32], row: SampleRow) -> NDArray[np.float32]:
    """Apply bias, then penalties, then the mask.

    The repetition penalty divides positive and multiplies negative logits; presence and frequency
    penalty are subtracted from the logits of the answer's tokens.
    """
    settings = row.settings
    scores = logits.copy()
    for token, bias in zip(settings.bias_ids, settings.bias_values, strict=True):
        scores[token] = -np.inf if bias <= -100 else scores[token] + np.float32(bias)
    if row.seen is not None:
        penalty = np.float32(settings.repetition_penalty)
        ids = np.asarray(row.seen)
        seen = scores[ids]
        scores[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
        tokens, counts = np.unique(ids[settings.seen_prompt :], return_counts=True)
        often = np.float32(settings.frequency_penalty) * counts.astype(np.float32)
        scores[tokens] -= often + np.float32(settings.presence_penalty)
    if row.mask is not None:
        words = np.asarray(row.mask).view(np.uint32)
        ids = np.arange(len(scores))
        scores[(words[ids // 32] >> (ids % 32).astype(np.uint32)) & 1 == 0] = -np.inf
    return scores


def _weights(scores: NDArray[np.float32], settings: SamplerSettings) -> NDArray[np.float64]:
    """Probabilities after the temperature, as multiples of the largest."""
    weights: NDArray[np.float64] = np.exp(
        (scores.astype(np.float64) - scores.max()) / settings.temperature
    )
    return weights
