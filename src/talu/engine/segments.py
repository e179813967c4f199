"""Computes the table from which a network for pairs of texts reads its tokens.

BERT adds an embedding of the segment, first or second text, to each token. The table has a row for
each token in the first text, and then for each in the second, so that the executor looks up the
sum, which has the same bits as the addition in the network.
"""

import numpy as np
from numpy.typing import NDArray

from talu.sources.cross_encoder import SegmentTable
from talu.sources.quantised.rows import Computed
from talu.weights.checkpoint import Checkpoint
from talu.weights.numbers import as_float32
from talu.weights.tensors import ENCODINGS, NUMBERS, Tensor

__all__ = ["with_segment_table"]

SEGMENTS = 2


def with_segment_table(tensors: Checkpoint, table: SegmentTable) -> Checkpoint:
    """The tensors of a network, with the table in place of its parts.

    Raises:
        ModelError: a part is missing, has another shape, or cannot be read.
    """
    count, width = table.shape
    tensors.check({table.words: table.shape, table.types: (table.kinds, width)})
    words, segments = tensors[table.words], as_float32(tensors[table.types])

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        parts = []
        for segment in range(SEGMENTS):
            first, last = (min(max(row - segment * count, 0), count) for row in (start, stop))
            parts.append(as_float32(words.some_rows(first, last)) + segments[segment])
        return np.concatenate(parts)

    encoding = ENCODINGS["F32"]
    made = Tensor(
        name=table.name,
        file=words.file,
        shape=(SEGMENTS * count, width),
        encoding=encoding,
        parts={NUMBERS: Computed(SEGMENTS * count, width * 4, rows)},
    )
    others = {name: tensors[name] for name in tensors.names}
    return tensors.replaced(others | {table.name: made})
