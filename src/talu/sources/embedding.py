"""Defines the settings that say how the hidden states of a network become embeddings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from talu.weights.checkpoint import Checkpoint

__all__ = [
    "Dense",
    "EmbeddingSettings",
    "LayerNorm",
    "Normalize",
    "PoolingMode",
    "Step",
    "TextSettings",
]

PoolingMode = Literal["first", "last", "mean", "max", "mean_sqrt_len_tokens", "weightedmean"]


class Dense(NamedTuple):
    """A step: activation(x · weightᵀ + bias), plus x or a projection of it if ``residual``.

    Attributes:
        tensors: opens the weights: ``linear.weight``, ``linear.bias``, ``residual.weight``.
    """

    tensors: Callable[[], Checkpoint]
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True, slots=True)
class Normalize:
    """A step: scale to length 1."""


class LayerNorm(NamedTuple):
    """A step: scale to mean 0 and variance 1, then multiply by a weight and add a bias.

    Attributes:
        tensors: opens the weights: ``norm.weight``, ``norm.bias``.
    """

    tensors: Callable[[], Checkpoint]
    width: int


Step = Dense | LayerNorm | Normalize


class TextSettings(NamedTuple):
    """How texts become tokens.

    Attributes:
        max_tokens: limit for a text, special tokens included.
        source: where the limit comes from.
        lower_case: texts are lower-cased, except for special tokens.
        truncates_start: a text that is too long loses its start, not its end.
        segments: the network is told which of two texts a token belongs to, if it can be.
        notes: what is not used.
    """

    max_tokens: int
    source: str = "its context"
    lower_case: bool = False
    truncates_start: bool = False
    segments: bool = True
    notes: tuple[str, ...] = ()


class EmbeddingSettings(NamedTuple):
    """What a model's files say about embeddings.

    Attributes:
        dimension: length of a vector.
        texts: how texts become tokens.
        pooling: how the model was trained to pool, several modes being joined; None if that is not
            specified or not supported.
        pooling_problem: why ``pooling`` is None.
        steps: the steps after pooling. A ``Normalize`` at the end is left out, because the caller's
            ``normalize`` decides that, unless the vectors are truncated after it.
        prompts: prefixes for texts, by name.
        default_prompt: name of the prompt that is used if the caller names none.
        pools_prompt: the tokens of the prompt are pooled too.
        problem: why this model's embeddings cannot be computed at all.
        score_activation: what follows the output of a cross-encoder, as in ``Dense``; None if the
            files beside config.json do not say it.
        notes: what the files say and is not used.
    """

    dimension: int
    texts: TextSettings
    pooling: tuple[PoolingMode, ...] | None = None
    pooling_problem: str = "its files do not say it"
    steps: tuple[Step, ...] = ()
    prompts: Mapping[str, str] = MappingProxyType({})
    default_prompt: str | None = None
    pools_prompt: bool = True
    problem: str | None = None
    score_activation: str | None = None
    notes: tuple[str, ...] = ()
