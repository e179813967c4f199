"""Records Qwen2, Qwen2.5 and the dense Qwen3.

Qwen2 has biases on queries, keys and values; Qwen3 normalises each query and key head.
In both, some layers can use a sliding window.
https://arxiv.org/abs/2407.10671, https://arxiv.org/abs/2505.09388
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from talu.graph.record import Graph, Value
from talu.models.decoder import MAX_CONTEXT, SHORT_WINDOW, TABLE, Sizes, decoder_keys
from talu.models.keys import Choices, Flag, Key, Whole, read_keys
from talu.sources.settings import Settings

__all__ = ["ARCHITECTURES", "KEYS", "PREFIXES", "Config", "build", "read"]

ARCHITECTURES = {
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Model"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Model"),
}
PREFIXES = dict.fromkeys(ARCHITECTURES, "model.")
SLIDES = {"full_attention": False, "attention": False, "sliding_attention": True}
QWEN: Mapping[str, Key] = decoder_keys(
    vocabulary=151_936, inner=22_016, context=32_768, kv_heads=32
) | {
    "use_sliding_window": Flag(missing=False),
    "sliding_window": Whole(missing=4096, null=None, low=2, high=MAX_CONTEXT, why=SHORT_WINDOW),
    "max_window_layers": Whole(missing=28, low=-(2**12), high=2**12),
    "layer_types": Choices(null=None, words=SLIDES),
}
KEYS: Mapping[str, Mapping[str, Key]] = {
    "qwen2": {**QWEN, "head_dim": Whole(low=2, high=2**12)},
    "qwen3": {
        **QWEN,
        "head_dim": Whole(missing=128, low=2, high=2**12),
        "attention_bias": Flag(missing=False),
    },
}


class Config(NamedTuple):
    """The settings of a Qwen model.

    Attributes:
        qkv_bias, output_bias: the projections before and after attention have a bias.
        head_norms: each query and key head is normalised.
        windows: positions that each layer attends to; 0 for all.
    """

    sizes: Sizes
    qkv_bias: bool
    output_bias: bool
    head_norms: bool
    windows: tuple[int, ...]


def read(settings: Settings, model_type: str) -> Config:
    """Read and check config.json."""
    values = read_keys(settings, KEYS[model_type])
    sizes = Sizes.read(settings, values)
    sizes.refuse_rotation_by_kind(settings, SLIDES)
    windows = tuple(sizes.window(settings, w) for w in _windows(settings, values))
    qwen2 = model_type == "qwen2"
    bias = values.get("attention_bias", False)
    return Config(
        sizes=sizes,
        qkv_bias=qwen2 or bias,
        output_bias=bias,
        head_norms=not qwen2,
        windows=windows,
    )


def _windows(settings: Settings, values: Mapping[str, Any]) -> list[int]:
    """The window of each layer, from ``layer_types`` or else ``max_window_layers``."""
    window = values["sliding_window"] if values["use_sliding_window"] else None
    layers, sliding = values["num_hidden_layers"], values["layer_types"]
    if sliding is None:
        first = values["max_window_layers"]
        sliding = [window is not None and i >= first for i in range(layers)]
    if len(sliding) != layers:
        raise settings.error("layer_types", f"has {len(sliding)} entries for {layers} layers")
    if any(sliding) and window is None:
        message = "has sliding layers, but 'use_sliding_window' is off or there is no window"
        raise settings.error("layer_types", message)
    return [window or 0 if slides else 0 for slides in sliding]


def build(config: Config, head: str | None) -> Graph:
    """Record the network, its tensors named as Hugging Face names them.

    Args:
        config: the result of ``read``.
        head: name of the output matrix; None for a network without logits.
    """
    s = config.sizes
    graph = Graph()

    def project(x: Value, name: str, width: int, biased: bool = False) -> Value:
        bias = f"{name}.bias" if biased else None
        return graph.linear(x, f"{name}.weight", width, bias=bias)

    def place(x: Value, norm: str) -> Value:
        if config.head_norms:
            x = graph.rms_norm(x, f"{norm}.weight", s.eps, size=s.head_size)
        return graph.rope(x, s.head_size, s.frequencies)

    x = graph.embed(TABLE, s.vocabulary, s.width)
    for i, window in enumerate(config.windows):
        layer = f"model.layers.{i}"
        h = graph.rms_norm(x, f"{layer}.input_layernorm.weight", s.eps)
        attention, kv_width = f"{layer}.self_attn", s.kv_heads * s.head_size
        q = project(h, f"{attention}.q_proj", s.heads * s.head_size, config.qkv_bias)
        k = project(h, f"{attention}.k_proj", kv_width, config.qkv_bias)
        v = project(h, f"{attention}.v_proj", kv_width, config.qkv_bias)
        q, k = place(q, f"{attention}.q_norm"), place(k, f"{attention}.k_norm")
        a = graph.attention(
            q, k, v, s.head_size, scale=1 / math.sqrt(s.head_size), window=window, causal=s.causal
        )
        if i == s.layers - 1:  # from here on, rows are independent
            x, a = graph.output_rows(x), graph.output_rows(a)
        x = graph.add(x, project(a, f"{attention}.o_proj", s.width, config.output_bias))
        h = graph.rms_norm(x, f"{layer}.post_attention_layernorm.weight", s.eps)
        gate = project(h, f"{layer}.mlp.gate_proj", s.inner)
        up = project(h, f"{layer}.mlp.up_proj", s.inner)
        h = graph.gated(gate, up, s.activation)
        x = graph.add(x, project(h, f"{layer}.mlp.down_proj", s.width))
    x = graph.rms_norm(x, "model.norm.weight", s.eps)
    graph.output(graph.linear(x, head, s.vocabulary) if head else x, hidden=x)
    return graph
