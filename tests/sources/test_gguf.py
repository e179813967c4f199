"""A GGUF file is a model: the same network as in a folder, and the answers of llama.cpp."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.remote.llama import LlamaCpp
from tests.remote.llama import gguf as smollm2

from talu.client import Client
from talu.exceptions import ModelError
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.weights.numbers import as_float32

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "post_attention_layernorm": "ffn_norm", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PROMPTS = [
    "The capital of France is",
    "The three laws of thermodynamics are",
    "Question: What is 2+2?\nAnswer:",
    "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
    "import numpy as np\n",
    "Once upon a time",
]
# Both engines round activations to 8 bits, each in its way. On these prompts the log-probabilities
# of the tokens differ by up to 0.35.
NOISE = 0.5


def name_in_file(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{LAYER[part]}.{kind}"


def write(
    folder: Path,
    path: Path,
    architecture: str,
    *,
    tokenizer: str | None = None,
    templates: Mapping[str, str] = {},
) -> dict[str, np.ndarray]:
    """The model of a folder as a GGUF file; its tensors by their names in the folder."""
    config = json.loads((folder / "config.json").read_text())
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10_000.0))
    writer.add_token_list([f"token {number}" for number in range(config["vocab_size"])])
    writer.add_eos_token_id(3)
    if tokenizer is not None:
        writer.add_tokenizer_model(tokenizer)
    for name, template in templates.items():
        key = "tokenizer.chat_template" + (f".{name}" if name != "default" else "")
        writer.add_string(key, template)
    with FolderSource(folder).tensors() as stored_tensors:
        tensors = {name: as_float32(stored_tensors[name]) for name in stored_tensors.names}
    for name, tensor in tensors.items():
        stored = tensor
        if architecture == "llama" and name.rsplit(".", 2)[-2] in ("q_proj", "k_proj"):
            # llama.cpp's converter: in each head, the halves alternate
            shape = stored.shape
            stored = stored.reshape(-1, 2, size // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(name_in_file(name), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("llama2", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("qwen3_tied", "qwen3")],
)
def test_a_file_has_the_network_and_the_weights_of_the_folder(
    name: str, architecture: str, tmp_path: Path
) -> None:
    folder, path = GOLDEN / name, tmp_path / "model.gguf"
    expected = write(folder, path, architecture)
    found, known = (
        load_architecture(source, stored=set(expected))
        for source in (GgufSource(path), FolderSource(folder))
    )
    assert [repr(op) for op in found.graph.ops] == [repr(op) for op in known.graph.ops]
    assert found.context_length == known.context_length
    assert found.end_token_ids == {3}
    with GgufSource(path).tensors() as tensors:
        for weight in found.graph.weights:
            np.testing.assert_array_equal(as_float32(tensors[weight]), expected[weight])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(str(smollm2())) as client:
        yield client


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answers_are_those_of_llama_cpp_wherever_its_choice_is_clear(
    prompt: str, client: Client, llama: LlamaCpp
) -> None:
    llama.check(client, prompt, NOISE)


def test_a_chat_uses_the_template_and_the_end_tokens_of_the_file(client: Client) -> None:
    chat = client.chat(system="Be brief.")
    answer = chat("Say hello.", stream=False, temperature=0, max_tokens=60)
    assert answer.finish_reason == "stop"
    assert "<|im_" not in str(answer)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a valid GGUF file"), (b"GGUF\x03\x00", "ends"), (b"PK\x03\x04" * 20, "GGUF")],
)
def test_a_file_that_is_no_gguf_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message), Client(str(path)) as client:
        client.ask("Hi")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with smollm2().open("rb") as file:
        path.write_bytes(file.read(4 << 20))
    with pytest.raises(ModelError, match=r"cut\.gguf"), Client(str(path)) as client:
        client.ask("Hi")


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ModelError, match=r"model\.gguf"), Client(str(pipe)) as client:
        client.ask("Hi")
