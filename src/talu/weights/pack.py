"""Packs logical tensors for the native kernels, or maps a packed file."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.protocols import PackedTensor
from talu.weights import cache, packed_file
from talu.weights.checkpoint import Checkpoint
from talu.weights.encode import encode_rows
from talu.weights.layout import ROTATED, VECTOR, is_quantised
from talu.weights.packed_file import Bytes, Packed, Slot, UnusableError
from talu.weights.progress import Progress
from talu.weights.tensors import ARRAY_TYPES, BLOCKS, Tensor, as_float32, check_equal

__all__ = [
    "CACHE_FROM_BYTES",
    "LoadedWeights",
    "Quantizer",
    "load_packed",
    "pack_in_memory",
    "packed_bytes",
]

CACHE_FROM_BYTES = 16 << 20  # packing less takes at most 25 ms and is not worth a file
ROWS = 64  # whose tiles have a multiple of 64 bytes, in every format
CHUNK = 32 << 20  # bytes, as float32, of the rows that are computed at once


class Quantizer(Protocol):
    """Knows which errors of the weights matter, for formats whose codes are chosen."""

    @property
    def key(self) -> list[Any]:
        """Identifies the codes that it leads to, in JSON types."""

    def factor(self, name: str) -> NDArray[np.float32] | None:
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
        data: Bytes,
        *,
        from_cache: bool,
        mapped: bool,
        note: str | None = None,
    ) -> None:
        """Make read-only views of ``data``."""
        data.flags.writeable = False
        self._tensors = {name: _packed(slot, data) for name, slot in slots.items()}
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
    sizes = {name: _size(checkpoint[name], kind) for name, kind in layout.items()}
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
            quantize_tensor(tensor, kind, out, factor, num_threads)
        else:
            pack_tensor(tensor, kind, out, num_threads)
        progress.add(len(out))

    if same:
        check_equal(*same)
    saved: Packed | str | None = None
    what = "quantising" if quantizer else "preparing"
    if cached and (quantizer or size >= CACHE_FROM_BYTES):
        with Progress(f"{what} the weights of the model, once", size) as progress:
            saved = cache.save(key, slots, fill, use_mmap=use_mmap)
    if isinstance(saved, tuple):
        loaded = LoadedWeights(*saved, from_cache=False, mapped=use_mmap)
    else:
        data = packed_file.aligned(size)
        with Progress(f"{what} the weights of the model", size) as progress:
            for name, slot in slots.items():
                fill(name, data[slot.offset : slot.offset + slot.size])
        loaded = LoadedWeights(slots, data, from_cache=False, mapped=False, note=saved)
    checkpoint.check_unchanged()
    return loaded


def packed_bytes(checkpoint: Checkpoint, layout: Mapping[str, str]) -> int:
    """Size of the tensors in these formats, by name; reads none of them."""
    sizes = {name: _size(checkpoint[name], kind) for name, kind in layout.items()}
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


def _packed(slot: Slot, data: Bytes) -> PackedTensor:
    """The tensor at ``slot`` of ``data``."""
    piece: NDArray[Any] = data[slot.offset : slot.offset + slot.size]
    if slot.format == VECTOR:
        piece = piece.view(np.float32)
    return PackedTensor(slot.format, slot.shape, piece)


def pack_tensor(tensor: Tensor, packed_format: str, out: Bytes, num_threads: int) -> None:
    """Pack a tensor into ``out``, which has the size for this format.

    What has to be computed or put together first is done for a part of the rows at a time.
    """
    if packed_format == VECTOR:
        out.view(np.float32)[:] = as_float32(tensor)
    elif BLOCKS in tensor.parts:
        _native.pack(packed_format, tensor.parts[BLOCKS].read(0, tensor.rows), out, num_threads)
    elif tensor.encoding.name in ARRAY_TYPES:
        _native.pack(packed_format, tensor.array(), out, num_threads)
    else:
        for start, stop, packed in _slices(tensor, packed_format, out):
            _native.pack(
                packed_format, _source(tensor, packed_format, start, stop), packed, num_threads
            )


def _slices(tensor: Tensor, packed_format: str, out: Bytes) -> Iterator[tuple[int, int, Bytes]]:
    """Neighbouring rows of a tensor, and their place in ``out``."""
    step = max(1, CHUNK // (4 * max(1, tensor.columns) * ROWS)) * ROWS
    size = _native.packed_bytes(packed_format, ROWS, tensor.columns)
    for start in range(0, tensor.rows, step):
        stop = min(start + step, tensor.rows)
        begin = start // ROWS * size
        end = begin + _native.packed_bytes(packed_format, stop - start, tensor.columns)
        yield start, stop, out[begin:end]


def _source(tensor: Tensor, packed_format: str, start: int, stop: int) -> NDArray[Any]:
    """Rows in the form that the native module packs: blocks of all parts, or float32."""
    if packed_format == tensor.encoding.name.lower():
        size, blocks = tensor.encoding.parts, tensor.columns // tensor.encoding.columns
        parts = [
            tensor.parts[name].read(start, stop).reshape(stop - start, blocks, size[name])
            for name in size
        ]
        return np.concatenate(parts, axis=2).reshape(stop - start, -1)
    if tensor.floats is None:
        raise tensor.error(
            f"has type {tensor.encoding.name}, which is not stored as {packed_format}"
        )
    return tensor.floats.read(start, stop).view(np.float32)


def quantize_tensor(
    tensor: Tensor,
    packed_format: str,
    out: Bytes,
    factor: NDArray[np.float32] | None,
    num_threads: int,
) -> None:
    """Choose the codes of a matrix, some rows at a time."""
    for start, stop, packed in _slices(tensor, packed_format, out):
        rows = as_float32(tensor.some_rows(start, stop))
        if packed_format in ROTATED:
            _native.choose(packed_format, rows, packed, factor, num_threads)
            continue
        parts = encode_rows(
            packed_format.upper(),
            rows,
            name=tensor.name,
            start=start,
            factor=factor,
            num_threads=num_threads,
        )
        _native.pack(packed_format, parts[BLOCKS], packed, num_threads)


def pack_in_memory(tensor: Tensor | NDArray[np.float32], num_threads: int) -> PackedTensor:
    """A tensor in the format that stores exactly what it has, or a matrix of float32."""
    if isinstance(tensor, Tensor):
        kind = VECTOR if len(tensor.shape) == 1 else tensor.encoding.name.lower()
        kind, shape, size = _size(tensor, kind)
        out = packed_file.aligned(size)
        pack_tensor(tensor, kind, out, num_threads)
        return _packed(Slot(kind, shape, 0, size), out)
    out = packed_file.aligned(_native.packed_bytes("f32", *tensor.shape))
    _native.pack("f32", tensor, out, num_threads)
    return PackedTensor("f32", tensor.shape, out)


def _size(tensor: Tensor, packed_format: str) -> tuple[str, tuple[int, ...], int]:
    """Packed format, shape and bytes of a tensor."""
    if packed_format == VECTOR:
        return VECTOR, tensor.shape, 4 * tensor.columns
    return packed_format, tensor.shape, _native.packed_bytes(packed_format, *tensor.shape)
