"""Computes what must be equal on every machine, and prints a digest of each as JSON.

``test_same_bits.py`` runs it as a program of its own: which code NumPy, the C library and talu
choose for a processor is decided once in a process.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu import Client, _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.sampler import SampleRow, SamplerSettings, sample
from talu.models import load_architecture
from talu.models.rope import default_frequencies, linear_scaling, llama3_scaling
from talu.protocols import PackedTensor
from talu.sources.folder import FolderSource
from talu.weights.numbers import as_float32
from talu.weights.packed_file import aligned
from talu.weights.safetensors_folder import open_folder

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
BLOCKS, BLOCK_SIZE = 8, 16
ROTATIONS = {
    "plain": lambda size: default_frequencies(1e4, size),
    "qwen": lambda size: default_frequencies(1e6, size),
    "llama 3": lambda size: llama3_scaling(
        default_frequencies(5e5, size), 8.0, 1.0, 4.0, context=8192
    ),
    "linear": lambda size: linear_scaling(default_frequencies(1e4, size), 3.0),
}
SAMPLERS = {
    "greedy": SamplerSettings(top_logprobs=5),
    "temperature": SamplerSettings(temperature=0.8, top_logprobs=5),
    "top-p": SamplerSettings(temperature=1.1, top_p=0.9, top_logprobs=5),
    "all": SamplerSettings(temperature=0.9, top_k=60, top_p=0.8, min_p=0.02, top_logprobs=5),
}


def digest(*parts: Any) -> str:
    """Of arrays their bits, of anything else its representation, which shows every bit."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return whole.hexdigest()[:16]


def rotations() -> Iterator[tuple[str, str]]:
    for name, table in ROTATIONS.items():
        for size in (64, 128, 256):
            yield f"rotation {name} {size}", digest(np.array(table(size), np.float32))


def packed(array: NDArray[np.float32], number_format: str) -> PackedTensor:
    if array.ndim == 1:
        return PackedTensor("vector", array.shape, array)
    bits: NDArray[Any] = np.ascontiguousarray(array)
    if number_format == "f16":
        bits = bits.astype(np.float16).view(np.uint16)
    elif number_format == "bf16":
        bits = (bits.view(np.uint32) >> 16).astype(np.uint16)
    data = aligned(_native.packed_bytes(number_format, *array.shape))
    _native.pack(number_format, bits, data)
    return PackedTensor(number_format, array.shape, data)


def networks() -> Iterator[tuple[str, str]]:
    """Logits or hidden states of every golden network in every format."""
    count = 60
    rows = np.arange(count, dtype=np.int32)
    table = np.arange(BLOCKS, dtype=np.int32)[None]
    for folder in sorted(GOLDEN.glob("*/config.json")):
        architecture = load_architecture(FolderSource(folder.parent))
        graph, checkpoint = architecture.graph, open_folder(folder.parent)
        checkpoint = checkpoint.renamed(architecture.names_in(checkpoint.names))
        weights = {name: as_float32(checkpoint[name]) for name in graph.weights}
        for number_format in _native.formats():
            tensors = {name: packed(array, number_format) for name, array in weights.items()}
            executor = NativeExecutor(graph, tensors, blocks=BLOCKS, block_size=BLOCK_SIZE)
            states = executor.step(
                (rows * 37 + 5) % 131, rows, np.array([0, count], np.int32), table, rows
            )
            executor.close()
            yield f"{number_format} {folder.parent.name}", digest(np.asarray(states))


def samples() -> Iterator[tuple[str, str]]:
    # Numbers that look random, from integers alone.
    numbers = np.arange(50_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    logits = (numbers >> np.uint64(40)).astype(np.float32) / np.float32(2**20) - np.float32(8)
    for name, settings in SAMPLERS.items():
        yield f"sample {name}", digest(sample(logits[None], [SampleRow(settings)])[0])


def answers() -> Iterator[tuple[str, str]]:
    """What a user gets: an answer of the bundled model, and embeddings of a folder."""
    with Client("talu/pocket") as client:
        answer = client.ask(
            "Tell me a story.", seed=11, temperature=1.0, max_tokens=40, logprobs=True
        )
        pairs = [(token.token, token.logprob) for token in answer.logprobs or ()]
        yield "bf16 answer", digest(str(answer), pairs)
    with Client(str(GOLDEN / "sentences")) as client:
        yield "embeddings", digest(client.embed_batch(["one", "two three", "four"], pooling=None))
    with Client(str(GOLDEN / "rerankers" / "bert")) as client:
        yield "scores of pairs", digest(client.score("where is the fox", ["a hen", "by the river"]))


def main() -> None:
    values = {}
    for part in (rotations(), networks(), samples(), answers()):
        values.update(part)
    sys.stdout.write(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
