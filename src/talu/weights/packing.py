"""Packs single tensors for the native kernels, or chooses codes for them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.protocols import PackedTensor
from talu.weights import packed_file
from talu.weights.encode import encode_rows
from talu.weights.files import Bytes
from talu.weights.layout import ROTATED, VECTOR
from talu.weights.numbers import as_float32
from talu.weights.pack import packed_at, packed_size
from talu.weights.packed_file import Slot
from talu.weights.tensors import ARRAY_TYPES, BLOCKS, Tensor

__all__ = ["pack_in_memory", "pack_tensor", "quantize_tensor"]

ROWS = 64  # whose tiles have a multiple of 64 bytes, in every format
CHUNK = 32 << 20  # bytes, as float32, of the rows that are computed at once


def pack_tensor(tensor: Tensor, packed_format: str, out: Bytes, num_threads: int) -> None:
    """Pack a tensor into ``out``, which has the size for this format.

    What has to be computed or put together first is done for a part of the rows at a time.
    """
    if packed_format == VECTOR:
        out.view(np.float32)[:] = as_float32(tensor)
    elif BLOCKS in tensor.parts:
        _native.pack(packed_format, tensor.parts[BLOCKS].read(0, tensor.rows), out, num_threads)
    elif tensor.encoding.name in ARRAY_TYPES:
        _native.pack(packed_format, tensor.array(), out, num_threads)
    else:
        for start, stop, packed in _slices(tensor, packed_format, out):
            _native.pack(
                packed_format, _source(tensor, packed_format, start, stop), packed, num_threads
            )


def _slices(tensor: Tensor, packed_format: str, out: Bytes) -> Iterator[tuple[int, int, Bytes]]:
    """Neighbouring rows of a tensor, and their place in ``out``."""
    step = max(1, CHUNK // (4 * max(1, tensor.columns) * ROWS)) * ROWS
    size = _native.packed_bytes(packed_format, ROWS, tensor.columns)
    for start in range(0, tensor.rows, step):
        stop = min(start + step, tensor.rows)
        begin = start // ROWS * size
        end = begin + _native.packed_bytes(packed_format, stop - start, tensor.columns)
        yield start, stop, out[begin:end]


def _source(tensor: Tensor, packed_format: str, start: int, stop: int) -> NDArray[Any]:
    """Rows in the form that the native module packs: blocks of all parts, or float32."""
    if packed_format == tensor.encoding.name.lower():
        size, blocks = tensor.encoding.parts, tensor.columns // tensor.encoding.columns
        parts = [
            tensor.parts[name].read(start, stop).reshape(stop - start, blocks, size[name])
            for name in size
        ]
        return np.concatenate(parts, axis=2).reshape(stop - start, -1)
    if tensor.floats is None:
        raise tensor.error(
            f"has type {tensor.encoding.name}, which is not stored as {packed_format}"
        )
    return tensor.floats.read(start, stop).view(np.float32)


def quantize_tensor(
    tensor: Tensor,
    packed_format: str,
    out: Bytes,
    factor: NDArray[np.float32] | None,
    num_threads: int,
) -> None:
    """Choose the codes of a matrix, some rows at a time."""
    for start, stop, packed in _slices(tensor, packed_format, out):
        rows = as_float32(tensor.some_rows(start, stop))
        if packed_format in ROTATED:
            _native.choose(packed_format, rows, packed, factor, num_threads)
            continue
        parts = encode_rows(
            packed_format.upper(),
            rows,
            name=tensor.name,
            start=start,
            factor=factor,
            num_threads=num_threads,
        )
        _native.pack(packed_format, parts[BLOCKS], packed, num_threads)


def pack_in_memory(tensor: Tensor | NDArray[np.float32], num_threads: int) -> PackedTensor:
    """A tensor in the format that stores exactly what it has, or a matrix of float32."""
    if isinstance(tensor, Tensor):
        kind = VECTOR if len(tensor.shape) == 1 else tensor.encoding.name.lower()
        kind, shape, size = packed_size(tensor, kind)
        out = packed_file.aligned(size)
        pack_tensor(tensor, kind, out, num_threads)
        return packed_at(Slot(kind, shape, 0, size), out.data)
    out = packed_file.aligned(_native.packed_bytes("f32", *tensor.shape))
    _native.pack("f32", tensor, out, num_threads)
    return PackedTensor("f32", tensor.shape, out)
