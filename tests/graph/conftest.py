"""A small network with every operation, and ways to run it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talu.graph.record import Graph
from talu.protocols import Executor

VOCABULARY, WIDTH, HEADS, KV_HEADS, SIZE = 29, 24, 4, 2, 8


@pytest.fixture
def record() -> Callable[..., Graph]:
    """Records two layers that use every operation; ``window`` applies to the second layer."""

    def recorded(window: int = 0) -> Graph:
        graph = Graph()
        frequencies = np.array(
            [1.0, 0.3, 0.05], np.float32
        )  # two columns of a head are not rotated
        x = graph.embed("embed", VOCABULARY, WIDTH)
        for i, seen in enumerate((0, window)):
            h = graph.rms_norm(x, f"{i}.norm", 1e-6)
            q = graph.linear(h, f"{i}.q", HEADS * SIZE, bias=f"{i}.q_bias")
            q = graph.rope(graph.rms_norm(q, f"{i}.q_norm", 1e-5, size=SIZE), SIZE, frequencies)
            k = graph.rope(graph.linear(h, f"{i}.k", KV_HEADS * SIZE), SIZE, frequencies)
            v = graph.linear(h, f"{i}.v", KV_HEADS * SIZE)
            a = graph.attention(q, k, v, SIZE, scale=SIZE**-0.5, window=seen)
            x = graph.add(x, graph.linear(a, f"{i}.o", WIDTH))
            gate = graph.linear(x, f"{i}.gate", 40)
            up = graph.linear(x, f"{i}.up", 40)
            x = graph.add(x, graph.linear(graph.gated(gate, up), f"{i}.down", WIDTH))
        graph.output(graph.linear(graph.output_rows(x), "head", VOCABULARY))
        return graph

    return recorded


@pytest.fixture
def make_tensors() -> Callable[[Graph], dict[str, NDArray[np.float32]]]:
    """Random weights that preserve the magnitude of their inputs."""

    def made(graph: Graph, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(shape) * shape[-1] ** -0.5 * 2).astype(np.float32)
            for name, shape in graph.weights.items()
        }

    return made


def _step(
    executor: Executor,
    chunks: Sequence[tuple[Sequence[int], int, Sequence[int]]],
    outputs: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    lengths = [len(tokens) for tokens, _, _ in chunks]
    starts = np.cumsum([0, *lengths])
    tables = np.full((len(chunks), max(len(blocks) for _, _, blocks in chunks)), -1)
    for table, (_, _, blocks) in zip(tables, chunks, strict=True):
        table[: len(blocks)] = blocks
    arrays: Mapping[str, Any] = {
        "tokens": [t for tokens, _, _ in chunks for t in tokens],
        "positions": [first + i for tokens, first, _ in chunks for i in range(len(tokens))],
        "row_starts": starts,
        "block_tables": tables,
        "outputs": range(starts[-1]) if outputs is None else outputs,
    }
    return executor.step(**{name: np.array(a, dtype=np.int32) for name, a in arrays.items()})


@pytest.fixture
def step() -> Callable[..., NDArray[np.float32]]:
    """Runs one step over chunks of (tokens, first position, blocks); returns all rows."""
    return _step
