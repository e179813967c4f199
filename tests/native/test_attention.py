"""Attention over several chunks of 256 positions, and the formats of keys and values."""

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from talu import _native
from talu.graph.numpy_executor import cached, round_to
from talu.graph.record import Graph
from talu.types import KVDtype

TARGETS = _native.targets()
ROWS, BLOCKS = 560, 36  # of a prompt in three chunks, and one block more
TABLE = [*range(35, 0, -1), 0]

per_target = pytest.mark.parametrize("target", TARGETS)
per_dtype = pytest.mark.parametrize("kv_dtype", _native.kv_dtypes())


def attention(
    make: Callable,
    *,
    heads: int = 6,
    kv_heads: int = 2,
    size: int = 20,
    window: int = 0,
    soft_cap: float = 0.0,
    causal: bool = True,
    spoil: tuple[str, int, float] | None = None,  # a number in a column of a row of a table
    **options: object,
) -> object:
    """One operation whose queries, keys and values are rows of random tables."""
    g = Graph()
    q, k, v = (
        g.embed(f"table_{name}", ROWS, n * size)
        for name, n in [("q", heads), ("k", kv_heads), ("v", kv_heads)]
    )
    a = g.attention(q, k, v, size, scale=0.7, window=window, soft_cap=soft_cap, causal=causal)
    g.output(g.output_rows(a))
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in g.weights.items()}
    if spoil is not None:
        weights[f"table_{spoil[0]}"][spoil[1], 1] = spoil[2]
    return make(g, weights, blocks=BLOCKS, **options)


@per_target
@pytest.mark.parametrize(
    "options",
    [
        *({"heads": 2, "kv_dtype": kv_dtype} for kv_dtype in _native.kv_dtypes()),
        {"heads": 2, "window": 300, "kv_dtype": "q8"},
        {"heads": 2, "soft_cap": 2.0, "size": 12},
        {"heads": 2, "causal": False, "size": 32},
        {"heads": 13, "kv_heads": 1, "size": 8},
        {"heads": 1, "kv_heads": 1, "size": 96, "kv_dtype": "q8"},
    ],
    ids=str,
)
def test_attention_over_several_chunks_equals_its_definition(
    target: str, options: dict, pair: Callable, rows: type
) -> None:
    both = attention(pair, **options, target=target)
    wanted = [*range(0, 512, 37), 254, 255, 256, 257, 511]
    both.compare(rows(range(512), blocks=TABLE, wanted=sorted(set(wanted))), tolerance=4e-6)
    if options.get("causal", True):
        both.compare(rows(range(512, 530), start=512, blocks=TABLE), tolerance=4e-6)
        both.compare(rows([530], start=530, blocks=TABLE), tolerance=4e-6)


@per_target
@pytest.mark.parametrize(
    "options",
    [
        *({"heads": 4, "kv_dtype": kv_dtype} for kv_dtype in _native.kv_dtypes()),
        {"window": 270},
        {"heads": 3, "kv_heads": 1, "size": 64, "kv_dtype": "q8"},
        {"heads": 30, "kv_heads": 1, "size": 4},
    ],
    ids=str,
)
def test_a_row_has_the_same_bits_however_prompt_and_chunks_are_divided(
    target: str, options: dict, pair: Callable, rows: type, run: Callable
) -> None:
    def executor(threads: int) -> object:
        return attention(pair, **options, target=target, num_threads=threads).native

    alone, several = executor(1), executor(0)
    whole = run(alone, rows(range(ROWS), blocks=TABLE))
    assert np.isfinite(whole).all()
    borders = [0, 1, 255, 257, 300, 301, 340, 512, 513, 559, ROWS]
    parts = [run(several, rows(range(a, b), start=a, blocks=TABLE)) for a, b in pairwise(borders)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    again = [
        run(executor, rows(range(a, ROWS), start=a, blocks=TABLE))[-1]
        for executor in (alone, several)
        for a in (ROWS - 1, ROWS - 8, ROWS - 50)
    ]
    assert {last.tobytes() for last in again} == {whole[-1].tobytes()}


@per_target
def test_all_targets_have_the_same_bits(
    target: str, pair: Callable, rows: type, run: Callable
) -> None:
    found = [
        run(attention(pair, kv_dtype=kv_dtype, target=each).native, rows(range(400), blocks=TABLE))
        for each in (target, "generic")
        for kv_dtype in _native.kv_dtypes()
    ]
    half = len(found) // 2
    for ours, generic in zip(found[:half], found[half:], strict=True):
        assert ours.tobytes() == generic.tobytes()


@per_target
@per_dtype
@pytest.mark.parametrize(("name", "number"), [("k", -np.inf), ("k", np.nan), ("v", np.inf)])
def test_a_number_that_is_not_finite_affects_the_rows_that_attend_to_it_and_no_others(
    target: str,
    kv_dtype: str,
    name: str,
    number: float,
    pair: Callable,
    rows: type,
    run: Callable,
) -> None:
    options = {"heads": 2, "kv_heads": 2, "window": 290, "kv_dtype": kv_dtype, "target": target}
    sound = attention(pair, **options).native
    spoiled = attention(pair, **options, spoil=(name, 40, number)).native
    prompt = rows(range(ROWS), blocks=TABLE)
    expected, found = run(sound, prompt), run(spoiled, prompt)
    attending = np.zeros(ROWS, bool)
    attending[40 : 40 + 290] = True
    assert found[~attending].tobytes() == expected[~attending].tobytes()
    # Column 1 is of the first head; the second has other keys and values.
    assert found[:, 20:].tobytes() == expected[:, 20:].tobytes()
    if name == "v" or kv_dtype in ("f16", "q8") or np.isnan(number):
        assert not np.isfinite(found[attending, :20]).all(axis=1).any()


def test_the_cache_in_8_bits_is_close_to_that_in_16(
    pair: Callable, rows: type, run: Callable
) -> None:
    prompt = rows(range(ROWS), blocks=TABLE)
    exact, rounded, halves = (
        run(attention(pair, size=64, kv_dtype=dtype).native, prompt)
        for dtype in ("f32", "q8", "f16")
    )
    error = np.abs(rounded - exact).mean() / np.abs(exact).mean()
    assert np.abs(halves - exact).mean() / np.abs(exact).mean() < error < 0.02


def test_rotating_keys_makes_the_error_of_an_outlying_column_smaller() -> None:
    rng = np.random.default_rng(0)
    k = rng.standard_normal((50, 2, 64)).astype(np.float32)
    k[..., 5] = 40
    keys, _ = cached(k, k, "q8")
    scale = np.float32(np.abs(k).max() / 127)
    plain = np.rint(k / scale) * scale
    assert np.abs(keys - k).mean() < np.abs(plain - k).mean() / 2


def test_numbers_too_small_for_a_scale_are_zero_in_8_bits(
    pair: Callable, rows: type, run: Callable
) -> None:
    g = Graph()
    q, k, v = (g.embed(f"table_{name}", 4, 20) for name in "qkv")
    g.output(g.output_rows(g.attention(q, k, v, 20, scale=0.7)))
    weights = {name: np.full(shape, 1e-38, np.float32) for name, shape in g.weights.items()}
    both = pair(g, weights, kv_dtype="q8")
    assert not both.compare(rows(range(4))).any()


@pytest.mark.parametrize(("kv_dtype", "number_bytes"), [("f32", 4), ("f16", 2), ("bf16", 2)])
def test_a_block_of_floats_takes_its_numbers(kv_dtype: str, number_bytes: int) -> None:
    layers = [(2, 64), (1, 32)]
    assert _native.kv_block_bytes(layers, 16, kv_dtype) == 16 * 2 * (128 + 32) * number_bytes


def test_a_block_in_8_bits_has_two_scales_for_each_position_of_a_head() -> None:
    assert _native.kv_block_bytes([(2, 64)], 16, "q8") == 16 * 2 * 2 * (64 + 4)
    assert _native.kv_block_bytes([(2, 64)], 16, "q8") < 0.54 * _native.kv_block_bytes(
        [(2, 64)], 16, "f16"
    )


def test_the_option_knows_all_formats_of_the_cache() -> None:
    assert {*get_args(KVDtype)} == {"auto", *_native.kv_dtypes()}


def test_an_unknown_format_of_the_cache_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="kv_dtype 'q5' is unknown; known: f16, bf16, f32, q8"):
        _native.kv_block_bytes([(1, 64)], 16, "q5")


@per_dtype
def test_keys_of_the_definition_are_those_that_the_format_can_hold(kv_dtype: str) -> None:
    rng = np.random.default_rng(1)
    k, v = rng.standard_normal((2, 5, 3, 48)).astype(np.float32)
    keys, values = cached(k, v, kv_dtype)
    if kv_dtype == "q8":
        assert len(np.unique(values[0, 0])) <= 255
        np.testing.assert_allclose(keys, k, atol=np.abs(k).max() / 80)
    else:
        np.testing.assert_array_equal(keys, round_to(k, kv_dtype))
        np.testing.assert_array_equal(values, round_to(v, kv_dtype))
