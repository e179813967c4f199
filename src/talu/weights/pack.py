"""Maps the packed file of a model, or has it written."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from talu import _native
from talu.first_use import loaded
from talu.protocols import PackedTensor
from talu.weights import cache, packed_file
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import Bytes
from talu.weights.layout import VECTOR, is_quantised
from talu.weights.packed_file import Packed, Slot, UnusableError
from talu.weights.progress import Progress
from talu.weights.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CACHE_FROM_BYTES",
    "LoadedWeights",
    "Quantizer",
    "load_packed",
    "packed_at",
    "packed_bytes",
    "packed_size",
]

PACKING = "talu.weights.packing"  # loads NumPy
CACHE_FROM_BYTES = 16 << 20  # packing less takes at most 25 ms and is not worth a file


class Quantizer(Protocol):
    """Knows which errors of the weights matter, for formats whose codes are chosen."""

    @property
    def key(self) -> list[Any]:
        """Identifies the codes that it leads to, in JSON types."""

    def factor(self, name: str) -> "NDArray[np.float32] | None":
        """What choosing codes needs to know about the inputs of a weight; None if nothing is.

        It is asked for the weights in the order of the network.
        """


class LoadedWeights(Mapping[str, PackedTensor]):
    """Packed tensors by name. Their memory is freed after ``close`` with the last array.

    Attributes:
        from_cache: whether an earlier open packed them.
        mapped: whether they are in a mapped file, shared with other processes, instead of private
            memory.
        bytes: size of all packed tensors.
        note: why the packed weights could not be saved for the next open; None when they could, or
            when they are too small to be worth it.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        data: memoryview,
        *,
        from_cache: bool,
        mapped: bool,
        note: str | None = None,
    ) -> None:
        """Make read-only views of ``data``."""
        self._tensors = {name: packed_at(slot, data) for name, slot in slots.items()}
        self.from_cache = from_cache
        self.mapped = mapped
        self.note = note
        self.bytes = sum(slot.size for slot in slots.values())

    def __getitem__(self, name: str) -> PackedTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def close(self) -> None:
        """Release the tensors; idempotent."""
        self._tensors = {}


def load_packed(
    checkpoint: Checkpoint,
    layout: Mapping[str, str],
    *,
    same: tuple[Tensor, Tensor] | None = None,
    use_mmap: bool = True,
    num_threads: int = 0,
    quantizer: Quantizer | None = None,
) -> LoadedWeights:
    """Load tensors, packed for the native kernels.

    Args:
        checkpoint: has the tensors.
        layout: format of each tensor to load, by name; from ``choose_layout``.
        same: tensors that must be equal. They are compared when the weights are packed, not again
            when the packed file is opened.
        use_mmap: map the packed file. Otherwise the packed file, or the checkpoint if there is
            none, is read into private memory.
        num_threads: number of packing threads; 0 for all that the process may use.
        quantizer: needed for formats whose codes are chosen.

    Returns:
        the tensors. Less than 16 MiB is packed into private memory at every open, regardless of
        ``use_mmap``, because no packed file is saved; the same holds for tensors without a file.
        Quantised tensors are saved whatever their size.

    Raises:
        UnequalError: the two tensors are not equal.
        ModelError: the checkpoint is damaged, a tensor is missing, or the files change while they
            are read.
        ResourceError: there is not enough memory.
    """
    sizes = {name: packed_size(checkpoint[name], kind) for name, kind in layout.items()}
    slots, size = packed_file.place(sizes)
    key = _key(checkpoint, sizes, same, quantizer)

    def check(found: Mapping[str, Slot]) -> None:
        if found != slots:
            raise UnusableError("its tensors are not those that the model needs")

    cached = bool(checkpoint.files)
    if cached and (found := cache.find(key, use_mmap=use_mmap, check=check)):
        return LoadedWeights(*found, from_cache=True, mapped=use_mmap)

    def fill(name: str, out: Bytes) -> None:
        tensor, kind = checkpoint[name], slots[name].format
        if is_quantised(tensor, kind):
            factor = quantizer.factor(name) if quantizer else None
            loaded(PACKING, "quantize_tensor")(tensor, kind, out, factor, num_threads)
        else:
            loaded(PACKING, "pack_tensor")(tensor, kind, out, num_threads)
        progress.add(len(out))

    if same:
        loaded("talu.weights.numbers", "check_equal")(*same)
    saved: Packed | str | None = None
    what = "quantising" if quantizer else "preparing"
    if cached and (quantizer or size >= CACHE_FROM_BYTES):
        with Progress(f"{what} the weights of the model, once", size) as progress:
            saved = cache.save(key, slots, fill, use_mmap=use_mmap)
    if isinstance(saved, tuple):
        weights = LoadedWeights(*saved, from_cache=False, mapped=use_mmap)
    else:
        data = packed_file.aligned(size)
        with Progress(f"{what} the weights of the model", size) as progress:
            for name, slot in slots.items():
                fill(name, data[slot.offset : slot.offset + slot.size])
        weights = LoadedWeights(slots, data.data, from_cache=False, mapped=False, note=saved)
    checkpoint.check_unchanged()
    return weights


def packed_bytes(checkpoint: Checkpoint, layout: Mapping[str, str]) -> int:
    """Size of the tensors in these formats, by name; reads none of them."""
    sizes = {name: packed_size(checkpoint[name], kind) for name, kind in layout.items()}
    return packed_file.place(sizes)[1]


def _key(
    checkpoint: Checkpoint,
    sizes: Mapping[str, tuple[str, tuple[int, ...], int]],
    same: tuple[Tensor, Tensor] | None,
    quantizer: Quantizer | None,
) -> dict[str, Any]:
    """Identifies the content of a packed file, in JSON types."""
    key: dict[str, Any] = {
        "packing": _native.PACKING_VERSION,
        "source": [list(file) for file in checkpoint.files],
        "layout": {name: [kind, list(shape)] for name, (kind, shape, _) in sizes.items()},
    }
    if checkpoint.meaning:
        key["meaning"] = checkpoint.meaning
    if quantizer:
        key["quantizer"] = quantizer.key
    if same:
        key["equal"] = sorted(tensor.name for tensor in same)
    return key


def packed_at(slot: Slot, data: memoryview) -> PackedTensor:
    """The tensor at ``slot`` of ``data``."""
    piece = data[slot.offset : slot.offset + slot.size].toreadonly()
    return PackedTensor(
        slot.format, slot.shape, piece.cast("f") if slot.format == VECTOR else piece
    )


def packed_size(tensor: Tensor, packed_format: str) -> tuple[str, tuple[int, ...], int]:
    """Packed format, shape and bytes of a tensor."""
    if packed_format == VECTOR:
        return VECTOR, tensor.shape, 4 * tensor.columns
    return packed_format, tensor.shape, _native.packed_bytes(packed_format, *tensor.shape)
