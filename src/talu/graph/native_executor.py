"""Runs a recorded graph on the native kernels.

It passes a ``Graph`` and its packed tensors to the native module and converts the module's errors.
"""

from collections.abc import Mapping
from typing import Any

from talu import _native
from talu.arrays import Bytes, Floats, Ints
from talu.exceptions import ModelError, ResourceError, StateError, ValidationError
from talu.graph.record import Graph, Op
from talu.protocols import PackedTensor

__all__ = ["NativeExecutor"]


class NativeExecutor:
    """Owns the paged KV cache of a model and runs steps over its packed weights.

    It keeps references to the tensors' arrays, so their files stay mapped until ``close``. Steps
    may be called from any thread; they run one at a time.

    Args:
        graph: the network.
        tensors: its packed weights by name; other names are ignored.
        blocks: cache blocks shared by all sequences. A block's memory is allocated on first use.
        block_size: positions in a block, a multiple of 16.
        num_threads: threads of a step; 0 for all that this process may use, which is also the
            maximum. The executor's ``num_threads`` is the actual number.
        kv_dtype: number format of keys and values: ``"f16"``, ``"bf16"``, ``"f32"`` or ``"q8"``.
        target: the CPU target; by default the one named by TALU_CPU, else the best supported one.

    Raises:
        ModelError: a tensor is missing or has the wrong shape, or the graph is inconsistent.
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
        kv_dtype: str = "f16",
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
                kv_dtype,
                target,
            )
        except (ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        except MemoryError as error:
            raise ResourceError(
                f"not enough memory for a cache of {blocks} blocks of {block_size} positions; "
                "kv_cache_bytes makes it smaller"
            ) from error
        self.num_threads = native.num_threads
        self.target = native.target
        self._native: _native.Executor | None = native

    def step(
        self,
        tokens: Ints,
        positions: Ints,
        row_starts: Ints,
        block_tables: Ints,
        outputs: Ints,
    ) -> Floats:
        """See ``talu.protocols.Executor``. An inconsistent batch is refused as a whole.

        Raises:
            ValidationError: an array has a wrong shape, or names tokens, blocks or rows that do
                not exist.
            StateError: the executor is closed.
        """
        native = self._open
        try:
            return native.step(tokens, positions, row_starts, block_tables, outputs)
        except (ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        except MemoryError as error:
            raise ResourceError(f"not enough memory for a step of {len(tokens)} rows") from error
        except RuntimeError as error:
            raise StateError(str(error)) from error

    @property
    def block_bytes(self) -> int:
        """Size of a block of the cache."""
        return self._open.block_bytes

    def read_blocks(self, blocks: Ints) -> Bytes:
        """The bytes of blocks of the cache, a row for each."""
        return self._open.read_blocks(blocks)

    def write_blocks(self, blocks: Ints, content: Bytes) -> None:
        """Replace the bytes of blocks of the cache by those of an executor of the same model."""
        self._open.write_blocks(blocks, content)

    def start_timing(self) -> None:
        """Measure the operations of all steps from now on."""
        if self._native is not None:
            self._native.start_timing()

    def times(self) -> list[tuple[list[int], float]]:
        """What the steps since ``start_timing`` took: seconds, by planned operation.

        A planned operation computes several recorded ones, whose indices in ``Graph.ops`` come with
        the seconds.
        """
        return self._native.times() if self._native is not None else []

    @property
    def _open(self) -> _native.Executor:
        if self._native is None:
            raise StateError("the executor is closed")
        return self._native

    def close(self) -> None:
        """Free cache and weights; idempotent. Waits for a running step."""
        native, self._native = self._native, None
        if native is not None:
            native.close()


def _plain(
    op: Op, graph: Graph, tensors: Mapping[str, PackedTensor]
) -> tuple[str, list[int], list[tuple[str, tuple[int, ...], Bytes | Floats]], int, dict[str, Any]]:
    """An operation in the form that the native module expects."""
    weights = []
    for name in op.weights:
        shape = graph.weights[name]
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            raise ModelError(f"tensor {name!r}: the network reads {shape}, there is {found}")
        weights.append((tensors[name].format, shape, tensors[name].data))
    return op.kind, list(op.inputs), weights, op.width, dict(op.params)
