import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu.exceptions import ModelError
from talu.weights import numbers
from talu.weights.numbers import equal
from talu.weights.safetensors_folder import open_folder, weight_files

Save = Callable[[Path, dict[str, Any]], Path]
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder: Path, weight_map: Any) -> None:
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.fixture
def sharded(tmp_path: Path, save_tensors: Save) -> Path:
    save_tensors(tmp_path / ONE, {"a": np.ones((2, 3), np.float32)})
    save_tensors(tmp_path / TWO, {"b": np.full(4, 2, np.float32), "spare": np.ones(1, np.float32)})
    write_index(tmp_path, {"a": ONE, "b": TWO})
    return tmp_path


def test_one_file_is_a_checkpoint(tmp_path: Path, save_tensors: Save) -> None:
    save_tensors(tmp_path / "model.safetensors", {"w": np.arange(6, dtype=np.float32)})
    checkpoint = open_folder(tmp_path)
    assert checkpoint.names == ["w"]
    assert checkpoint["w"].shape == (6,)
    assert checkpoint["w"].array().tolist() == [0, 1, 2, 3, 4, 5]


def test_shards_are_read_as_one(sharded: Path) -> None:
    checkpoint = open_folder(sharded)
    assert checkpoint.names == ["a", "b", "spare"]
    assert checkpoint["b"].array().tolist() == [2, 2, 2, 2]
    assert [path.name for path in weight_files(sharded)] == [ONE, TWO]


def test_a_single_file_takes_precedence_over_shards(sharded: Path, save_tensors: Save) -> None:
    save_tensors(sharded / "model.safetensors", {"whole": np.ones(1, np.float32)})
    assert open_folder(sharded).names == ["whole"]


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / TWO).unlink()
    with pytest.raises(ModelError, match=rf"index.json names '{TWO}', but the folder"):
        open_folder(sharded)


def test_the_tensors_are_those_in_the_shards(sharded: Path) -> None:
    write_index(sharded, {"absent": ONE, "a": TWO})
    checkpoint = open_folder(sharded)
    assert checkpoint.names == ["a", "b", "spare"]
    assert checkpoint["a"].shape == (2, 3)


def test_the_last_of_two_shards_with_a_tensor_is_used(sharded: Path, save_tensors: Save) -> None:
    save_tensors(sharded / TWO, {"a": np.zeros(5, np.float32)})
    assert open_folder(sharded)["a"].shape == (5,)


def test_tensors_can_be_read_under_other_names(sharded: Path) -> None:
    checkpoint = open_folder(sharded)
    checkpoint = checkpoint.renamed({"x": "b", "y": "b", "z": "absent"})
    assert checkpoint.names == ["x", "y"]
    assert checkpoint["x"].array().tolist() == checkpoint["y"].array().tolist() == [2, 2, 2, 2]
    with pytest.raises(ModelError, match=rf"{TWO}: tensor 'b' has shape \(4,\)"):
        checkpoint.check({"x": (5,)})


def test_equal_tensors_have_the_same_type_shape_and_bits(
    tmp_path: Path, save_tensors: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "CHUNK", 40)  # two rows
    ones = np.ones((3, 5), np.float32)
    other = ones.copy()
    other[2, 4] = 2
    tensors = {"a": ones, "same": ones, "last": other, "flat": ones.ravel()}
    tensors |= {"half": ones.astype(np.float16), "nan": ones * np.nan, "nans": ones * np.nan}
    save_tensors(tmp_path / "model.safetensors", tensors)
    checkpoint = open_folder(tmp_path)
    assert equal(checkpoint["a"], checkpoint["same"])
    assert equal(checkpoint["nan"], checkpoint["nans"])
    others = ("last", "flat", "half", "nan")
    assert [n for n in others if equal(checkpoint["a"], checkpoint[n])] == []


def test_a_name_that_is_too_long_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="File name too long"):
        open_folder(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "shard",
    [
        *("../x.safetensors", "/x.safetensors", "sub/x.safetensors", "a\\x.safetensors"),
        *("..", ".", "", "x.bin", "x\0.safetensors", 7, None, ["x.safetensors"], {"x": 1}),
    ],
)
def test_a_shard_must_be_a_file_of_the_folder(tmp_path: Path, shard: object) -> None:
    write_index(tmp_path, {"a": shard})
    with pytest.raises(ModelError, match=r"only a \.safetensors file of the same folder"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged JSON"),
        ("[]", "expected an object"),
        ("{}", "weight_map is missing"),
        ('{"weight_map": []}', "weight_map is missing"),
        ('{"weight_map": {}}', "weight_map is missing"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' occurs twice"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        open_folder(tmp_path)
    assert "model.safetensors.index.json" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "pytorch_model-00001.bin"]
)
def test_pickled_weights_are_refused_with_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=rf"pickled objects \('{name}'\).*save_pretrained"):
        open_folder(tmp_path)


def test_the_error_for_a_folder_of_gguf_files_says_to_give_the_path_of_one(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"'model.gguf'\), not .*; give the path of one of these"):
        open_folder(tmp_path)


def test_the_error_for_a_folder_without_weights_names_the_expected_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"looked for model\.safetensors and .*found nothing"):
        open_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"found 'notes.txt'"):
        open_folder(tmp_path)
    with pytest.raises(ModelError, match=r"cannot read the model folder .*absent"):
        open_folder(tmp_path / "absent")


def test_missing_tensors_are_named(sharded: Path) -> None:
    checkpoint = open_folder(sharded)
    with pytest.raises(ModelError, match=rf"the weights in {sharded} lack 'c', 'd'; config.json"):
        checkpoint.check({"a": (2, 3), "c": (1,), "d": (1,)})
    with pytest.raises(ModelError, match="lack '0', '1', '2', '3', '4' and 15 more"):
        checkpoint.check({str(n): (1,) for n in range(20)})
    with pytest.raises(ModelError, match="lack 'c'"):
        checkpoint["c"]


def test_a_wrong_shape_names_both_shapes_and_the_file(sharded: Path) -> None:
    words = re.escape(f"{sharded / ONE}: tensor 'a' has shape (2, 3), expected (3, 2)")
    with pytest.raises(ModelError, match=words):
        open_folder(sharded).check({"a": (3, 2)})
