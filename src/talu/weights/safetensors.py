"""Reads one safetensors file: 8 bytes of length, a JSON header, then the tensors' bytes.

The header is validated against the size of the file before any tensor is read, by the rules of the
reference implementation: the ranges cover the data without gaps or overlaps, and each has the size
that its type and shape require. https://github.com/huggingface/safetensors#format

If another program truncates a mapped file, reading it kills the process (SIGBUS). With
``use_mmap=False``, a truncated file raises ``ModelError``.
"""

import json
import math
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu.exceptions import ModelError

__all__ = ["MAX_JSON_BYTES", "SafetensorsFile", "TensorInfo", "parse_json"]

MAX_JSON_BYTES = 100_000_000  # the reference implementation's limit
BITS = {  # of one element
    "F32": 32, "F16": 16, "BF16": 16, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "BOOL": 8, "I8": 8, "U8": 8, "I16": 16,
    "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
}  # fmt: skip
ARRAY_TYPES = {"F32": "<f4", "F16": "<u2", "BF16": "<u2"}  # 16-bit floats as their raw bits
MAX_DIMENSIONS = 64
MAX_WHY = 500  # characters of an error, which can contain names from the file


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The type and shape of a tensor, and its byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """An open file. Returned arrays stay valid after ``close``.

    Attributes:
        tensors: the tensors of the file by name.
    """

    def __init__(self, path: Path, *, use_mmap: bool = True) -> None:
        """Open and check the file at ``path``.

        Args:
            path: a regular file.
            use_mmap: map the file; otherwise each tensor is read into its own memory.

        Raises:
            ModelError: the file cannot be opened, or is not a valid safetensors file.
        """
        self.path = path
        self._map: mmap.mmap | None = None
        try:
            # O_NONBLOCK, so that a named pipe fails below instead of waiting for a writer
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ModelError(f"cannot open {path}: {error.strerror}") from error
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise self._damaged("not a regular file")
            self.tensors: Mapping[str, TensorInfo] = self._read_header(status.st_size)
            if use_mmap:
                self._map = mmap.mmap(self._fd, status.st_size, access=mmap.ACCESS_READ)
        except OSError as error:
            self.close()
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def raw(self, name: str) -> NDArray[Any]:
        """The tensor ``name`` as float32, or as uint16 raw bits if it is F16 or BF16.

        Returns:
            a C-contiguous, aligned, little-endian array: a read-only view of the mapping if the
            data is aligned in the file, otherwise a copy.

        Raises:
            ModelError: the type is not F32, F16 or BF16, or the file cannot be read.
        """
        info = self.tensors[name]
        if info.dtype not in ARRAY_TYPES:
            raise self.unreadable(name)
        kind, size = np.dtype(ARRAY_TYPES[info.dtype]), info.end - info.start
        if self._map is None:
            return self._read(info.start, size).view(kind).reshape(info.shape)
        flat = np.frombuffer(self._map, kind, size // kind.itemsize, info.start)
        return np.require(flat, requirements="A").reshape(info.shape)

    def unreadable(self, name: str) -> ModelError:
        """The error for a tensor of an unsupported type."""
        return ModelError(
            f"{self.path}: tensor {name!r} has type {self.tensors[name].dtype}; "
            f"supported are {', '.join(ARRAY_TYPES)}"
        )

    def close(self) -> None:
        """Close the file; idempotent. The mapping is released with the last array that uses it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._map = None

    def _read(self, start: int, size: int) -> NDArray[np.uint8]:
        """``size`` bytes at ``start``; the caller must have checked that they are in the file."""
        out = np.empty(size, np.uint8)
        done = 0
        while done < size:
            try:
                count = os.preadv(self._fd, [out.data[done:]], start + done)
            except OSError as error:
                raise ModelError(f"cannot read {self.path}: {error.strerror}") from error
            if count == 0:
                raise self._damaged("it was truncated while it was read")
            done += count
        return out

    def _read_header(self, file_size: int) -> dict[str, TensorInfo]:
        if file_size < 8:
            raise self._damaged(f"{file_size} bytes are too few for a safetensors file")
        length = int.from_bytes(self._read(0, 8).tobytes(), "little")
        if length > MAX_JSON_BYTES:
            raise self._damaged(
                f"its header claims {length} bytes; the maximum is {MAX_JSON_BYTES}"
            )
        if length > file_size - 8:
            raise self._damaged(f"its header claims {length} bytes, but the file has {file_size}")
        text = self._read(8, length).tobytes()
        if not text.startswith(b"{"):
            raise self._damaged("its header does not start with '{'")
        header = parse_json(text, self.path)
        header.pop("__metadata__", None)
        data = 8 + length
        tensors = {name: self._tensor(name, entry, data) for name, entry in header.items()}
        position = data
        for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
            if info.start != position:
                what = "overlaps the one before it" if info.start < position else "follows a gap"
                raise self._damaged(f"tensor {name!r} {what}")
            position = info.end
        if position != file_size:
            raise self._damaged(
                f"its tensors end at byte {position}, the file at {file_size}; "
                "the download or copy may be incomplete"
            )
        return tensors

    def _tensor(self, name: str, entry: object, data: int) -> TensorInfo:
        """One entry of the header, validated; its offsets count from byte ``data``."""
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"tensor {name!r} must have exactly dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str):
            raise self._damaged(f"tensor {name!r}: dtype is not a string")
        if not is_list_of_sizes(shape) or len(shape) > MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r}: shape is not a list of sizes")
        if not is_list_of_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._damaged(f"tensor {name!r}: data_offsets is not a pair [start, end]")
        start, end = offsets
        if dtype in BITS and math.prod(shape) * BITS[dtype] != 8 * (end - start):
            raise self._damaged(
                f"tensor {name!r}: {dtype} {tuple(shape)} does not fill {end - start} bytes"
            )
        return TensorInfo(dtype, tuple(shape), data + start, data + end)

    def _damaged(self, why: str) -> ModelError:
        return ModelError(f"{self.path} is not a valid safetensors file: {why[:MAX_WHY]}")


def is_list_of_sizes(value: object) -> bool:
    """Whether ``value`` is a list of integers from 0 to 2**63 - 1; booleans do not count."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def parse_json(text: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in ``text``, the content of ``path``.

    Raises:
        ModelError: the text is not UTF-8, not JSON, too deeply nested, not an object, or repeats a
            key.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: damaged JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: damaged JSON: expected an object at the top level")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name[:100]!r} occurs twice")
        result[name] = value
    return result
