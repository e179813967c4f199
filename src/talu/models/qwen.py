"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671), Qwen3 dense (…/2505.09388).

Qwen2 has biases on queries, keys and values; Qwen3 norms each head of queries and keys instead.
Both can let the later layers see a sliding window only.
"""

from dataclasses import dataclass

from talu.graph.record import Graph, Value
from talu.models.settings import Settings
from talu.models.sizes import MAX_CONTEXT, Sizes

__all__ = ["ARCHITECTURES", "Config", "build", "read"]

ARCHITECTURES = {"qwen2": ("Qwen2ForCausalLM",), "qwen3": ("Qwen3ForCausalLM",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What makes one Qwen different from another.

    Attributes:
        qkv_bias, output_bias: the projections before and after attention have a bias.
        head_norms: queries and keys are normed head by head.
        windows: positions that each layer sees, 0 for all.
    """

    sizes: Sizes
    qkv_bias: bool
    output_bias: bool
    head_norms: bool
    windows: tuple[int, ...]


def read(settings: Settings) -> Config:
    """The settings of config.json, checked."""
    sizes = Sizes.read(settings)
    windows = _windows(settings, sizes.layers)
    if settings.word("model_type", tuple(ARCHITECTURES)) == "qwen2":
        return Config(
            sizes=sizes, qkv_bias=True, output_bias=False, head_norms=False, windows=windows
        )
    if not settings.has("head_dim"):
        raise settings.error("head_dim", "is missing")
    bias = settings.flag("attention_bias", default=False)
    return Config(sizes=sizes, qkv_bias=bias, output_bias=bias, head_norms=True, windows=windows)


def _windows(settings: Settings, layers: int) -> tuple[int, ...]:
    """``layer_types`` says which layers slide; older files give the first that does."""
    slides = settings.flag("use_sliding_window", default=False)
    settings.ignore("max_window_layers", "sliding_window")  # mean nothing while that is off
    if settings.has("layer_types"):
        kinds = settings.words("layer_types", ("full_attention", "sliding_attention"))
        if len(kinds) != layers:
            raise settings.error("layer_types", f"has {len(kinds)} entries for {layers} layers")
        sliding = [kind == "sliding_attention" for kind in kinds]
    else:
        first = settings.integer("max_window_layers", 0, 2**12) if slides else layers
        sliding = [i >= first for i in range(layers)]
    if not any(sliding):
        return (0,) * layers
    if not slides:
        raise settings.error("layer_types", "has sliding layers, but 'use_sliding_window' is off")
    window = settings.integer("sliding_window", 1, MAX_CONTEXT)
    return tuple(window if slide else 0 for slide in sliding)


def build(config: Config) -> Graph:
    """Record the network, its tensors named as Hugging Face names them."""
    s = config.sizes
    graph = Graph()

    def project(x: Value, name: str, width: int, biased: bool = False) -> Value:
        bias = f"{name}.bias" if biased else None
        return graph.linear(x, f"{name}.weight", width, bias=bias)

    def place(x: Value, norm: str) -> Value:
        if config.head_norms:
            x = graph.rms_norm(x, f"{norm}.weight", s.eps, size=s.head_size)
        return graph.rope(x, s.head_size, s.frequencies)

    x = graph.embed("model.embed_tokens.weight", s.vocabulary, s.width)
    for i, window in enumerate(config.windows):
        layer = f"model.layers.{i}"
        h = graph.rms_norm(x, f"{layer}.input_layernorm.weight", s.eps)
        attention, kv_width = f"{layer}.self_attn", s.kv_heads * s.head_size
        q = project(h, f"{attention}.q_proj", s.heads * s.head_size, config.qkv_bias)
        k = project(h, f"{attention}.k_proj", kv_width, config.qkv_bias)
        v = project(h, f"{attention}.v_proj", kv_width, config.qkv_bias)
        q, k = place(q, f"{attention}.q_norm"), place(k, f"{attention}.k_norm")
        a = graph.attention(q, k, v, s.head_size, scale=s.head_size**-0.5, window=window)
        if i == s.layers - 1:  # nothing after the last keys and values looks at other rows
            x, a = graph.wanted(x), graph.wanted(a)
        x = graph.add(x, project(a, f"{attention}.o_proj", s.width, config.output_bias))
        h = graph.rms_norm(x, f"{layer}.post_attention_layernorm.weight", s.eps)
        gate = project(h, f"{layer}.mlp.gate_proj", s.inner)
        up = project(h, f"{layer}.mlp.up_proj", s.inner)
        h = graph.gated(gate, up, s.activation)
        x = graph.add(x, project(h, f"{layer}.mlp.down_proj", s.width))
    x = graph.rms_norm(x, "model.norm.weight", s.eps)
    head = "model.embed_tokens.weight" if s.tied else "lm_head.weight"
    graph.output(graph.linear(x, head, s.vocabulary), hidden=x)
    return graph
