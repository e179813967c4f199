"""Measures what the operations of a model cost, beside what the processor can do at most.

The roofline (Williams et al., 2009, https://doi.org/10.1145/1498765.1498785): an operation takes at
least the time to read its bytes from memory, and the time for its multiplications.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from talu import _native
from talu.engine.budget import BLOCK_SIZE
from talu.engine.cpu import CpuWeights
from talu.engine.model import LoadedModel
from talu.exceptions import ValidationError
from talu.graph.native_executor import NativeExecutor
from talu.graph.record import Graph, Op, Value
from talu.protocols import PackedTensor

__all__ = ["Ceilings", "Cost", "measure_ceilings", "profile"]

Times = list[tuple[list[int], float]]
READ_BYTES = 512 << 20  # more than any cache has
PATH = re.compile(r"^.*\.(?=[^.]+\.weight$)|\.weight$")  # of the name of a weight
CEILINGS = {"f32": "f32", "bf16": "bf16", "i15": "i16"}  # by the numbers of activations; else i8


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the processor can do at most.

    Attributes:
        bytes_per_second: read from memory.
        operations_per_second: multiplications, each with an addition, by the format of numbers:
            ``"f32"``, ``"bf16"``, ``"i16"`` and ``"i8"``.
    """

    bytes_per_second: float
    operations_per_second: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What equal operations of all layers cost in a step.

    Attributes:
        name: the kind of operation, with the weights that it reads.
        weights: their formats.
        calls: in a step.
        seconds: of all calls in a step, on average.
        bytes: of weights, keys and values that they read from memory.
        operations: multiplications.
        numbers: the format that they multiply, by the names of ``Ceilings``.
    """

    name: str
    weights: str = ""
    calls: int = 1
    seconds: float = 0.0
    bytes: int = 0
    operations: int = 0
    numbers: str = "f32"

    def and_another(self, other: "Cost") -> "Cost":
        """The cost of both, which are equal operations."""
        return replace(
            self,
            calls=self.calls + other.calls,
            seconds=self.seconds + other.seconds,
            bytes=self.bytes + other.bytes,
            operations=self.operations + other.operations,
        )

    def least_seconds(self, ceilings: Ceilings) -> float:
        """The time that the operations take at least."""
        return max(
            self.bytes / ceilings.bytes_per_second,
            self.operations / ceilings.operations_per_second[self.numbers],
        )


def measure_ceilings(num_threads: int = 0) -> Ceilings:
    """Measure memory and arithmetic for about two seconds.

    Args:
        num_threads: 0 for all that the process may use.
    """
    return Ceilings(_native.read_rate(READ_BYTES, num_threads), _native.multiply_rates(num_threads))


def profile(model: LoadedModel, prompt: int, steps: int) -> tuple[list[Cost], list[Cost]]:
    """The costs of a prompt in one step, and of decode steps of one token after it.

    Args:
        model: a model that computes logits.
        prompt: tokens of the prompt.
        steps: decode steps; the costs are means.

    Raises:
        ValidationError: the model has no room for so many tokens.
    """
    total = prompt + steps
    if min(prompt, steps) < 1 or total > model.architecture.context_length:
        raise ValidationError(
            f"{prompt} and {steps} tokens do not fit in the context of "
            f"{model.architecture.context_length}"
        )
    if not isinstance(model.weights, CpuWeights):
        raise ValidationError("only models on the processor can be profiled")
    blocks, kv_dtype = -(-total // BLOCK_SIZE), model.info.kv_dtype
    executor = model.weights.executor(
        model.architecture.graph, blocks=blocks, block_size=BLOCK_SIZE, kv_dtype=kv_dtype
    )
    run = _Run(executor, blocks, model.architecture.vocabulary_size)
    measured = _Measured(model.architecture.graph, model.weights.packed, kv_dtype)
    try:
        run.step(0, prompt)  # a warm-up
        of_prompt = run.times([(0, prompt)])
        run.step(prompt, 1)
        of_tokens = run.times([(prompt + i, 1) for i in range(steps)])
    finally:
        executor.close()
    return (
        measured.costs(of_prompt, 1, 0, prompt),
        measured.costs(of_tokens, steps, prompt + steps // 2, 1),
    )


class _Run:
    """Runs steps of one sequence of arbitrary tokens."""

    def __init__(self, executor: NativeExecutor, blocks: int, vocabulary: int) -> None:
        self._executor = executor
        self._table = np.arange(blocks, dtype=np.int32)[None]
        self._vocabulary = vocabulary

    def step(self, position: int, rows: int) -> None:
        """Run the tokens from a position on; the last one has an output."""
        positions = np.arange(position, position + rows, dtype=np.int32)
        tokens = positions * 7919 % self._vocabulary
        starts, outputs = np.array([0, rows], np.int32), np.array([rows - 1], np.int32)
        self._executor.step(tokens.astype(np.int32), positions, starts, self._table, outputs)

    def times(self, steps: Iterable[tuple[int, int]]) -> Times:
        """The operations of these steps, and their seconds in all of them."""
        self._executor.start_timing()
        for position, rows in steps:
            self.step(position, rows)
        return self._executor.times()


class _Measured:
    """Turns the times of a network's operations into costs."""

    def __init__(self, graph: Graph, tensors: Mapping[str, PackedTensor], kv_dtype: str) -> None:
        self._graph = graph
        self._tensors = tensors
        self._kv_dtype = kv_dtype

    def costs(self, times: Times, steps: int, position: int, rows: int) -> list[Cost]:
        """The costs of equal operations in a step, the dearest first.

        Args:
            times: of all steps.
            steps: how many they are.
            position: of the first row of a typical step.
            rows: of a step.
        """
        found: dict[tuple[str, str], Cost] = {}
        for ids, seconds in times:
            cost = self._cost([self._graph.ops[i] for i in ids], position, rows)
            others = found.get((cost.name, cost.weights))
            cost = replace(cost, seconds=seconds / steps)
            found[cost.name, cost.weights] = others.and_another(cost) if others else cost
        return sorted(found.values(), key=lambda cost: -cost.seconds)

    def _cost(self, ops: Sequence[Op], position: int, rows: int) -> Cost:
        """What one planned operation reads and multiplies."""
        kind = ops[0].kind
        if kind == "attention":
            return self._attention(ops[0], position, rows)
        if kind != "linear":
            return Cost(name=kind)
        if self._graph.has_only_outputs(Value(ops[0].inputs[0], 0)):
            rows = 1
        matrices = [op.weights[0] for op in ops if op.kind == "linear"]
        packed = [self._tensors[name] for name in matrices]
        return Cost(
            name=", ".join(PATH.sub("", name) for name in matrices),
            weights=", ".join(sorted({tensor.format for tensor in packed})),
            bytes=sum(tensor.data.nbytes for tensor in packed),
            operations=rows * sum(prod(tensor.shape) for tensor in packed),
            numbers=CEILINGS.get(_native.activation_format(packed[0].format), "i8"),
        )

    def _attention(self, op: Op, position: int, rows: int) -> Cost:
        """Attention reads all keys and values before a row, or those in its window."""
        window = op.params.get("window", 0)
        seen = [min(at + 1, window or at + 1) for at in range(position, position + rows)]
        layer = self._graph.layers[int(op.params["layer"])]
        block = _native.kv_block_bytes([layer], BLOCK_SIZE, self._kv_dtype)
        return Cost(
            name="attention",
            bytes=seen[-1] * block // BLOCK_SIZE,
            operations=2 * sum(seen) * op.width,
        )
