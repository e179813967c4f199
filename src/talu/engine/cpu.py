"""Runs models on the processor: packs weights for the native kernels and opens executors."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from talu import _native
from talu.engine.budget import available_memory
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.graph.native_executor import NativeExecutor
from talu.graph.record import Graph
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.pack import LoadedWeights, load_packed, packed_bytes
from talu.weights.tensors import Tensor

if TYPE_CHECKING:
    from talu.engine.calibration import Calibration

__all__ = ["CpuDevice", "CpuWeights"]


class CpuWeights:
    """Weights in tiles for the native kernels; see ``DeviceWeights``.

    Attributes:
        packed: the tensors by name.
    """

    def __init__(self, packed: LoadedWeights, num_threads: int) -> None:
        self.packed = packed
        self.bytes = packed.bytes
        self.mapped = packed.mapped
        self.from_cache = packed.from_cache
        self.note = packed.note
        self._num_threads = num_threads

    def executor(
        self, graph: Graph, *, blocks: int, block_size: int, kv_dtype: str
    ) -> NativeExecutor:
        """A native executor over these weights."""
        return NativeExecutor(
            graph,
            self.packed,
            blocks=blocks,
            block_size=block_size,
            num_threads=self._num_threads,
            kv_dtype=kv_dtype,
        )

    def close(self) -> None:
        """Release the tensors; idempotent."""
        self.packed.close()


class CpuDevice:
    """The processor; see ``Device``."""

    name = "cpu"

    def __init__(self, options: LocalBackend) -> None:
        self._options = options

    @property
    def formats(self) -> Collection[str]:
        """The formats of the native kernels."""
        return [*_native.formats(), *_native.block_formats(), *_native.rotated_formats()]

    def check(self) -> None:
        """Refuse an unsupported ``TALU_CPU``, and more threads than the process has processors."""
        try:
            _native.target()
        except ValueError as error:
            raise ValidationError(str(error), details={"param": "TALU_CPU"}) from None
        wanted, available = self._options.num_threads, _native.available_threads()
        if wanted > available:
            raise ValidationError(
                f"num_threads={wanted} is more than the {available} that the CPU affinity and the "
                "control groups of this process allow; 0 uses all of them",
                details={"param": "num_threads", "value": wanted, "available": available},
            )

    def free_memory(self) -> int:
        """What the machine and the process's control groups have left."""
        return available_memory()

    def packed_bytes(self, tensors: Checkpoint, layout: Mapping[str, str]) -> int:
        """Size of the tiles."""
        return packed_bytes(tensors, layout)

    def pack(
        self,
        tensors: Checkpoint,
        layout: Mapping[str, str],
        *,
        same: tuple[Tensor, Tensor] | None = None,
        calibration: "Calibration | None" = None,
    ) -> CpuWeights:
        """Pack the tensors into tiles, or map the packed file."""
        threads = self._options.num_threads
        kind = self._options.weight_format
        calibrator = None
        if calibration is not None:
            calibrator = loaded("talu.engine.calibration", "Calibrator")(
                calibration, tensors, layout, threads, kind
            )
        packed = load_packed(
            tensors,
            layout,
            same=same,
            use_mmap=self._options.use_mmap,
            num_threads=threads,
            quantizer=calibrator,
        )
        return CpuWeights(packed, threads)
