"""Llama 1 to 3.3 (https://arxiv.org/abs/2302.13971, …/2307.09288, …/2407.21783) and Mistral.

Mistral (https://arxiv.org/abs/2310.06825) is a Llama without biases whose layers can all see a
sliding window only.
"""

from dataclasses import dataclass

from talu.graph.record import Graph, Value
from talu.models.settings import Settings
from talu.models.sizes import MAX_CONTEXT, Sizes

__all__ = ["ARCHITECTURES", "Config", "build", "read"]

ARCHITECTURES = {"llama": ("LlamaForCausalLM",), "mistral": ("MistralForCausalLM",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What makes one Llama different from another.

    Attributes:
        attention_bias, mlp_bias: the projections of attention, of the MLP have a bias.
        window: positions that every layer sees, 0 for all.
    """

    sizes: Sizes
    attention_bias: bool
    mlp_bias: bool
    window: int


def read(settings: Settings) -> Config:
    """The settings of config.json, checked."""
    sizes = Sizes.read(settings)
    settings.ignore("pretraining_tp")  # how the training split the same sums
    if settings.word("model_type", tuple(ARCHITECTURES)) == "llama":
        attention_bias = settings.flag("attention_bias", default=False)
        mlp_bias = settings.flag("mlp_bias", default=False)
        return Config(sizes=sizes, attention_bias=attention_bias, mlp_bias=mlp_bias, window=0)
    slides = settings.has("sliding_window")
    window = settings.integer("sliding_window", 1, MAX_CONTEXT) if slides else 0
    return Config(sizes=sizes, attention_bias=False, mlp_bias=False, window=window)


def build(config: Config) -> Graph:
    """Record the network, its tensors named as Hugging Face names them."""
    s = config.sizes
    graph = Graph()

    def project(x: Value, name: str, width: int, biased: bool) -> Value:
        bias = f"{name}.bias" if biased else None
        return graph.linear(x, f"{name}.weight", width, bias=bias)

    x = graph.embed("model.embed_tokens.weight", s.vocabulary, s.width)
    for i in range(s.layers):
        layer = f"model.layers.{i}"
        h = graph.rms_norm(x, f"{layer}.input_layernorm.weight", s.eps)
        attention, kv_width = f"{layer}.self_attn", s.kv_heads * s.head_size
        q = project(h, f"{attention}.q_proj", s.heads * s.head_size, config.attention_bias)
        k = project(h, f"{attention}.k_proj", kv_width, config.attention_bias)
        v = project(h, f"{attention}.v_proj", kv_width, config.attention_bias)
        q, k = (graph.rope(y, s.head_size, s.frequencies) for y in (q, k))
        a = graph.attention(q, k, v, s.head_size, scale=s.head_size**-0.5, window=config.window)
        if i == s.layers - 1:  # nothing after the last keys and values looks at other rows
            x, a = graph.wanted(x), graph.wanted(a)
        x = graph.add(x, project(a, f"{attention}.o_proj", s.width, config.attention_bias))
        h = graph.rms_norm(x, f"{layer}.post_attention_layernorm.weight", s.eps)
        gate = project(h, f"{layer}.mlp.gate_proj", s.inner, config.mlp_bias)
        up = project(h, f"{layer}.mlp.up_proj", s.inner, config.mlp_bias)
        h = graph.gated(gate, up, s.activation)
        x = graph.add(x, project(h, f"{layer}.mlp.down_proj", s.width, config.mlp_bias))
    x = graph.rms_norm(x, "model.norm.weight", s.eps)
    head = "model.embed_tokens.weight" if s.tied else "lm_head.weight"
    graph.output(graph.linear(x, head, s.vocabulary), hidden=x)
    return graph
