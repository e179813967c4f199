"""A model is described from its headers: what it is, what it can do, and the memory it needs."""

import json
import os
import shutil
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.remote.llama import gguf as smollm2

import talu
from talu.exceptions import ModelError, ModelNotFoundError, ValidationError
from talu.sources.resolve import BUNDLED_FOLDER


def test_a_gguf_file_is_described_with_its_formats_template_and_licence() -> None:
    about = talu.describe(smollm2())
    assert (about.model_type, about.layers, about.hidden_size) == ("llama", 30, 576)
    assert (about.vocabulary_size, about.context_length) == (49152, 8192)
    assert about.parameters == 134_515_008
    assert [(each.name, each.tensors) for each in about.formats] == [
        ("Q4_1", 210), ("Q8_0", 1), ("F32", 61)
    ]  # fmt: skip
    assert sum(each.parameters for each in about.formats) == about.parameters
    assert about.bits_per_weight == pytest.approx(5.7437, abs=1e-4)
    template = about.template
    assert template is not None
    assert (template.system, template.tools, template.thinking) == (True, False, False)
    assert about.licence == "apache-2.0"
    assert about.problem is None


def test_the_memory_is_what_the_open_model_uses() -> None:
    about = talu.describe(smollm2(), context=1000)
    memory = about.memory
    assert memory is not None
    position = 2 * 30 * 3 * 64 * 2  # keys and values, layers, heads, columns, bytes
    assert memory.cache == 1008 * position  # whole blocks of 16 tokens
    with talu.Client(smollm2()) as client:
        info = client.router.backend().info
        assert memory.weights == info.weight_bytes
        assert memory.usable_context == info.context_length
        assert about.capabilities == client.capabilities()
    assert memory.fits


def test_the_bundled_folder_is_described() -> None:
    about = talu.describe("talu/pocket")
    assert about.location == str(BUNDLED_FOLDER)
    assert [each.name for each in about.formats] == ["BF16"]
    assert about.bits_per_weight == 16
    assert about.template is not None
    assert about.template.tools


def test_a_licence_is_read_from_the_model_card(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(BUNDLED_FOLDER, folder)
    assert talu.describe(folder).licence is None
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\n# license: none\n")
    assert talu.describe(folder).licence == "mit"


def write_llama(path: Path, *, layers: int, width: int, vocabulary: int) -> None:
    """A Llama of F16 whose tensors are a hole in the file."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(width // 64)
    writer.add_head_count_kv(width // 64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"t{number}" for number in range(vocabulary)])
    shapes = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    for layer in range(layers):
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        shapes |= {f"blk.{layer}.{name}.weight": (width, width) for name in names}
        shapes |= {f"blk.{layer}.{name}.weight": (width,) for name in ("attn_norm", "ffn_norm")}
    size = 0
    for name, shape in shapes.items():
        kind = np.dtype(np.float16 if len(shape) == 2 else np.float32)
        count = int(np.prod(shape))
        writer.add_tensor_info(name, list(shape), kind, count * kind.itemsize)
        size += -(-count * kind.itemsize // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + size)


def test_a_file_of_many_gigabytes_is_described_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    write_llama(path, layers=400, width=8192, vocabulary=1000)
    assert path.stat().st_size > 350e9
    start = time.monotonic()
    about = talu.describe(path)
    assert time.monotonic() - start < 20  # reading it takes minutes
    assert about.parameters == pytest.approx(188e9, rel=0.01)
    memory = about.memory
    assert memory is not None
    assert memory.weights > 350e9
    assert not memory.fits
    assert memory.usable_context == 0


def test_a_model_with_a_format_that_cannot_run_is_described_with_the_reason(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.gguf"
    write_llama(path, layers=1, width=256, vocabulary=10)
    data = path.read_bytes()
    name = b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4 + 16
    assert data[at : at + 4] == b"\x01\0\0\0"  # F16
    path.write_bytes(data[:at] + b"\x10\0\0\0" + data[at + 4 :])  # IQ2_XXS, which is smaller
    about = talu.describe(path)
    assert about.memory is None
    assert about.problem is not None
    assert "IQ2_XXS" in about.problem
    assert "IQ2_XXS" in [each.name for each in about.formats]


@pytest.mark.parametrize("context", [0, -1, 1.5, True, 8193, 10**30])
def test_a_context_out_of_range_is_refused(context: object) -> None:
    with pytest.raises(ValidationError, match="context=") as caught:
        talu.describe(smollm2(), context=context)
    assert caught.value.details["param"] == "context"


def test_an_uncached_model_is_not_downloaded_for_its_description(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFoundError, match=r"get it with: talu get org/none:Q4_0$"):
        talu.describe("org/none:Q4_0")
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        talu.describe(tmp_path / "none")


def test_an_unknown_architecture_names_the_nearest(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(BUNDLED_FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen33"}))
    with pytest.raises(ModelError, match="did you mean 'qwen3'"):
        talu.describe(folder)
