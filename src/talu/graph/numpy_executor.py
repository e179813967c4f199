"""Defines every operation of ``Graph`` in NumPy, as the reference for the tests.

Values are float32. Each operation computes in float64 and rounds its result once, so a difference
to another executor is that executor's rounding. The cache is paged and filled with NaN, so a row
that reads an unwritten position gets NaN logits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import erf
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from talu.exceptions import ModelError, StateError, ValidationError
from talu.graph.record import Graph, Op

__all__ = [
    "NumpyExecutor",
    "activate",
    "attention",
    "gated",
    "layer_norm",
    "linear",
    "rms_norm",
    "rope",
    "rotate",
    "round_to",
    "scale",
    "soft_cap",
]

# Integer formats: columns of a row that share a scale, and the largest integer.
BLOCKS: Mapping[str, tuple[int, int]] = {"i16": (128, 16383), "i15": (128, 16383), "i8": (32, 127)}
ROTATED = "rotated"
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "silu": lambda x: x * 0.5 * (1 + np.tanh(x / 2)),  # x · sigmoid(x), without overflow
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(erf, otypes=[float])(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * 0.5 * (1 + np.tanh(1.702 * x / 2)),
    "relu": lambda x: np.maximum(x, 0),
}


def round_to(x: Floats, number_format: str) -> Floats:
    """The nearest numbers that a format can represent, ties to even.

    ``"f32"``, ``"f16"`` and ``"bf16"`` round each number alone. The others are integers with one
    scale for a block of columns: ``"i16"`` is for weights, ``"i15"`` for the activations multiplied
    by them, and ``"i8"`` for activations multiplied by codes of a few bits. ``"rotated"`` rounds
    rotated activations to 8 bits with one scale for a row.
    """
    if number_format == "f32":
        return x
    if number_format == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    if number_format == "bf16":
        bits = np.ascontiguousarray(x).view(np.uint32)
        bits = (bits + (0x7FFF + (bits >> 16 & 1))) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)
    if number_format in BLOCKS:
        return _round_blocks(x, number_format)
    if number_format == ROTATED:
        return _round_rotated(x)
    known = ", ".join(repr(name) for name in ("f32", "f16", "bf16", *BLOCKS, ROTATED))
    raise ValidationError(f"number format {number_format!r} is none of {known}")


def _round_blocks(x: Floats, number_format: str) -> Floats:
    """Integers times the scale of their block, which limits them to the largest integer.

    The weights of an ``"i16"`` block are also limited to a sum of 2^17, including rounding, so that
    no sum of products in a block exceeds 32 bits.
    """
    columns, largest_integer = BLOCKS[number_format]
    starts = range(0, x.shape[1], columns)
    sizes = np.abs(x)
    scales = np.maximum.reduceat(sizes, starts, axis=1) / np.float32(largest_integer)
    if number_format == "i16":
        total = np.add.reduceat(sizes.astype(np.float64), starts, axis=1)
        scales = np.maximum(scales, (total / (2**17 - columns / 2)).astype(np.float32))
    scales = np.where(scales < np.float32(1e-30), np.float32(0), scales)
    inverses = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    repeated = [np.repeat(a, columns, axis=1)[:, : x.shape[1]] for a in (inverses, scales)]
    rounded: Floats = np.rint(x * repeated[0]) * repeated[1]
    return rounded


def rotate(x: Floats) -> Floats:
    """Each 64 columns times a Hadamard matrix of ones, by additions in a fixed order."""
    return _rotated(x, (8, 4, 2, 1, 16, 32))


def _rotated(x: Floats, strides: tuple[int, ...]) -> Floats:
    y = x
    for stride in strides:
        pairs = y.reshape(-1, 2, stride)
        first, second = pairs[:, 0], pairs[:, 1]
        y = np.stack([first + second, first - second], axis=1).reshape(x.shape)
    return y


def _round_rotated(x: Floats) -> Floats:
    """Integers up to 127 times the scale of their row, after a rotation, which is then undone."""
    y = rotate(x)
    scales = np.abs(y).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales < np.float32(1e-30)] = 0
    inverses = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    rounded: Floats = rotate(np.rint(y * inverses)) * (scales / np.float32(64))
    return rounded


def cached(k: Floats, v: Floats, kv_dtype: str) -> tuple[Floats, Floats]:
    """Keys and values (n, heads, size) as the cache has them.

    In ``"q8"``, keys are rotated before they are rounded; this undoes the rotation. Where a number
    is too large for the format, all values of the position are NaN, so that an infinite key cannot
    drop out of the softmax.
    """
    if kv_dtype == "q8":
        keys, values = _rotate_heads(_round_row(_rotate_heads(k))), _round_row(v)
    else:
        keys, values = round_to(k, kv_dtype), round_to(v, kv_dtype)
    if kv_dtype in ("f16", "q8"):
        infinite = ~np.isfinite(keys) | ~np.isfinite(values)
        values = np.where(infinite.any(axis=-1, keepdims=True), np.float32(np.nan), values)
    return keys, values


def _round_row(x: Floats) -> Floats:
    """Integers up to 127 with one scale for the last axis."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(x).max(axis=-1, keepdims=True)
        factors = np.zeros_like(size)
        np.divide(np.float32(127), size, out=factors, where=size >= 2.0**-100)
        rounded: Floats = np.rint(x * factors) * (size / np.float32(127))
    return np.where(np.isfinite(size), rounded, np.float32(np.nan))


def _rotate_heads(x: Floats) -> Floats:
    """Each 64 columns of a head, and then each 16, times an orthonormal Hadamard matrix."""
    y = x.copy()
    whole = x.shape[-1] // 64 * 64
    with np.errstate(invalid="ignore", over="ignore"):
        y[..., :whole] = _rotated(x[..., :whole], (8, 4, 2, 1, 16, 32)) / 8
        parts = slice(whole, x.shape[-1] // 16 * 16)
        y[..., parts] = _rotated(x[..., parts], (8, 4, 2, 1)) / 4
    return y


def rms_norm(x: Floats, weight: Floats, eps: float, size: int, offset: float = 0.0) -> Floats:
    """x / sqrt(mean(x²) + eps) · (weight + offset) over groups of ``size`` columns."""
    groups = x.astype(np.float64).reshape(len(x), x.shape[1] // size, size)
    groups /= np.sqrt(np.mean(groups**2, axis=-1, keepdims=True) + eps)
    return (groups * (weight + np.float32(offset))).reshape(x.shape).astype(np.float32)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """(x - mean(x)) / sqrt(variance(x) + eps) · weight + bias."""
    deviation = x.astype(np.float64)
    deviation -= deviation.mean(axis=-1, keepdims=True)
    deviation /= np.sqrt(np.mean(deviation**2, axis=-1, keepdims=True) + eps)
    return (deviation * weight + bias).astype(np.float32)


def linear(x: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
    """x · weightᵀ + bias."""
    y = x.astype(np.float64) @ weight.astype(np.float64).T
    return (y if bias is None else y + bias).astype(np.float32)


def rope(x: Floats, positions: Ints, head_size: int, frequencies: Floats) -> Floats:
    """Columns i and i + len(frequencies) of each head rotated by position · frequencies[i]."""
    half = len(frequencies)
    angles = np.multiply.outer(positions.astype(np.float32), frequencies).astype(np.float64)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    y = x.astype(np.float64).reshape(len(x), x.shape[1] // head_size, head_size)
    first, second = y[..., :half].copy(), y[..., half : 2 * half].copy()
    y[..., :half] = first * cos - second * sin
    y[..., half : 2 * half] = second * cos + first * sin
    return y.reshape(x.shape).astype(np.float32)


def attention(
    q: Floats,
    k: Floats,
    v: Floats,
    q_positions: Ints,
    k_positions: Ints,
    *,
    scale: float,
    window: int,
    causal: bool = True,
    soft_cap: float = 0.0,
) -> Floats:
    """Attention of one sequence: q (n, heads, size) over k and v (m, kv_heads, size).

    A row attends to the keys up to its position, with a window only to the last ``window`` of them;
    to all keys if attention is not causal. ``soft_cap`` limits the scores; 0 does not.
    Returns (n, heads, size).
    """
    groups = q.shape[1] // k.shape[1]
    keys = np.repeat(k.astype(np.float64), groups, axis=1)
    values = np.repeat(v.astype(np.float64), groups, axis=1)
    scores = np.einsum("nhd,mhd->hnm", q.astype(np.float64), keys) * scale
    if soft_cap:
        scores = np.tanh(scores / soft_cap) * soft_cap
    distance = np.subtract.outer(q_positions, k_positions)
    hidden = causal & ((distance < 0) | ((window > 0) & (distance >= window)))
    scores[:, hidden] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    result = np.empty_like(q)
    for row, seen in enumerate(~hidden):  # a weight of 0 would not hide a value that is not finite
        result[row] = np.einsum("hm,mhd->hd", weights[:, row, seen], values[seen])
    return result


def activate(x: Floats, activation: str) -> Floats:
    """activation(x)."""
    y: Floats = ACTIVATIONS[activation](x.astype(np.float64)).astype(np.float32)
    return y


def gated(gate: Floats, up: Floats, activation: str) -> Floats:
    """activation(gate) · up."""
    return (ACTIVATIONS[activation](gate.astype(np.float64)) * up).astype(np.float32)


def soft_cap(x: Floats, cap: float) -> Floats:
    """tanh(x / cap) · cap."""
    return (np.tanh(x.astype(np.float64) / cap) * cap).astype(np.float32)


def scale(x: Floats, factor: float) -> Floats:
    """x · factor."""
    return x * np.float32(factor)


# Operations that depend on nothing but their inputs, weights and parameters.
ROW_BY_ROW: Mapping[str, Callable[..., Floats]] = {
    "activate": activate,
    "add": np.add,
    "gated": gated,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "scale": scale,
    "soft_cap": soft_cap,
}


class NumpyExecutor:
    """Runs a recorded graph over weights that are plain float32 arrays.

    Args:
        graph: the network.
        tensors: its weights by name, in their logical shapes; other names are ignored.
        blocks: cache blocks shared by all sequences.
        block_size: positions in a block.
        kv_dtype: number format of keys and values: ``"f32"``, ``"f16"``, ``"bf16"`` or ``"q8"``.
        activation_formats: number format that the input of a ``linear`` is rounded to, by the name
            of its weight; others are not rounded.

    Raises:
        ModelError: a tensor is missing or has the wrong shape.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Floats],
        *,
        blocks: int,
        block_size: int,
        kv_dtype: str = "f16",
        activation_formats: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        for name, shape in graph.weights.items():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                raise ModelError(f"tensor {name!r}: the network reads {shape}, there is {found}")
        if graph.result is None:
            raise ModelError("the network has no output")
        self._graph = graph
        self._result = graph.result
        self._tensors = tensors
        self._block_size = block_size
        self._kv_dtype = kv_dtype
        self._activation_formats = activation_formats
        self._cache: list[Floats] | None = [
            np.full((2, blocks * block_size, kv_heads, size), np.nan, np.float32)
            for kv_heads, size in graph.layers
        ]

    def step(
        self,
        tokens: Ints,
        positions: Ints,
        row_starts: Ints,
        block_tables: Ints,
        outputs: Ints,
    ) -> Floats:
        """See ``talu.protocols.Executor``."""
        if self._cache is None:
            raise StateError("the executor is closed")
        rows = _Rows(
            np.asarray(tokens),
            np.asarray(positions),
            np.asarray(row_starts),
            np.asarray(block_tables),
            np.asarray(outputs),
            self._block_size,
        )
        values: list[Floats] = []
        for op in self._graph.ops:
            values.append(self._run(op, [values[i] for i in op.inputs], rows))
        return values[self._result.id]

    def close(self) -> None:
        """Free cache and weights; idempotent."""
        self._cache = None
        self._tensors = {}

    def _run(self, op: Op, inputs: list[Floats], rows: "_Rows") -> Floats:
        weights = [self._tensors[name] for name in op.weights]
        params = op.params
        if op.kind in ROW_BY_ROW:
            return ROW_BY_ROW[op.kind](*inputs, *weights, **params)
        match op.kind:
            case "embed" | "embed_position" | "embed_row":
                return weights[0][rows.places(op)].astype(np.float32)
            case "linear":
                rounding = self._activation_formats.get(op.weights[0], "f32")
                return linear(round_to(inputs[0], rounding), *weights)
            case "rope":
                return rope(inputs[0], rows.positions, params["head_size"], params["frequencies"])
            case "attention":
                return self._attention(op, inputs, rows)
            case "output_rows":
                return inputs[0][rows.outputs]
            case "gram":
                x = inputs[0].astype(np.float64)
                if params["rotated"]:
                    x = rotate(inputs[0]).astype(np.float64) / 8
                weights[0] += np.tril(x.T @ x).ravel().astype(np.float32)
                return inputs[0]
        raise ModelError(f"operation {op.kind!r} is not defined")

    def _attention(self, op: Op, inputs: list[Floats], rows: "_Rows") -> Floats:
        assert self._cache is not None
        keys, values = self._cache[op.params["layer"]]
        q, k, v = (x.reshape(len(x), -1, op.params["head_size"]) for x in inputs)
        window = op.params["window"]
        result = np.empty_like(q)
        for s, (start, stop) in enumerate(pairwise(rows.row_starts)):
            chunk = slice(start, stop)
            own = rows.positions[chunk]
            if not op.params["causal"] and len(own) and own[0] != 0:
                raise ValidationError(f"sequence {s} does not start at position 0")
            slots = rows.slots(s, own)
            keys[slots], values[slots] = cached(k[chunk], v[chunk], self._kv_dtype)
            first = max(0, own[0] - window + 1) if window else 0
            seen = np.arange(first, own[-1] + 1, dtype=np.int32)
            slots = rows.slots(s, seen)
            result[chunk] = attention(
                q[chunk], keys[slots], values[slots], own, seen,
                scale=op.params["scale"], window=window, causal=op.params["causal"],
                soft_cap=op.params["soft_cap"],
            )  # fmt: skip
        return result.reshape(len(q), -1)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one step, and the cache blocks of their sequences."""

    tokens: Ints
    positions: Ints
    row_starts: Ints
    block_tables: Ints
    outputs: Ints
    block_size: int

    def places(self, op: Op) -> NDArray[np.intp]:
        """The rows of its table that an embedding gathers."""
        if op.kind == "embed":
            return self.tokens.astype(np.intp)
        start = np.zeros_like(self.positions)
        if op.kind == "embed_position":
            start = self._counted(op.params["padding"])
        return start.astype(np.intp) + int(op.params["offset"])

    def _counted(self, padding: int) -> Ints:
        """Positions counted without the token ``padding``; -1 for ``padding``."""
        if padding < 0:
            return self.positions
        counts = np.full_like(self.positions, -1)
        for start, stop in pairwise(self.row_starts):
            chunk = slice(start, stop)
            counted = self.tokens[chunk] != padding
            counts[chunk] = np.where(counted, np.cumsum(counted) - 1, -1)
        return counts

    def slots(self, sequence: int, positions: Ints) -> NDArray[np.intp]:
        """The cache rows of these positions of a sequence."""
        table = self.block_tables[sequence].astype(np.intp)
        column = positions // self.block_size
        if column[-1] >= len(table) or (table[column] < 0).any():
            raise ValidationError(f"sequence {sequence} has no cache block for all its positions")
        slots: NDArray[np.intp] = table[column] * self.block_size + positions % self.block_size
        return slots
