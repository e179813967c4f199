"""Logical tensors: rows of an encoding, which can be read without loading the tensor."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu.exceptions import ModelError
from talu.weights.files import OpenFile
from talu.weights.numbers import as_float32
from talu.weights.safetensors_folder import open_folder
from talu.weights.tensors import ENCODINGS, NUMBERS, Encoding, FileRows, Tensor

MAPPED = pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])
BLOCKS = Encoding("Q4_X", 32, {"codes": 16, "scales": 2})


@MAPPED
def test_any_range_of_rows_can_be_read(
    tmp_path: Path, save_tensors: Callable[..., Path], use_mmap: bool
) -> None:
    array = np.arange(60, dtype=np.float32).reshape(12, 5)
    save_tensors(tmp_path / "model.safetensors", {"first": array + 1, "a": array})
    with open_folder(tmp_path, use_mmap=use_mmap) as checkpoint:
        rows = checkpoint["a"].parts[NUMBERS]
        for start, stop in ((0, 12), (3, 7), (11, 12), (4, 4)):
            found = rows.read(start, stop)
            assert found.shape == (stop - start, 20)
            assert found.tobytes() == array[start:stop].tobytes()


def test_only_the_pages_of_the_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # without its rows in memory
    rows = FileRows(OpenFile(path, use_mmap=False), 0, 1 << 20, 1 << 20)
    assert rows.read(1 << 19, (1 << 19) + 2).nbytes == 2 << 20


@MAPPED
def test_rows_outside_their_file_are_refused(tmp_path: Path, use_mmap: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    file = OpenFile(path, use_mmap=use_mmap)
    for start, count in ((0, 11), (96, 1), (-10, 1), (1 << 70, 1)):
        with pytest.raises(ModelError, match="it has 100 bytes"):
            FileRows(file, start, count, 10).read(0, count)


def test_an_empty_file_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert OpenFile(tmp_path / "empty").view(0, 0).tolist() == []


class Memory:
    """Rows in memory."""

    def __init__(self, data: Any) -> None:
        self.count, self.width = data.shape
        self._data = data

    def read(self, start: int, stop: int) -> Any:
        return self._data[start:stop]


def zeros(rows: int, width: int) -> Memory:
    return Memory(np.zeros((rows, width), np.uint8))


def tensor(shape: tuple[int, ...], encoding: Encoding, **parts: Memory) -> Tensor:
    return Tensor(name="t", file="f", shape=shape, encoding=encoding, parts=parts)


def test_a_block_encoding_has_parts_of_whole_blocks() -> None:
    found = tensor((6, 64), BLOCKS, codes=zeros(6, 32), scales=zeros(6, 4))
    assert (found.rows, found.columns) == (6, 64)
    with pytest.raises(ModelError, match="'t' has type Q4_X; supported are F32, F16, BF16"):
        found.array()


@pytest.mark.parametrize(
    ("shape", "parts", "words"),
    [
        ((6, 48), {"codes": zeros(6, 24), "scales": zeros(6, 3)}, "blocks of 32"),
        ((6, 64), {"codes": zeros(6, 32)}, "has parts of"),
        ((6, 64), {"codes": zeros(6, 32), "scales": zeros(5, 4)}, "has parts of"),
        ((6, 64), {"codes": zeros(6, 31), "scales": zeros(6, 4)}, "has parts of"),
        ((6, 64), {"codes": zeros(6, 32), "scales": zeros(6, 4), "x": zeros(1, 1)}, "has parts of"),
    ],
)
def test_parts_that_do_not_fit_the_shape_are_refused(
    shape: tuple[int, ...], parts: dict[str, Memory], words: str
) -> None:
    with pytest.raises(ModelError, match=f"f: tensor 't' .*{words}"):
        tensor(shape, BLOCKS, **parts)


def test_a_tensor_of_three_dimensions_has_the_rows_of_all_its_matrices() -> None:
    numbers = np.arange(24, dtype=np.float32)
    found = tensor((2, 3, 4), ENCODINGS["F32"], numbers=Memory(numbers.view("u1").reshape(6, 16)))
    assert (found.rows, found.columns) == (6, 4)
    assert as_float32(found).tolist() == numbers.reshape(2, 3, 4).tolist()


def test_a_closed_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(8))
    file = OpenFile(path, use_mmap=False)
    file.close()
    with pytest.raises(ModelError, match=os.strerror(9)):
        file.view(0, 8)
