"""Writing safetensors files: their bytes, shards and index, and failures."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from talu.weights.safetensors_folder import open_folder
from talu.weights.safetensors_writer import Planned, SafetensorsWriter, folder_bytes

METADATA = {"format": "mlx"}
random = np.random.default_rng(0)
ARRAYS = {
    "b.weight": random.integers(0, 2**32, (6, 4), np.uint32),
    "a.weight": random.standard_normal((3, 5), np.float32),
    "a.bias": random.standard_normal(7).astype(np.float16),
    "c": np.zeros((0, 4), np.float32),
}
TYPES = {"uint32": "U32", "float32": "F32", "float16": "F16"}
PLAN = {name: Planned(TYPES[array.dtype.name], array.shape) for name, array in ARRAYS.items()}


def write(folder: Path, *, max_shard: int = 10**6) -> None:
    """Write the arrays side by side, five bytes at a time."""
    left = {name: array.reshape(-1).view(np.uint8) for name, array in ARRAYS.items()}
    with SafetensorsWriter(folder, PLAN, metadata=METADATA, max_shard=max_shard) as writer:
        while any(map(len, left.values())):
            for name, data in left.items():
                writer.append(name, data[:5])
                left[name] = data[5:]


def test_the_reference_implementation_reads_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    found = load_file(tmp_path / "model.safetensors")
    assert list(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == METADATA


def test_shards_have_at_most_the_maximum_size_and_an_index(tmp_path: Path) -> None:
    write(tmp_path, max_shard=100)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in ARRAYS.values())}
    assert index["weight_map"] == {
        "a.bias": files[0], "a.weight": files[0], "b.weight": files[1], "c": files[1],
    }  # fmt: skip
    with open_folder(tmp_path) as found:
        assert found.names == sorted(ARRAYS)
        np.testing.assert_array_equal(found["a.weight"].array(), ARRAYS["a.weight"])


def test_a_tensor_larger_than_a_shard_gets_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, max_shard=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(ARRAYS)


@pytest.mark.parametrize("max_shard", [10**6, 100, 1])
def test_the_size_of_all_files_is_known_before(tmp_path: Path, max_shard: int) -> None:
    write(tmp_path, max_shard=max_shard)
    found = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert found == folder_bytes(PLAN, METADATA, max_shard)


def test_the_tensors_start_at_a_multiple_of_8_bytes(tmp_path: Path) -> None:
    write(tmp_path)
    length = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert length % 8 == 0


def test_a_tensor_that_was_not_written_to_its_end_is_an_error(tmp_path: Path) -> None:
    writer = SafetensorsWriter(tmp_path, {"x": Planned("F32", (2,))}, metadata=METADATA)
    with pytest.raises(AssertionError, match="x was not written"), writer:
        writer.append("x", np.zeros(4, np.uint8))


def test_more_bytes_than_planned_are_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="more bytes"),
        SafetensorsWriter(tmp_path, {"x": Planned("F32", (2,))}, metadata=METADATA) as writer,
    ):
        writer.append("x", np.zeros(12, np.uint8))


def test_a_full_disk_is_found_out_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        SafetensorsWriter(tmp_path, PLAN, metadata=METADATA)
    assert (tmp_path / "model.safetensors").stat().st_size == 0
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(FileExistsError):
        write(tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "mine"
