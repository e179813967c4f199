"""Fixtures and helpers for the native tests: packed tensors, and the arrays of a step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from talu import _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import NumpyExecutor, round_to
from talu.graph.record import Graph
from talu.protocols import PackedTensor

Floats = NDArray[np.float32]
BLOCK = 16


def packed(array: Floats, number_format: str, target: str = "") -> PackedTensor:
    """A tensor in tiles; vectors stay floats."""
    if array.ndim == 1:
        return PackedTensor("vector", array.shape, array)
    bits: NDArray[np.float32] | NDArray[np.uint16] = array
    if number_format == "f16":
        bits = array.astype(np.float16).view(np.uint16)
    elif number_format == "bf16":
        bits = (round_to(array, "bf16").view(np.uint32) >> 16).astype(np.uint16)
    data = aligned_bytes(_native.packed_bytes(number_format, *array.shape))
    _native.pack(number_format, bits, data, target=target)
    return PackedTensor(number_format, array.shape, data)


def aligned_bytes(count: int) -> NDArray[np.uint8]:
    """Bytes that begin at a multiple of 64, full of ones so that a gap shows."""
    memory = np.full(count + 64, 0xFF, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:count]


@dataclass(frozen=True)
class Rows:
    """One sequence's part of a step."""

    tokens: Sequence[int]
    start: int = 0
    blocks: Sequence[int] = (0, 1, 2, 3)
    wanted: Sequence[int] | None = None  # rows of this part; all by default


Steps = Callable[..., Floats]


def step(executor: NativeExecutor | NumpyExecutor, *parts: Rows) -> Floats:
    """Run the parts of several sequences as one step."""
    width = max((len(p.blocks) for p in parts), default=1)
    starts = np.cumsum([0, *(len(p.tokens) for p in parts)], dtype=np.int32)
    wanted = [
        start + row
        for start, p in zip(starts, parts, strict=False)
        for row in (range(len(p.tokens)) if p.wanted is None else p.wanted)
    ]
    tables = [[*p.blocks, *[-1] * (width - len(p.blocks))] for p in parts]
    found = executor.step(
        np.array([t for p in parts for t in p.tokens], np.int32),
        np.array([p.start + i for p in parts for i in range(len(p.tokens))], np.int32),
        starts,
        np.array(tables, np.int32).reshape(len(parts), width),
        np.array(wanted, np.int32),
    )
    return np.asarray(found)


@dataclass(frozen=True)
class Pair:
    """The same network twice: native, and as NumPy defines it."""

    native: NativeExecutor
    oracle: NumpyExecutor

    def compare(self, *parts: Rows, tolerance: float = 1e-5) -> Floats:
        """Run both, and check that they agree to a part of the largest result."""
        found, expected = step(self.native, *parts), step(self.oracle, *parts)
        assert found.shape == expected.shape
        limit = tolerance * max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
        return found


def make_pair(
    graph: Graph,
    weights: Mapping[str, Floats],
    *,
    number_format: str = "f32",
    target: str = "",
    kv_dtype: str = "f32",
    num_threads: int = 0,
    blocks: int = 16,
) -> Pair:
    """Both executors for one graph and the same rounded weights.

    Matrices that begin with "table" stay f32: they stand for the input of the operation.
    """
    formats = {n: "f32" if n.startswith("table") else number_format for n in weights}
    logical = {n: round_to(w, formats[n]) if w.ndim == 2 else w for n, w in weights.items()}
    native = NativeExecutor(
        graph,
        {n: packed(w, formats[n], target) for n, w in weights.items()},
        blocks=blocks,
        block_size=BLOCK,
        num_threads=num_threads,
        kv_dtype=kv_dtype,
        target=target,
    )
    oracle = NumpyExecutor(
        graph,
        logical,
        blocks=blocks,
        block_size=BLOCK,
        kv_dtype=kv_dtype,
        activation_formats=dict.fromkeys(weights, _native.activation_format(number_format, target)),
    )
    return Pair(native, oracle)


@pytest.fixture
def pair() -> Callable[..., Pair]:
    return make_pair


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def run() -> Steps:
    return step


@pytest.fixture
def pack() -> Callable[..., PackedTensor]:
    return packed


@pytest.fixture
def aligned() -> Callable[[int], NDArray[np.uint8]]:
    return aligned_bytes


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def network(rng: np.random.Generator) -> tuple[Graph, dict[str, Floats]]:
    """Two layers of a small Qwen3 whose widths are not multiples of the block sizes."""
    g = Graph()
    vocabulary, hidden, heads, kv_heads, size, middle = 67, 24, 4, 2, 12, 41
    frequencies = (10000.0 ** (-np.arange(0, size, 2) / size)).astype(np.float32)
    x = g.embed("embed", vocabulary, hidden)
    for layer in ("0.", "1."):
        h = g.rms_norm(x, layer + "norm", 1e-6)
        q = g.linear(h, layer + "q", heads * size, bias=layer + "q_bias")
        k = g.linear(h, layer + "k", kv_heads * size)
        v = g.linear(h, layer + "v", kv_heads * size)
        q = g.rope(g.rms_norm(q, layer + "q_norm", 1e-6, size=size), size, frequencies)
        k = g.rope(g.rms_norm(k, layer + "k_norm", 1e-6, size=size), size, frequencies)
        window = 20 if layer == "1." else 0
        a = g.attention(q, k, v, size, scale=size**-0.5, window=window)
        x = g.add(x, g.linear(a, layer + "o", hidden))
        h = g.rms_norm(x, layer + "mlp_norm", 1e-6)
        up, gate = g.linear(h, layer + "up", middle), g.linear(h, layer + "gate", middle)
        x = g.add(x, g.linear(g.gated(gate, up), layer + "down", hidden))
    g.output(g.linear(g.rms_norm(g.output_rows(x), "norm", 1e-6), "embed", vocabulary))
    weights = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        if len(shape) == 2
        else rng.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in g.weights.items()
    }
    weights["embed"] *= 5
    return g, weights
