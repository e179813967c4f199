"""Runs a recorded graph on the native kernels.

This file knows how a ``Graph`` and its packed tensors are handed to the native module, and which
of talu's errors the module's become. It refuses to know any arithmetic.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.exceptions import ModelError, ResourceError, StateError, ValidationError
from talu.graph.record import Graph, Op
from talu.protocols import PackedTensor

__all__ = ["NativeExecutor"]


class NativeExecutor:
    """Owns the paged cache of one model, and runs steps over its packed weights.

    It keeps references to the tensors' arrays, so files that they are mapped from stay mapped
    until ``close``. Steps may be run from any thread; they take turns.

    Args:
        graph: the network.
        tensors: its packed weights by name; more names are ignored.
        blocks: cache blocks that all sequences share. Memory is taken when a block is first used.
        block_size: positions in a block, a multiple of 16.
        num_threads: threads of a step; 0 for all that this process may use, which is also the
            most it gets. ``num_threads`` of the executor says how many it got.
        kv_format: how keys and values are kept: ``"f16"``, ``"bf16"`` or ``"f32"``.
        target: the CPU target; by default the best one, or the one that TALU_CPU names.

    Raises:
        ModelError: a tensor is missing or has another shape than the graph reads, or the graph
            does not fit together.
        ValidationError: an option is out of range, or the target is not supported here.
        ResourceError: the cache is larger than the address space allows.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, PackedTensor],
        *,
        blocks: int,
        block_size: int,
        num_threads: int = 0,
        kv_format: str = "f16",
        target: str = "",
    ) -> None:
        if graph.result is None:
            raise ModelError("the network has no output")
        if min(blocks, num_threads) < 0:
            raise ValidationError(
                f"blocks ({blocks}) and num_threads ({num_threads}) must not be negative"
            )
        ops = [_plain(op, graph, tensors) for op in graph.ops]
        try:
            native = _native.Executor(
                ops,
                graph.layers,
                graph.result.id,
                blocks,
                block_size,
                num_threads,
                kv_format,
                target,
            )
        except (ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        except MemoryError as error:
            raise ResourceError(
                f"there is no room for a cache of {blocks} blocks of {block_size} positions; "
                "use fewer"
            ) from error
        self.num_threads = native.num_threads
        self.target = native.target
        self._native: _native.Executor | None = native

    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        row_starts: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
    ) -> NDArray[np.float32]:
        """See ``talu.protocols.Executor``. A batch that does not fit together is refused whole.

        Raises:
            ValidationError: an array has a wrong shape, or names tokens, blocks or rows that do
                not exist.
            StateError: the executor is closed.
        """
        native = self._native
        if native is None:
            raise StateError("the executor is closed")
        try:
            return native.step(tokens, positions, row_starts, block_tables, outputs)
        except (ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        except MemoryError as error:
            raise ResourceError(f"no memory for a step of {len(tokens)} rows") from error
        except RuntimeError as error:
            raise StateError(str(error)) from error

    def close(self) -> None:
        """Free cache and weights; idempotent. A step that is running ends first."""
        # What hangs in a daemon thread holds this object to the very end, where the native module
        # would complain about what is left of it.
        native, self._native = self._native, None
        if native is not None:
            native.close()


def _plain(
    op: Op, graph: Graph, tensors: Mapping[str, PackedTensor]
) -> tuple[str, list[int], list[tuple[str, tuple[int, ...], NDArray[Any]]], int, dict[str, Any]]:
    """An operation in the form that the native module takes."""
    weights = []
    for name in op.weights:
        shape = graph.weights[name]
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            raise ModelError(f"tensor {name!r}: the network reads {shape}, there is {found}")
        weights.append((tensors[name].format, shape, tensors[name].data))
    return op.kind, list(op.inputs), weights, op.width, dict(op.params)
