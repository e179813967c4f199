"""Quantises matrices by the definitions of MLX, GPTQ, AWQ, fp8 and compressed-tensors, in NumPy.

Each function returns the tensors that the tool stores for a matrix, and the matrix that they mean.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Stored = dict[str, tuple[str, NDArray[Any]]]  # word: safetensors type, numbers
Result = tuple[Stored, Floats]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def rounded(x: Floats, number_type: str) -> tuple[NDArray[Any], Floats]:
    """Numbers as a file has them, and what they mean."""
    if number_type == "BF16":
        bits = (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    stored = x.astype({"F16": np.float16, "F32": np.float32}[number_type])
    return stored, stored.astype(np.float32)


def words_of(codes: NDArray[Any], bits: int, axis: int) -> NDArray[np.uint32]:
    """Codes as one stream of bits along an axis, in 32-bit words."""
    rows = np.moveaxis(codes, axis, -1)
    single = (rows[..., None].astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1
    single = single.reshape(*rows.shape[:-1], -1, 32)
    words = (single << np.arange(32, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))


def in_groups(w: Floats, size: int) -> Floats:
    return w.reshape(len(w), -1, size)


def mlx(w: Floats, *, bits: int = 4, size: int = 64, number_type: str = "F16") -> Result:
    groups = in_groups(w, size)
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    scales, scale = rounded((high - low) / np.float32((1 << bits) - 1), number_type)
    biases, bias = rounded(low, number_type)
    codes = np.clip(
        np.rint((groups - bias[..., None]) / scale[..., None]), 0, (1 << bits) - 1
    ).astype(np.uint32)
    means = scale[..., None] * codes.astype(np.float32) + bias[..., None]
    stored = {
        "weight": ("U32", words_of(codes.reshape(w.shape), bits, 1)),
        "scales": (number_type, scales),
        "biases": (number_type, biases),
    }
    return stored, means.reshape(w.shape)


def with_zero_points(
    w: Floats, bits: int, size: int, number_type: str, symmetric: bool, order: NDArray[Any],
    smallest: int = 0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], Floats]:  # fmt: skip
    """Stored scales, zero points, codes, and the matrix that they mean.

    Column c is in the group order[c]. No zero point is less than ``smallest``.
    """
    count = w.shape[1] // size
    largest = (1 << bits) - 1
    low = np.stack([w[:, order == g].min(axis=1) for g in range(count)], axis=1)
    high = np.stack([w[:, order == g].max(axis=1) for g in range(count)], axis=1)
    if symmetric:
        high = np.maximum(np.abs(low), np.abs(high))
        low = -high
    stored, scales = rounded((high - low) / np.float32(largest), number_type)
    zeros = np.clip(np.rint(-low / scales), smallest, largest).astype(np.int64)
    if symmetric:
        zeros[:] = 1 << (bits - 1)
    codes = np.clip(np.rint(w / scales[:, order]) + zeros[:, order], 0, largest).astype(np.int64)
    means = scales[:, order] * (codes - zeros[:, order]).astype(np.float32)
    return stored, zeros, codes, means


def gptq(
    w: Floats, *, bits: int = 4, size: int = 128, number_type: str = "F16", symmetric: bool = True,
    shuffled: bool = False, version: int = 1,
) -> Result:  # fmt: skip
    size = w.shape[1] if size < 0 else size
    order = np.arange(w.shape[1]) // size
    if shuffled:
        order = np.random.default_rng(3).permutation(order)
    more = 1 if version == 1 else 0  # the first version stores zero points less 1
    stored, zeros, codes, means = with_zero_points(
        w, bits, size, number_type, symmetric, order, smallest=more
    )
    tensors: Stored = {
        "qweight": ("I32", words_of(codes.T, bits, 0)),
        "qzeros": ("I32", words_of(zeros.T - more, bits, 1)),
        "scales": (number_type, np.ascontiguousarray(stored.T)),
        "g_idx": ("I32", order.astype(np.int32)),
    }
    return tensors, means


def awq(w: Floats, *, size: int = 128, number_type: str = "F16") -> Result:
    size = w.shape[1] if size < 0 else size
    order = np.arange(w.shape[1]) // size
    stored, zeros, codes, means = with_zero_points(w, 4, size, number_type, False, order)

    def packed(numbers: NDArray[Any]) -> NDArray[np.uint32]:
        """Eight neighbouring outputs in a word: the first four bits are those of output 0, ..."""
        eights = numbers.T.reshape(numbers.shape[1], -1, 8)
        words = np.zeros(eights.shape[:2], np.uint32)
        for place, output in enumerate(AWQ_ORDER):
            words |= eights[:, :, output].astype(np.uint32) << np.uint32(4 * place)
        return words

    tensors: Stored = {
        "qweight": ("I32", packed(codes)),
        "qzeros": ("I32", packed(zeros)),
        "scales": (number_type, np.ascontiguousarray(stored.T)),
    }
    return tensors, means


def e4m3(byte: int) -> float:
    """The number of a byte, as the Open Compute Project defines E4M3."""
    sign, exponent, fraction = byte >> 7, byte >> 3 & 15, byte & 7
    if exponent == 15 and fraction == 7:
        return float("nan")
    size = fraction / 8 * 2**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


E4M3 = np.array([e4m3(byte) for byte in range(256)], np.float32)


def fp8(
    w: Floats, *, block: tuple[int, int] | None = None, per_row: bool = False,
    number_type: str = "F32", word: str = "weight_scale",
) -> Result:  # fmt: skip
    rows, columns = w.shape
    down, across = block or ((1, columns) if per_row else (rows, columns))
    largest = np.abs(w)
    largest = np.maximum.reduceat(largest, np.arange(0, rows, down), axis=0)
    largest = np.maximum.reduceat(largest, np.arange(0, columns, across), axis=1)
    stored, scale = rounded(largest / np.float32(448), number_type)
    every = np.repeat(np.repeat(scale, down, axis=0)[:rows], across, axis=1)[:, :columns]
    order = np.argsort(E4M3[:127])
    finite = E4M3[:127][order]
    target = np.abs(w / every)
    places = np.clip(np.searchsorted(finite, target), 1, 126)
    places -= target - finite[places - 1] < finite[places] - target
    codes = (order[places] | np.where(w < 0, 128, 0)).astype(np.uint8)
    if block is None and not per_row:
        stored = stored.reshape(())
    tensors: Stored = {"weight": ("F8_E4M3", codes), word: (number_type, stored)}
    return tensors, E4M3[codes] * every


def packed_int(
    w: Floats, *, bits: int = 4, size: int = 128, number_type: str = "BF16",
    symmetric: bool = True, shuffled: bool = False,
) -> Result:  # fmt: skip
    size = w.shape[1] if size < 0 else size
    order = np.arange(w.shape[1]) // size
    if shuffled:
        order = np.random.default_rng(3).permutation(order)
    stored, zeros, codes, means = with_zero_points(w, bits, size, number_type, symmetric, order)
    tensors: Stored = {
        "weight_packed": ("I32", words_of(codes, bits, 1)),
        "weight_scale": (number_type, stored),
        "weight_shape": ("I64", np.array(w.shape, np.int64)),
    }
    if not symmetric:
        tensors["weight_zero_point"] = ("I32", words_of(zeros, bits, 0))
    if shuffled:
        tensors["weight_g_idx"] = ("I32", order.astype(np.int32))
    return tensors, means


def plain_int(w: Floats, *, number_type: str = "BF16") -> Result:
    """8-bit integers with one scale for each row."""
    stored, scale = rounded(np.abs(w).max(axis=1, keepdims=True) / np.float32(127), number_type)
    codes = np.clip(np.rint(w / scale), -128, 127).astype(np.int8)
    tensors: Stored = {"weight": ("I8", codes), "weight_scale": (number_type, stored)}
    return tensors, scale * codes.astype(np.float32)


def save(path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]]) -> None:
    """Write a safetensors file."""
    header, data, position = {}, [], 0
    for name, (number_type, numbers) in tensors.items():
        data.append(numbers.tobytes())
        offsets = [position, position := position + numbers.nbytes]
        header[name] = {"dtype": number_type, "shape": numbers.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def quantise(
    weights: Mapping[str, Floats], change: Callable[[str, Floats], Result | None]
) -> tuple[dict[str, tuple[str, NDArray[Any]]], dict[str, Floats]]:
    """The tensors of a folder, and the weights that they mean.

    ``change`` gets the name of a module and its matrix, and returns None to leave it as it is.
    """
    stored: dict[str, tuple[str, NDArray[Any]]] = {}
    means = dict(weights)
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        result = change(module, weight) if weight.ndim == 2 else None
        if result is None:
            stored[name] = ("F32", weight)
            continue
        tensors, means[name] = result
        stored |= {f"{module}.{word}": tensor for word, tensor in tensors.items()}
    return stored, means
