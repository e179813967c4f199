"""Writes valid and invalid safetensors files without the reference implementation."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Write = Callable[..., Path]


@pytest.fixture
def write_file(tmp_path: Path) -> Write:
    """Writes length, header (an object, or bytes as they are) and data to a file."""

    def write(
        header: Any, data: bytes = b"", *, length: int | None = None, name: str = "x.safetensors"
    ) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return path

    return write


@pytest.fixture
def save_tensors() -> Callable[[Path, dict[str, np.ndarray[Any, Any]]], Path]:
    """Writes float32 arrays, and uint16 arrays as BF16 bits, as one safetensors file."""

    def save(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Path:
        header, position = {}, 0
        for name, array in arrays.items():
            dtype = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[array.dtype.name]
            offsets = [position, position := position + array.nbytes]
            header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = b"".join(array.tobytes() for array in arrays.values())
        path.write_bytes(struct.pack("<Q", len(text)) + text + content)
        return path

    return save
