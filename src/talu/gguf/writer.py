"""Writes the header of a GGUF file, and says where its tensors begin.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from talu.exceptions import ModelError
from talu.gguf.encodings import TYPES
from talu.gguf.header import (
    ALIGNMENT,
    ARRAY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    NUMBERS,
    STRING,
    Metadata,
)

__all__ = ["Entry", "Layout", "place", "typed", "with_types"]

VERSION = 3
KINDS = {np.dtype(name): kind for kind, name in NUMBERS.items()}

Typed = str | list[str] | np.generic | NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tensor of a file that will be written.

    Attributes:
        name: in the file.
        type: its name in ``TYPES``.
        shape: in C order.
    """

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the tensor."""
        kind = TYPES[self.type]
        return prod(self.shape) // kind.columns * kind.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A header, and the places of the tensors after it.

    Attributes:
        header: the first bytes of the file.
        starts: where each tensor begins, in the order of the entries.
        size: bytes of the file.
    """

    header: bytes
    starts: tuple[int, ...]
    size: int


def place(metadata: Mapping[str, Typed], entries: Sequence[Entry]) -> Layout:
    """Encode a header for tensors that lie one after the other.

    Args:
        metadata: values by key; see ``typed``.
        entries: the tensors.

    Raises:
        ModelError: a text is not valid Unicode.
    """
    chosen = metadata.get(ALIGNMENT)
    alignment: int = chosen.item() if isinstance(chosen, np.generic) else DEFAULT_ALIGNMENT
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_text(key), *_value(value)]
        except UnicodeEncodeError as error:
            raise ModelError(
                f"the value of {key[:100]!r} has a lone surrogate, "
                "which a GGUF file cannot hold; remove it from the files of the model"
            ) from error
    offset, offsets = 0, []
    for entry in entries:
        dimensions = entry.shape[::-1]
        parts.append(_text(entry.name))
        parts.append(struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        parts.append(struct.pack("<IQ", TYPES[entry.type].number, offset))
        offsets.append(offset)
        offset = _up(offset + entry.bytes, alignment)
    header = b"".join(parts)
    header += bytes(-len(header) % alignment)
    starts = tuple(len(header) + each for each in offsets)
    return Layout(header=header, starts=starts, size=len(header) + offset)


def typed(value: bool | float | str | list[str] | NDArray[np.generic]) -> Typed:
    """A value with the type that readers expect: 32 bits for plain numbers.

    Raises:
        OverflowError: a whole number is negative or too large.
    """
    match value:
        case bool():
            return np.bool_(value)
        case int():
            return np.uint32(value)
        case float():
            return np.float32(value)
        case _:
            return value


def with_types(metadata: Metadata, types: Mapping[str, int]) -> dict[str, Typed]:
    """The metadata of a file that was read, with the types that it had there."""
    found: dict[str, Typed] = {}
    for key, value in metadata.items():
        if isinstance(value, bool | int | float):
            found[key] = np.dtype(NUMBERS[types[key]]).type(value)
        elif isinstance(value, memoryview):
            found[key] = np.asarray(value)
        elif isinstance(value, str):
            found[key] = value
        else:
            found[key] = [*value]
    return found


def _value(value: Typed) -> list[bytes]:
    match value:
        case str():
            return [struct.pack("<I", STRING), _text(value)]
        case list():
            return [struct.pack("<IIQ", ARRAY, STRING, len(value)), *map(_text, value)]
        case np.ndarray():
            kind = KINDS[value.dtype.newbyteorder("<")]
            return [struct.pack("<IIQ", ARRAY, kind, len(value)), value.tobytes()]
        case _:
            return [struct.pack("<I", KINDS[value.dtype.newbyteorder("<")]), value.tobytes()]


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
