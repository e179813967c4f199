"""Tests the reference operations against other formulas, and the paged cache."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from talu.exceptions import ModelError, StateError, ValidationError
from talu.graph.numpy_executor import (
    NumpyExecutor,
    attention,
    gated,
    linear,
    rms_norm,
    rope,
    round_to,
    soft_cap,
)

RNG = np.random.default_rng(1)
TOKENS = RNG.integers(0, 29, 13).tolist()
BLOCK = 4


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture
def execute(record: Any, make_tensors: Any) -> Callable[..., NumpyExecutor]:
    def opened(window: int = 0, **options: Any) -> NumpyExecutor:
        graph = record(window)
        options = {"blocks": 12, "block_size": BLOCK, "kv_dtype": "f32"} | options
        return NumpyExecutor(graph, make_tensors(graph), **options)

    return opened


def test_rms_norm_scales_every_group_to_the_root_mean_square_of_the_weight() -> None:
    y = rms_norm(normal(3, 12), np.full(4, 2.0, np.float32), 0.0, 4)
    np.testing.assert_allclose(np.sqrt(np.mean(y.reshape(3, 3, 4) ** 2, -1)), 2.0, rtol=1e-6)


def test_rms_norm_adds_eps_under_the_root() -> None:
    y = rms_norm(np.full((1, 2), 3.0, np.float32), np.ones(2, np.float32), 16.0, 2)
    np.testing.assert_allclose(y, [[0.6, 0.6]], rtol=1e-6)


def test_rms_norm_adds_the_offset_to_the_weight() -> None:
    weight = np.array([0.25, -0.5], np.float32)
    y = rms_norm(np.full((1, 2), 3.0, np.float32), weight, 0.0, 2, offset=1.0)
    np.testing.assert_allclose(y, [[1.25, 0.5]], rtol=1e-6)


def test_soft_cap_limits_large_numbers_and_keeps_small_ones() -> None:
    x = np.array([[1e-3, 2.0, -2.0, 900.0]], np.float32)
    expected = [[1e-3, 2 * 0.761594156, -2 * 0.761594156, 2.0]]
    np.testing.assert_allclose(soft_cap(x, 2.0), expected, rtol=1e-6)


def test_linear_is_a_dot_product_with_each_weight_row_plus_bias() -> None:
    x, weight, bias = normal(2, 5), normal(3, 5), normal(3)
    y = [
        [sum(a * b for a, b in zip(r, w, strict=True)) for w in weight.tolist()] for r in x.tolist()
    ]
    np.testing.assert_allclose(linear(x, weight, bias), y + bias, rtol=1e-5)
    np.testing.assert_allclose(linear(x, weight), y, rtol=1e-5, atol=1e-6)


def test_rope_rotates_pairs_as_complex_numbers_and_leaves_the_other_columns() -> None:
    x, positions = normal(3, 12), np.array([0, 5, 1000], np.int32)
    frequencies = np.array([1.0, 0.01], np.float32)
    y = rope(x, positions, 6, frequencies).reshape(3, 2, 6)
    heads = x.reshape(3, 2, 6)
    turn = np.exp(1j * (positions[:, None, None].astype(np.float32) * frequencies))
    expected = (heads[..., :2] + 1j * heads[..., 2:4]) * turn
    np.testing.assert_allclose(y[..., :2] + 1j * y[..., 2:4], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(y[..., 4:], heads[..., 4:])


def test_attention_averages_the_values_up_to_its_own_position_when_all_scores_are_equal() -> None:
    v, positions = normal(5, 1, 4), np.arange(5, dtype=np.int32)
    q, k = np.zeros((5, 1, 4), np.float32), normal(5, 1, 4)
    y = attention(q, k, v, positions, positions, scale=1.0, window=0)
    np.testing.assert_allclose(y[:, 0], [v[: i + 1, 0].mean(0) for i in range(5)], rtol=1e-5)


def test_attention_with_a_window_attends_to_exactly_that_many_keys() -> None:
    v, positions = normal(5, 1, 4), np.arange(5, dtype=np.int32)
    q, k = np.zeros((5, 1, 4), np.float32), normal(5, 1, 4)
    y = attention(q, k, v, positions, positions, scale=1.0, window=2)
    expected = [v[max(0, i - 1) : i + 1, 0].mean(0) for i in range(5)]
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)


def test_attention_shares_a_key_head_among_neighbouring_query_heads() -> None:
    one = np.zeros(1, np.int32)
    v = np.arange(2, dtype=np.float32).reshape(1, 2, 1)
    y = attention(normal(1, 6, 1), normal(1, 2, 1), v, one, one, scale=1.0, window=0)
    assert y.ravel().tolist() == [0, 0, 0, 1, 1, 1]


def test_attention_weighs_by_the_exponential_of_the_scaled_score() -> None:
    q = np.full((1, 1, 1), 2.0, np.float32)
    k = np.array([3.0, 1.0], np.float32).reshape(2, 1, 1)
    v = np.array([1.0, 0.0], np.float32).reshape(2, 1, 1)
    at = np.arange(2, dtype=np.int32)
    y = attention(q, k, v, at[1:], at, scale=0.5, window=0)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-2.0)), rtol=1e-6)


def test_attention_limits_the_scaled_scores() -> None:
    q = np.full((1, 1, 1), 2.0, np.float32)
    k = np.array([3.0, 1.0], np.float32).reshape(2, 1, 1)
    v = np.array([1.0, 0.0], np.float32).reshape(2, 1, 1)
    at = np.arange(2, dtype=np.int32)
    y = attention(q, k, v, at[1:], at, scale=0.5, window=0, soft_cap=4.0)
    difference = 4 * (np.tanh(3 / 4) - np.tanh(1 / 4))
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-difference)), rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "at_one"),
    [
        ("silu", 0.7310585786),
        ("gelu_tanh", 0.8411919906),
        ("quick_gelu", 0.8457957659),
        ("relu", 1),
    ],
)
def test_gated_multiplies_the_activation_by_up(activation: str, at_one: float) -> None:
    gate = np.array([[1.0, 0.0, -800.0, 800.0]], np.float32)
    y = gated(gate, np.full((1, 4), 3.0, np.float32), activation)
    np.testing.assert_allclose(y, [[3 * at_one, 0.0, 0.0, 2400.0]], rtol=1e-6, atol=1e-12)


def test_bf16_rounds_to_the_nearest_and_ties_to_even() -> None:
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9], np.float32)
    assert round_to(x, "bf16").tolist() == [1.0, 1 + 2**-6, 1 + 2**-7, -1.0]


def test_an_unknown_number_format_is_named() -> None:
    with pytest.raises(ValidationError, match="'f8'"):
        round_to(normal(1), "f8")


@pytest.mark.parametrize("window", [0, 1, 5])
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_prompt_in_chunks_gives_the_same_result_as_in_one_step(
    execute: Any, step: Any, window: int, cut: int
) -> None:
    blocks = [3, 0, 7, 5]
    whole = step(execute(window), [(TOKENS, 0, blocks)])
    executor = execute(window)
    parts = [step(executor, [(TOKENS[a : a + cut], a, blocks)]) for a in range(0, len(TOKENS), cut)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-5)


def test_sequences_in_one_step_do_not_affect_each_other(execute: Any, step: Any) -> None:
    alone = step(execute(5), [(TOKENS, 0, [0, 1, 2, 3])])
    executor = execute(5)
    step(executor, [(TOKENS[:7], 0, [9, 2]), (TOKENS[::-1], 0, [1, 4, 6, 8])])
    mixed = [([7, 8], 0, [3]), (TOKENS[7:], 7, [9, 2, 11, 5]), ([1], 13, [1, 4, 6, 8])]
    y = step(executor, mixed)
    np.testing.assert_allclose(y[2:-1], alone[7:], rtol=1e-5, atol=1e-5)


def test_the_order_of_the_blocks_does_not_matter(execute: Any, step: Any) -> None:
    y = [step(execute(), [(TOKENS, 0, b)]) for b in ([0, 1, 2, 3], [11, 4, 8, 2])]
    np.testing.assert_array_equal(*y)


def test_a_shared_prefix_is_read_from_the_blocks_of_another_sequence(
    execute: Any, step: Any
) -> None:
    whole = step(execute(), [(TOKENS, 0, [0, 1, 2, 3])])
    executor = execute()
    step(executor, [(TOKENS[:8], 0, [5, 6])])
    y = step(executor, [(TOKENS[8:], 8, [5, 6, 7, 8]), ([3], 8, [5, 6, 9])])
    np.testing.assert_allclose(y[:-1], whole[8:], rtol=1e-5, atol=1e-5)


def test_a_window_changes_only_the_rows_beyond_it(execute: Any, step: Any) -> None:
    full, windowed = (step(execute(w), [(TOKENS, 0, [0, 1, 2, 3])]) for w in (0, 6))
    np.testing.assert_array_equal(windowed[:6], full[:6])
    assert (np.abs(windowed[6:] - full[6:]).max(axis=1) > 1e-3).all()


def test_only_the_requested_rows_are_returned(execute: Any, step: Any) -> None:
    chunks = [(TOKENS[:5], 0, [0, 1]), (TOKENS[5:], 0, [2, 3])]
    whole = step(execute(), chunks)
    np.testing.assert_allclose(step(execute(), chunks, [4, 12]), whole[[4, 12]], rtol=1e-6)
    assert step(execute(), chunks, []).shape == (0, 29)


def test_reading_an_unwritten_position_gives_nan(execute: Any, step: Any) -> None:
    assert np.isnan(step(execute(), [([1], 2, [0])])).all()


@pytest.mark.parametrize("blocks", [[0], [0, -1]])
def test_a_position_without_a_block_is_an_error(execute: Any, step: Any, blocks: Any) -> None:
    with pytest.raises(ValidationError, match="sequence 0"):
        step(execute(), [(TOKENS[:5], 0, blocks)])


@pytest.mark.parametrize(("kv_dtype", "error"), [("f16", 2e-3), ("bf16", 2e-2)])
def test_the_cache_rounds_to_its_format(
    execute: Any, step: Any, kv_dtype: str, error: float
) -> None:
    chunks = [(TOKENS, 0, [0, 1, 2, 3])]
    exact = step(execute(), chunks)
    difference = np.abs(step(execute(kv_dtype=kv_dtype), chunks) - exact).max()
    assert error / 30 < difference < error * np.abs(exact).max()


@pytest.mark.parametrize("number_format", ["i16", "i15"])
@pytest.mark.parametrize("columns", [1, 128, 300])
def test_blocks_become_integers_of_one_scale_whose_products_fit_in_32_bits(
    number_format: str, columns: int
) -> None:
    x = normal(20, columns) * np.logspace(-3, 3, 20, dtype=np.float32)[:, None]
    rounded = round_to(x, number_format)
    for first in range(0, columns, 128):
        block, exact = rounded[:, first : first + 128], x[:, first : first + 128]
        largest = np.abs(exact).max(axis=1, keepdims=True)
        scale = largest / 16383
        if number_format == "i16":
            in_all = np.abs(exact).sum(axis=1, keepdims=True) / (2**17 - 64)
            scale = np.maximum(largest / 32767, in_all)
        integers = block / scale
        np.testing.assert_allclose(integers, np.rint(integers), rtol=0, atol=1e-2)
        assert np.abs(integers).max() < (16383.02 if number_format == "i15" else 32767.01)
        assert number_format == "i15" or np.abs(integers).sum(axis=1).max() <= 2**17
        assert (np.abs(block - exact) <= scale * 0.51).all()


def test_activations_in_8_bits_have_a_scale_for_32_columns() -> None:
    x = normal(20, 96) * np.logspace(-3, 3, 20, dtype=np.float32)[:, None]
    parts, rounded = x.reshape(20, 3, 32), round_to(x, "i8").reshape(20, 3, 32)
    scales = np.abs(parts).max(axis=2, keepdims=True) / 127
    np.testing.assert_allclose(rounded / scales, np.rint(parts / scales), rtol=0, atol=1e-4)


def test_a_format_that_is_not_known_is_named() -> None:
    with pytest.raises(ValidationError, match=r"'i9' is none of .*'i16', 'i15', 'i8'"):
        round_to(normal(1, 1), "i9")


def test_a_missing_or_misshapen_tensor_is_named(record: Any, make_tensors: Any) -> None:
    tensors = make_tensors(record())
    short = tensors | {"head": tensors["head"][:, 1:]}
    with pytest.raises(ModelError, match=r"'head'.*\(29, 24\).*\(29, 23\)"):
        NumpyExecutor(record(), short, blocks=1, block_size=1)
    del tensors["0.q"]
    with pytest.raises(ModelError, match=r"'0\.q'.*None"):
        NumpyExecutor(record(), tensors, blocks=1, block_size=1)


def test_a_step_of_a_closed_executor_is_an_error(execute: Any, step: Any) -> None:
    executor = execute()
    executor.close()
    executor.close()
    with pytest.raises(StateError, match="closed"):
        step(executor, [([1], 0, [0])])
