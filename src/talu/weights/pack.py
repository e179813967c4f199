"""Packs a checkpoint's tensors into the native kernels' layout, or maps a packed file."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu import _native
from talu.error_text import shown
from talu.exceptions import ModelError
from talu.protocols import PackedTensor
from talu.weights import cache, packed_file
from talu.weights.checkpoint import Checkpoint
from talu.weights.packed_file import Bytes, Packed, Slot, UnusableError
from talu.weights.progress import Progress

__all__ = ["CACHE_FROM_BYTES", "LoadedWeights", "UnequalError", "load_packed"]

CACHE_FROM_BYTES = 16 << 20  # packing less takes at most 25 ms and is not worth a file
MATRIX_FORMATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # by the type in the checkpoint
INTEGERS = "i16"
VECTOR = "vector"


class UnequalError(Exception):
    """Two tensors that must be equal are not."""


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
        self._tensors = {name: tensor(slot, data) for name, slot in slots.items()}
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
    folder: Path,
    wanted: Mapping[str, tuple[int, ...]],
    *,
    names: Mapping[str, str] | None = None,
    equal: tuple[str, str] | None = None,
    as_integers: Collection[str] = (),
    use_mmap: bool = True,
    num_threads: int = 0,
) -> LoadedWeights:
    """Load the wanted tensors of the checkpoint in ``folder``, packed for the native kernels.

    Matrices keep their type (f32, f16, bf16) and are packed into tiles; vectors become float32.

    Args:
        folder: a checkpoint folder.
        wanted: shapes by name, of one or two dimensions.
        names: the checkpoint's name for each wanted name; None if all are the same.
        equal: two names of the checkpoint whose tensors must be equal. They are compared when the
            weights are packed, not again when the packed file is opened.
        as_integers: names of matrices that become i16 if they are f32 in the checkpoint.
        use_mmap: map the packed file. Otherwise no file is mapped: the packed file, or the
            checkpoint if there is none, is read into private memory.
        num_threads: number of packing threads; 0 for all that the process may use.

    Returns:
        the tensors. Less than 16 MiB is packed into private memory at every open, regardless of
        ``use_mmap``, because no packed file is saved.

    Raises:
        UnequalError: the two tensors are not equal.
        ModelError: the checkpoint is damaged, a tensor is missing or has the wrong shape or type,
            or the files change while they are read.
        ResourceError: there is not enough memory.
    """
    source = cache.source_of(folder)
    key = {
        "packing": _native.PACKING_VERSION,
        "source": [list(file) for file in source],
        "wanted": {name: list(shape) for name, shape in wanted.items()},
        "as_integers": sorted(as_integers),
    }
    if equal:
        key["equal"] = sorted(equal)

    def check(slots: Mapping[str, Slot]) -> None:
        check_slots(slots, wanted, as_integers)

    if found := cache.find(key, use_mmap=use_mmap, check=check):
        return LoadedWeights(*found, from_cache=True, mapped=use_mmap)

    checkpoint = Checkpoint.open(folder, use_mmap=use_mmap)

    def fill(name: str, out: Bytes) -> None:
        pack_tensor(checkpoint, name, slots[name].format, out, num_threads)
        progress.add(len(out))

    try:
        if equal and not checkpoint.equal(*equal):
            raise UnequalError(f"tensors {equal} in {folder} differ")
        if names is not None:
            checkpoint.rename(names)
        checkpoint.check(wanted)
        slots, size = packed_file.place(
            {name: plan(checkpoint, name, as_integers=name in as_integers) for name in wanted}
        )
        saved: Packed | str | None = None
        if size >= CACHE_FROM_BYTES:
            with Progress("preparing the weights of the model, once", size) as progress:
                saved = cache.save(key, slots, fill, use_mmap=use_mmap)
        if isinstance(saved, tuple):
            loaded = LoadedWeights(*saved, from_cache=False, mapped=use_mmap)
        else:
            data = packed_file.aligned(size)
            with Progress("preparing the weights of the model", size) as progress:
                for name, slot in slots.items():
                    fill(name, data[slot.offset : slot.offset + slot.size])
            loaded = LoadedWeights(slots, data, from_cache=False, mapped=False, note=saved)
    finally:
        checkpoint.close()
    if cache.source_of(folder) != source:
        raise ModelError(f"the weights in {folder} changed while they were read; open them again")
    return loaded


def check_slots(
    slots: Mapping[str, Slot], wanted: Mapping[str, tuple[int, ...]], as_integers: Collection[str]
) -> None:
    """Refuse slots of a packed file that do not match the wanted tensors.

    Raises:
        UnusableError: there is a missing or extra slot, or one with another shape, format or size.
    """
    if slots.keys() != wanted.keys():
        raise UnusableError("its tensors are not those that the model needs")
    for name, slot in slots.items():
        allowed = {VECTOR} if len(slot.shape) == 1 else {*MATRIX_FORMATS.values()}
        if name in as_integers:
            allowed = {*allowed, INTEGERS} - {MATRIX_FORMATS["F32"]}
        if slot.shape != wanted[name] or slot.format not in allowed:
            raise UnusableError(f"{shown(name)} is not the tensor that the model needs")
        size = 4 * slot.shape[0]
        if slot.format != VECTOR:
            size = _native.packed_bytes(slot.format, *slot.shape)
        if slot.size != size:
            raise UnusableError(f"{shown(name)} has {slot.size} bytes instead of {size}")


def tensor(slot: Slot, data: Bytes) -> PackedTensor:
    """The tensor at ``slot`` of ``data``."""
    piece: NDArray[Any] = data[slot.offset : slot.offset + slot.size]
    if slot.format == VECTOR:
        piece = piece.view(np.float32)
    return PackedTensor(slot.format, slot.shape, piece)


def plan(
    checkpoint: Checkpoint, name: str, *, as_integers: bool
) -> tuple[str, tuple[int, ...], int]:
    """Packed format, shape and bytes of a tensor.

    Raises:
        ModelError: its type is not supported, or it is neither a matrix nor a vector.
    """
    info = checkpoint.info(name)
    if info.dtype not in MATRIX_FORMATS:
        raise checkpoint.unreadable(name)
    if len(info.shape) == 1:
        return VECTOR, info.shape, 4 * info.shape[0]
    if len(info.shape) != 2:
        raise ModelError(f"tensor {name!r} of shape {info.shape} is neither matrix nor vector")
    kind = INTEGERS if as_integers and info.dtype == "F32" else MATRIX_FORMATS[info.dtype]
    return kind, info.shape, _native.packed_bytes(kind, *info.shape)


def pack_tensor(
    checkpoint: Checkpoint, name: str, packed_format: str, out: Bytes, num_threads: int
) -> None:
    """Pack a tensor into ``out``; ``plan`` gave its format and size."""
    info, array = checkpoint.info(name), checkpoint.raw(name)
    if packed_format != VECTOR:
        _native.pack(packed_format, array, out, num_threads)
    else:
        out.view(np.float32)[:] = as_float32(array, info.dtype)


def as_float32(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Convert the result of ``Checkpoint.raw`` for a tensor of type ``dtype`` to float32."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.view(np.float16 if dtype == "F16" else np.float32).astype(np.float32)
