"""Divides a network where only one value lives on, so that it can run piece by piece."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from talu.graph.record import Graph, Op, Value

__all__ = ["INPUT", "Segment", "segments"]

INPUT = "input of the segment"  # the tensor that its rows are read from


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive operations of a network that read one earlier value, or none.

    Attributes:
        graph: the operations as a network of its own. It returns the value that the next segment
            reads. If it reads a value of the segment before, that is a table with the name
            ``INPUT``, with a row for each token of the vocabulary of row numbers.
        sums: for each weight whose input is observed, the tensor in which its sums are collected.
    """

    graph: Graph
    sums: dict[str, str]


def segments(graph: Graph, rows: int, observed: Mapping[str, bool]) -> list[Segment]:
    """Divide a network into as many segments as have an observed weight, and a rest.

    Args:
        graph: the network.
        rows: of the table that stands for the input of a segment.
        observed: weights of linear operations, whose segments sum the products of their inputs,
            and whether the inputs are rotated before.
    """
    found: list[Segment] = []
    start, needed = 0, False
    for stop in range(1, len(graph.ops) + 1):
        needed = needed or bool(observed_inputs(graph.ops[stop - 1], observed))
        if stop < len(graph.ops) and (not needed or len(living(graph, stop)) != 1):
            continue
        found.append(_Recorder(graph, start, stop, rows, observed).segment)
        start, needed = stop, False
    return found


def observed_inputs(op: Op, observed: Collection[str]) -> tuple[str, ...]:
    """The observed weight that an operation multiplies with, if it does."""
    return op.weights[:1] if op.kind == "linear" and op.weights[0] in observed else ()


def living(graph: Graph, stop: int) -> set[int]:
    """The values before operation ``stop`` that it or a later one reads, or that are the result."""
    read = {i for op in graph.ops[stop:] for i in op.inputs if i < stop}
    result = graph.result
    return read | {result.id} if result is not None and result.id < stop else read


class _Recorder:
    """Records the operations ``start`` to ``stop`` - 1 of a network again."""

    def __init__(
        self, graph: Graph, start: int, stop: int, rows: int, observed: Mapping[str, bool]
    ) -> None:
        self._whole, self._observed = graph, observed
        self._values: dict[int, Value] = {}
        self._layers: dict[int, int] = {}
        own = Graph()
        self.segment = Segment(own, {})
        if start:
            (read,) = living(graph, start)
            self._values[read] = own.embed(INPUT, rows, graph.ops[read].width)
        for i in range(start, stop):
            self._values[i] = self._add(graph.ops[i])
        assert graph.result is not None
        last = graph.result.id if stop == len(graph.ops) else min(living(graph, stop))
        output = self._values[last]
        own.output(output if own.has_only_outputs(output) else own.output_rows(output))

    def _add(self, op: Op) -> Value:
        own = self.segment.graph
        for weight in observed_inputs(op, self._observed):
            x = self._values[op.inputs[0]]
            rotated = self._observed[weight]
            sums = f"{'rotated ' if rotated else ''}sums of value {x.id}"
            if sums not in self.segment.sums.values():
                own.gram(x, sums, rotated=rotated)
            self.segment.sums[weight] = sums
        params: dict[str, Any] = dict(op.params)
        if op.kind == "attention":
            layer = op.params["layer"]
            if layer not in self._layers:
                self._layers[layer] = len(own.layers)
                own.layers.append(self._whole.layers[layer])
            params["layer"] = self._layers[layer]
        inputs = tuple(self._values[i].id for i in op.inputs)
        return own.repeat(
            op._replace(inputs=inputs, params=MappingProxyType(params)), self._whole.weights
        )
