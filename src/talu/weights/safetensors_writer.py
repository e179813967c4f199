"""Writes the tensors of a checkpoint as safetensors files, a part of a tensor at a time.

Types and shapes are known before the first byte is written, and with them the place of every
tensor. So tensors can be written in any order, several at once, and none is held in memory.
https://github.com/huggingface/safetensors#format
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

from talu.weights.files import Bytes
from talu.weights.safetensors import BITS
from talu.weights.safetensors_folder import INDEX, SINGLE

__all__ = ["MAX_SHARD", "Planned", "SafetensorsWriter", "folder_bytes"]

MAX_SHARD = 5 * 10**9  # bytes of the tensors in a file; a larger tensor has a file of its own
ALIGNMENT = 8  # of the first byte after the header


@dataclass(frozen=True, slots=True)
class Planned:
    """The type and shape of a tensor that will be written.

    Attributes:
        dtype: as in safetensors files, such as BF16.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * BITS[self.dtype] // 8


@dataclass(slots=True)
class Place:
    """Where a tensor is in a file, and how many of its bytes are written."""

    descriptor: int
    start: int
    size: int
    written: int = 0


class SafetensorsWriter:
    """Writes one file, or shards and their index, into a folder; closed by a ``with`` block.

    The files have their full size from the start, so that a full disk is found out early.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, Planned],
        *,
        metadata: Mapping[str, str],
        max_shard: int = MAX_SHARD,
    ) -> None:
        """Write the headers and the index.

        Args:
            folder: exists, and has none of the files.
            tensors: what will be written, by name; not empty.
            metadata: goes into each header.
            max_shard: bytes of the tensors in a file.

        Raises:
            OSError: a file cannot be written, or there is not enough space.
        """
        self._places: dict[str, Place] = {}
        self._descriptors: list[int] = []
        files = files_of(tensors, max_shard)
        try:
            for name, content in files.items():
                self._create(folder / name, content, metadata)
            if len(files) > 1:
                (folder / INDEX).write_text(index(files), encoding="utf-8")
        except BaseException:
            self._close()
            raise

    def append(self, name: str, data: Bytes) -> None:
        """Write the next bytes of a tensor.

        Raises:
            OSError: they cannot be written.
        """
        place = self._places[name]
        rest = data.reshape(-1).data
        assert place.written + len(rest) <= place.size, f"{name} has more bytes than planned"
        while rest:
            count = os.pwrite(place.descriptor, rest, place.start + place.written)
            place.written += count
            rest = rest[count:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files; without an error, check that they are complete, and sync them first.

        Raises:
            OSError: they cannot be synced.
        """
        try:
            if error is None:
                missing = [n for n, place in self._places.items() if place.written < place.size]
                assert not missing, f"{missing[0]} was not written to its end"
                for descriptor in self._descriptors:
                    os.fsync(descriptor)
        finally:
            self._close()

    def _create(
        self, path: Path, tensors: Mapping[str, Planned], metadata: Mapping[str, str]
    ) -> None:
        text = header(tensors, metadata)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._descriptors.append(descriptor)
        os.posix_fallocate(descriptor, 0, len(text) + sum(t.bytes for t in tensors.values()))
        start = os.pwrite(descriptor, text, 0)
        for name, tensor in tensors.items():
            self._places[name] = Place(descriptor, start, tensor.bytes)
            start += tensor.bytes

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def folder_bytes(
    tensors: Mapping[str, Planned], metadata: Mapping[str, str], max_shard: int = MAX_SHARD
) -> int:
    """The size of all files that a ``SafetensorsWriter`` writes for these arguments."""
    files = files_of(tensors, max_shard)
    listed = len(index(files).encode()) if len(files) > 1 else 0
    sizes = sum(tensor.bytes for tensor in tensors.values())
    return sizes + listed + sum(len(header(content, metadata)) for content in files.values())


def files_of(tensors: Mapping[str, Planned], limit: int) -> dict[str, dict[str, Planned]]:
    """The tensors of each file, sorted by name, by the name of the file."""
    shards = list(shards_of(tensors, limit))
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    count = f"{len(shards):05d}"
    return {f"model-{i:05d}-of-{count}.safetensors": shard for i, shard in enumerate(shards, 1)}


def shards_of(tensors: Mapping[str, Planned], limit: int) -> Iterator[dict[str, Planned]]:
    """Groups of tensors, sorted by name, with at most ``limit`` bytes, or with one tensor."""
    shard: dict[str, Planned] = {}
    size = 0
    for name, tensor in sorted(tensors.items()):
        if shard and size + tensor.bytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.bytes
    yield shard


def header(tensors: Mapping[str, Planned], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file: the length of the JSON text, and the text, padded with spaces."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in tensors.items():
        offsets = [position, position := position + tensor.bytes]
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def index(files: Mapping[str, Mapping[str, Planned]]) -> str:
    """The index of a folder with several files: the file of each tensor."""
    sizes = [tensor.bytes for content in files.values() for tensor in content.values()]
    placed = {name: file for file, content in files.items() for name in content}
    content = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(placed.items()))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
