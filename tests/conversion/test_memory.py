"""A conversion reads and writes some rows at a time, however large the tensors are."""

import json
import struct
import subprocess
import sys
from math import prod
from pathlib import Path

from tests.conversion.test_gguf import toy_tokenizer

WIDTH, TOKENS = 4096, 20_480
MEBIBYTES = 100  # that the conversion may take, beside what importing talu took
CONVERT = """
import sys
from pathlib import Path
import talu.conversion.convert
from talu import convert

def peak():  # of this program; getrusage also counts what the process was before it
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10

before = peak()
convert(sys.argv[1], to=sys.argv[3], output=sys.argv[2])
print(peak() - before)
"""


def write_model(folder: Path) -> int:
    """A network whose embedding table is large, all zeros in a sparse file; bytes of that table."""
    shapes = {
        "model.embed_tokens": (TOKENS, WIDTH),
        "model.norm": (WIDTH,),
        "model.layers.0.input_layernorm": (WIDTH,),
        "model.layers.0.post_attention_layernorm": (WIDTH,),
        **{f"model.layers.0.self_attn.{name}_proj": (64, WIDTH) for name in "qkv"},
        **{f"model.layers.0.self_attn.{name}_norm": (64,) for name in "qk"},
        "model.layers.0.self_attn.o_proj": (WIDTH, 64),
        **{f"model.layers.0.mlp.{name}_proj": (64, WIDTH) for name in ("gate", "up")},
        "model.layers.0.mlp.down_proj": (WIDTH, 64),
    }
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        header[f"{name}.weight"] = entry
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    config = {
        "model_type": "qwen3",
        "vocab_size": TOKENS,
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(toy_tokenizer(TOKENS)))
    return 4 * TOKENS * WIDTH


def test_a_conversion_takes_far_less_memory_than_the_largest_tensor(tmp_path: Path) -> None:
    size = write_model(tmp_path)
    output = tmp_path.with_suffix(".gguf")
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, tmp_path, output, "bf16"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < MEBIBYTES < size >> 20
    assert output.stat().st_size > size // 2
    output.unlink()
