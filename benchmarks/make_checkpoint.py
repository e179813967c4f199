"""Writes a checkpoint of the shape of Qwen3-0.6B with random weights, twice: safetensors and GGUF.

talu reads the folder, llama.cpp the GGUF file; both hold the same bf16 numbers. The text that such
a model writes means nothing, but its speed is that of the real one. Reproducible by its seed.
"""

import argparse
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SPECIAL = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def default_folder() -> Path:
    """Where the benchmarks look for the checkpoint unless told."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "talu" / "benchmarks" / "qwen3-0.6b-random"


def gguf_path(folder: Path) -> Path:
    """The GGUF file of a checkpoint folder."""
    return folder / "model-bf16.gguf"


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint by its Hugging Face name."""
    hidden, inner, size = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    queries = CONFIG["num_attention_heads"] * size
    keys = CONFIG["num_key_value_heads"] * size
    shapes = {"model.embed_tokens.weight": (CONFIG["vocab_size"], hidden)}
    for layer in range(CONFIG["num_hidden_layers"]):
        block = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "self_attn.q_norm": (size,),
            "self_attn.k_norm": (size,),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"model.norm.weight": (hidden,)}


def random_rows(shape: tuple[int, ...], generator: np.random.Generator) -> Iterator[bytes]:
    """A tensor as bf16, a few rows at a time; matrices N(0, 0.02), norms 1 + N(0, 0.1)."""
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    for start in range(0, rows, 4096):
        values = generator.standard_normal((min(4096, rows - start), columns), dtype=np.float32)
        values = values * np.float32(0.02) if len(shape) == 2 else 1 + values * np.float32(0.1)
        bits = values.view(np.uint32)
        yield ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path: Path, seed: int) -> None:
    """Header with names, types and offsets, then the tensors one after the other."""
    header: dict[str, dict[str, object]] = {}
    offset = 0
    for name, shape in tensor_shapes().items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 64)
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in tensor_shapes().values():
            file.writelines(random_rows(shape, generator))


def mapped_tensors(path: Path) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """The tensors of the file just written, as raw bf16 bits where they lie."""
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(start - 8))
    data = np.memmap(path, dtype="<u2", mode="r", offset=start)
    for name, shape in tensor_shapes().items():
        begin, end = header[name]["data_offsets"]
        yield name, data[begin // 2 : end // 2].reshape(shape)


def byte_tokens() -> list[str]:
    """The printable characters that stand for the 256 bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (256 + i for i in range(256 - len(plain)))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens by id and merges: bytes, pairs of letters, and filler up to the model's size."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [(a, b) for a in letters for b in letters]
    tokens = byte_tokens() + [a + b for a, b in merges]
    tokens += [f"<filler {i}>".replace(" ", "Ġ") for i in range(len(tokens), CONFIG["vocab_size"])]
    for i, token in SPECIAL.items():
        tokens[i] = token
    return tokens, merges


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and its configuration."""
    tokens, merges = vocabulary()
    special = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in SPECIAL.items()
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": merges,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": True},
        "post_processor": None,
        "decoder": level | {"use_regex": True},
        "model": model,
    }
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": CONFIG["max_position_embeddings"],
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", options)


def write_json(path: Path, value: object) -> None:
    """Indented UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def write_gguf(path: Path, safetensors: Path) -> None:
    """The same network for llama.cpp: matrices in bf16, norms in f32 as it wants them."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name("Qwen3-0.6B shape, random weights")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_key_length(CONFIG["head_dim"])
    writer.add_value_length(CONFIG["head_dim"])
    writer.add_rope_freq_base(CONFIG["rope_theta"])
    writer.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
    tokens, merges = vocabulary()
    kinds = [
        gguf.TokenType.CONTROL if i in SPECIAL else gguf.TokenType.NORMAL
        for i in range(len(tokens))
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(CONFIG["eos_token_id"])
    writer.add_pad_token_id(CONFIG["bos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, bits in mapped_tensors(safetensors):
        if bits.ndim == 1:
            writer.add_tensor(gguf_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(gguf_name(name), bits.view(np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if not name.startswith("model.layers."):
        return GGUF_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{GGUF_NAMES[rest]}"


def make(folder: Path, seed: int = 0) -> None:
    """Write what is missing in the folder; a file appears only when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, other = folder / "model.safetensors", gguf_path(folder)
    write_json(folder / "config.json", CONFIG)
    ends = [CONFIG["eos_token_id"], CONFIG["bos_token_id"]]
    write_json(folder / "generation_config.json", {"eos_token_id": ends, "do_sample": False})
    write_tokenizer(folder)
    if not weights.exists():
        partial = weights.with_suffix(".partial")
        write_safetensors(partial, seed)
        partial.rename(weights)
    if not other.exists():
        partial = other.with_suffix(".partial")
        write_gguf(partial, weights)
        partial.rename(other)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.seed)
    for path in sorted(arguments.folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:9.1f} MB  {path}")


if __name__ == "__main__":
    main()
