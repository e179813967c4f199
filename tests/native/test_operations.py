"""Every operation gives the same result as its NumPy definition, on every target of this machine.

The tables are inputs: row t of the input is row t of the table, for the token t. Tolerances are a
few roundings of float32 of the largest result, so that one wrong element shows.
"""

from collections.abc import Callable

import numpy as np
import pytest

from talu import _native
from talu.graph.record import Graph, Value

TARGETS = _native.targets()
FORMATS = _native.formats()
KV_DTYPES = _native.kv_dtypes()
WIDTHS = [1, 7, 16, 33, 64]

per_target = pytest.mark.parametrize("target", TARGETS)


def table(graph: Graph, width: int, *, name: str = "table", rows: int = 80) -> Value:
    return graph.embed(name, rows, width)


def random(graph: Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in graph.weights.items()
    }


def finish(graph: Graph, x: Value) -> Graph:
    graph.output(graph.output_rows(x))
    return graph


@per_target
@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_embed_equals_its_definition(
    target: str,
    number_format: str,
    width: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    finish(g, g.embed("embedding", 37, width))
    both = pair(g, random(g, rng), number_format=number_format, target=target)
    both.compare(rows([0, 36, 5, 5, 16, 15]), tolerance=0)


@per_target
@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("columns", [1, 2, 31, 64, 700])
@pytest.mark.parametrize("width", [1, 16, 50, 161])
def test_linear_equals_its_definition(
    target: str,
    number_format: str,
    width: int,
    columns: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    finish(g, g.linear(table(g, columns), "weight", width, bias="bias"))
    both = pair(g, random(g, rng), number_format=number_format, target=target)
    for count in (1, 2, 3, 5, 6, 7, 13, 29):
        both.compare(rows(range(count)), tolerance=3e-6)


@per_target
@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("columns", [31, 700])
def test_a_row_has_the_same_bits_whatever_the_number_of_rows(
    target: str, number_format: str, columns: int, pair: Callable, rows: type, run: Callable,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    g = Graph()
    finish(g, g.linear(table(g, columns, rows=200), "weight", 70))
    both = pair(g, random(g, rng), number_format=number_format, target=target, blocks=13)
    blocks = range(13)
    first = run(both.native, rows(range(200), blocks=blocks))
    for count in (1, 2, 3, 5, 9, 16, 17, 31, 32, 33, 47, 48, 49, 96, 97, 199):
        found = run(both.native, rows(range(1, 1 + count), blocks=blocks))
        np.testing.assert_array_equal(found, first[1 : 1 + count])


@per_target
def test_linear_over_more_tokens_than_fit_into_the_cache_equals_its_definition(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.linear(table(g, 9, rows=400), "weight", 19))
    both = pair(g, random(g, rng), target=target, blocks=25)
    both.compare(rows(range(400), blocks=range(25)), tolerance=3e-6)


@per_target
def test_linears_of_one_input_keep_their_own_outputs(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    x = table(g, 20)
    a, b, c = (g.linear(x, name, 21) for name in "abc")
    finish(g, g.add(g.gated(a, b), c))
    pair(g, random(g, rng), target=target).compare(rows(range(9)))


@per_target
def test_an_add_that_cannot_be_part_of_a_linear_is_still_computed(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    x = table(g, 20)
    y = g.linear(x, "a", 20)
    z = g.rms_norm(y, "norm", 1e-5)
    s = g.add(y, z)  # y is read twice, and z comes after it
    finish(g, g.add(g.linear(s, "b", 20), s))
    pair(g, random(g, rng), target=target).compare(rows(range(9)))


@per_target
@pytest.mark.parametrize(("width", "size"), [(1, 1), (33, 33), (36, 12), (64, 16), (128, 32)])
def test_rms_norm_equals_its_definition(
    target: str, width: int, size: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.rms_norm(table(g, width), "norm", 1e-3, size=size))
    pair(g, random(g, rng), target=target).compare(rows(range(11)), tolerance=1e-6)


@per_target
@pytest.mark.parametrize(
    ("heads", "size", "turned"), [(1, 2, 1), (3, 14, 7), (2, 64, 32), (2, 80, 20), (1, 6, 0)]
)
def test_rope_equals_its_definition(
    target: str,
    heads: int,
    size: int,
    turned: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    frequencies = (100.0 ** -(np.arange(turned) / max(turned, 1))).astype(np.float32)
    finish(g, g.rope(table(g, heads * size), size, frequencies))
    both = pair(g, random(g, rng), target=target)
    both.compare(rows(range(11), start=30), rows(range(3), blocks=[9]), tolerance=1e-6)


@per_target
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "quick_gelu", "relu"])
@pytest.mark.parametrize("width", WIDTHS)
def test_gated_equals_its_definition(
    target: str,
    activation: str,
    width: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    finish(g, g.gated(table(g, width), table(g, width, name="table2"), activation))
    weights = random(g, rng)
    weights["table"] *= 10
    weights["table"][:6, 0] = [0, -0.0, 200, -200, -87.5, 1e-30]
    weights["table2"][:, 0] = 1
    pair(g, weights, target=target).compare(rows(range(40)), tolerance=5e-7)


@per_target
@pytest.mark.parametrize("width", WIDTHS)
def test_add_equals_its_definition(
    target: str, width: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.add(table(g, width), table(g, width, name="table2")))
    pair(g, random(g, rng), target=target).compare(rows(range(9)), tolerance=0)


@per_target
def test_only_the_requested_rows_are_returned(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, table(g, 5))
    both = pair(g, random(g, rng), target=target)
    found = both.compare(
        rows(range(7), wanted=[0, 6]), rows([8, 9], blocks=[9], wanted=[1]), tolerance=0
    )
    assert len(found) == 3


def attention_pair(
    pair: Callable,
    rng: np.random.Generator,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    size: int = 12,
    window: int = 0,
    soft_cap: float = 0.0,
    spoil: tuple[str, int, float] | None = None,  # a number in all columns of a row of a table
    **options: object,
) -> object:
    g = Graph()
    q, k, v = (
        table(g, n * size, name=f"table_{name}")
        for name, n in [("q", heads), ("k", kv_heads), ("v", kv_heads)]
    )
    finish(g, g.attention(q, k, v, size, scale=0.7, window=window, soft_cap=soft_cap))
    weights = random(g, rng)
    if spoil is not None:
        weights[spoil[0]][spoil[1]] = spoil[2]
    return pair(g, weights, **options)


@per_target
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("size", [1, 12, 16, 40])
def test_attention_over_prompt_and_decoded_tokens_equals_its_definition(
    target: str, kv_dtype: str, size: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, size=size, target=target, kv_dtype=kv_dtype)
    blocks = [7, 2, 11, 0]
    both.compare(rows(range(37), blocks=blocks), tolerance=3e-6)
    for i in range(37, 50):
        both.compare(rows([i], start=i, blocks=blocks), tolerance=3e-6)


@per_target
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (6, 6), (6, 3), (6, 2), (7, 1), (28, 2)])
def test_attention_of_grouped_heads_equals_its_definition(
    target: str, heads: int, kv_heads: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, heads=heads, kv_heads=kv_heads, target=target)
    both.compare(rows(range(33)), tolerance=3e-6)


@per_target
@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 33])
def test_attention_in_a_sliding_window_equals_its_definition(
    target: str, window: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, window=window, target=target)
    both.compare(rows(range(40)), tolerance=3e-6)
    both.compare(rows(range(40, 43), start=40), tolerance=3e-6)
    both.compare(rows([43], start=43), tolerance=3e-6)


@per_target
def test_blocks_outside_the_window_may_be_reused(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, window=17, target=target)
    both.compare(rows(range(40)), tolerance=3e-6)
    both.compare(rows([40], start=40, blocks=[-1, 1, 2, 3]), tolerance=3e-6)


@per_target
def test_attention_of_mixed_sequences_in_one_step_equals_its_definition(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, target=target)
    both.compare(rows(range(20), blocks=[5, 6]), rows(range(30, 35), blocks=[1]), tolerance=3e-6)
    both.compare(
        rows([50], start=20, blocks=[5, 6]),
        rows(range(60, 79), start=5, blocks=[1, 8]),
        rows([3], blocks=[9]),
        tolerance=3e-6,
    )


@per_target
def test_a_shared_prefix_is_read_from_the_same_blocks(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    both = attention_pair(pair, rng, target=target)
    both.compare(rows(range(16), blocks=[3]), tolerance=3e-6)
    both.compare(
        rows(range(20, 25), start=16, blocks=[3, 4]),
        rows(range(30, 33), start=16, blocks=[3, 5]),
        tolerance=3e-6,
    )


@per_target
def test_large_scores_do_not_overflow(
    target: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    q, k, v = (table(g, 8, name=f"table_{name}") for name in "qkv")
    finish(g, g.attention(q, k, v, 8, scale=1.0))
    weights = random(g, rng)
    weights["table_q"] *= 1000
    pair(g, weights, target=target).compare(rows(range(20)), tolerance=3e-4)


@per_target
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(
    ("name", "number", "too_large"),
    [
        ("k", -65_519.0, False),
        ("k", -65_520.0, True),  # its score is below all others, for every query
        ("k", 1e6, True),
        ("v", -65_519.0, False),
        ("v", 65_520.0, True),
    ],
)
def test_a_value_that_overflows_the_f16_cache_affects_every_row_that_attends_to_it(
    target: str,
    kv_dtype: str,
    name: str,
    number: float,
    too_large: bool,
    pair: Callable,
    rows: type,
    run: Callable,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    q, k, v = (table(g, n * 20, name=f"table_{x}") for x, n in [("q", 4), ("k", 2), ("v", 2)])
    finish(g, g.attention(q, k, v, 20, scale=0.7))
    weights = random(g, rng)
    weights["table_q"] = np.abs(weights["table_q"]) + np.float32(0.1)
    weights[f"table_{name}"][5, 37] = number
    both = pair(g, weights, kv_dtype=kv_dtype, target=target)
    for executor in (both.native, both.oracle):
        with np.errstate(invalid="ignore"):
            other = run(executor, rows(range(20)), rows(range(20, 30), blocks=[8]))[20:]
            later = run(executor, rows([40], start=20))
        spoiled = kv_dtype == "f16" and too_large
        assert np.isnan(later).any() == spoiled
        assert np.isfinite(later).all() == (not spoiled)
        assert np.isfinite(other).all()


@per_target
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_a_value_that_is_not_finite_does_not_affect_rows_that_do_not_attend_to_it(
    target: str,
    kv_dtype: str,
    number: float,
    pair: Callable,
    rows: type,
    run: Callable,
    rng: np.random.Generator,
) -> None:
    both = attention_pair(pair, rng, window=5, kv_dtype=kv_dtype, target=target)
    sound = both.compare(rows(range(40)), tolerance=1e-5)
    spoiled = attention_pair(
        pair, np.random.default_rng(0), window=5, kv_dtype=kv_dtype, target=target,
        spoil=("table_v", 20, number),
    )  # fmt: skip
    for executor in (spoiled.native, spoiled.oracle):
        found = run(executor, rows(range(40)))
        assert not np.isfinite(found[20:25]).all(axis=1).any()
        others = [*range(20), *range(25, 40)]
        np.testing.assert_allclose(found[others], sound[others], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(25))
def test_values_are_kept_as_long_as_they_are_read_in_any_network(
    seed: int, pair: Callable, rows: type
) -> None:
    rng = np.random.default_rng(seed)
    g = Graph()
    values = [table(g, 20)]
    for i in range(14):
        a, b = (values[int(n)] for n in rng.integers(max(0, len(values) - 5), len(values), 2))
        kind = rng.integers(4)
        if kind == 0:
            values.append(g.rms_norm(a, f"norm{i}", 1e-5))
        elif kind == 1:
            values.append(g.gated(a, b))
        elif kind == 2:
            values.append(g.add(a, b))
        else:
            values.append(g.linear(a, f"weight{i}", 20))
    total = values[-1]
    for value in values[-5:-1]:
        total = g.add(g.rms_norm(value, "norm", 1e-5), total)
    pair(finish(g, total), random(g, rng)).compare(rows(range(7)), tolerance=2e-5)


@per_target
@pytest.mark.parametrize("number_format", FORMATS)
def test_embedding_positions_or_one_row_equals_its_definition(
    target: str, number_format: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    places = g.embed_position("places", 37, 19, offset=2)
    finish(g, g.add(places, g.embed_row("kinds", 3, 19, offset=1)))
    both = pair(g, random(g, rng), number_format=number_format, target=target)
    both.compare(
        rows([0] * 35, blocks=range(3)), rows([0, 0], start=16, blocks=[3, 4]), tolerance=0
    )


@per_target
@pytest.mark.parametrize("width", [*WIDTHS, 384])
def test_layer_norm_equals_its_definition(
    target: str, width: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.layer_norm(table(g, width), "norm", "shift", 1e-3))
    weights = random(g, rng)
    weights["table"][:5] += 100  # the mean is large beside the deviations
    pair(g, weights, target=target).compare(rows(range(11)), tolerance=2e-5 if width > 1 else 1e-5)


@per_target
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "quick_gelu", "relu"])
@pytest.mark.parametrize("width", WIDTHS)
def test_activate_equals_its_definition(
    target: str,
    activation: str,
    width: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    g = Graph()
    finish(g, g.activate(table(g, width), activation))
    weights = random(g, rng)
    weights["table"] *= 3
    weights["table"][:6, 0] = [0, -0.0, 200, -200, -13.2, 1e-30]
    pair(g, weights, target=target).compare(rows(range(40)), tolerance=5e-7)


@per_target
def test_gelu_equals_its_definition_by_the_error_function_everywhere(
    target: str, pair: Callable, rows: type, run: Callable
) -> None:
    g = Graph()
    finish(g, g.activate(table(g, 1000, rows=16), "gelu"))
    values = np.linspace(-14, 14, 16_000).astype(np.float32).reshape(16, 1000)
    both = pair(g, {"table": values}, target=target)
    found, expected = (run(each, rows(range(16))) for each in (both.native, both.oracle))
    np.testing.assert_array_less(np.abs(found - expected), 2.5e-7 * np.abs(values) + 1e-20)


@per_target
def test_gelu_of_numbers_that_are_not_finite_follows_its_definition(
    target: str, pair: Callable, rows: type, run: Callable
) -> None:
    g = Graph()
    finish(g, g.activate(table(g, 3, rows=1), "gelu"))
    values = np.array([[np.inf, -np.inf, np.nan]], np.float32)
    found = run(pair(g, {"table": values}, target=target).native, rows([0]))
    np.testing.assert_array_equal(found, [[np.inf, 0, np.nan]])


@per_target
@pytest.mark.parametrize("width", WIDTHS)
def test_scale_and_soft_cap_equal_their_definitions(
    target: str, width: int, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.soft_cap(g.scale(table(g, width), 3.3), 2.5))
    pair(g, random(g, rng), target=target).compare(rows(range(40)), tolerance=5e-7)


@per_target
def test_soft_cap_is_relatively_exact_everywhere(
    target: str, pair: Callable, rows: type, run: Callable
) -> None:
    g = Graph()
    finish(g, g.soft_cap(table(g, 1000, rows=16), 1.0))
    sizes = np.concatenate([np.linspace(0, 12, 7000), np.geomspace(1e-12, 1, 1000)])
    values = np.concatenate([sizes, -sizes]).astype(np.float32).reshape(16, 1000)
    both = pair(g, {"table": values}, target=target)
    found, expected = (run(each, rows(range(16))) for each in (both.native, both.oracle))
    np.testing.assert_allclose(found, expected, rtol=4e-7, atol=0)
    assert np.abs(found).max() <= 1


@per_target
def test_soft_cap_of_numbers_that_are_not_finite_follows_its_definition(
    target: str, pair: Callable, rows: type, run: Callable
) -> None:
    g = Graph()
    finish(g, g.soft_cap(table(g, 3, rows=1), 30.0))
    values = np.array([[np.inf, -np.inf, np.nan]], np.float32)
    found = run(pair(g, {"table": values}, target=target).native, rows([0]))
    np.testing.assert_array_equal(found, [[30, -30, np.nan]])


@per_target
@pytest.mark.parametrize("offset", [1.0, -0.5])
def test_rms_norm_adds_the_offset_to_its_weight(
    target: str, offset: float, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    finish(g, g.rms_norm(table(g, 36), "norm", 1e-3, size=12, offset=offset))
    pair(g, random(g, rng), target=target).compare(rows(range(11)), tolerance=1e-6)


def test_an_offset_gives_the_bits_of_a_weight_that_it_was_added_to_before(
    pair: Callable, rows: type, run: Callable
) -> None:
    found = []
    for offset in (1.0, 0.0):
        g = Graph()
        finish(g, g.rms_norm(table(g, 50), "norm", 1e-6, offset=offset))
        weights = random(g, np.random.default_rng(5))
        weights["norm"] += np.float32(1.0 - offset)
        found.append(run(pair(g, weights).native, rows(range(30))))
    assert found[0].tobytes() == found[1].tobytes()


@per_target
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("cap", "window"), [(0.5, 0), (2.0, 17), (50.0, 0)])
def test_attention_with_limited_scores_equals_its_definition(
    target: str,
    kv_dtype: str,
    cap: float,
    window: int,
    pair: Callable,
    rows: type,
    rng: np.random.Generator,
) -> None:
    both = attention_pair(pair, rng, soft_cap=cap, window=window, target=target, kv_dtype=kv_dtype)
    both.compare(rows(range(40)), tolerance=3e-6)
    both.compare(rows([40], start=40), tolerance=3e-6)


@per_target
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_attention_that_is_not_causal_reads_each_whole_sequence(
    target: str, kv_dtype: str, pair: Callable, rows: type, rng: np.random.Generator
) -> None:
    g = Graph()
    q, k, v = (table(g, 4 * 12, name=f"table_{name}") for name in "qkv")
    finish(g, g.attention(q, k, v, 12, scale=0.7, causal=False))
    both = pair(g, random(g, rng), target=target, kv_dtype=kv_dtype)
    for count in (1, 15, 16, 17, 60):
        both.compare(
            rows(range(count), blocks=[7, 2, 11, 0]),
            rows(range(40, 45), blocks=[3]),
            rows(range(30, 63), blocks=[1, 9, 4]),
            tolerance=3e-6,
        )
