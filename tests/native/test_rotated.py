"""Rotated weights in 4 and 8 bits: what they stand for, their products, choosing their codes."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from talu import _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import rotate, round_to
from talu.graph.record import Graph
from talu.protocols import PackedTensor

FORMATS = _native.rotated_formats()
TARGETS = _native.targets()
per_format = pytest.mark.parametrize("number_format", FORMATS)
per_target = pytest.mark.parametrize("target", TARGETS)
Floats = NDArray[np.float32]
Chosen = Callable[..., PackedTensor]


@pytest.fixture
def chosen(aligned: Callable) -> Chosen:
    """A matrix in a rotated format."""

    def choose(
        number_format: str, weights: Floats, factor: Floats | None = None, threads: int = 0,
        target: str = "",
    ) -> PackedTensor:  # fmt: skip
        data = aligned(_native.packed_bytes(number_format, *weights.shape))
        _native.choose(number_format, weights, data, factor, threads, target)
        return PackedTensor(number_format, weights.shape, data)

    return choose


def matrix(rows: int, columns: int, seed: int = 0) -> Floats:
    """Weights of unequal sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.exponential(size=(1, columns)) * rng.exponential(size=(rows, 1))
    return (rng.standard_normal((rows, columns)) * sizes).astype(np.float32)


def activations(rows: int, columns: int) -> Floats:
    """Rows that have something in common."""
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((rows, 40)) @ rng.standard_normal((40, columns))
    return (mixed + rng.standard_normal((rows, columns))).astype(np.float32)


def integers(tensor: PackedTensor) -> tuple[NDArray[np.int64], Floats]:
    """The rotated weights as integers, read from the tiles, and the unit of each row."""
    rows, columns = tensor.shape
    tiles = np.asarray(tensor.data).reshape(-(-rows // 16), -1)
    units = tiles[:, :64].copy().view(np.float32).reshape(-1)[:rows]
    blocks = tiles[:, 64:].reshape(len(tiles), columns // 64, -1).astype(np.int64)
    if tensor.format == "r8":
        codes = blocks.reshape(len(tiles), -1, 16, 16, 4) - 128  # group of columns, row, column
    else:
        planes = blocks[:, :, 64:].reshape(len(tiles), -1, 16, 1, 8, 4)
        codes = np.concatenate([planes & 15, planes >> 4], axis=3)  # rows 0 to 7, 8 to 15
        codes = codes.reshape(len(tiles), -1, 16, 16, 4)
    whole = codes.transpose(0, 3, 1, 2, 4).reshape(len(tiles) * 16, columns // 32, 32)
    if tensor.format == "r4":
        scales = blocks[:, :, :32].reshape(len(tiles), -1, 2, 16).transpose(0, 3, 1, 2)
        minimums = blocks[:, :, 32:64].reshape(len(tiles), -1, 16, 2).transpose(0, 2, 1, 3)
        whole = whole * scales.reshape(*whole.shape[:2], 1)
        whole = whole - 8 * minimums.reshape(*whole.shape[:2], 1)
    return whole.reshape(-1, columns)[:rows], units


def product(
    weight: PackedTensor, x: Floats, target: str, pack: Callable, threads: int = 0
) -> NativeExecutor:
    """Rows of x with the matrix."""
    g = Graph()
    g.output(g.output_rows(g.linear(g.embed("x", *x.shape), "weight", weight.shape[0])))
    tensors = {"x": pack(x, "f32", target), "weight": weight}
    return NativeExecutor(g, tensors, blocks=8, block_size=16, target=target, num_threads=threads)


def rotated_integers(x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Activations as their definition has them: integers and a scale for each row."""
    y = rotate(x)
    scales = np.abs(y).max(axis=1) / np.float32(127)
    return np.rint(y * (np.float32(1) / scales)[:, None]).astype(np.int64), scales / np.float32(8)


@per_format
@per_target
def test_unpacking_returns_the_rotated_integers_times_the_unit_of_their_row(
    target: str, number_format: str, chosen: Chosen
) -> None:
    tensor = chosen(number_format, matrix(37, 192))
    whole, units = integers(tensor)
    expected = rotate(whole.astype(np.float32)) / 8 * units[:, None]
    found = _native.unpack(number_format, tensor.data, *tensor.shape, target=target)
    np.testing.assert_array_equal(found, expected)


@per_format
@per_target
def test_a_product_is_the_exact_sum_of_integers_times_two_scales(
    target: str, number_format: str, chosen: Chosen, pack: Callable, rows: type, run: Callable
) -> None:
    tensor, x = chosen(number_format, matrix(69, 512)), activations(23, 512)
    found = run(product(tensor, x, target, pack), rows(range(23)))
    (whole, units), (of_x, scales) = integers(tensor), rotated_integers(x)
    exact = (of_x @ whole.T).astype(np.float32)  # rounded once
    np.testing.assert_array_equal(found, exact * (scales[:, None] * units))


@per_format
@per_target
def test_the_largest_sums_do_not_overflow(
    target: str, number_format: str, chosen: Chosen, pack: Callable, rows: type, run: Callable
) -> None:
    signs = np.where(np.arange(8320) % 64 == 0, np.float32(64), np.float32(0))[None]
    x = np.tile(np.concatenate([signs, -signs]), (18, 1))  # rotated, all are equal: 127 of 127
    weights = np.concatenate([signs, -signs, np.abs(matrix(3, 8320))])
    tensor = chosen(number_format, weights)
    found = run(product(tensor, x, target, pack), rows(range(36)))
    (whole, units), (of_x, scales) = integers(tensor), rotated_integers(x)
    assert np.abs(of_x @ whole.T).max() > 2**26
    first = (of_x[:, :8192] @ whole[:, :8192].T).astype(np.float32)
    rest = (of_x[:, 8192:] @ whole[:, 8192:].T).astype(np.float64)
    both = (scales[:, None] * units).astype(np.float64)
    np.testing.assert_array_equal(
        found, (rest * both + (first * both).astype(np.float32)).astype(np.float32)
    )


@per_format
def test_a_product_has_the_same_bits_everywhere(
    number_format: str, chosen: Chosen, pack: Callable, rows: type, run: Callable
) -> None:
    tensor, x = chosen(number_format, matrix(69, 512)), activations(64, 512)
    first = run(product(tensor, x, TARGETS[0], pack), rows(range(64)))
    for target in TARGETS:
        for threads in (1, 2):
            executor = product(tensor, x, target, pack, threads)
            np.testing.assert_array_equal(run(executor, rows(range(64))), first)
            for count in (1, 2, 3, 5, 7, 11, 16, 19, 37):
                some = rows(range(20, 20 + count))
                np.testing.assert_array_equal(run(executor, some), first[20 : 20 + count])


@per_format
@per_target
def test_numbers_that_are_not_finite_affect_only_their_own_row(
    target: str, number_format: str, chosen: Chosen, pack: Callable, rows: type, run: Callable
) -> None:
    weights, x = matrix(20, 128), activations(6, 128)
    weights[3, 5] = np.nan
    tensor = chosen(number_format, weights, target=target)
    sound = run(product(tensor, x, target, pack), rows(range(6)))
    assert np.isnan(sound[:, 3]).all()
    assert np.isfinite(np.delete(sound, 3, axis=1)).all()
    x[2, 100], x[4, 0] = np.nan, np.inf
    found = run(product(tensor, x, target, pack), rows(range(6)))
    np.testing.assert_array_equal(found[[0, 1, 3, 5]], sound[[0, 1, 3, 5]])
    assert np.isnan(found[[2, 4]]).all()


@per_format
def test_rows_of_zeros_stay_zero(
    number_format: str, chosen: Chosen, pack: Callable, rows: type, run: Callable
) -> None:
    weights, x = matrix(17, 64), activations(3, 64)
    weights[4], x[1] = 0, 0
    tensor = chosen(number_format, weights)
    assert not _native.unpack(number_format, tensor.data, *tensor.shape)[4].any()
    found = run(product(tensor, x, "", pack), rows(range(3)))
    assert not found[1].any()
    assert not found[:, 4].any()


def sums_of(
    x: Floats, target: str, threads: int, pack: Callable, run: Callable, rows: type, *,
    rotated: bool = True,
) -> Floats:  # fmt: skip
    """The sums that the operation gram makes of x, in two steps."""
    g = Graph()
    g.output(g.output_rows(g.gram(g.embed("x", *x.shape), "sums", rotated=rotated)))
    sums = np.zeros(x.shape[1] ** 2, np.float32)
    tensors = {
        "x": pack(x, "f32", target),
        "sums": PackedTensor("vector", sums.shape, sums),
    }
    executor = NativeExecutor(
        g, tensors, blocks=64, block_size=16, target=target, num_threads=threads
    )
    blocks = range(64)
    half = len(x) // 2
    found = run(executor, rows(range(half), blocks=blocks))
    np.testing.assert_array_equal(found, x[:half])
    run(executor, rows(range(half, len(x)), blocks=blocks))
    return np.tril(sums.reshape(x.shape[1], -1))


@per_target
@pytest.mark.parametrize("rotated", [True, False])
def test_gram_sums_the_products_of_activations_rotated_or_not(
    target: str, rotated: bool, pack: Callable, run: Callable, rows: type
) -> None:
    x = activations(300, 128)
    found = sums_of(x, target, 0, pack, run, rows, rotated=rotated)
    exact = rotate(x).astype(np.float64) / 8 if rotated else x.astype(np.float64)
    exact = np.tril(exact.T @ exact)
    assert np.abs(found - exact).max() < 1e-6 * exact.max()


@per_target
def test_a_factor_reproduces_the_sums_with_a_hundredth_of_their_mean_diagonal(target: str) -> None:
    x = activations(300, 192).astype(np.float64)
    sums = x.T @ x
    factor = np.tril(sums).astype(np.float32)
    assert _native.factorize(factor, target=target)
    lower = np.tril(factor, -1).astype(np.float64) + np.eye(192)
    damped = sums + np.eye(192) * np.trace(sums) / 192 * 0.01
    again = lower @ np.diag(factor.diagonal()) @ lower.T
    assert np.abs(again - damped).max() < 3e-6 * sums.max()


@per_target
def test_sums_that_rounding_made_indefinite_have_a_factor(target: str) -> None:
    sums = np.eye(1024, dtype=np.float32)
    sums[:2, :2] = [[1e6, 0], [1e6 * (1 + 3e-5), 1e6]]  # two columns that are nearly the same
    assert _native.factorize(sums, target=target)
    assert sums.diagonal().min() > 0


def test_sums_factors_and_codes_have_the_same_bits_on_all_targets_and_any_number_of_threads(
    chosen: Chosen, pack: Callable, run: Callable, rows: type
) -> None:
    x, weights = activations(300, 192), matrix(300, 192)
    seen = set()
    for target in TARGETS:
        for threads in (1, 2):
            factor = sums_of(x, target, threads, pack, run, rows)
            assert _native.factorize(factor, threads, target)
            parts = [np.tril(factor).tobytes()]
            for name in FORMATS:
                for used in (None, factor):
                    tensor = chosen(name, weights, used, threads, target)
                    parts.append(tensor.data.tobytes())
            seen.add(tuple(parts))
    assert len(seen) == 1


@per_format
def test_a_factor_lets_the_products_of_typical_activations_come_closer(
    number_format: str, chosen: Chosen
) -> None:
    x, weights = activations(1000, 256), matrix(64, 256)
    y = rotate(x).astype(np.float64) / 8
    factor = np.tril(y.T @ y).astype(np.float32)
    assert _native.factorize(factor)

    def error(tensor: PackedTensor) -> float:
        stored = _native.unpack(number_format, tensor.data, *tensor.shape)
        return float(np.square(x.astype(np.float64) @ (stored - weights).T).mean())

    assert error(chosen(number_format, weights, factor)) < 0.5 * error(
        chosen(number_format, weights)
    )


def test_four_bits_lose_little_of_weights_of_any_distribution(chosen: Chosen) -> None:
    weights = matrix(64, 256)
    stored = chosen("r4", weights)
    difference = _native.unpack("r4", stored.data, *stored.shape) - weights
    assert np.linalg.norm(difference) < 0.07 * np.linalg.norm(weights)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_sums_without_a_factor_are_recognized(value: float) -> None:
    assert not _native.factorize(np.full((64, 64), value, np.float32))


@per_format
def test_columns_that_are_no_multiple_of_64_are_refused(number_format: str) -> None:
    with pytest.raises(ValueError, match=rf"96 columns cannot be stored as {number_format}"):
        _native.packed_bytes(number_format, 16, 96)


def test_wrong_arguments_are_refused(chosen: Chosen, aligned: Callable) -> None:
    with pytest.raises(ValueError, match=r"factor has the shape \(64, 64\), expected \(128, 128\)"):
        chosen("r4", matrix(16, 128), np.zeros((64, 64), np.float32))
    with pytest.raises(ValueError, match="codes of f32 are not chosen"):
        chosen("f32", matrix(16, 64))
    with pytest.raises(ValueError, match="codes of r4 are chosen"):
        _native.pack("r4", matrix(16, 64), aligned(_native.packed_bytes("r4", 16, 64)))
    with pytest.raises(ValueError, match="no whole number of blocks of 64"):
        _native.factorize(np.zeros((96, 96), np.float32))
    with pytest.raises(ValueError, match="expected"):
        _native.factorize(np.zeros((64, 128), np.float32))
    assert round_to(np.zeros((1, 64), np.float32), "rotated").shape == (1, 64)
