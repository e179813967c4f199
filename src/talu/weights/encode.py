"""Encodes rows of float32 in the quantised formats of GGUF files and MLX folders."""

import re

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.exceptions import ModelError
from talu.weights.files import Bytes
from talu.weights.tensors import BLOCKS, Encoding

__all__ = ["encode_rows", "encoding_named", "encodings"]

Floats = NDArray[np.float32]
AFFINE = re.compile(r"AFFINE(\d)_(\d+)_(F16|BF16)")  # bits, columns of a group, type of the scales
LARGEST = {"F16": 65504.0, "BF16": float(1 << 100)}  # weight, by the type of the scales


def encodings() -> list[str]:
    """The names of the encodings in which rows can be encoded."""
    return [name.upper() for name in _native.encoded_formats()]


def encoding_named(name: str) -> Encoding:
    """The encoding with a name from ``encodings``, such as Q4_K or AFFINE4_64_BF16."""
    columns, size = _native.encoded_formats()[name.lower()]
    if found := AFFINE.fullmatch(name):
        codes = columns * int(found[1]) // 8
        return Encoding(name, columns, {"scales": 2, "minimums": 2, "codes": codes})
    return Encoding(name, columns, {BLOCKS: size})


def encode_rows(
    encoding: str,
    rows: Floats,
    *,
    name: str,
    start: int = 0,
    factor: Floats | None = None,
    num_threads: int = 0,
) -> dict[str, Bytes]:
    """Encode some rows of a tensor; each row has the same codes whatever the others are.

    Scales and codes are chosen for the least squared error of the weights, or with a factor for
    that of their products with the inputs of the matrix (native/formats/encode.h).

    Args:
        encoding: from ``encodings``.
        rows: C-contiguous float32 of shape (rows, columns).
        name: of the tensor, for errors.
        start: number of the first of the rows in the tensor, for errors.
        factor: of the inputs of the matrix, of shape (columns, columns); None if they are not
            known.
        num_threads: 0 for all that the process may use.

    Returns:
        the parts of ``encoding_named(encoding)``, each an array (rows, bytes of a row).

    Raises:
        ModelError: the rows are no whole number of blocks, or a weight is not finite or too large.
    """
    kind = encoding_named(encoding)
    count, columns = rows.shape
    if columns % kind.columns:
        raise ModelError(
            f"tensor {name[:100]!r} has rows of {columns} numbers, but {encoding} stores blocks of "
            f"{kind.columns}; choose a format whose blocks divide them, such as F16"
        )
    _check_range(encoding, rows, name, start)
    blocks, size = columns // kind.columns, sum(kind.parts.values())
    out = np.empty(count * blocks * size, np.uint8)
    _native.encode(encoding.lower(), rows, out, factor, num_threads)
    parts, begin = {}, 0
    for part, width in kind.parts.items():
        piece = out.reshape(count, blocks, size)[:, :, begin : begin + width]
        parts[part] = np.ascontiguousarray(piece).reshape(count, blocks * width)
        begin += width
    return parts


def _check_range(encoding: str, rows: Floats, name: str, start: int) -> None:
    affine = AFFINE.fullmatch(encoding)
    largest = LARGEST[affine[3] if affine else "F16"]
    if not rows.size or -largest <= rows.min() <= rows.max() <= largest:
        return
    row, column = divmod(int((~(np.abs(rows) <= largest)).argmax()), rows.shape[1])
    raise ModelError(
        f"tensor {name[:100]!r}: the weight in row {start + row}, column {column} is "
        f"{rows[row, column]:g}, but in {encoding} weights are finite and at most {largest:g}"
    )
