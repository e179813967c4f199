"""Writes small valid files, which the damaged ones are made from."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import safetensors.numpy
import tokenizers

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 96,
    "max_position_embeddings": 128, "tie_word_embeddings": True, "hidden_act": "silu",
}  # fmt: skip
IN_FOLDER = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
SHAPES = {
    "token_embd": (96, 64), "output_norm": (64,), "blk.0.attn_norm": (64,), "blk.0.ffn_norm": (64,),
    "blk.0.attn_q": (64, 64), "blk.0.attn_k": (32, 64), "blk.0.attn_v": (32, 64),
    "blk.0.attn_output": (64, 64), "blk.0.ffn_gate": (256, 64), "blk.0.ffn_up": (256, 64),
    "blk.0.ffn_down": (64, 256),
}  # fmt: skip
KINDS = gguf.GGMLQuantizationType
STORED = [KINDS.Q4_0, KINDS.Q4_1, KINDS.Q5_0, KINDS.Q5_1, KINDS.Q8_0, KINDS.F16, KINDS.BF16]
LARGE = [KINDS.Q2_K, KINDS.Q3_K, KINDS.Q4_K, KINDS.Q5_K, KINDS.Q6_K, KINDS.IQ4_XS]


def write_gguf(path: Path, kind: gguf.GGMLQuantizationType, vocabulary: str) -> None:
    """A Llama network with one layer and a vocabulary of 96 tokens."""
    draw = np.random.default_rng(int(kind))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary)
    if vocabulary == "gpt2":
        writer.add_tokenizer_pre("smollm")
        tokens = [chr(33 + number) for number in range(90)] + ["He", "ll", "lo", "Hell", "Hello"]
        writer.add_token_merges(["H e", "l l", "l o", "He ll", "Hell o"])
    else:
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{number:02X}>" for number in range(92)]
        writer.add_token_scores([-float(number) for number in range(96)])
    writer.add_token_list([*tokens, "<|im_end|>"])
    writer.add_token_types([1] * 95 + [3])
    writer.add_eos_token_id(95)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    for name, shape in SHAPES.items():
        numbers = draw.standard_normal(shape, np.float32)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if len(shape) == 1 or shape[-1] % block:
            writer.add_tensor(f"{name}.weight", numbers)
        elif kind in LARGE:  # the package reads these formats, but does not write them
            count = numbers.size // block * size
            blocks = draw.integers(0, 64, (shape[0], count // shape[0]), np.uint8)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_all_gguf(folder: Path) -> None:
    """A file for each format."""
    for number, kind in enumerate([*STORED, *LARGE]):
        write_gguf(folder / f"{kind.name}.gguf", kind, ("gpt2", "llama")[number % 2])


def write_folder(folder: Path) -> None:
    """The same network in the Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    tensors = {}
    for name, shape in SHAPES.items():
        layer = "model.layers.0." if name.startswith("blk.0.") else ""
        stem = IN_FOLDER[name.removeprefix("blk.0.")]
        tensors[f"{layer}{stem}.weight"] = draw.standard_normal(shape, np.float32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokens = [*(chr(33 + number) for number in range(90)), "He", "ll", "lo", "Hell", "Hello", "Ġ"]
    merges = [("H", "e"), ("l", "l"), ("l", "o"), ("He", "ll"), ("Hell", "o")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_file(name: str) -> Callable[[Path], None]:
    """One file of the folder."""

    def write(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as place:
            write_folder(Path(place))
            (folder / name).write_bytes((Path(place) / name).read_bytes())

    return write


def write_configs(folder: Path) -> None:
    """The configuration of the folder, and one for each way to quantise."""
    ways: list[dict[str, object]] = [
        {},
        {"quantization": {"bits": 4, "group_size": 64}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}},
        {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    ]
    for number, way in enumerate(ways):
        (folder / f"{number}.json").write_text(json.dumps(CONFIG | way))


SEEDS: dict[str, Callable[[Path], None]] = {
    "gguf": write_all_gguf,
    "safetensors": write_file("model.safetensors"),
    "config": write_configs,
    "tokenizer": write_file("tokenizer.json"),
}


def write_seeds(target: str, folder: Path) -> None:
    """Write the seeds of a target unless the folder has files already."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        SEEDS[target](folder)
