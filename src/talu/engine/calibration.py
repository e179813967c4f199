"""Runs a network on sample texts, piece by piece, to learn which errors of its weights matter.

``calibration.txt`` has the texts: prose in several languages, dialogues, code, data, mathematics.
The products of the inputs of each linear layer are summed and factored (native/formats/choose.h),
so that the codes of its weights are chosen for inputs like these.
docs/decisions/0028-rotated-weights.md
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.exceptions import TokenizerError
from talu.graph.native_executor import NativeExecutor
from talu.graph.record import Graph
from talu.graph.segments import INPUT, Segment, segments
from talu.protocols import PackedTensor
from talu.tokenizer.tokenizer import Tokenizer
from talu.weights.checkpoint import Checkpoint
from talu.weights.layout import ROTATED, SUMMED_COLUMNS, VECTOR, is_quantised
from talu.weights.numbers import as_float32
from talu.weights.packing import pack_in_memory

__all__ = ["Calibration", "Calibrator"]

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]
METHOD = 5  # changes when the codes that are chosen for the same texts do
PIECE = 256  # tokens that are read together, at most
PARAGRAPH = "\n\n"
# Parameters of a network that reads the texts twice, in paragraphs and in one piece: small networks
# lose more by quantisation, and take less time.
SMALL = 200_000_000
MOST = 8192  # tokens; small networks read up to four times as many
BLOCK_SIZE = 16


class Calibration:
    """A network, and the tokens of the sample texts in its vocabulary.

    Attributes:
        key: identifies the codes that it leads to, for the cache.
    """

    def __init__(self, graph: Graph, tokenizer: Tokenizer, context_length: int) -> None:
        """Encode the texts.

        Raises:
            TokenizerError: no tokens come of them.
        """
        text = files("talu.engine").joinpath("calibration.txt").read_text("utf-8")
        ends = tokenizer.encode("")
        size = min(PIECE, context_length) - len(ends)
        parameters = sum(prod(shape) for shape in graph.weights.values())
        texts = [text, *text.split(PARAGRAPH)] if parameters < SMALL else text.split(PARAGRAPH)
        self.graph = graph
        pieces = [
            np.array([*ends[:1], *ids[i : i + size], *ends[1:]], np.int32)
            for ids in (tokenizer.encode(text, special_tokens=False) for text in texts)
            for i in range(0, len(ids), size)
        ]
        if not pieces:
            raise TokenizerError(
                "the tokenizer reads nothing in the sample texts that quantisation needs; open the "
                "model with weight_format='auto'"
            )
        self.pieces = spread(pieces, 4 * MOST if parameters < SMALL else MOST)
        ids = np.concatenate([part for piece in self.pieces for part in ([len(piece)], piece)])
        self.key = [METHOD, hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()[:32]]


def spread(pieces: Sequence[Tokens], most: int) -> Sequence[Tokens]:
    """As many pieces, evenly distributed, as have ``most`` tokens in all, more or less."""
    tokens = sum(map(len, pieces))
    count = min(len(pieces), max(1, len(pieces) * most // tokens))
    return [pieces[i * len(pieces) // count] for i in range(count)]


class Calibrator:
    """Gives the factor of the inputs of each weight that is quantised.

    It runs the network with the weights as they are, one segment after the other, and holds the
    sums of one segment at a time.

    Attributes:
        key: identifies the codes that it leads to.
    """

    def __init__(
        self,
        calibration: Calibration,
        tensors: Checkpoint,
        layout: Mapping[str, str],
        num_threads: int,
        weight_format: str,
    ) -> None:
        """Run nothing yet.

        Args:
            calibration: the network and the texts.
            tensors: the weights of the network.
            layout: the formats in which they will be stored.
            num_threads: 0 for all that the process may use.
            weight_format: what the caller asks for.
        """
        self.key = [weight_format, *calibration.key]
        graph = calibration.graph
        rows = sum(len(piece) for piece in calibration.pieces)
        result = graph.ops[graph.result.id].weights[:1] if graph.result else ()
        observed = {
            name: layout[name] in ROTATED
            for name in (op.weights[0] for op in graph.ops if op.kind == "linear")
            if is_quantised(tensors[name], layout[name])
            and graph.weights[name][-1] % SUMMED_COLUMNS == 0
            and name not in result
        }
        self._left = segments(graph, rows, observed)
        self._pieces = calibration.pieces
        self._tensors = tensors
        self._threads = num_threads
        self._hidden: Floats | None = None  # the rows that the next segment reads
        self._factors: dict[str, Floats | None] = {}

    def factor(self, weight: str) -> Floats | None:
        """The factor of a weight; None if its inputs are not observed, or always zero.

        Weights have to be asked for in the order of the network.

        Raises:
            ModelError: inputs of the weight are not finite.
        """
        while weight not in self._factors and any(weight in part.sums for part in self._left):
            self._run(self._left.pop(0))
        return self._factors.get(weight)

    def _run(self, segment: Segment) -> None:
        """Run the next segment, and factor its sums."""
        graph = segment.graph
        sums = {name: np.zeros(graph.weights[name], np.float32) for name in segment.sums.values()}
        matrices = {op.weights[0] for op in graph.ops if op.kind == "linear"}
        tensors = {name: self._packed(name, sums, name in matrices) for name in graph.weights}
        executor = NativeExecutor(
            graph,
            tensors,
            blocks=-(-PIECE // BLOCK_SIZE),
            block_size=BLOCK_SIZE,
            num_threads=self._threads,
            kv_dtype="f32",
        )
        try:
            self._hidden = np.concatenate([*self._outputs(executor, INPUT in graph.weights)])
        finally:
            executor.close()
        factors = {
            name: self._factorized(products, [w for w, its in segment.sums.items() if its == name])
            for name, products in sums.items()
        }
        self._factors = {weight: factors[name] for weight, name in segment.sums.items()}

    def _factorized(self, products: Floats, weights: Sequence[str]) -> Floats | None:
        """The factor of the sums that belong to these weights, in their place."""
        if not products.any():
            return None
        size = isqrt(len(products))
        square = products.reshape(size, size)
        if not _native.factorize(square, self._threads):
            raise self._tensors[weights[0]].error(
                f"cannot be quantised to {self.key[0]}: what it is multiplied with on the sample "
                "texts is not finite, or too large; the model may be damaged"
            )
        return square

    def _outputs(self, executor: NativeExecutor, continues: bool) -> Sequence[Floats]:
        results, start = [], 0
        table = np.arange(-(-PIECE // BLOCK_SIZE), dtype=np.int32)[None]
        for piece in self._pieces:
            rows = np.arange(len(piece), dtype=np.int32)
            tokens = rows + np.int32(start) if continues else piece
            starts = np.array([0, len(piece)], np.int32)
            results.append(np.asarray(executor.step(tokens, rows, starts, table, rows)))
            start += len(piece)
        return results

    def _packed(self, name: str, sums: Mapping[str, Floats], multiplied: bool) -> PackedTensor:
        """A tensor; matrices in float32, with which all processors compute the same products."""
        if name in sums:
            return PackedTensor(VECTOR, sums[name].shape, sums[name])
        if name == INPUT:
            assert self._hidden is not None
            return pack_in_memory(self._hidden, self._threads)
        tensor = self._tensors[name]
        return pack_in_memory(as_float32(tensor) if multiplied else tensor, self._threads)
