"""Small models of every family that mlx-lm has, and the answers of mlx-lm to them once converted.

The answers are recorded with a Python that has mlx-lm:

    python -m tests.conversion.mlx_models PYTHON
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from tests.gguf.llama import PLAIN
from tests.remote.llama import gguf as smollm

import talu
from talu.conversion.tokenizer_files import json_file, tokenizer_files
from talu.models import load_architecture
from talu.router.conversion import convert
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.weights.safetensors_writer import Planned, SafetensorsWriter

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
POCKET = Path(talu.__file__).parent / "models" / "pocket"
ANSWERS = Path(__file__).parent / "mlx_answers.json"
PROGRAM = Path(__file__).parents[2] / "tools" / "golden" / "run_mlx.py"
PROMPT = [1, 284, 201, 339, 296, 77, 1000, 1999, 3, 3, 512, 640, 64, 2000, 5]
VOCABULARIES = Path(sys.prefix) / "share" / "vocabularies"
TOKENIZERS = ("llama-bpe", "llama-spm", "smollm")
MODEL_TYPES = ("llama", "qwen2")
SPECIAL = [
    *("", " ", "\n", " a", "  a", "<s>hi</s>", "<|im_start|>user\nhi<|im_end|>", "\t\r\n"),
    *("<bos>x<eos>", "<|begin_of_text|>x<|eot_id|>", "a\u0300 \ufb01 \u200d \U0001d518"),
]
SIZES = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "dtype": "bfloat16",
}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
WHOLE = {"sliding_window": 512}  # as long as the context
FAMILIES: Mapping[str, tuple[str, dict[str, Any]]] = {  # golden checkpoint, and changes
    "gemma": ("gemma", TIED),
    "gemma2": ("gemma2", {**TIED, **WHOLE}),
    "gemma3": ("gemma3", TIED),
    "llama2": ("llama2", {}),
    "llama31": ("llama31", {}),
    "llama_bias": ("llama_bias", {"hidden_act": "silu"}),
    "mistral": ("mistral", WHOLE),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3_tied", {}),
}
CASES = [
    *((family, "mlx-bf16") for family in FAMILIES),
    ("pocket", "mlx-bf16"),
    ("llama2", "mlx-f16"),
    *((family, "mlx-4bit") for family in FAMILIES),
    *(("qwen3", f"mlx-{bits}bit") for bits in (2, 3, 5, 6, 8)),
    ("pocket", "mlx-4bit"),
    ("pocket", "mlx-8bit"),
]


def make(folder: Path, family: str) -> Path:
    """A folder with a model of random weights, and the tokenizer of the bundled model."""
    checkpoint, changes = FAMILIES[family]
    config = json.loads((GOLDEN / checkpoint / "config.json").read_text()) | SIZES | changes
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((POCKET / name).read_bytes())
    shapes = load_architecture(FolderSource(folder)).graph.weights
    planned = {name: Planned("BF16", shape) for name, shape in shapes.items()}
    random = np.random.default_rng(7)
    with SafetensorsWriter(folder, planned, metadata={}) as writer:
        for name, shape in shapes.items():
            numbers = random.integers(-1000, 1000, shape).astype(np.float32) / 8000
            if len(shape) == 1 and "bias" not in name:
                numbers += np.float32(not family.startswith("gemma"))
            bits = (numbers.view(np.uint32) >> 16).astype("<u2")
            writer.append(name, bits.view(np.uint8))
    return folder


def converted(work: Path, family: str, target: str) -> Path:
    """A folder with the converted model; its codes are chosen without sample texts.

    With them, they can depend on the processor, and mlx-lm runs on another one.
    """
    original = POCKET if family == "pocket" else work / family
    if not original.exists():
        make(original, family)
    unknown = SimpleNamespace(factor=lambda name: None)
    with mock.patch("talu.conversion.mlx_target.calibrator", return_value=unknown):
        return convert(original, to=target, output=work / f"{family} {target}").path


def vocabulary(name: str) -> Path:
    """A GGUF file with a tokenizer."""
    return smollm() if name == "smollm" else VOCABULARIES / f"ggml-vocab-{name}.gguf"


def texts() -> list[str]:
    """Texts in several languages, code and special tokens."""
    return [
        *PLAIN,
        *(Path(talu.__file__).parent / "engine" / "calibration.txt").read_text().split("\n\n"),
        *SPECIAL,
    ]


def tokenizer_folder(folder: Path, name: str) -> Path:
    """A folder with the tokenizer of a GGUF file."""
    source = GgufSource(vocabulary(name))
    folder.mkdir()
    model_type = source.settings().word("model_type", MODEL_TYPES)
    files, _ = tokenizer_files(source, model_type, 2048)
    files["config.json"] = json_file({"model_type": model_type})
    for each, content in files.items():
        (folder / each).write_bytes(content)
    return folder


def digest(folder: Path) -> str:
    """Identifies the weights and settings of a folder."""
    names = ("config.json", "model.safetensors")
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def main(python: str) -> None:
    """Record the answers."""
    with tempfile.TemporaryDirectory() as place:
        folders = {f"{f} {t}": converted(Path(place), f, t) for f, t in CASES}
        tokenizers = {v: tokenizer_folder(Path(place) / v, v) for v in TOKENIZERS}
        asked = {
            "prompt": PROMPT,
            "folders": {name: str(folder) for name, folder in folders.items()},
            "texts": texts(),
            "tokenizers": {name: str(folder) for name, folder in tokenizers.items()},
        }
        done = subprocess.run(
            [python, str(PROGRAM)],
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answers = json.loads(done.stdout)
        for name, folder in folders.items():
            answers["models"][name]["converted"] = digest(folder)
    ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
