"""Gives the tensors of a GGUF model the names, and the order of rows, that the networks read."""

from collections.abc import Sequence
from dataclasses import replace

from talu.exceptions import ModelError
from talu.first_use import loaded
from talu.gguf.tensor_names import ROPE_FACTORS, network_name
from talu.weights.checkpoint import Checkpoint, listed
from talu.weights.files import Bytes
from talu.weights.tensors import NUMBERS, Rows, Tensor

__all__ = ["interleaved", "network_tensors", "rope_factors"]

MAX_FACTORS = 2**11  # half of the columns of the largest head


def network_tensors(tensors: Checkpoint, architecture: str, head_size: int) -> Checkpoint:
    """The tensors that a network reads, in the same open files.

    Args:
        tensors: those of the file.
        architecture: as in the file.
        head_size: columns of a head.

    Raises:
        ModelError: the network has no such tensor, so the file is of another network.
    """
    found, unknown = {}, []
    for name in tensors.names:
        stored = network_name(architecture, name)
        if stored is not None:
            tensor = tensors[name]
            if stored.change == "interleaved":
                tensor = halves_apart(tensor, head_size)
            found[stored.name] = tensor
        elif name != ROPE_FACTORS:
            unknown.append(name)
    if unknown:
        raise ModelError(
            f"{tensors.place} has tensors that a network of the architecture {architecture!r} "
            f"does not have: {listed(unknown)}; this variant is not supported"
        )
    return tensors.replaced(found)


def rope_factors(tensors: Checkpoint) -> list[float] | None:
    """The numbers that rotary frequencies are divided by; None if there are none.

    Raises:
        ModelError: there are far too many, or the file cannot be read.
    """
    if ROPE_FACTORS not in tensors.names:
        return None
    tensor = tensors[ROPE_FACTORS]
    if len(tensor.shape) != 1 or tensor.columns > MAX_FACTORS or tensor.encoding.name != "F32":
        raise tensor.error(f"has type {tensor.encoding.name} and shape {tensor.shape}")
    factors: list[float] = tensor.array().tolist()
    return factors


def halves_apart(tensor: Tensor, head_size: int) -> Tensor:
    """A tensor in whose heads the rows of the first half come before those of the second half.

    Raises:
        ModelError: its rows, or the numbers of a bias, are not whole heads.
    """
    bias = len(tensor.shape) == 1
    count = tensor.columns if bias else tensor.rows
    if head_size % 2 or not head_size or count % head_size:
        raise tensor.error(f"has shape {tensor.shape}, which is not a number of heads")
    if not bias:
        parts = {name: HalvesApart(rows, head_size) for name, rows in tensor.parts.items()}
        return replace(tensor, parts=parts)
    if NUMBERS not in tensor.parts:
        raise tensor.error(f"has type {tensor.encoding.name}; expected F32")
    return replace(
        tensor, parts={NUMBERS: Reordered(tensor.parts[NUMBERS], order(count, head_size))}
    )


def order(count: int, head_size: int) -> list[int]:
    """The places in the file of ``count`` rows of the network."""
    heads = range(0, count, head_size)
    return [head + half + i for head in heads for half in (0, 1) for i in range(0, head_size, 2)]


def interleaved(tensor: Tensor, head_size: int) -> Tensor:
    """The reverse of ``halves_apart``."""
    parts: dict[str, Rows] = {}
    for name, rows in tensor.parts.items():
        if len(tensor.shape) == 1:
            places = order(tensor.columns, head_size)
            parts[name] = Reordered(rows, sorted(range(len(places)), key=places.__getitem__))
        else:
            parts[name] = HalvesApart(rows, head_size, reverse=True)
    return replace(tensor, parts=parts)


class _Rearranged:
    """Rows of the same number and width as those that are stored."""

    def __init__(self, stored: Rows) -> None:
        self.stored = stored
        self.count, self.width = stored.count, stored.width


class HalvesApart(_Rearranged):
    """The rows of a matrix; see ``halves_apart``. Only whole heads are read."""

    def __init__(self, stored: Rows, head_size: int, *, reverse: bool = False) -> None:
        """Read the stored rows in another order.

        Args:
            stored: the rows.
            head_size: rows of a head.
            reverse: the rows are as files have them, and those of ``stored`` are not.
        """
        super().__init__(stored)
        self.head_size = head_size
        self.reverse = reverse

    def read(self, start: int, stop: int) -> Bytes:
        """See ``Rows.read``."""
        size = self.head_size
        first, last = start // size * size, -(-stop // size) * size
        halves = (2, size // 2) if self.reverse else (size // 2, 2)
        heads = self.stored.read(first, last).reshape(-1, *halves, self.width)
        rows = heads.swapaxes(1, 2).reshape(last - first, self.width)
        return contiguous(rows[start - first : stop - first])


class Reordered(_Rearranged):
    """One row whose numbers of equal size are in another order."""

    def __init__(self, stored: Rows, places: Sequence[int]) -> None:
        """Read the number at each of these places of the stored row."""
        super().__init__(stored)
        self.places = places

    def read(self, start: int, stop: int) -> Bytes:
        """See ``Rows.read``."""
        numbers = self.stored.read(start, stop).reshape(stop - start, len(self.places), -1)
        return contiguous(numbers[:, self.places].reshape(stop - start, self.width))


def contiguous(rows: Bytes) -> Bytes:
    """The same array, or a copy of it, in which rows lie one after the other."""
    array: Bytes = loaded("numpy", "ascontiguousarray")(rows)
    return array
