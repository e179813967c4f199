"""Resolves the settings of one generation for the engine, with every field set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from talu.config import GenerationConfig
from talu.exceptions import ModelError, ValidationError

__all__ = ["SamplingParams", "resolve_sampling"]

FROM_MODEL = {  # names in generation_config.json and in talu
    "max_new_tokens": "max_tokens",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Settings of one generation, with every field set.

    The order of the sampler is: bias, repetition penalty, presence and frequency penalty,
    temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 selects the most likely token.
        top_k: 0 is off.
        top_p, min_p: 1.0 and 0.0 are off.
        seed: key of the counter-based generator; never None here.
        stop_token_ids: tokens that end the generation, the model's own unless replaced.
        top_logprobs: alternatives to report for each token; -1 reports no log-probabilities.
        cache_namespace: part of the prefix cache that the request reads and writes.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int = -1
    cache_namespace: str = ""

    @property
    def has_penalty(self) -> bool:
        """Whether sampling depends on the tokens so far."""
        penalties = self.repetition_penalty, self.presence_penalty, self.frequency_penalty
        return penalties != (1, 0, 0)


def resolve_sampling(
    config: GenerationConfig,
    model_defaults: Mapping[str, Any],
    *,
    end_token_ids: frozenset[int],
    fresh_seed: int,
) -> SamplingParams:
    """Fill the unset fields of ``config`` with the defaults of the model, then of the library.

    Args:
        config: the merged settings of call and chat.
        model_defaults: the model's ``generation_config.json``, or the known part of it.
        end_token_ids: the model's own end tokens.
        fresh_seed: the seed to use when none is set.

    Raises:
        ModelError: the model's own defaults have an invalid value.
    """
    full = _from_model(model_defaults) | config.without_none()
    wants_logprobs = full.given.get("logprobs", full.top_logprobs is not None)
    ends = full.stop_token_ids
    return SamplingParams(
        max_tokens=full.max_tokens,
        temperature=full.temperature,
        top_k=full.top_k,
        top_p=full.top_p,
        min_p=full.min_p,
        repetition_penalty=full.repetition_penalty,
        presence_penalty=full.presence_penalty,
        frequency_penalty=full.frequency_penalty,
        seed=fresh_seed if full.seed is None else full.seed,
        stop_sequences=tuple(full.stop_sequences or ()),
        stop_token_ids=end_token_ids if ends is None else frozenset(ends),
        logit_bias=full.logit_bias or {},
        top_logprobs=(full.top_logprobs or 0) if wants_logprobs else -1,
        cache_namespace=full.cache_namespace or "",
    )


def _from_model(defaults: Mapping[str, Any]) -> GenerationConfig:
    config = GenerationConfig()
    if defaults.get("do_sample") is False:
        config.temperature = 0.0
        defaults = {name: value for name, value in defaults.items() if name != "temperature"}
    for theirs, ours in FROM_MODEL.items():
        if defaults.get(theirs) is None:
            continue
        try:
            setattr(config, ours, defaults[theirs])
        except ValidationError as error:
            message = f"the model's generation_config.json is wrong: {theirs}: {error}"
            raise ModelError(message, details=error.details) from error
    return config
