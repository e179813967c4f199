"""What the weights of MLX folders cost: the distance to the exact model, beside mlx-lm's own.

    python benchmarks/mlx_quality.py PYTHON

PYTHON is that of an environment with mlx-lm, which quantises the bundled model in each number of
bits; talu converts it to the same. Both folders have groups of 64 columns and scales in bf16, and
are converted back to float32 and computed in float32. Texts as in ``quality.py``.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import machine
from quality import divergences, opened, paragraphs, states
from safetensors.numpy import save_file

import talu
from talu.sources.folder import FolderSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.weights.numbers import as_float32

BITS = (8, 6, 5, 4, 3, 2)
LIMIT = 192  # tokens of a text


def exact(folder: Path, to: Path) -> Path:
    """The model of a folder with its weights in float32, as the file defines them."""
    to.mkdir()
    for path in BUNDLED_FOLDER.iterdir():
        if path.suffix == ".json":
            (to / path.name).write_bytes(path.read_bytes())
    arrays = {}
    with FolderSource(folder).tensors() as tensors:
        for name in tensors.names:
            tensor = tensors[name]
            rows = tensor.floats and tensor.floats.read(0, tensor.rows).view(np.float32)
            arrays[name] = as_float32(tensor) if rows is None else rows.reshape(tensor.shape)
    save_file(arrays, to / "model.safetensors")
    return to


def quantised(python: str, bits: int, to: Path) -> Path:
    """What mlx-lm makes of the bundled model."""
    options = ["--hf-path", str(BUNDLED_FOLDER), "--mlx-path", str(to), "--quantize"]
    program = [python, "-m", "mlx_lm", "convert", *options, "--q-bits", str(bits)]
    subprocess.run(program, check=True, capture_output=True)
    return to


def main(python: str) -> None:
    """Print the table."""
    some = paragraphs()
    texts = ["\n\n".join(some[i : i + 4]) for i in range(0, 60, 4)]
    right = states(opened(BUNDLED_FOLDER, "stored"), texts, LIMIT)
    print(machine())
    print("| bits | weights | MB | mean | 99 % |\n|--:|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as place:
        for bits in BITS:
            work = Path(place) / str(bits)
            work.mkdir()
            ours = talu.convert("talu/pocket", to=f"mlx-{bits}bit", output=work / "ours").path
            theirs = quantised(python, bits, work / "theirs")
            for name, folder in (("mlx-lm", theirs), ("talu", ours)):
                model = opened(exact(folder, work / name), "stored")
                found = divergences(right, states(model, texts, LIMIT))
                size = (folder / "model.safetensors").stat().st_size
                print(
                    f"| {bits} | {name} | {size / 1e6:.2f} | {found.mean():.2g} | "
                    f"{np.quantile(found, 0.99):.2g} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1])
