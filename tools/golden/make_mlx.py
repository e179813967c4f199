"""Records what MLX makes of random matrices: ``tests/sources/mlx.npz``. Needs ``mlx``.

Usage: python tools/golden/make_mlx.py
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

TARGET = Path(__file__).parents[2] / "tests" / "sources" / "mlx.npz"


def main() -> None:
    """Quantise a small matrix with each number of bits, group size and type."""
    random = np.random.default_rng(1)
    found: dict[str, Any] = {}
    for bits in (1, 2, 3, 4, 5, 6, 8):
        for size, number_type in ((32, mx.float16), (64, mx.bfloat16), (128, mx.float16)):
            matrix = mx.array(random.standard_normal((3, 128)), number_type)
            weight, scales, biases = mx.quantize(matrix, size, bits)
            exact = (scales.astype(mx.float32), biases.astype(mx.float32))
            name = f"{bits}_{size}_{'f16' if number_type == mx.float16 else 'bf16'}"
            found |= {
                f"{name}.weight": np.array(weight),
                f"{name}.scales": np.array(scales.view(mx.uint16)),
                f"{name}.biases": np.array(biases.view(mx.uint16)),
                f"{name}.numbers": np.array(mx.dequantize(weight, *exact, size, bits)),
            }
    for mode in ("mxfp4", "mxfp8", "nvfp4"):
        weight, scales = mx.quantize(mx.array(random.standard_normal((3, 128))), mode=mode)
        exact = mx.dequantize(weight, scales, mode=mode, dtype=mx.float32)
        found |= {f"{mode}.weight": np.array(weight), f"{mode}.scales": np.array(scales)}
        found[f"{mode}.numbers"] = np.array(exact)
    np.savez_compressed(TARGET, **found)


if __name__ == "__main__":
    main()
