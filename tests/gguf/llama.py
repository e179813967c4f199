"""Asks llama.cpp for token ids: of a model whose network is as small as possible.

Run as a program, this file records how llama.cpp splits texts into words:

    python -m tests.gguf.llama tests/gguf/words.json
"""

import hashlib
import itertools
import json
import random
import sys
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tests.remote.llama import LlamaCpp

from talu.tokenizer.gguf_words import PRE_TOKENIZERS

WIDTH = 32
PLAIN = [  # llama.cpp's approximations of patterns make no difference here
    "the quick brown fox jumps over 12 lazy dogs, 3.14 times; isn't it? we've 2024-11-28",
    "  leading and trailing  spaces   \n\n\n new\tline\r\n\r\n end \n",
    "def f(x): return x**2 + 1 // 3  # comment\n    if x != 0x1f:\n\tpass\n",
    "1 12 123 1234 12345 123456 1234567 12345678 1,000,000.5 a1b22c333",
    "http://example.org/a_b-c?d=e&f=%20 {[(<@#$%^&*~`|>)]} ... -- == != ++ ''' \"\"\"",
    "'s 't 're 've 'm 'll 'd 'x don't i'm they'll we'd",
    "你好\uff0c世界\uff01今日は12天気です。カタカナ ひらがな 한국어 조선말 ၁၂၃",
    "مرحبا بالعالم ١٢٣ שלום ½ ² Ⅷ 10³ ③ ქართული",
    "🙂👩\u200d👩\u200d👧 🇩🇪 → ← ∑ √ € £ ¥ © ® … — \u2013 « » „ “ ” \u2018 \u2019 •",
    " a  b   c    d     e\n f\n\n g\n\n\nh \n \n i",
    "<sentinel:12> IMGIMGABZ \t\t x\t y",
    "",
    " ",
    "\n",
    "   \n   ",
]
HARD = [  # where it matters what cases, marks and white space are
    "CamelCase HTTPServer iPhone McDonald's O'NEILL WE'LL Don'T snake_Case ABCdef",
    "Über STRASSE naïve ÉCLAIR Привет МИР ΑΒΓ ελληνικά Ǆ ǅ ǆ ﬁ",
    "สวัสดี ខ្មែរ नमस्ते दुनिया தமிழ்",
    "e\u0301 A\u030a o\u0302\u0323 \u0301x",
    "a\u00a0b\u3000c\u2003d\u2028e\u0085f \u3000",
]
APPROXIMATED = (  # pre-tokenizers that llama.cpp approximates
    *("deepseek-llm", "deepseek-coder", "youtu", "tekken", "gpt-4o", "tiny_aya", "kimi-k2"),
    *("granite-embed-multi-97m",),
)


def byte_characters() -> list[str]:
    """The characters that stand for the bytes in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(0x100 + place) for place, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def pairs(pre: str) -> dict[str, Any]:
    """A tokenizer whose tokens show where words end.

    Every pair of bytes is a token, and which pairs are merged first is random, so another split
    nearly always gives other ids.
    """
    return {**_pairs(), "tokenizer.ggml.pre": pre}


@cache
def _pairs() -> dict[str, Any]:
    alphabet = byte_characters()
    found = [a + b for a, b in itertools.product(alphabet, repeat=2)]
    random.Random(7).shuffle(found)
    tokens = [*alphabet, *found, "<|end|>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [f"{pair[0]} {pair[1]}" for pair in found],
        "tokenizer.ggml.token_type": np.array([1] * (len(tokens) - 1) + [3], np.int32),
        "tokenizer.ggml.bos_token_id": len(tokens) - 1,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def write_model(path: Path, metadata: Mapping[str, Any]) -> Path:
    """A Llama model with a tokenizer and one layer of zeros."""
    writer = gguf.GGUFWriter(path, "llama")
    for name in ("embedding_length", "feed_forward_length", "rope_dimension_count"):
        getattr(writer, f"add_{name}")(WIDTH)
    for name in ("block_count", "head_count", "head_count_kv"):
        getattr(writer, f"add_{name}")(1)
    writer.add_context_length(512)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case str():
                writer.add_string(key, value)
            case int():
                writer.add_uint32(key, value)
            case _:
                writer.add_array(key, np.asarray(value).tolist())
    kind = gguf.GGMLQuantizationType.Q4_0
    table = np.zeros((len(metadata["tokenizer.ggml.tokens"]), 18), np.uint8)
    writer.add_tensor("token_embd.weight", table, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ids(server: LlamaCpp, text: str, *, special: bool = True) -> list[int]:
    """The ids of a text, with the tokens that are added around it."""
    body = {"content": text, "add_special": special, "parse_special": True}
    request = urllib.request.Request(
        f"{server.url}/tokenize",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        found: list[int] = json.loads(answer.read())["tokens"]
        return found


def digest(numbers: list[int]) -> str:
    """A short text that tells lists of ids apart."""
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:12]


def representatives() -> list[str]:
    """One name of each way to split byte-level words."""
    firsts: dict[object, str] = {}
    for name, words in PRE_TOKENIZERS.items():
        if words.bytes:
            firsts.setdefault(words, name)
    return list(firsts.values())


def texts_of(name: str) -> list[str]:
    """The texts on which llama.cpp is followed."""
    return PLAIN if name in APPROXIMATED else [*PLAIN, *HARD]


def record(path: Path) -> None:
    """Write the digests of the ids of all texts for each pre-tokenizer."""
    found = {}
    model = path.with_suffix(".gguf")
    for name in representatives():
        with LlamaCpp(model=write_model(model, pairs(name))) as server:
            found[name] = [digest(ids(server, text)) for text in texts_of(name)]
    model.unlink()
    path.write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
