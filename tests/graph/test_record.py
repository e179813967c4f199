"""Recorded networks list the tensors that they read; inconsistent ones are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from talu.exceptions import ModelError
from talu.graph.record import Graph, Value

FREQUENCIES = np.ones(4, np.float32)


def test_operations_are_listed_in_order_with_their_inputs() -> None:
    graph = Graph()
    x = graph.embed("table", 10, 8)
    y = graph.add(graph.rms_norm(x, "norm", 1e-6), x)
    graph.output(graph.output_rows(y))
    assert [(op.kind, op.inputs, op.width) for op in graph.ops] == [
        ("embed", (), 8),
        ("rms_norm", (0,), 8),
        ("add", (1, 0), 8),
        ("output_rows", (2,), 8),
    ]
    assert graph.result == Value(3, 8)


def test_every_tensor_is_known_by_name_and_shape() -> None:
    graph = Graph()
    x = graph.embed("table", 10, 8)
    graph.linear(graph.rms_norm(x, "norm", 1e-6, size=4), "project", 6, bias="bias")
    assert graph.weights == {"table": (10, 8), "norm": (4,), "project": (6, 8), "bias": (6,)}


def test_a_tied_head_reads_the_table_again() -> None:
    graph = Graph()
    graph.linear(graph.embed("table", 10, 8), "table", 10)
    assert graph.weights == {"table": (10, 8)}


def test_attention_layers_are_counted_with_their_cache_geometry() -> None:
    graph = Graph()
    x = graph.embed("table", 10, 8)
    for _ in range(2):
        k = graph.linear(x, "k", 4)
        x = graph.attention(x, k, k, 4, scale=0.5)
    assert graph.layers == [(1, 4), (1, 4)]
    assert [op.params["layer"] for op in graph.ops if op.kind == "attention"] == [0, 1]


def test_attention_over_whole_sequences_shares_a_layer_of_the_cache() -> None:
    graph = Graph()
    x = graph.embed("table", 10, 8)
    for kind in ("causal", "whole", "whole", "causal", "other"):
        k = graph.linear(x, kind, 8 if kind == "other" else 4)
        x = graph.attention(x, k, k, 4, scale=0.5, causal=kind == "causal")
    assert graph.layers == [(1, 4), (1, 4), (1, 4), (2, 4)]
    layers = [op.params["layer"] for op in graph.ops if op.kind == "attention"]
    assert layers == [0, 1, 1, 2, 3]


MISFITS: dict[str, tuple[Callable[[Graph, Value, Value], Any], str]] = {
    "norm of a size that does not divide": (
        lambda g, x, _: g.rms_norm(x, "norm", 1e-6, size=3),
        "rms_norm: width 8",
    ),
    "rope of a head that does not divide": (
        lambda g, x, _: g.rope(x, 3, FREQUENCIES[:1]),
        "rope: width 8 is not a multiple of head_size 3",
    ),
    "rope with too many frequencies": (
        lambda g, x, _: g.rope(x, 4, FREQUENCIES),
        "rope: 4 frequencies, expected at most half of head_size 4",
    ),
    "attention of a head that does not divide": (
        lambda g, x, _: g.attention(x, x, x, 3, scale=1.0),
        "attention: width 8 is not a multiple of head_size 3",
    ),
    "attention with keys and values of two widths": (
        lambda g, x, y: g.attention(x, x, y, 4, scale=1.0),
        "attention: queries, keys and values of widths",
    ),
    "attention with more key heads than query heads": (
        lambda g, x, y: g.attention(y, x, x, 4, scale=1.0),
        "attention: queries, keys and values of widths",
    ),
    "gate and up of two widths": (lambda g, x, y: g.gated(x, y), "gated: gate has width 8, up 4"),
    "an unknown activation": (lambda g, x, _: g.gated(x, x, "mish"), "'mish'"),
    "a cap of 0": (lambda g, x, _: g.soft_cap(x, 0.0), "soft_cap: cap 0.0"),
    "scores limited to less than 0": (
        lambda g, x, _: g.attention(x, x, x, 4, scale=1.0, soft_cap=-1.0),
        "attention: soft_cap -1.0, expected 0 or more",
    ),
    "a sum of two widths": (lambda g, x, y: g.add(x, y), "add: widths"),
    "one name for two shapes": (lambda g, x, _: g.linear(x, "table", 3), "table is read as"),
    "a result of all rows": (lambda g, x, _: g.output(x), r"output: value \d has all rows"),
    "a result from before the choice": (
        lambda g, x, _: (g.output_rows(x), g.output(x)),
        r"output: value \d has all rows",
    ),
    "output rows of output rows": (
        lambda g, x, _: g.output_rows(g.output_rows(x)),
        "output_rows: already applied",
    ),
    "all rows plus output rows": (
        lambda g, x, _: g.add(x, g.output_rows(x)),
        "add: it reads all rows of one",
    ),
    "rope of output rows": (
        lambda g, x, _: g.rope(g.output_rows(x), 8, FREQUENCIES),
        "rope: needs all rows",
    ),
    "attention of output rows": (
        lambda g, x, _: g.attention(*[g.output_rows(x)] * 3, 4, scale=1.0),
        "attention: needs all rows",
    ),
}


@pytest.mark.parametrize(("record", "message"), MISFITS.values(), ids=MISFITS)
def test_an_inconsistent_operation_is_refused_by_name(
    record: Callable[[Graph, Value, Value], Any], message: str
) -> None:
    graph = Graph()
    x = graph.embed("table", 10, 8)
    y = graph.linear(x, "narrow", 4)
    with pytest.raises(ModelError, match=message):
        record(graph, x, y)


def test_parameters_cannot_be_changed_after_recording() -> None:
    graph = Graph()
    graph.rms_norm(graph.embed("table", 10, 8), "norm", 1e-6)
    with pytest.raises(TypeError):
        vars(graph)["ops"][-1].params["eps"] = 0.0


def test_a_network_can_end_before_its_result() -> None:
    g = Graph()
    h = g.rms_norm(g.output_rows(g.embed("table", 7, 4)), "norm", 1e-5)
    g.output(g.linear(h, "head", 7), hidden=h)
    cut = g.up_to(h)
    assert [op.kind for op in cut.ops] == ["embed", "output_rows", "rms_norm"]
    assert cut.weights == {"table": (7, 4), "norm": (4,)}
    assert cut.result == cut.hidden == h != g.result
