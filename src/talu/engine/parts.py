"""Finds what a network does with each of its matrices, for the choice of their number formats."""

from collections.abc import Mapping

from talu.graph.record import Graph
from talu.weights.mixtures import Kind, Part

__all__ = ["parts"]


def parts(graph: Graph) -> Mapping[str, Part]:
    """The part of each weight; that of vectors means nothing."""
    ops = graph.ops
    kinds = _kinds(graph)
    layers = max(1, sum(op.kind == "attention" for op in ops))
    found: dict[str, Part] = {}
    attentions = 0
    for i, op in enumerate(ops):
        attentions += op.kind == "attention"
        kind: Kind = kinds.get(i, "other") if op.kind == "linear" else "table"
        before = kind in ("query", "key", "value") or attentions == 0
        layer = min(attentions if before else attentions - 1, layers - 1)
        for name in op.weights:
            table = op.kind != "linear" or not found.get(name, Part()).multiplied
            found[name] = Part("table" if table else kind, not table, layer, layers)
    return found


def _kinds(graph: Graph) -> dict[int, Kind]:
    """Those of linear operations, by their numbers."""
    ops = graph.ops
    kinds: dict[int, Kind] = {}
    names: tuple[Kind, ...] = ("query", "key", "value")
    for i, op in enumerate(ops):
        if op.kind == "attention":
            for kind, value in zip(names, op.inputs, strict=True):
                kinds[_source(graph, value)] = kind
        elif op.kind == "linear":
            before = ops[_source(graph, op.inputs[0])].kind
            if before == "attention":
                kinds[i] = "attention output"
            elif before in ("gated", "activate"):
                kinds[i] = "down"
    if graph.result is not None:
        kinds[_source(graph, graph.result.id)] = "output"
    return kinds


def _source(graph: Graph, value: int) -> int:
    """The value before rotary embeddings, norms, the choice of rows, and the limit of logits."""
    while graph.ops[value].kind in ("rope", "rms_norm", "output_rows", "soft_cap"):
        value = graph.ops[value].inputs[0]
    return value
