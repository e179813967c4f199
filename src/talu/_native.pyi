"""Kernels and executor, compiled."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from talu.protocols import SampleRow

PACKING_VERSION: Final[int]

def formats() -> list[str]: ...
def targets() -> list[str]: ...
def target() -> str: ...
def return_free_memory() -> None: ...
def available_threads(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int: ...
def packed_bytes(format: str, rows: int, columns: int) -> int: ...
def pack(
    format: str,
    source: NDArray[Any],
    out: NDArray[np.uint8],
    num_threads: int = 0,
    target: str = "",
) -> None: ...
def unpack(
    format: str, packed: NDArray[np.uint8], rows: int, columns: int, target: str = ""
) -> NDArray[np.float32]: ...
def activation_format(format: str, target: str = "") -> str: ...

class Executor:
    num_threads: Final[int]
    target: Final[str]
    def __init__(
        self,
        ops: list[
            tuple[
                str,
                list[int],
                list[tuple[str, tuple[int, ...], NDArray[Any]]],
                int,
                dict[str, Any],
            ]
        ],
        layers: list[tuple[int, int]],
        result: int,
        blocks: int,
        block_size: int,
        num_threads: int = 0,
        kv_format: str = "f16",
        target: str = "",
    ) -> None: ...
    def step(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        row_starts: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        outputs: NDArray[np.int32],
    ) -> NDArray[np.float32]: ...
    def close(self) -> None: ...

def sample(
    logits: NDArray[np.float32], rows: Sequence[SampleRow]
) -> list[tuple[int, float | None, tuple[tuple[int, float], ...]]]: ...
