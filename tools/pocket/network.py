"""The network while it is trained: Qwen3's shape, with the parameter names of its checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 2048,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 6,
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}
VOCABULARY, WIDTH, INNER, LAYERS = 2048, 192, 512, 6
HEADS, KEY_HEADS, HEAD = 6, 2, 32
EPSILON, THETA, LONGEST = 1e-6, 10000.0, 1024


class Norm(nn.Module):
    """Root mean square norm with a learned scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight


def linear(rows: int, columns: int, scale: float = 1.0) -> nn.Linear:
    """Return a matrix without bias whose values fit its width."""
    layer = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(layer.weight, std=scale * columns**-0.5)
    return layer


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels by the angle of their position; x is (batch, heads, length, head)."""
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)


class Attention(nn.Module):
    """Causal attention with grouped key heads and normalised queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = linear(HEADS * HEAD, WIDTH)
        self.k_proj = linear(KEY_HEADS * HEAD, WIDTH)
        self.v_proj = linear(KEY_HEADS * HEAD, WIDTH)
        self.o_proj = linear(WIDTH, HEADS * HEAD, 0.3)
        self.q_norm, self.k_norm = Norm(HEAD), Norm(HEAD)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix the tokens of (batch, length, width)."""
        batch, length, _ = x.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        mixed = F.linear(x, weight).view(batch, length, HEADS + 2 * KEY_HEADS, HEAD).transpose(1, 2)
        q, k, v = mixed.split((HEADS, KEY_HEADS, KEY_HEADS), 1)
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        k, v = (t.repeat_interleave(HEADS // KEY_HEADS, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, HEADS * HEAD))


class Mlp(nn.Module):
    """The gated feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(INNER, WIDTH), linear(INNER, WIDTH)
        self.down_proj = linear(WIDTH, INNER, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Change each token by itself."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each after a norm and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(WIDTH), Norm(WIDTH)
        self.self_attn, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the next hidden state."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embedding, layers, last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm(WIDTH)
        angles = torch.outer(torch.arange(LONGEST), THETA ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the hidden state of every token of (batch, length)."""
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Pocket(nn.Module):
    """The model; the output matrix is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of every position."""
        return F.linear(self.model(ids), self.model.embed_tokens.weight)

    def loss(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean loss of the tokens to learn; `wanted` marks them in `ids`."""
        hidden = self.model(ids[:, :-1])[wanted[:, 1:]]
        logits = F.linear(hidden, self.model.embed_tokens.weight)
        return F.cross_entropy(logits, ids[:, 1:][wanted[:, 1:]])
