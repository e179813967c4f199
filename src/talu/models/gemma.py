"""Records Gemma, Gemma 2 and the text networks of Gemma 3.

They scale the embeddings by the square root of their width, and add 1 to the weights of norms.
GGUF files hold these weights with 1 added, as float32; the norm operation adds it in float32 for
all other files, so both give the same bits.
Gemma 2 normalises the results of attention and MLP as well, alternates between layers with and
without a sliding window, and limits scores and logits; Gemma 3 normalises query and key heads
instead of limiting scores, and has one rotary base for each kind of layer.
https://arxiv.org/abs/2403.08295, https://arxiv.org/abs/2408.00118,
https://arxiv.org/abs/2503.19786
"""

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from talu.arrays import single
from talu.graph.record import Graph, Value
from talu.models.decoder import (
    ACTIVATIONS,
    MAX_CONTEXT,
    SHORT_WINDOW,
    TABLE,
    Sizes,
    check_layers_without_window,
    decoder_keys,
)
from talu.models.keys import Choice, Choices, Decimal, Flag, Key, Off, Section, Whole, read_keys
from talu.models.rope import Frequencies
from talu.models.rope_keys import Rotation, frequencies_of, rotary_frequencies
from talu.sources.settings import Settings

__all__ = ["ARCHITECTURES", "KEYS", "PREFIXES", "Config", "build", "read"]

ARCHITECTURES = {
    "gemma": ("GemmaForCausalLM", "GemmaModel"),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Model"),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextModel"),
}
PREFIXES = dict.fromkeys(ARCHITECTURES, "model.")
FULL, SLIDING = "full_attention", "sliding_attention"
SLIDES = {FULL: False, "attention": False, SLIDING: True}
WITH_GELU = ACTIVATIONS | {"gelu": "gelu_tanh"}  # what the first Gemma meant
NUMBER_TYPES = ("float32", "float16", "bfloat16")
NO_BIDIRECTION = Off(neutral=(False,), why="attention in both directions is not supported")
ONE_ADDED = "norms_have_one_added"  # of GGUF files


def _keys(
    *, inner: int, width: int, layers: int, heads: int, kv_heads: int, vocabulary: int, context: int
) -> dict[str, Key]:
    """The keys that all Gemmas read; the arguments are defaults."""
    types = Choice(null=None, words={name: name for name in NUMBER_TYPES})
    return decoder_keys(vocabulary=vocabulary, inner=inner, context=context, kv_heads=kv_heads) | {
        "hidden_size": Whole(missing=width, high=2**17),
        "num_hidden_layers": Whole(missing=layers, high=2**12),
        "num_attention_heads": Whole(missing=heads, high=2**12),
        "num_key_value_heads": Whole(missing=kv_heads, high=2**12),
        "head_dim": Whole(missing=256, low=2, high=2**12),
        "hidden_act": Choice(missing="gelu_tanh", words=WITH_GELU),
        "tie_word_embeddings": Flag(missing=True),
        "attention_bias": Flag(missing=False),
        "use_bidirectional_attention": NO_BIDIRECTION,
        "dtype": types,
        "torch_dtype": types,
    }


def _windowed(keys: Mapping[str, Key]) -> dict[str, Key]:
    """The keys that Gemma 2 and 3 read."""
    own: dict[str, Key] = {
        "hidden_activation": Choice(missing="gelu_tanh", words=ACTIVATIONS),
        "query_pre_attn_scalar": Whole(missing=256, high=2**20),
        "sliding_window": Whole(missing=4096, low=2, high=MAX_CONTEXT, why=SHORT_WINDOW),
        "layer_types": Choices(null=None, words=SLIDES),
    }
    return {name: key for name, key in keys.items() if name != "hidden_act"} | own


GEMMA2 = _keys(
    vocabulary=256_000, width=2304, inner=9216, layers=26, heads=8, kv_heads=4, context=8192
)
KEYS: Mapping[str, Mapping[str, Key]] = {
    "gemma": _keys(
        vocabulary=256_000, width=3072, inner=24_576, layers=28, heads=16, kv_heads=16, context=8192
    )
    | {"layer_types": Choices(null=None, words={FULL: False, "attention": False})},
    "gemma2": _windowed(GEMMA2)
    | {
        "attn_logit_softcapping": Decimal(missing=50.0, null=None, high=1e6),
        "final_logit_softcapping": Decimal(missing=30.0, null=None, high=1e6),
    },
    "gemma3_text": _windowed(GEMMA2)
    | {
        "vocab_size": Whole(missing=262_208, high=2**22),
        "max_position_embeddings": Whole(missing=2**17, high=MAX_CONTEXT),
        "sliding_window_pattern": Whole(missing=6, high=2**12),
        "final_logit_softcapping": Decimal(null=None, high=1e6),
    },
}


class Config(NamedTuple):
    """The settings of a Gemma model.

    Attributes:
        embedding_factor: that the rows of the embedding table are multiplied by.
        norm_offset: added to the weights of all norms.
        four_norms: the results of attention and MLP are normalised.
        head_norms: each query and key head is normalised.
        biased: the projections of attention have a bias.
        scale: of the scores of attention.
        score_cap, logit_cap: limits of scores and logits; 0 for none.
        windows: positions that each layer attends to; 0 for all.
        local_base: the base of the rotary embedding in layers with a window.
        frequencies: of the rotary embedding of each layer.
    """

    sizes: Sizes
    embedding_factor: float
    norm_offset: float
    four_norms: bool
    head_norms: bool
    biased: bool
    scale: float
    score_cap: float
    logit_cap: float
    windows: tuple[int, ...]
    local_base: float
    frequencies: tuple[Frequencies, ...]


def read(settings: Settings, model_type: str) -> Config:
    """Read and check config.json."""
    values = read_keys(settings, KEYS[model_type])
    activation = "hidden_act" if model_type == "gemma" else "hidden_activation"
    _ignore_other_activation(settings, values[activation], read=activation)
    settings.ignore("cache_implementation", "_sliding_window_pattern")
    values["hidden_act"] = values[activation]
    gemma3 = model_type == "gemma3_text"
    sizes = Sizes.read(settings, values, rotary=_global_rotation if gemma3 else rotary_frequencies)
    if model_type != "gemma" and sizes.width % sizes.heads:
        message = f"is {sizes.width}, not a multiple of {sizes.heads} heads"
        raise settings.error("hidden_size", message)
    sliding = _sliding_layers(settings, values)
    local = sizes.rotation
    if gemma3:
        local = _local_rotation(settings, sizes.head_size, sizes.context)
        sizes.without_effect.extend(local.without_effect)
    elif model_type == "gemma2":
        sizes.refuse_rotation_by_kind(settings, SLIDES)
    window = values.get("sliding_window", 0)
    return Config(
        sizes=sizes,
        embedding_factor=_embedding_factor(sizes.width, values["dtype"] or values["torch_dtype"]),
        norm_offset=0.0 if Flag(missing=False).read(settings, ONE_ADDED) else 1.0,
        four_norms=model_type != "gemma",
        head_norms=gemma3,
        biased=values["attention_bias"],
        scale=1 / math.sqrt(values.get("query_pre_attn_scalar", sizes.head_size)),
        score_cap=_cap(settings, values, "attn_logit_softcapping"),
        logit_cap=_cap(settings, values, "final_logit_softcapping"),
        windows=tuple(sizes.window(settings, window if slides else 0) for slides in sliding),
        local_base=local.base,
        frequencies=tuple(local.frequencies if slides else sizes.frequencies for slides in sliding),
    )


def _ignore_other_activation(settings: Settings, activation: str, *, read: str) -> None:
    """Files have two keys for the activation, and a network depends on one of them."""
    other = "hidden_activation" if read == "hidden_act" else "hidden_act"
    name = settings.unread().get(other)
    if isinstance(name, str) and activation in (WITH_GELU.get(name), ACTIVATIONS.get(name)):
        settings.ignore(other)  # otherwise a note names it


def _sliding_layers(settings: Settings, values: Mapping[str, Any]) -> list[bool]:
    """Which layers use the sliding window."""
    layers: int = values["num_hidden_layers"]
    if "sliding_window" not in values:
        check_layers_without_window(settings, values["layer_types"], layers)
        return [False] * layers
    sliding: list[bool] | None = values["layer_types"]
    if sliding is None:
        pattern = values.get("sliding_window_pattern", 2)
        sliding = [(layer + 1) % pattern != 0 for layer in range(layers)]
    if len(sliding) != layers:
        raise settings.error("layer_types", f"has {len(sliding)} entries for {layers} layers")
    return sliding


def _cap(settings: Settings, values: Mapping[str, Any], name: str) -> float:
    cap: float | None = values.get(name)
    if cap == 0.0:
        raise settings.error(name, "is 0.0; a limit must be above 0, and null is none")
    return cap or 0.0


def _embedding_factor(width: int, number_type: str | None) -> float:
    """The square root of the width, rounded to the type of the weights as in training."""
    factor = single(math.sqrt(width))
    if number_type == "float16":
        half: float = struct.unpack("<e", struct.pack("<e", factor))[0]
        return half
    if number_type == "bfloat16":
        bits: int = struct.unpack("<I", struct.pack("<f", factor))[0]
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000  # ties to even
        factor = struct.unpack("<f", struct.pack("<I", bits))[0]
    return factor


def _global_rotation(settings: Settings, head_size: int, context: int) -> Rotation:
    """The rotary frequencies of Gemma 3's layers without a window, and keys without effect."""
    scaling = Section(null=None).read(settings, "rope_scaling")
    parameters = Section(null=None).read(settings, "rope_parameters")
    if scaling and parameters:
        raise settings.error("rope_scaling", "is set beside 'rope_parameters'; expected one")
    if scaling and scaling.names("type") and not scaling.names("rope_type"):
        raise scaling.error("type", "has no effect for this model type; write 'rope_type'")
    nested = scaling or (parameters and Section(null=None).read(parameters, FULL))
    without_effect = []
    if parameters:
        parameters.ignore(SLIDING)
        without_effect = parameters.unread_names()
    found = frequencies_of(settings, nested, head_size, context, missing=1e6, original_at_top=False)
    return found._replace(without_effect=[*found.without_effect, *without_effect])


def _local_rotation(settings: Settings, head_size: int, context: int) -> Rotation:
    """The rotary frequencies of Gemma 3's layers with a window, and keys without effect."""
    parameters = Section(null=None).read(settings, "rope_parameters")
    nested = parameters and Section(null=None).read(parameters, SLIDING)
    return frequencies_of(
        settings, nested, head_size, context, base="rope_local_base_freq", original_at_top=False
    )


def build(config: Config, head: str | None) -> Graph:
    """Record the network, its tensors named as Hugging Face names them.

    Args:
        config: the result of ``read``.
        head: name of the output matrix; None for a network without logits.
    """
    s = config.sizes
    graph = Graph()

    def norm(x: Value, name: str, size: int | None = None) -> Value:
        return graph.rms_norm(x, f"{name}.weight", s.eps, size=size, offset=config.norm_offset)

    x = graph.scale(graph.embed(TABLE, s.vocabulary, s.width), config.embedding_factor)
    for i in range(s.layers):
        layer = f"model.layers.{i}"
        a = _attention(graph, norm, norm(x, f"{layer}.input_layernorm"), config, i)
        if i == s.layers - 1:  # from here on, rows are independent
            x, a = graph.output_rows(x), graph.output_rows(a)
        y = _project(graph, a, f"{layer}.self_attn.o_proj", s.width, config.biased)
        before_mlp = "post_attention_layernorm"
        if config.four_norms:
            y, before_mlp = norm(y, f"{layer}.{before_mlp}"), "pre_feedforward_layernorm"
        x = graph.add(x, y)
        h = norm(x, f"{layer}.{before_mlp}")
        gate = _project(graph, h, f"{layer}.mlp.gate_proj", s.inner)
        up = _project(graph, h, f"{layer}.mlp.up_proj", s.inner)
        h = graph.gated(gate, up, s.activation)
        y = _project(graph, h, f"{layer}.mlp.down_proj", s.width)
        if config.four_norms:
            y = norm(y, f"{layer}.post_feedforward_layernorm")
        x = graph.add(x, y)
    x = norm(x, "model.norm")
    result = x
    if head:
        result = graph.linear(x, head, s.vocabulary)
        if config.logit_cap:
            result = graph.soft_cap(result, config.logit_cap)
    graph.output(result, hidden=x)
    return graph


def _attention(
    graph: Graph, norm: Callable[[Value, str, int], Value], x: Value, config: Config, layer: int
) -> Value:
    s, name = config.sizes, f"model.layers.{layer}.self_attn"
    kv_width = s.kv_heads * s.head_size
    q = _project(graph, x, f"{name}.q_proj", s.heads * s.head_size, config.biased)
    k = _project(graph, x, f"{name}.k_proj", kv_width, config.biased)
    v = _project(graph, x, f"{name}.v_proj", kv_width, config.biased)
    if config.head_norms:
        q, k = norm(q, f"{name}.q_norm", s.head_size), norm(k, f"{name}.k_norm", s.head_size)
    q, k = (graph.rope(y, s.head_size, config.frequencies[layer]) for y in (q, k))
    return graph.attention(
        q,
        k,
        v,
        s.head_size,
        scale=config.scale,
        window=config.windows[layer],
        causal=s.causal,
        soft_cap=config.score_cap,
    )


def _project(graph: Graph, x: Value, name: str, width: int, biased: bool = False) -> Value:
    bias = f"{name}.bias" if biased else None
    return graph.linear(x, f"{name}.weight", width, bias=bias)
