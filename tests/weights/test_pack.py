import hashlib
import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu import _native
from talu.exceptions import ModelError, ResourceError
from talu.graph.numpy_executor import round_to
from talu.types import LocalBackend
from talu.weights import cache, pack, packed_file
from talu.weights.layout import Role, choose_layout
from talu.weights.mixtures import Part
from talu.weights.pack import CACHE_FROM_BYTES, LoadedWeights
from talu.weights.safetensors_folder import open_folder

Save = Callable[[Path, dict[str, Any]], Path]
WANTED = {"matrix": (40, 24), "vector": (24,), "half": (17, 32), "bits": (9, 16), "bias": (9,)}
LAYOUT = {"matrix": "f32", "vector": "vector", "half": "f16", "bits": "bf16", "bias": "vector"}
MAPPED = pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])


def tensors(seed: int = 1) -> dict[str, Any]:
    """Tensors of every type in which a weight can be stored."""
    random = np.random.default_rng(seed)

    def bf16(*shape: int) -> Any:
        return (random.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)

    return {
        "matrix": random.standard_normal((40, 24), np.float32),
        "vector": bf16(24),
        "half": random.standard_normal((17, 32)).astype(np.float16),
        "bits": bf16(9, 16),
        "bias": random.standard_normal(9).astype(np.float16),
        "unwanted": random.standard_normal(3, np.float32),
    }


def load_packed(
    folder: Path,
    wanted: dict[str, tuple[int, ...]],
    *,
    as_integers: Sequence[str] = (),
    use_mmap: bool = True,
) -> LoadedWeights:
    """Open a folder and pack the tensors; ``as_integers`` are those that an encoder multiplies."""
    with open_folder(folder, use_mmap=use_mmap) as checkpoint:
        checkpoint.check(wanted)
        roles = [
            Role(
                name=name,
                shape=shape,
                part=Part(multiplied=name in as_integers),
                generates=False,
            )
            for name, shape in wanted.items()
        ]
        layout = choose_layout(roles, checkpoint, LocalBackend(), _native.formats())
        return pack.load_packed(checkpoint, layout, use_mmap=use_mmap)


def values(array: Any) -> Any:
    """The values of a stored array."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def unpacked(weights: LoadedWeights) -> dict[str, Any]:
    return {
        name: tensor.data
        if tensor.format == "vector"
        else _native.unpack(tensor.format, tensor.data, *tensor.shape)
        for name, tensor in weights.items()
    }


def assert_right(weights: LoadedWeights, seed: int = 1) -> None:
    found, stored = unpacked(weights), tensors(seed)
    assert found.keys() == WANTED.keys()
    for name in WANTED:
        assert np.array_equal(found[name], values(stored[name])), name


@pytest.fixture
def folder(tmp_path: Path, save_tensors: Save) -> Path:
    save_tensors(tmp_path / "model" / "model.safetensors", tensors())
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def packed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test, which stores checkpoints of any size."""
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("talu.weights.pack.CACHE_FROM_BYTES", 0)
    cache.warn_once.cache_clear()
    return tmp_path / "cache" / "packed"


def only_file(packed_folder: Path) -> Path:
    (path,) = packed_folder.iterdir()
    return path


@MAPPED
def test_every_open_returns_the_same_tensors(folder: Path, use_mmap: bool) -> None:
    first = load_packed(folder, WANTED, use_mmap=use_mmap)
    second = load_packed(folder, WANTED, use_mmap=use_mmap)
    assert (first.from_cache, second.from_cache) == (False, True)
    for weights in (first, second):
        assert weights.mapped is use_mmap
        assert weights.note is None
        assert weights.bytes == sum(tensor.data.nbytes for tensor in weights.values())
        assert_right(weights)


@MAPPED
@pytest.mark.parametrize("threshold", [0, 1 << 40], ids=["kept", "too small to keep"])
def test_packed_tensors_have_the_specified_layout(
    folder: Path, use_mmap: bool, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.weights.pack.CACHE_FROM_BYTES", threshold)
    weights = load_packed(folder, WANTED, use_mmap=use_mmap)
    formats = {name: tensor.format for name, tensor in weights.items()}
    assert formats == LAYOUT
    for name, tensor in weights.items():
        assert tensor.shape == WANTED[name]
        data = np.asarray(tensor.data)
        assert data.ndim == 1
        assert data.dtype == (np.float32 if tensor.format == "vector" else np.uint8)
        assert data.ctypes.data % 64 == 0
        assert not data.flags.writeable


def test_f32_matrices_become_integers_on_request(folder: Path, packed_folder: Path) -> None:
    names = ("matrix", "half")
    weights = load_packed(folder, WANTED, as_integers=names)
    formats = {name: tensor.format for name, tensor in weights.items()}
    assert formats == LAYOUT | {"matrix": "i16"}
    rounded = round_to(tensors()["matrix"], "i16")
    np.testing.assert_array_equal(unpacked(weights)["matrix"], rounded)
    assert not load_packed(folder, WANTED).from_cache
    assert_right(load_packed(folder, WANTED))
    assert not load_packed(folder, WANTED, as_integers=names).from_cache
    assert load_packed(folder, WANTED, as_integers=names).from_cache


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_closing_releases_the_mapping_once_no_array_is_held(
    folder: Path, packed_folder: Path
) -> None:
    weights = load_packed(folder, WANTED)
    path = only_file(packed_folder)
    array = np.asarray(weights["matrix"].data)
    assert is_mapped(path)
    weights.close()
    weights.close()
    assert len(weights) == 0
    assert is_mapped(path)
    assert array.sum() > 0
    del array
    assert not is_mapped(path)


def test_without_mmap_no_file_stays_mapped(folder: Path, packed_folder: Path) -> None:
    weights = load_packed(folder, WANTED, use_mmap=False)
    assert not is_mapped(packed_folder)
    assert not is_mapped(folder)
    weights.close()


def test_a_small_checkpoint_is_packed_at_every_open_without_a_file(
    folder: Path, packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.weights.pack.CACHE_FROM_BYTES", CACHE_FROM_BYTES)
    for _ in range(2):
        weights = load_packed(folder, WANTED)
        assert (weights.from_cache, weights.mapped, weights.note) == (False, False, None)
        assert_right(weights)
    assert not packed_folder.exists()


def test_only_the_user_can_read_the_cache(folder: Path, packed_folder: Path) -> None:
    load_packed(folder, WANTED)
    assert packed_folder.stat().st_mode & 0o777 == 0o700
    assert only_file(packed_folder).stat().st_mode & 0o777 == 0o400


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def claim_newer_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:12] = struct.pack("<I", packed_file.LAYOUT + 1)
    path.write_bytes(content)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def hold_other_key(path: Path) -> None:
    key = packed_file.read_key(path) | {"packing": _native.PACKING_VERSION + 1}
    slots, _ = packed_file.place({"matrix": ("f32", (1, 1), 64)})
    packed_file.write(path, key, slots, lambda _, out: out.fill(0), use_mmap=False)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped magic": lambda path: flip(path, 0),
    "flipped table length": lambda path: flip(path, 12),
    "flipped checksum": lambda path: flip(path, 20),
    "flipped file size": lambda path: flip(path, 52),
    "flipped table": lambda path: flip(path, packed_file.HEADER.size + 10),
    "flipped payload": lambda path: flip(path, packed_file.PAGE),
    "flipped last byte": lambda path: flip(path, -1),
    "newer version": claim_newer_version,
    "other key": hold_other_key,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut to the header": lambda path: os.truncate(path, packed_file.HEADER.size),
    "cut within the header": lambda path: os.truncate(path, 20),
    "empty": lambda path: os.truncate(path, 0),
    "grown": lambda path: os.truncate(path, path.stat().st_size + 1),
    "foreign": lambda path: path.write_text("something else\n" * 1000),
    "folder in its place": become_folder,
    "link in its place": become_link,
    "writable by others": lambda path: path.chmod(0o666),
    "pipe in its place": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@MAPPED
def test_a_damaged_or_foreign_packed_file_is_rebuilt_and_never_used(
    folder: Path, packed_folder: Path, damage: str, use_mmap: bool
) -> None:
    load_packed(folder, WANTED)
    path = only_file(packed_folder)
    path.chmod(0o600)
    DAMAGES[damage](path)
    rebuilt = load_packed(folder, WANTED, use_mmap=use_mmap)
    assert (rebuilt.from_cache, rebuilt.note) == (False, None)
    assert_right(rebuilt)
    assert load_packed(folder, WANTED).from_cache
    assert [p for p in packed_folder.iterdir() if p.suffix != ".moved"] == [path]


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes format, shape, offset, size or check of a tensor in a table."""

    def change(table: dict[str, Any]) -> None:
        for field, value in changes.items():
            place = ["format", "shape", "offset", "size", "check"].index(field)
            table["tensors"][name][place] = value

    return change


def swap(table: dict[str, Any]) -> None:
    tensors = table["tensors"]
    tensors["half"], tensors["bits"] = tensors["bits"], tensors["half"]


def set_part(part: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update({part: value})


RESEALED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a larger shape": entry("matrix", shape=[4000, 24]),
    "a huge shape": entry("matrix", shape=[1 << 62, 1 << 62]),
    "a negative shape": entry("matrix", shape=[-40, 24]),
    "a turned shape": entry("matrix", shape=[24, 40]),
    "three dimensions": entry("matrix", shape=[40, 24, 1]),
    "a vector for a matrix": entry("matrix", format="vector", shape=[960]),
    "another format": entry("half", format="i16"),
    "an unknown format": entry("half", format="f8"),
    "a format that is no text": entry("half", format=["f16"]),
    "a shape of fractions": entry("vector", shape=[24.0]),
    "a shape of truths": entry("bias", shape=[True]),
    "a shape that is a number": entry("vector", shape=24),
    "an offset outside": entry("bias", offset=1 << 40),
    "a negative offset": entry("bias", offset=-64),
    "an odd offset": entry("vector", offset=65),
    "the place of another": entry("half", offset=0),
    "a smaller size": entry("matrix", size=64),
    "a size outside": entry("bias", size=1 << 40),
    "a size of 5,000 digits": entry("bias", size=10**4000),
    "two tensors exchanged": swap,
    "a tensor too few": lambda table: table["tensors"].pop("bias"),
    "a tensor too many": lambda table: table["tensors"].update(x=["vector", [0], 0, 0, "0"]),
    "no tensors": set_part("tensors", {}),
    "tensors in a list": set_part("tensors", [1, 2]),
    "an entry that is none": lambda table: table["tensors"].update(bias=None),
    "an empty entry": lambda table: table["tensors"].update(bias=[]),
    "no key": lambda table: table.pop("key"),
    "a key that is none": set_part("key", 5),
}


def reseal(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the table of a packed file and update the header and checksums."""
    with packed_file.opened(path) as fd:
        table, start, _ = packed_file.read_table(fd)
    data = path.read_bytes()[start:]
    change(table)
    text = json.dumps(table).encode()
    size = packed_file.data_start(len(text)) + len(data)
    kind = (packed_file.MAGIC, packed_file.LAYOUT, len(text), hashlib.sha256(text).digest(), size)
    head = packed_file.HEADER.pack(*kind) + text
    path.chmod(0o600)
    path.write_bytes(head + bytes(size - len(data) - len(head)) + data)


@pytest.mark.parametrize("change", RESEALED)
@MAPPED
def test_a_packed_file_with_an_altered_table_and_a_valid_checksum_is_rebuilt_and_logged(
    folder: Path,
    packed_folder: Path,
    change: str,
    use_mmap: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_packed(folder, WANTED)
    path = only_file(packed_folder)
    reseal(path, RESEALED[change])
    rebuilt = load_packed(folder, WANTED, use_mmap=use_mmap)
    assert not rebuilt.from_cache
    assert_right(rebuilt)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path} are rebuilt" in caplog.text
    assert load_packed(folder, WANTED).from_cache


@pytest.mark.parametrize("source", [5, [], [[]], [5], [["x", 1, 2, 3]], [["\0", 1, 2, 3]], {}])
def test_a_packed_file_with_a_malformed_source_is_removed(
    folder: Path, packed_folder: Path, source: Any
) -> None:
    load_packed(folder, WANTED)
    other = packed_folder / "other.packed"
    other.write_bytes(only_file(packed_folder).read_bytes())
    other.chmod(0o600)
    reseal(other, lambda table: table["key"].update(source=source))
    only = next(path for path in packed_folder.iterdir() if path != other)
    only.unlink()
    assert_right(load_packed(folder, WANTED))
    assert only_file(packed_folder) == only


def test_a_resealed_file_without_changes_is_used(folder: Path, packed_folder: Path) -> None:
    load_packed(folder, WANTED)
    reseal(only_file(packed_folder), lambda table: None)
    assert load_packed(folder, WANTED).from_cache


def test_a_change_of_the_checkpoint_is_detected_and_the_old_packed_file_removed(
    folder: Path, packed_folder: Path, save_tensors: Save
) -> None:
    old = load_packed(folder, WANTED)
    before = only_file(packed_folder)
    save_tensors(folder / "model.safetensors", tensors(seed=2))
    new = load_packed(folder, WANTED)
    assert not new.from_cache
    assert_right(new, seed=2)
    assert_right(old)  # the file is removed, but its mapping remains
    assert only_file(packed_folder) != before


def test_other_wanted_tensors_have_another_packed_file(folder: Path, packed_folder: Path) -> None:
    load_packed(folder, WANTED)
    fewer = load_packed(folder, {"matrix": (40, 24)})
    assert not fewer.from_cache
    assert list(fewer) == ["matrix"]
    only_file(packed_folder)


def test_another_packing_version_has_another_packed_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_packed(folder, WANTED)
    monkeypatch.setattr(_native, "PACKING_VERSION", _native.PACKING_VERSION + 1)
    assert not load_packed(folder, WANTED).from_cache


def test_packed_files_of_lost_and_changed_checkpoints_and_of_killed_writers_are_removed(
    folder: Path, packed_folder: Path, tmp_path: Path, save_tensors: Save
) -> None:
    kept, changed, lost = (tmp_path / name for name in ("kept", "changed", "lost"))
    for place in (kept, changed, lost):
        save_tensors(place / "model.safetensors", tensors())
        load_packed(place, WANTED)
    os.utime(changed / "model.safetensors", (1, 1))
    (lost / "model.safetensors").unlink()
    (packed_folder / f"{packed_file.TEMPORARY}killed").write_bytes(b"half a file")
    load_packed(folder, WANTED)
    sources = [packed_file.read_key(path)["source"][0][0] for path in packed_folder.iterdir()]
    assert sorted(Path(source).parent for source in sources) == [kept, folder]


def test_a_change_of_a_shard_or_of_the_index_is_detected(
    tmp_path: Path, save_tensors: Save
) -> None:
    folder = tmp_path / "sharded"
    stored = tensors()
    for name in WANTED:
        save_tensors(folder / f"{name}.safetensors", {name: stored[name]})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: f"{name}.safetensors" for name in WANTED}}))
    assert_right(load_packed(folder, WANTED))
    assert_right(load_packed(folder, WANTED))
    os.utime(index, (1, 1))
    assert not load_packed(folder, WANTED).from_cache
    assert load_packed(folder, WANTED).from_cache


def no_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_logged_once_and_the_weights_are_loaded(
    folder: Path,
    packed_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(os, "pwrite", no_disk)
    with caplog.at_level(logging.WARNING, "talu.weights"):
        for _ in range(2):
            weights = load_packed(folder, WANTED)
            assert weights.note is not None
            assert "no space is left on the disk" in weights.note
            assert not weights.mapped
            assert_right(weights)
    assert [record.name for record in caplog.records] == ["talu.weights"]
    assert list(packed_folder.iterdir()) == []


def test_the_cache_leaves_a_gibibyte_of_disk_space_free(
    folder: Path, packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SPARE_BYTES", 1 << 60)
    weights = load_packed(folder, WANTED)
    assert "less than 1 GiB of the disk free" in (weights.note or "")
    assert_right(weights)
    assert list(packed_folder.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/talu", "{file}/below", "/dev/null"])
def test_weights_are_loaded_when_the_cache_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TALU_CACHE", place.format(file=tmp_path / "file"))
    weights = load_packed(folder, WANTED)
    assert "are not saved for the next open" in (weights.note or "")
    assert (weights.from_cache, weights.mapped) == (False, False)
    assert_right(weights)


def test_the_error_for_a_user_without_a_home_says_what_to_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TALU_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    weights = load_packed(folder, WANTED)
    assert "set TALU_CACHE" in (weights.note or "")
    assert_right(weights)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TALU_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/packed"),
        ({"TALU_CACHE": "~/x", "HOME": "/c"}, "/c/x/packed"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/talu/packed"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/c"}, "/c/.cache/talu/packed"),
        ({"HOME": "/c"}, "/c/.cache/talu/packed"),
    ],
)
def test_the_environment_decides_the_folder_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("TALU_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder() == Path(expected)


def test_a_checkpoint_that_changes_while_it_is_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = _native.pack

    def touch_and_pack(*arguments: Any) -> None:
        os.utime(folder / "model.safetensors", (1, 1))
        pack(*arguments)

    monkeypatch.setattr(_native, "pack", touch_and_pack)
    with pytest.raises(ModelError, match="changed while they were read; open them again"):
        load_packed(folder, WANTED)


def test_a_tensor_that_cannot_be_packed_is_named(
    folder: Path, write_file: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError, match=r"lack 'absent'"):
        load_packed(folder, WANTED | {"absent": (1,)})
    with pytest.raises(ModelError, match=r"'matrix' has shape \(40, 24\), expected \(24, 40\)"):
        load_packed(folder, {"matrix": (24, 40)})
    header = {
        "cube": {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]},
        "whole": {"dtype": "I32", "shape": [1], "data_offsets": [4, 8]},
    }
    other = write_file(header, bytes(8), name="model.safetensors").parent
    with pytest.raises(ModelError, match=r"'cube' of shape \(1, 1, 1\) is neither"):
        load_packed(other, {"cube": (1, 1, 1)})
    with pytest.raises(ModelError, match=r"'whole' has type I32"):
        load_packed(other, {"whole": (1,)})


def test_processes_can_pack_the_same_checkpoint_concurrently(
    folder: Path, packed_folder: Path
) -> None:
    program = (
        "import sys, pathlib, talu.weights.pack as p, talu.weights.safetensors_folder as f\n"
        "p.CACHE_FROM_BYTES = 0\n"
        f"w = p.load_packed(f.open_folder(pathlib.Path(sys.argv[1])), {LAYOUT})\n"
        "assert w.note is None, w.note\n"
        "print(sum(sum(t.data.tobytes()) for t in w.values()))\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(outputs) == 1
    assert load_packed(folder, WANTED).from_cache
    only_file(packed_folder)


def test_insufficient_memory_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match=r"not enough memory for 1152921504.6 GB"):
        packed_file.aligned(1 << 60)
