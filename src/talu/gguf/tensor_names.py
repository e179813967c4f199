"""Maps the names of tensors in GGUF files to those of the networks, and says what differs in them.

Llama's queries and keys are stored for another order of the rotary pairs: in each head, GGUF
alternates between the rows of the first and the second half. The norms of Gemma have 1 added.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["ROPE_FACTORS", "Stored", "network_name", "stored_name"]

ROPE_FACTORS = "rope_freqs.weight"  # read with the settings, not by the network
Change = Literal["none", "interleaved", "one added"]

DECODER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FOUR_NORMS = {
    **DECODER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
BERT = {
    "token_embd": "bert.embeddings.word_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "position_embd": "bert.embeddings.position_embeddings",
    "token_embd_norm": "bert.embeddings.LayerNorm",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
NAMES: Mapping[str, Mapping[str, str]] = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "gemma": DECODER,
    "gemma2": FOUR_NORMS,
    "gemma3": FOUR_NORMS,
    "bert": BERT,
}
OUTSIDE_LAYERS = (
    *("output", "output_norm", "position_embd", "token_embd", "token_embd_norm", "token_types"),
)
LAYERS = {"bert": "bert.encoder.layer"}  # otherwise model.layers
NAME = re.compile(r"(?:blk\.(\d{1,4})\.)?([a-z_]+)\.(weight|bias)")


class Stored(NamedTuple):
    """The name of a tensor in the network or in a file, and what differs between the two.

    Attributes:
        name: in the network as Hugging Face names it, in a file as GGUF does.
        change: "interleaved": row 2i + j of each head in the file is row i + j · size / 2 of the
            head in the network, for j = 0 and 1; "one added": every number is 1 larger than in a
            safetensors file of the model.
    """

    name: str
    change: Change = "none"


def network_name(architecture: str, name: str) -> Stored | None:
    """The network's tensor for a tensor of a file.

    Args:
        architecture: one of ``talu.gguf.settings.ARCHITECTURES``.
        name: in the file.

    Returns:
        None if the network has no such tensor.
    """
    match = NAME.fullmatch(name)
    names = NAMES[architecture]
    if match is None or match[2] not in names:
        return None
    ours = names[match[2]]
    in_layer = match[2] not in OUTSIDE_LAYERS
    if in_layer != (match[1] is not None):
        return None
    if in_layer:
        ours = f"{LAYERS.get(architecture, 'model.layers')}.{int(match[1])}.{ours}"
    return Stored(f"{ours}.{match[3]}", _change(architecture, match[2]))


def stored_name(architecture: str, name: str) -> Stored | None:
    """A file's tensor for a tensor of the network; the reverse of ``network_name``.

    Args:
        architecture: one of ``talu.gguf.settings.ARCHITECTURES``.
        name: in the network.

    Returns:
        None if files of the architecture have no such tensor.
    """
    stem, _, kind = name.rpartition(".")
    layers = f"{LAYERS.get(architecture, 'model.layers')}."
    prefix = ""
    if stem.startswith(layers):
        number, _, stem = stem.removeprefix(layers).partition(".")
        prefix = f"blk.{number}."
    for theirs, ours in NAMES[architecture].items():
        if ours == stem and (theirs in OUTSIDE_LAYERS) != bool(prefix):
            return Stored(f"{prefix}{theirs}.{kind}", _change(architecture, theirs))
    return None


def _change(architecture: str, name: str) -> Change:
    """What differs in the tensors of a name in files."""
    if architecture == "llama" and name in ("attn_q", "attn_k"):
        return "interleaved"
    if architecture.startswith("gemma") and name.endswith("norm"):
        return "one added"
    return "none"
