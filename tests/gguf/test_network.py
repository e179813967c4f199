"""The tensors of GGUF files under the names, and in the order, that the networks read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.gguf.bytes import tensor, whole
from tests.remote.llama import gguf as smollm

from talu.exceptions import ModelError
from talu.gguf.network import network_tensors, rope_factors
from talu.gguf.reader import open_gguf
from talu.gguf.settings import ARCHITECTURES, architecture_of, settings_of
from talu.gguf.tensor_names import network_name
from talu.models import bert, llama, qwen
from talu.sources.settings import Settings

HEADS, SIZE, WIDTH = 3, 8, 64
RANDOM = np.random.default_rng(5)
Save = Callable[[str, dict[str, Any]], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes arrays, and (array, type) pairs as they are, with the reference implementation."""

    def write(architecture: str, arrays: dict[str, Any]) -> Path:
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for name, array in arrays.items():
            if isinstance(array, tuple):
                writer.add_tensor(name, array[0], raw_dtype=array[1])
            else:
                writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def interleaved(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rows of queries as llama.cpp's converter stores them."""
    halves = rows.reshape(HEADS, 2, SIZE // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def test_the_queries_of_llama_get_the_order_of_the_network(save: Save) -> None:
    queries = RANDOM.standard_normal((HEADS * SIZE, WIDTH), np.float32)
    bias = RANDOM.standard_normal(HEADS * SIZE, np.float32)
    stored = {"blk.7.attn_q.weight": interleaved(queries), "blk.7.attn_q.bias": interleaved(bias)}
    found = network_tensors(open_gguf(save("llama", stored)).tensors, "llama", SIZE)
    assert np.array_equal(found["model.layers.7.self_attn.q_proj.weight"].array(), queries)
    assert np.array_equal(found["model.layers.7.self_attn.q_proj.bias"].array(), bias)


def test_quantised_rows_are_reordered_as_a_whole(save: Save) -> None:
    kind = gguf.GGMLQuantizationType.Q4_1
    keys = RANDOM.standard_normal((HEADS * SIZE, WIDTH), np.float32)
    expected = gguf.quants.quantize(keys, kind)
    stored = {"blk.0.attn_k.weight": (gguf.quants.quantize(interleaved(keys), kind), kind)}
    found = network_tensors(open_gguf(save("llama", stored)).tensors, "llama", SIZE)
    rows = found["model.layers.0.self_attn.k_proj.weight"].parts["blocks"]
    assert (rows.count, rows.width) == expected.shape
    for start, stop in ((0, 24), (0, 1), (3, 5), (7, 9), (5, 21), (23, 24), (8, 8)):
        assert np.array_equal(rows.read(start, stop), expected[start:stop])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma3"])
def test_the_queries_of_other_architectures_are_not_reordered(
    save: Save, architecture: str
) -> None:
    queries = RANDOM.standard_normal((HEADS * SIZE, WIDTH), np.float32)
    path = save(architecture, {"blk.0.attn_q.weight": queries})
    found = network_tensors(open_gguf(path).tensors, architecture, SIZE)
    assert np.array_equal(found["model.layers.0.self_attn.q_proj.weight"].array(), queries)


def test_queries_that_are_not_whole_heads_are_refused(save: Save) -> None:
    path = save("llama", {"blk.0.attn_q.weight": np.zeros((20, 4), np.float32)})
    with pytest.raises(ModelError, match=r"shape \(20, 4\), which is not a number of heads"):
        network_tensors(open_gguf(path).tensors, "llama", SIZE)


def test_a_file_with_tensors_of_another_network_is_refused(save: Save) -> None:
    names = ["blk.0.ffn_gate_exps.weight", "blk.0.attn_sinks.weight"]
    path = save("llama", dict.fromkeys(names, np.zeros((2, 2), np.float32)))
    with pytest.raises(ModelError, match=r"'blk.0.attn_sinks.weight', 'blk.0.ffn_gate_exps"):
        network_tensors(open_gguf(path).tensors, "llama", SIZE)


def test_wrong_factors_of_frequencies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(
        whole(tensors=[tensor("rope_freqs.weight", (2**20,))], data=bytes(2**22))
    )
    with pytest.raises(ModelError, match=r"'rope_freqs.weight' has type F32 and shape"):
        rope_factors(open_gguf(tmp_path / "m.gguf").tensors)


def test_the_norms_of_gemma_are_marked_as_having_one_added() -> None:
    names = {
        "blk.3.attn_norm.weight": "model.layers.3.input_layernorm.weight",
        "blk.3.post_attention_norm.weight": "model.layers.3.post_attention_layernorm.weight",
        "blk.3.ffn_norm.weight": "model.layers.3.pre_feedforward_layernorm.weight",
        "blk.3.post_ffw_norm.weight": "model.layers.3.post_feedforward_layernorm.weight",
        "blk.3.attn_q_norm.weight": "model.layers.3.self_attn.q_norm.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for name, ours in names.items():
        stored = network_name("gemma3", name)
        assert stored is not None
        assert (stored.name, stored.change) == (ours, "one added")
    stored = network_name("gemma", "blk.3.ffn_norm.weight")
    assert stored is not None
    assert stored.name == "model.layers.3.post_attention_layernorm.weight"


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.token_embd.weight",
        "attn_q.weight",
        "blk.12345.attn_q.weight",
        "blk.0.attn_q",
        "blk.0.attn_q.weight\n",
        "blk.0.attn_q.scale",
        "",
    ],
)
def test_other_names_have_no_tensor_in_the_network(name: str) -> None:
    assert all(network_name(architecture, name) is None for architecture in ARCHITECTURES)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "bert"])
def test_every_tensor_of_a_network_has_a_name_in_the_reference_implementation(
    architecture: str,
) -> None:
    family = {"llama": llama, "bert": bert}.get(architecture, qwen)
    values = {
        "model_type": architecture,
        "vocab_size": 10,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "intermediate_size": 8,
        "max_position_embeddings": 16,
    }
    settings = Settings(Path("config.json"), values)
    config: Any = family.read(settings, architecture)
    graph = family.build(config, None if family is bert else "lm_head.weight")
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, 2)
    for ours in graph.weights:
        stored = names.get_name(ours.removeprefix("bert."), try_suffixes=(".weight", ".bias"))
        assert stored is not None
        found = network_name(architecture, stored)
        assert found is not None
        assert found.name == ours


def test_a_real_model_has_all_tensors_of_its_network_in_the_right_shapes() -> None:
    model = open_gguf(smollm())
    shapes = {name: model.tensors[name].shape for name in model.tensors.names}
    values = settings_of(model.metadata, shapes, "file", rope_factors=rope_factors(model.tensors))
    config = llama.read(Settings(Path("file"), values), "llama")
    graph = llama.build(config, "model.embed_tokens.weight")
    name = architecture_of(model.metadata, "file")
    tensors = network_tensors(model.tensors, name, config.sizes.head_size)
    tensors.check(graph.weights)
    assert tensors.names == sorted(graph.weights)
