"""Describes a network in the metadata of a GGUF file.

It is the reverse of ``talu.gguf.settings``. What was written is read back, and the network that it
describes compared with the original: so nothing that the file cannot hold is lost silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu.conversion.original import Original
from talu.error_text import nearest
from talu.exceptions import ConvertError
from talu.gguf.settings import ARCHITECTURES, POOLING, SAMPLING
from talu.gguf.writer import Typed, typed
from talu.models import Architecture
from talu.models.rope import default_frequencies

__all__ = ["Network", "architecture_for", "describe_network"]

Floats = NDArray[np.float32]
MODEL_TYPES = {about.model_type: name for name, about in ARCHITECTURES.items()} | {
    "mistral": "llama"
}
TYPE_ROWS = "tokenizer.ggml.token_type_count"  # where llama.cpp expects the size of that table


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a file says about a network.

    Attributes:
        architecture: its name in GGUF.
        metadata: all keys but those of the tokenizer and of the type of the weights.
        rope_factors: what the rotary frequencies are divided by; None if they are plain.
        notes: what the file cannot hold.
    """

    architecture: str
    metadata: Mapping[str, Typed]
    rope_factors: Floats | None
    notes: tuple[str, ...]


def architecture_for(original: Original) -> str:
    """The name in GGUF of a model's architecture.

    Raises:
        ConvertError: there is none.
    """
    model_type = original.architecture.model_type
    if model_type not in MODEL_TYPES:
        known = ", ".join(map(repr, MODEL_TYPES))
        raise unsupported(
            f"models of type {model_type!r} cannot be converted to GGUF"
            f"{nearest(model_type, MODEL_TYPES)} (supported: {known})"
        )
    return MODEL_TYPES[model_type]


def describe_network(original: Original) -> Network:
    """Describe the network of a model.

    Raises:
        ConvertError: GGUF cannot describe it.
    """
    name, found = architecture_for(original), original.architecture
    about, config = ARCHITECTURES[name], found.config
    values = _encoder(config) if name == "bert" else _decoder(config)
    own = {key: values[theirs] for key, theirs in about.keys.items() if theirs in values}
    own["vocab_size"] = found.vocabulary_size
    factors = None
    if name != "bert":
        sizes = config.sizes
        heads = ("attention.key_length", "attention.value_length", "rope.dimension_count")
        own |= dict.fromkeys(heads, sizes.head_size)
        if sizes.rotation.factor != 1.0:
            own |= {"rope.scaling.type": "linear", "rope.scaling.factor": sizes.rotation.factor}
        else:
            factors = rope_factors(sizes.rotation.base, sizes.frequencies, name)
    own |= _windows(name, config)
    pooling, notes = _pooling(found)
    own |= pooling
    general, more = _general(original)
    metadata = {
        "general.architecture": name,
        **general,
        **{f"{name}.{key}": value for key, value in own.items()},
    }
    if name == "bert":
        metadata[TYPE_ROWS] = config.types
    return Network(
        architecture=name,
        metadata={key: typed(value) for key, value in metadata.items()},
        rope_factors=factors,
        notes=(*notes, *more),
    )


def unsupported(message: str) -> ConvertError:
    """The error for a model that GGUF cannot hold."""
    return ConvertError(message, code="CONVERT_UNSUPPORTED_FORMAT")


def rope_factors(base: float, frequencies: Sequence[float], architecture: str) -> Floats | None:
    """The numbers that the plain frequencies are divided by; None if all are 1.

    The quotients can differ from the frequencies in the last bit, because both are rounded.

    Raises:
        ConvertError: they are not, and files of the architecture have no place for them.
    """
    plain = default_frequencies(base, 2 * len(frequencies))
    if np.array_equal(plain, frequencies):
        return None
    if architecture != "llama":
        raise unsupported(
            f"a GGUF file of the architecture {architecture!r} has no place for rotary "
            "frequencies of this kind ('rope_scaling')"
        )
    return np.divide(plain, frequencies, dtype=np.float32)


def _decoder(config: Any) -> dict[str, Any]:
    """The settings of a decoder, by their names in config.json."""
    sizes = config.sizes
    values: dict[str, Any] = {
        "max_position_embeddings": sizes.context,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.inner,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": sizes.eps,
        "rope_theta": sizes.rotation.base,
        "sliding_window": max(getattr(config, "windows", ()), default=0),
        "final_logit_softcapping": getattr(config, "logit_cap", 0.0),
        "attn_logit_softcapping": getattr(config, "score_cap", 0.0),
    }
    if not sizes.causal:
        values["is_causal"] = False
    return {name: value for name, value in values.items() if value or name == "is_causal"}


def _encoder(config: Any) -> dict[str, Any]:
    """The settings of an encoder, by their names in config.json."""
    sizes = config.sizes
    return {
        "max_position_embeddings": sizes.context,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.inner,
        "num_attention_heads": sizes.heads,
        "layer_norm_eps": sizes.eps,
        "is_causal": False,
    }


def _windows(name: str, config: Any) -> dict[str, Any]:
    """Which layers of Gemma 2 and 3 have windows, as far as it is not the usual pattern."""
    usual = ARCHITECTURES[name].pattern
    if not usual:
        return {}
    keys: dict[str, Any] = {}
    slides = [window > 0 for window in config.windows]
    periods = [usual, *range(1, len(slides) + 1)]
    period = next((p for p in periods if slides == _pattern(p, len(slides))), None)
    if period != usual:
        pattern = np.array(slides) if period is None else period
        keys["attention.sliding_window_pattern"] = pattern
    if name == "gemma3" and config.local_base != 10_000.0:
        keys["rope.freq_base_swa"] = config.local_base
    return keys


def _pattern(period: int, layers: int) -> list[bool]:
    return [layer % period < period - 1 for layer in range(layers)]


def _pooling(architecture: Architecture) -> tuple[dict[str, Any], list[str]]:
    """How hidden states become embeddings, and what of it the file cannot hold.

    Raises:
        ConvertError: the model only makes embeddings, and the file would make others.
    """
    embedding = architecture.embedding
    lost = []
    modes = embedding.pooling or ()
    number = next((n for n, mode in POOLING.items() if modes == (mode,)), None)
    if modes and number is None:
        lost.append(f"its pooling ({' and '.join(modes)})")
    if embedding.steps:
        lost.append("the layers after pooling")
    if embedding.dimension != architecture.hidden_size and not embedding.steps:
        lost.append(f"the length of its vectors ({embedding.dimension})")
    notes = []
    if lost and not architecture.generates:
        raise unsupported(f"GGUF cannot hold {' and '.join(lost)} of this embedding model")
    if embedding.problem is None:
        lost += ["its prompts for texts"] * any(embedding.prompts.values())
        if embedding.texts.max_tokens < architecture.context_length:
            lost.append(f"the limit of {embedding.texts.max_tokens} tokens for a text")
        if not embedding.pools_prompt:
            lost.append("that the tokens of a prompt are not pooled")
    if lost:
        notes.append(f"for embeddings, the file has no place for {' and '.join(lost)}")
    return ({} if number is None else {"pooling_type": number}), notes


def _general(original: Original) -> tuple[dict[str, Any], list[str]]:
    """Name, licence and defaults for sampling, and those that the file cannot hold."""
    values: dict[str, Any] = {"general.type": "model", "general.name": original.name}
    if licence := original.source.licence():
        values["general.license"] = licence
    names = {theirs: ours for ours, theirs in SAMPLING.items()}
    defaults = original.architecture.generation_defaults
    for key, value in defaults.items():
        if key in names:
            kind = np.int32 if key == "top_k" else np.float32
            values[f"general.sampling.{names[key]}"] = kind(value)
    lost = [f"{key} = {value}" for key, value in defaults.items() if key not in names]
    return values, [f"the file has no place for the default {', '.join(lost)}"] * bool(lost)
