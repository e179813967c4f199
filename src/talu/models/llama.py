"""Records Llama 1 to 3.3 and Mistral.

Mistral is a Llama without biases in which every layer can use a sliding window.
https://arxiv.org/abs/2302.13971, https://arxiv.org/abs/2307.09288,
https://arxiv.org/abs/2407.21783, https://arxiv.org/abs/2310.06825
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from talu.graph.record import Graph, Value
from talu.models.decoder import (
    MAX_CONTEXT,
    NO_CHUNKS,
    SHORT_WINDOW,
    TABLE,
    Sizes,
    check_layers_without_window,
    decoder_keys,
)
from talu.models.keys import INVALID, Choices, Flag, Key, Off, Whole, read_keys
from talu.sources.settings import Settings

__all__ = ["ARCHITECTURES", "KEYS", "PREFIXES", "Config", "build", "read"]

ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", "LlamaModel"),
    "mistral": ("MistralForCausalLM", "MistralModel"),
}
PREFIXES = dict.fromkeys(ARCHITECTURES, "model.")
KEYS: Mapping[str, Mapping[str, Key]] = {
    "llama": decoder_keys(vocabulary=32_000, inner=11_008, context=2048, kv_heads=None)
    | {
        "attention_bias": Flag(missing=False),
        "mlp_bias": Flag(missing=False),
        "layer_types": Choices(null=None, words={"full_attention": 0, "attention": 0}),
    },
    "mistral": decoder_keys(vocabulary=32_000, inner=14_336, context=2**17, kv_heads=8)
    | {
        "head_dim": Whole(null=None, low=2, high=2**12, zero=None),
        "sliding_window": Whole(missing=4096, null=0, low=2, high=MAX_CONTEXT, why=SHORT_WINDOW),
        "num_key_value_heads": Whole(missing=8, high=2**12),
        "layer_types": Off(
            null=INVALID, why="layers of several kinds are not supported for this model type"
        ),
    },
}


class Config(NamedTuple):
    """The settings of a Llama or Mistral model.

    Attributes:
        attention_bias, mlp_bias: the projections of attention and of the MLP have a bias.
        window: positions that every layer attends to; 0 for all.
    """

    sizes: Sizes
    attention_bias: bool = False
    mlp_bias: bool = False
    window: int = 0


def read(settings: Settings, model_type: str) -> Config:
    """Read and check config.json."""
    values = read_keys(settings, KEYS[model_type])
    sizes = Sizes.read(settings, values)
    if model_type == "mistral":
        window = values["sliding_window"]
        if not window:
            NO_CHUNKS.read(settings, "attention_chunk_size")
        return Config(sizes=sizes, window=sizes.window(settings, window))
    if sizes.width % sizes.heads:
        message = f"is {sizes.width}, not a multiple of {sizes.heads} heads"
        raise settings.error("hidden_size", message)
    check_layers_without_window(settings, values["layer_types"], sizes.layers)
    return Config(sizes=sizes, attention_bias=values["attention_bias"], mlp_bias=values["mlp_bias"])


def build(config: Config, head: str | None) -> Graph:
    """Record the network, its tensors named as Hugging Face names them.

    Args:
        config: the result of ``read``.
        head: name of the output matrix; None for a network without logits.
    """
    s = config.sizes
    graph = Graph()

    def project(x: Value, name: str, width: int, biased: bool) -> Value:
        bias = f"{name}.bias" if biased else None
        return graph.linear(x, f"{name}.weight", width, bias=bias)

    x = graph.embed(TABLE, s.vocabulary, s.width)
    for i in range(s.layers):
        layer = f"model.layers.{i}"
        h = graph.rms_norm(x, f"{layer}.input_layernorm.weight", s.eps)
        attention, kv_width = f"{layer}.self_attn", s.kv_heads * s.head_size
        q = project(h, f"{attention}.q_proj", s.heads * s.head_size, config.attention_bias)
        k = project(h, f"{attention}.k_proj", kv_width, config.attention_bias)
        v = project(h, f"{attention}.v_proj", kv_width, config.attention_bias)
        q, k = (graph.rope(y, s.head_size, s.frequencies) for y in (q, k))
        scale = 1 / math.sqrt(s.head_size)
        a = graph.attention(
            q, k, v, s.head_size, scale=scale, window=config.window, causal=s.causal
        )
        if i == s.layers - 1:  # from here on, rows are independent
            x, a = graph.output_rows(x), graph.output_rows(a)
        x = graph.add(x, project(a, f"{attention}.o_proj", s.width, config.attention_bias))
        h = graph.rms_norm(x, f"{layer}.post_attention_layernorm.weight", s.eps)
        gate = project(h, f"{layer}.mlp.gate_proj", s.inner, config.mlp_bias)
        up = project(h, f"{layer}.mlp.up_proj", s.inner, config.mlp_bias)
        h = graph.gated(gate, up, s.activation)
        x = graph.add(x, project(h, f"{layer}.mlp.down_proj", s.width, config.mlp_bias))
    x = graph.rms_norm(x, "model.norm.weight", s.eps)
    graph.output(graph.linear(x, head, s.vocabulary) if head else x, hidden=x)
    return graph
