"""The numbers in config.json that every decoder of the Llama kind has."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from talu.models.rope import rotary_frequencies
from talu.models.settings import Settings

__all__ = ["MAX_CONTEXT", "Sizes"]

MAX_CONTEXT = 2**27
ACTIVATIONS = {  # names in config.json: names of Graph.gated
    "silu": "silu",
    "swish": "silu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a decoder: ``layers`` of attention and a gated MLP between embedding and head.

    Attributes:
        vocabulary: tokens that have an embedding and a logit.
        context: positions that the model was made for.
        width: of the residual stream.
        heads, kv_heads: query heads, and key-value heads that groups of them share.
        head_size: columns of a head.
        inner: width between the matrices of the MLP.
        eps: what the norms add under the root.
        activation: as ``Graph.gated`` calls it.
        frequencies: of the rotary embedding, for each pair of a head's columns.
        tied: the head is the embedding table.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    eps: float
    activation: str
    frequencies: NDArray[np.float32]
    tied: bool

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Read and check them; ``ModelError`` names what is missing or does not fit."""
        width = settings.integer("hidden_size", 1, 2**17)
        heads = settings.integer("num_attention_heads", 1, 2**12)
        kv_heads = settings.integer("num_key_value_heads", 1, heads, default=heads)
        if heads % kv_heads:
            raise settings.error("num_key_value_heads", f"is {kv_heads}, no divisor of {heads}")
        if not settings.has("head_dim") and width % heads:
            raise settings.error("hidden_size", f"is {width}, no multiple of {heads} heads")
        head_size = settings.integer("head_dim", 2, 2**12, default=width // heads)
        if head_size % 2:
            raise settings.error("head_dim", f"is {head_size}; rotary embedding needs pairs")
        activation = settings.word("hidden_act", tuple(ACTIVATIONS), default="silu")
        return cls(
            vocabulary=settings.integer("vocab_size", 1, 2**22),
            context=settings.integer("max_position_embeddings", 1, MAX_CONTEXT),
            width=width,
            layers=settings.integer("num_hidden_layers", 1, 2**12),
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            inner=settings.integer("intermediate_size", 1, 2**20),
            eps=settings.number("rms_norm_eps", above=0.0, up_to=1.0),
            activation=ACTIVATIONS[activation],
            frequencies=rotary_frequencies(settings, head_size),
            tied=settings.flag("tie_word_embeddings", default=False),
        )
