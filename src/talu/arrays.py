"""Arrays that the parts of the engine exchange with the native module.

A ``memoryview`` has a type and a shape, as an array of NumPy has, and the native module reads both.
Answers are generated without NumPy, which takes longer to load than most models take to open.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int32] | memoryview[int]
    Floats = NDArray[np.float32] | memoryview[float]
    Bytes = NDArray[np.uint8] | memoryview[int]
else:
    Ints = Floats = Bytes = memoryview

__all__ = ["Bytes", "Floats", "Ints", "integers", "single", "table"]


def integers(values: Iterable[int]) -> memoryview:
    """A vector of 32-bit integers."""
    return memoryview(array("i", values))


def table(rows: Sequence[Sequence[int]]) -> memoryview:
    """A matrix of 32-bit integers, whose shorter rows end with -1.

    Args:
        rows: at least one, of which at least one is not empty.
    """
    width = max(map(len, rows))
    cells = array("i")
    for row in rows:
        cells.extend(row)
        cells.extend([-1] * (width - len(row)))
    return memoryview(cells).cast("B").cast("i", (len(rows), width))


def single(value: float) -> float:
    """A number rounded to 32 bits, infinite if it is too large for them.

    The sum, the product and the quotient of two such numbers are rounded correctly by this, because
    a number of 64 bits has more than twice as many digits.
    """
    return array("f", (value,))[0]
