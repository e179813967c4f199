"""Declares what runs models on one kind of processor, and chooses it for a model."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from talu.engine.cpu import CpuDevice
from talu.graph.record import Graph
from talu.protocols import Executor
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.tensors import Tensor

if TYPE_CHECKING:
    from talu.engine.calibration import Calibration

__all__ = ["Device", "DeviceExecutor", "DeviceWeights", "device_for"]


class DeviceExecutor(Executor, Protocol):
    """An executor that knows where it runs.

    Attributes:
        target: instruction set or kind of the processor.
        num_threads: threads of a step.
    """

    target: str
    num_threads: int


class DeviceWeights(Protocol):
    """The weights of a network in the device's own layout; its executors share them."""

    @property
    def bytes(self) -> int:
        """Size of all packed weights."""

    @property
    def mapped(self) -> bool:
        """Whether they are in a mapped file that other processes share."""

    @property
    def from_cache(self) -> bool:
        """Whether an earlier open packed them."""

    @property
    def note(self) -> str | None:
        """Why they could not be kept for the next open; None if they were, or need not be."""

    def executor(
        self, graph: Graph, *, blocks: int, block_size: int, kv_dtype: str
    ) -> DeviceExecutor:
        """An executor that runs the network, or a part of it, over these weights.

        Args:
            graph: its weights are among those that were packed.
            blocks: cache blocks shared by all sequences.
            block_size: positions in a block.
            kv_dtype: number format of keys and values.
        """

    def close(self) -> None:
        """Release the weights; idempotent. Executors that are open keep what they need."""


class Device(Protocol):
    """Where a model runs. It packs logical tensors as its kernels need them."""

    @property
    def name(self) -> str:
        """Its name, such as ``"cpu"``; models on devices with other names are not shared."""

    @property
    def formats(self) -> Collection[str]:
        """The formats of matrices that its kernels read, for ``choose_layout``."""

    def check(self) -> None:
        """Refuse a setting of the environment that it cannot honour, before anything is read.

        Raises:
            ValidationError: there is one.
        """

    def free_memory(self) -> int:
        """Bytes that weights and cache may still take."""

    def packed_bytes(self, tensors: Checkpoint, layout: Mapping[str, str]) -> int:
        """Size of the tensors as ``pack`` would store them; reads none."""

    def pack(
        self,
        tensors: Checkpoint,
        layout: Mapping[str, str],
        *,
        same: tuple[Tensor, Tensor] | None = None,
        calibration: "Calibration | None" = None,
    ) -> DeviceWeights:
        """Pack the tensors of a network, or find them packed by an earlier open.

        Args:
            tensors: by the names of the network; their files are open.
            layout: the format of each tensor, from ``choose_layout`` with ``formats``.
            same: tensors that must be equal, which an earlier open may have found out.
            calibration: how to find out which errors of quantised weights matter; None if the
                layout quantises nothing.

        Raises:
            UnequalError: the two tensors are not equal.
            ModelError: a tensor cannot be read.
            ResourceError: there is not enough memory.
        """


def device_for(options: LocalBackend) -> Device:
    """The device that runs models with these options. No other code chooses one."""
    return CpuDevice(options)
