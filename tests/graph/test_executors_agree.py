"""Compares the native executor with NumPy over random networks and batches, step by step."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from talu import _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import NumpyExecutor, round_to
from talu.graph.record import Graph
from talu.protocols import Executor, PackedTensor
from talu.weights.packed_file import aligned

BLOCK = 16
BLOCKS = 12
VOCABULARY = 37
# Largest difference relative to the largest logit, by the format of intermediate values: native
# sums are float32, so a value is occasionally rounded to the other neighbour.
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.5e-2, "i15": 2e-3, "q8": 1.5e-2}

networks = st.fixed_dictionaries(
    {
        "width": st.sampled_from([8, 17, 48]),
        "inner": st.sampled_from([5, 40]),
        "head_size": st.sampled_from([2, 6, 16, 20]),
        "kv_heads": st.integers(1, 3),
        "group": st.integers(1, 3),
        "windows": st.lists(st.sampled_from([0, 1, 5, 18]), min_size=1, max_size=2),
        "head_norms": st.booleans(),
        "offset": st.sampled_from([0.0, 1.0]),
        "score_cap": st.sampled_from([0.0, 3.0]),
        "logit_cap": st.sampled_from([0.0, 3.0]),
        "biased": st.booleans(),
        "tied": st.booleans(),
        "activation": st.sampled_from(["silu", "gelu_tanh", "quick_gelu", "relu"]),
    }
)
# For each step, how many rows each of three sequences brings; together at most 48 positions.
batches = st.lists(st.tuples(*[st.integers(0, 12)] * 3).filter(any), min_size=1, max_size=4)


def record(network: dict[str, Any]) -> Graph:
    graph = Graph()
    n, size = network, network["head_size"]
    frequencies = 100.0 ** -np.linspace(0, 1, max(1, size // 2 - 1))
    x = graph.scale(graph.embed("embed", VOCABULARY, n["width"]), 1.5)
    for i, window in enumerate(n["windows"]):
        h = graph.rms_norm(x, f"{i}.norm", 1e-5, offset=n["offset"])
        bias = f"{i}.bias" if n["biased"] else None
        q = graph.linear(h, f"{i}.q", n["kv_heads"] * n["group"] * size, bias=bias)
        k = graph.linear(h, f"{i}.k", n["kv_heads"] * size)
        v = graph.linear(h, f"{i}.v", n["kv_heads"] * size)
        if n["head_norms"]:
            q = graph.rms_norm(q, f"{i}.q_norm", 1e-5, size=size)
        q, k = (graph.rope(y, size, frequencies.astype(np.float32)) for y in (q, k))
        a = graph.attention(q, k, v, size, scale=size**-0.5, window=window, soft_cap=n["score_cap"])
        if i == len(n["windows"]) - 1:
            x, a = graph.output_rows(x), graph.output_rows(a)
        x = graph.add(x, graph.linear(a, f"{i}.o", n["width"]))
        gate, up = (graph.linear(x, f"{i}.{name}", n["inner"]) for name in ("gate", "up"))
        h = graph.gated(gate, up, n["activation"])
        x = graph.add(x, graph.linear(h, f"{i}.down", n["width"]))
    x = graph.rms_norm(x, "norm", 1e-5)
    x = graph.linear(x, "embed" if n["tied"] else "head", VOCABULARY)
    graph.output(graph.soft_cap(x, n["logit_cap"]) if n["logit_cap"] else x)
    return graph


def pack(array: NDArray[np.float32], number_format: str) -> PackedTensor:
    if array.ndim == 1:
        return PackedTensor("vector", array.shape, array)
    source: NDArray[Any] = array
    if number_format == "f16":
        source = array.astype(np.float16).view(np.uint16)
    if number_format == "bf16":
        source = (array.view(np.uint32) >> 16).astype(np.uint16)
    data = aligned(_native.packed_bytes(number_format, *array.shape))
    _native.pack(number_format, source, data)
    return PackedTensor(number_format, array.shape, data)


def both(
    graph: Graph, number_format: str, kv_dtype: str, rng: np.random.Generator
) -> tuple[Executor, Executor]:
    stored = {
        name: (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
        for name, shape in graph.weights.items()
    }
    weights = {
        name: round_to(array, number_format if array.ndim == 2 else "f32")
        for name, array in stored.items()
    }
    # Those of 16 bits are packed from bits; integers find their scales in the stored numbers.
    sources = stored if number_format == "i16" else weights
    packed = {name: pack(array, number_format) for name, array in sources.items()}
    cache: dict[str, Any] = {"blocks": BLOCKS, "block_size": BLOCK, "kv_dtype": kv_dtype}
    rounding = _native.activation_format(number_format)
    return (
        NativeExecutor(graph, packed, **cache),
        NumpyExecutor(graph, weights, **cache, activation_formats=dict.fromkeys(weights, rounding)),
    )


@pytest.mark.parametrize(
    ("number_format", "kv_dtype"),
    [*product(_native.formats(), ["f32", "f16", "bf16"]), ("f32", "q8")],
)
@settings(max_examples=25, deadline=None)
@given(network=networks, steps=batches, seed=st.integers(0, 2**32 - 1))
def test_the_native_executor_computes_what_numpy_defines(
    number_format: str, kv_dtype: str, network: Any, steps: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    native, oracle = both(record(network), number_format, kv_dtype, rng)
    tables = rng.permutation(BLOCKS).astype(np.int32).reshape(3, -1)
    lengths = np.zeros(3, np.int32)
    for counts in steps:
        here = [s for s in rng.permutation(3) if counts[s]]
        rows = sum(counts)
        batch = (
            rng.integers(0, VOCABULARY, rows, dtype=np.int32),
            np.concatenate([np.arange(counts[s], dtype=np.int32) + lengths[s] for s in here]),
            np.cumsum([0, *(counts[s] for s in here)], dtype=np.int32),
            tables[here],
            np.flatnonzero(rng.random(rows) < 0.7).astype(np.int32),
        )
        lengths += np.array(counts, np.int32)
        found, expected = native.step(*batch), oracle.step(*batch)
        rounding = _native.activation_format(number_format)
        limit = max(TOLERANCE[rounding], TOLERANCE[kv_dtype]) * np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
