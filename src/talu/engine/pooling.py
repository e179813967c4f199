"""Pools the hidden states of a text into one vector.

All sums are float64 and in the order of the rows, so that a vector is the same on every processor
and for every division of the text into steps.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from talu.arrays import Floats
from talu.sources.embedding import PoolingMode

__all__ = ["Pool", "vectors"]

Doubles = NDArray[np.float64]


class Pool:
    """The pooled states of one text, whose rows arrive in order.

    Args:
        modes: the vectors of several modes are joined.
        count: rows of the text.
        skip: rows at the start that are not pooled.
    """

    def __init__(self, modes: Sequence[PoolingMode], count: int, skip: int = 0) -> None:
        self._modes = modes
        self._count = count
        self._skip = skip
        self._results: dict[PoolingMode, Doubles] = {}

    def rows(self, start: int, end: int) -> range:
        """Those of the rows from ``start`` to ``end`` that ``add`` needs."""
        if set(self._modes) == {"first"}:
            wanted = range(self._skip, self._skip + 1)
        elif set(self._modes) == {"last"}:
            wanted = range(self._count - 1, self._count)
        else:
            wanted = range(self._skip, self._count)
        first = min(max(start, wanted.start), end)
        return range(first, max(first, min(end, wanted.stop)))

    def add(self, rows: Floats, first: int) -> None:
        """Add consecutive rows, of which the first has the number ``first``."""
        if not len(rows):
            return
        numbers = np.asarray(rows).astype(np.float64)
        for mode in self._modes:
            before = self._results.get(mode)
            self._results[mode] = _with(mode, before, numbers, first)

    def vector(self) -> Doubles:
        """The pooled states, one after the other."""
        return np.concatenate([self._final(mode) for mode in self._modes])

    def _final(self, mode: PoolingMode) -> Doubles:
        count = self._count - self._skip
        match mode:
            case "mean":
                divisor = float(count)
            case "mean_sqrt_len_tokens":
                divisor = math.sqrt(count)
            case "weightedmean":
                divisor = float(sum(range(self._skip + 1, self._count + 1)))
            case _:
                return self._results[mode]
        return self._results[mode] / divisor


def vectors(count: int, width: int) -> NDArray[np.float32]:
    """Room for the vectors of several texts."""
    return np.empty((count, width), np.float32)


def _with(mode: PoolingMode, before: Doubles | None, rows: Doubles, first: int) -> Doubles:
    """The result of the rows so far and of further rows."""
    if mode == "first" and before is not None:
        return before
    if mode in ("first", "last"):
        one: Doubles = rows[0 if mode == "first" else -1]
        return one
    if mode == "weightedmean":  # the number of a row, counted from 1, is its weight
        rows = rows * np.arange(first + 1, first + 1 + len(rows), dtype=np.float64)[:, None]
    # from row to row, in the same order on every processor; ``accumulate`` would take longer
    combine = np.maximum if mode == "max" else np.add
    result: Doubles = rows[0].copy() if before is None else combine(before, rows[0])
    for row in rows[1:]:
        combine(result, row, out=result)
    return result + 0.0  # a zero is positive, whichever of two zeros is the maximum
