"""Products of scaled integers are accurate, and their sums fit into 32 bits."""

from collections.abc import Callable

import numpy as np
import pytest

from talu import _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import round_to
from talu.graph.record import Graph

per_target = pytest.mark.parametrize("target", _native.targets())


def product(x: np.ndarray, weight: np.ndarray, target: str, pair: Callable, rows: type) -> object:
    """The rows of x with the matrix as i16; compared with NumPy."""
    g = Graph()
    table = g.embed("table", *x.shape)
    g.output(g.output_rows(g.linear(table, "weight", len(weight))))
    both = pair(g, {"table": x, "weight": weight}, number_format="i16", target=target)
    return both.compare(rows(range(len(x))), tolerance=3e-6)


@per_target
@pytest.mark.parametrize("columns", [128, 130, 1000])
@pytest.mark.parametrize("count", [7, 40])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sums_stay_in_32_bits(
    target: str, columns: int, count: int, sign: float, pair: Callable, rows: type
) -> None:
    x, weight = np.full((count, columns), 3.0, np.float32), np.full((17, columns), sign, np.float32)
    found = product(x, weight, target, pair, rows)  # equal weights fill what a block may have
    np.testing.assert_allclose(found, sign * 3 * columns, rtol=1e-3)


@pytest.mark.parametrize("columns", [384, 150, 66])
@pytest.mark.parametrize("count", [1, 13, 16, 17, 33, 60])
def test_all_targets_give_the_same_bits(
    columns: int, count: int, pack: Callable, rows: type, rng: np.random.Generator, run: Callable
) -> None:
    x, weight = (rng.standard_normal((n, columns)).astype(np.float32) for n in (count, 90))
    g = Graph()
    g.output(g.output_rows(g.linear(g.embed("table", count, columns), "weight", 90)))
    found = []
    for target in _native.targets():
        tensors = {"table": pack(x, "f32", target), "weight": pack(weight, "i16", target)}
        executor = NativeExecutor(g, tensors, blocks=4, block_size=16, target=target)
        found.append(run(executor, rows(range(count))))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@per_target
def test_one_large_number_in_a_block_is_accurate(target: str, pair: Callable, rows: type) -> None:
    x, weight = np.zeros((3, 256), np.float32), np.zeros((2, 256), np.float32)
    x[:, 200], weight[:, 200], weight[:, 3] = 1e6, -1e6, 1e-3
    x[:, 3] = 1e-3
    np.testing.assert_allclose(product(x, weight, target, pair, rows), -1e12, rtol=1e-6)


@per_target
def test_products_are_closer_to_f32_than_those_of_bf16(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    x, weight = (rng.standard_normal((n, 384)).astype(np.float32) for n in (60, 96))
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    error = np.abs(product(x, weight, target, pair, rows) - exact).std() / exact.std()
    narrow = np.abs(x.astype(np.float64) @ round_to(weight, "bf16").T - exact).std() / exact.std()
    assert error < 3e-4 < narrow / 3


@per_target
def test_numbers_that_are_not_finite_affect_only_their_own_row(
    target: str, pack: Callable, rows: type, rng: np.random.Generator, run: Callable
) -> None:
    x, weight = (rng.standard_normal((n, 150)).astype(np.float32) for n in (9, 20))
    g = Graph()
    g.output(g.output_rows(g.linear(g.embed("table", 9, 150), "weight", 20)))

    def outcome() -> np.ndarray:
        tensors = {"table": pack(x, "f32", target), "weight": pack(weight, "i16", target)}
        executor = NativeExecutor(g, tensors, blocks=4, block_size=16, target=target)
        return run(executor, rows(range(9)))

    sound = outcome()
    x[2, 140], x[5, 0], weight[7, 149], weight[11, 3] = np.nan, np.inf, np.nan, -np.inf
    found = outcome()
    good = np.ones_like(found, bool)
    good[[2, 5]] = good[:, [7, 11]] = False
    np.testing.assert_array_equal(found[good], sound[good])
    assert np.isnan(found[~good]).all()


@per_target
@pytest.mark.parametrize("small", [0.0, 1e-35, 1e-42])
def test_a_block_of_tiny_numbers_is_zero(
    target: str, small: float, pair: Callable, rows: type
) -> None:
    x, weight = np.full((3, 40), small, np.float32), np.full((5, 40), 1e9, np.float32)
    assert (product(x, weight, target, pair, rows) == 0).all()
    assert (product(np.abs(weight), x, target, pair, rows) == 0).all()
