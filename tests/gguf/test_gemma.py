"""A Gemma in a GGUF file is the network that the same model is in a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from talu.models import Architecture, load_architecture
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.weights.numbers import as_float32

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
CHANGES: dict[str, dict[str, Any]] = {  # what GGUF cannot say: see talu.gguf.settings
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 12},
    "gemma3": {"query_pre_attn_scalar": 16},
}


def name_in_file(name: str, architecture: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    _, _, number, part = stem.split(".", 3)
    after = "ffn_norm" if architecture == "gemma" else "post_attention_norm"
    return f"blk.{number}.{({'post_attention_layernorm': after} | LAYER)[part]}.weight"


def write(
    config: dict[str, Any],
    tensors: dict[str, Any],
    path: Path,
    architecture: str,
    *,
    tokenizer: str | None = None,
) -> None:
    """The model as llama.cpp's converter writes it: 1 is added to the weights of norms."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_token_list([f"token {number}" for number in range(config["vocab_size"])])
    writer.add_eos_token_id(3)
    if tokenizer is not None:
        writer.add_tokenizer_model(tokenizer)
    if architecture != "gemma":
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "gemma3":
        rope = config["rope_parameters"]
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["full_attention"]["factor"])
        writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
        writer.add_array("gemma3.attention.sliding_window_pattern", [True, False])
    for name, tensor in tensors.items():
        stored = tensor + np.float32(1) if name.endswith("norm.weight") else tensor
        writer.add_tensor(name_in_file(name, architecture), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def computed(architecture: Architecture, *, offset: bool) -> list[Any]:
    """The operations, without the offset of norms unless it is asked for."""
    return [
        (op.kind, op.inputs, op.weights, repr({
            name: value for name, value in op.params.items() if offset or name != "offset"
        }))
        for op in architecture.graph.ops
    ]  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_has_the_network_of_the_folder_and_norms_to_which_1_was_added(
    name: str, tmp_path: Path
) -> None:
    folder, path = Path(shutil.copytree(GOLDEN / name, tmp_path / "folder")), tmp_path / "m.gguf"
    config = json.loads((folder / "config.json").read_text()) | CHANGES[name]
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    with FolderSource(folder).tensors() as stored:
        tensors = {name: as_float32(stored[name]) for name in stored.names}
    write(config, tensors, path, name)
    found, known = (
        load_architecture(source, stored=set(tensors))
        for source in (GgufSource(path), FolderSource(folder))
    )
    assert computed(found, offset=False) == computed(known, offset=False)
    assert computed(found, offset=True) != computed(known, offset=True)
    assert found.notes == ()
    offsets = {
        op.weights[0]: op.params["offset"] for op in known.graph.ops if op.kind == "rms_norm"
    }
    assert set(offsets.values()) == {1.0}
    with GgufSource(path).tensors() as in_file:
        for weight in found.graph.weights:
            expected = tensors[weight] + np.float32(offsets.get(weight, 0.0))
            np.testing.assert_array_equal(as_float32(in_file[weight]), expected)
