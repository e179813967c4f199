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
def available_threads() -> int: ...
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
def sample(
    logits: NDArray[np.float32], rows: Sequence[SampleRow]
) -> list[tuple[int, float | None, tuple[tuple[int, float], ...]]]: ...
