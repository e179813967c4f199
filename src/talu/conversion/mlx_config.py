"""Writes the config.json that mlx-lm reads, and says where mlx-lm computes something else.

mlx-lm has fewer settings than transformers. A network of which it would compute another one is
refused; what differs slightly, or in long texts only, is a note.
https://github.com/ml-explore/mlx-lm/tree/main/mlx_lm/models
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from talu.conversion.original import Original
from talu.error_text import shown
from talu.exceptions import ConvertError
from talu.models import Architecture
from talu.models.decoder import HEAD
from talu.models.gemma import ONE_ADDED
from talu.models.rope import default_frequencies, llama3_scaling

__all__ = ["mlx_config"]

ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
NOT_COPIED = (  # keys that are written anew, or are about files that are not copied
    *("_name_or_path", "auto_map", "compression_config", "model_file", "quantization"),
    *("quantization_config", "quantize_activations", "rope_parameters", "rope_scaling"),
    *("rope_traditional", "sliding_window_pattern", ONE_ADDED),
)
SCALINGS: Mapping[str, tuple[str, ...]] = {  # of the rotary embedding: their keys
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # of all files
ORIGINAL_CONTEXT, LLAMA3_CONTEXT = "original_max_position_embeddings", 8192
LOCAL_BASE = 1e4  # of Gemma 3's layers with a window, if config.json names none
FULL, SLIDING = "full_attention", "sliding_attention"
Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What mlx-lm computes for a model type.

    Attributes:
        architecture: the class of transformers with the same network.
        activation: of the gated MLP.
        nearly: activations that it replaces by this one, with slightly other results.
        biases: the modules that can have a bias.
        own_head: the output head can differ from the embedding table.
        own_head_size: the width of heads is a setting; otherwise they share that of the network.
        caps: scores and logits are limited.
        pattern: all layers but every n-th have a window; otherwise none has one.
        scaled: the rotary embedding can be scaled.
        base: of the rotary embedding, if config.json names none.
    """

    architecture: str
    activation: str = "silu"
    nearly: tuple[str, ...] = ()
    biases: frozenset[str] = frozenset()
    own_head: bool = True
    own_head_size: bool = True
    caps: bool = False
    pattern: bool = False
    scaled: bool = True
    base: float = 1e4


NETWORKS: Mapping[str, Network] = {
    "llama": Network(architecture="LlamaForCausalLM", biases=ATTENTION | MLP),
    "mistral": Network(architecture="MistralForCausalLM"),
    "qwen2": Network(
        architecture="Qwen2ForCausalLM", biases=ATTENTION - {"o_proj"}, own_head_size=False
    ),
    "qwen3": Network(architecture="Qwen3ForCausalLM"),
    "gemma": Network(
        architecture="GemmaForCausalLM",
        activation="gelu",
        nearly=("gelu_tanh",),
        own_head=False,
        scaled=False,
    ),
    "gemma2": Network(
        architecture="Gemma2ForCausalLM",
        activation="gelu_tanh",
        own_head=False,
        caps=True,
        scaled=False,
    ),
    "gemma3_text": Network(
        architecture="Gemma3ForCausalLM", activation="gelu_tanh", pattern=True, base=1e6
    ),
}


def mlx_config(
    original: Original, quantization: Mapping[str, object] | None
) -> tuple[Values, list[str]]:
    """The content of config.json, and notes.

    Args:
        original: the model.
        quantization: how the matrices are quantised; None if they are not.

    Raises:
        ConvertError: mlx-lm does not have the network.
    """
    network = NETWORKS.get(original.architecture.model_type)
    if network is None:
        known = ", ".join(map(repr, NETWORKS))
        raise refused(
            original,
            f"it does not have the model type {original.architecture.model_type!r}; of those that "
            f"talu opens, it has {known}",
        )
    for problem in problems(original.architecture, network):
        raise refused(original, problem)
    theirs = original.source.settings().as_dict()
    values = {
        "architectures": [network.architecture],
        **{k: v for k, v in theirs.items() if k not in NOT_COPIED and "." not in k},
        **sizes_of(original.architecture),
        **rotary_values(original, network, theirs),
    }
    if "layer_types" in values and original.architecture.model_type == "llama":
        values["layer_types"] = ["full_attention"] * original.architecture.layer_count
    if quantization is not None:  # transformers looks for the second key
        values |= {"quantization": quantization, "quantization_config": quantization}
    return dict(sorted(values.items())), list(notes_on(original.architecture, network))


def sizes_of(architecture: Architecture) -> Values:
    """The settings without which mlx-lm does not open a model, or assumes other values."""
    sizes, windows = architecture.sizes, windows_of(architecture)
    values = {
        "model_type": architecture.model_type,
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_size,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": sizes.eps,
        "tie_word_embeddings": HEAD not in architecture.graph.weights,
    }
    if architecture.model_type in ("gemma2", "gemma3_text"):
        scale = params_of(architecture, "attention")[0]["scale"]
        values["query_pre_attn_scalar"] = round(1 / scale**2)
    if architecture.model_type == "gemma2":
        values |= caps_of(architecture)
    if architecture.model_type == "gemma3_text":
        values["sliding_window_pattern"] = pattern_of(windows)
        values |= {"sliding_window": max(windows)} if any(windows) else {}
    return values


def rotary_values(original: Original, network: Network, theirs: Mapping[str, Any]) -> Values:
    """The settings of the rotary embedding, in the keys that mlx-lm reads.

    Raises:
        ConvertError: mlx-lm cannot scale the frequencies as the settings of the model say.
    """
    architecture = original.architecture
    parameters = theirs.get("rope_parameters") or {}
    by_kind = architecture.model_type == "gemma3_text"
    nested = theirs.get("rope_scaling") or (parameters.get(FULL) or {} if by_kind else parameters)
    kind = nested.get("rope_type", nested.get("type", "default"))
    values = {"rope_theta": nested.get("rope_theta", theirs.get("rope_theta", network.base))}
    local = (parameters.get(SLIDING) or {}) if by_kind else {}
    if (kind != "default" and not network.scaled) or local.get("rope_type", "default") != "default":
        raise refused(original, "it does not scale the frequencies of the rotary embedding")
    scaling: Values = {"rope_type": kind, **{key: nested[key] for key in SCALINGS.get(kind, ())}}
    if kind == "llama3":
        context = None if by_kind else theirs.get(ORIGINAL_CONTEXT)
        context = context or nested.get(ORIGINAL_CONTEXT) or architecture.context_length
        scaling[ORIGINAL_CONTEXT] = context
    elif kind == "factors":
        scaling = llama3_with(values["rope_theta"], nested["factors"])
        if not scaling:
            raise refused(original, "its rotary factors are not those of Llama 3")
    values["rope_scaling"] = None if kind == "default" else scaling
    if by_kind:
        usual = theirs.get("rope_local_base_freq") or LOCAL_BASE
        values["rope_local_base_freq"] = local.get("rope_theta", usual)
    return values


def llama3_with(base: float, factors: Sequence[float]) -> Values:
    """The settings of the scaling of Llama 3 that lead to these factors; empty if none do."""
    plain = default_frequencies(base, 2 * len(factors))
    low, high = LLAMA3.values()
    scaled = llama3_scaling(plain, factors[-1], low, high, context=LLAMA3_CONTEXT)
    if not np.allclose(np.divide(plain, scaled), np.array(factors), rtol=1e-5):
        return {}
    values = {"rope_type": "llama3", "factor": factors[-1], **LLAMA3}
    return {**values, ORIGINAL_CONTEXT: LLAMA3_CONTEXT}


def problems(architecture: Architecture, network: Network) -> Iterator[str]:
    """Why mlx-lm would compute another network."""
    sizes, graph = architecture.sizes, architecture.graph
    if not architecture.generates:
        yield str(architecture.embeds_only)
    for params in params_of(architecture, "gated"):
        if params["activation"] not in (network.activation, *network.nearly):
            yield f"its activation is {params['activation']!r} instead of {network.activation!r}"
    biased = {name.split(".")[-2] for name in graph.weights if name.endswith(".bias")}
    if more := sorted(biased - network.biases):
        yield f"the model has biases in {', '.join(more)}"
    if HEAD in graph.weights and not network.own_head:
        yield "the output head of the model is not its embedding table"
    if not network.own_head_size and sizes.head_size * sizes.heads != sizes.width:
        yield f"the heads of the model have {sizes.head_size} columns"
    caps = caps_of(architecture).values()
    if not (all(caps) if network.caps else not any(caps)):
        yield f"the model {'does not limit' if network.caps else 'limits'} its scores or logits"
    if network.pattern and not pattern_of(windows_of(architecture)):
        yield "the layers with a sliding window do not repeat as in Gemma 3"


def notes_on(architecture: Architecture, network: Network) -> Iterator[str]:
    """What mlx-lm computes slightly otherwise, or in long texts."""
    window = max(windows_of(architecture))
    if window and not network.pattern and window < architecture.context_length:
        yield (
            f"mlx-lm lets every layer attend to all positions, so its answers differ from those "
            f"of the model after {window} tokens"
        )
    if any(p["activation"] in network.nearly for p in params_of(architecture, "gated")):
        yield (
            "mlx-lm computes GELU exactly, where the model was trained with an approximation, so "
            "its answers can differ slightly"
        )


def params_of(architecture: Architecture, kind: str) -> list[Mapping[str, Any]]:
    """The parameters of all operations of a kind."""
    return [op.params for op in architecture.graph.ops if op.kind == kind]


def windows_of(architecture: Architecture) -> list[int]:
    """The window of each layer; 0 for none."""
    return [params["window"] for params in params_of(architecture, "attention")]


def pattern_of(windows: Sequence[int]) -> int | None:
    """The n of which every n-th layer has no window; None if there is none."""
    if 0 not in windows:
        return None
    n = windows.index(0) + 1
    repeats = all((window == 0) == (i % n == 0) for i, window in enumerate(windows, 1))
    return n if repeats else None


def caps_of(architecture: Architecture) -> Values:
    """The limits of scores and logits; None for none."""
    scores = params_of(architecture, "attention")[0]["soft_cap"]
    logits = [params["cap"] for params in params_of(architecture, "soft_cap")]
    return {
        "attn_logit_softcapping": scores or None,
        "final_logit_softcapping": logits[0] if logits else None,
    }


def refused(original: Original, why: str) -> ConvertError:
    """The error for a model that mlx-lm cannot run."""
    return ConvertError(
        f"mlx-lm cannot run {shown(original.name)}: {why}",
        code="CONVERT_UNSUPPORTED_FORMAT",
    )
