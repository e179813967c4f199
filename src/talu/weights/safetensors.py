"""Reads one safetensors file: 8 bytes of length, a JSON header, then the tensors' bytes.

The header is validated against the size of the file before any tensor is read, by the rules of the
reference implementation: the ranges cover the data without gaps or overlaps, and each has the size
that its type and shape require. https://github.com/huggingface/safetensors#format
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from talu.exceptions import ModelError
from talu.weights.files import OpenFile
from talu.weights.tensors import ENCODINGS, NUMBERS, Encoding, FileRows, Tensor

__all__ = ["MAX_JSON_BYTES", "SafetensorsFile", "TensorInfo", "parse_json"]

MAX_JSON_BYTES = 100_000_000  # the reference implementation's limit
BITS = {  # of one element
    "F32": 32, "F16": 16, "BF16": 16, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "BOOL": 8, "I8": 8, "U8": 8, "I16": 16,
    "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
}  # fmt: skip
MAX_DIMENSIONS = 64
MAX_WHY = 500  # characters of an error, which can contain names from the file


class TensorInfo(NamedTuple):
    """The type and shape of a tensor, and its byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """An open file. Arrays that were read stay valid after ``close``.

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
        self._file = OpenFile(path, use_mmap=use_mmap)
        try:
            self.tensors: Mapping[str, TensorInfo] = self._read_header(self._file.size)
        except BaseException:
            self.close()
            raise

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name``; without parts if its numbers have no known number of bytes."""
        info = self.tensors[name]
        encoding = encoding_of(info.dtype)
        rows, columns = math.prod(info.shape[:-1]), info.shape[-1] if info.shape else 1
        parts = {
            part: FileRows(self._file, info.start, rows, size * columns)
            for part, size in encoding.parts.items()
        }
        return Tensor(
            name=name, file=str(self.path), shape=info.shape, encoding=encoding, parts=parts
        )

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def _read_header(self, file_size: int) -> dict[str, TensorInfo]:
        if file_size < 8:
            raise self._damaged(f"{file_size} bytes are too few for a safetensors file")
        length = int.from_bytes(self._file.content(0, 8), "little")
        if length > MAX_JSON_BYTES:
            raise self._damaged(
                f"its header claims {length} bytes; the maximum is {MAX_JSON_BYTES}"
            )
        if length > file_size - 8:
            raise self._damaged(f"its header claims {length} bytes, but the file has {file_size}")
        text = self._file.content(8, length)
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


def encoding_of(dtype: str) -> Encoding:
    """How the numbers of a type are stored, also of types that no network reads as they are."""
    size, rest = divmod(BITS.get(dtype, 0), 8)
    parts = {NUMBERS: size} if size and not rest else {}
    return ENCODINGS.get(dtype) or Encoding(dtype, 1, parts)


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
