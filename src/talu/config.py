"""Generation settings: what a caller may ask, what is unset, and how levels are merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GenerationConfig", "SamplingParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Settings of one generation with nothing left unset: what the engine works by.

    The order of the sampler is: bias, repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: 0 is off.
        top_p, min_p: 1.0 and 0.0 are off.
        seed: key of the counter-based generator; never None here.
        stop_token_ids: tokens that end the generation, the model's own unless replaced.
        top_logprobs: alternatives to report for each token; -1 asks for no log-probabilities.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int = -1


@dataclass
class GenerationConfig:
    """Placeholder until the public settings land."""
