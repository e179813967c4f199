"""``convert`` checks everything first, and writes a result completely or not at all."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.damaged import with_infinity
from tests.remote.llama import gguf as smollm2
from tests.sources.test_gguf import GOLDEN, write

import talu
from talu.conversion.destination import Destination
from talu.exceptions import ConvertError, ModelError, ValidationError
from talu.router.conversion import convert


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with unquantised weights, alone in its folder."""
    path = tmp_path_factory.mktemp("original") / "model.gguf"
    write(GOLDEN / "qwen3", path, "qwen3")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that a test can change."""
    pocket = Path(talu.__file__).parent / "models" / "pocket"
    return Path(shutil.copytree(pocket, tmp_path / "folder"))


def change(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "converted.gguf"


def refused(code: str, *arguments: Any, **options: Any) -> str:
    """The message of the error with this code."""
    with pytest.raises(ConvertError) as caught:
        convert(*arguments, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_a_conversion_says_what_it_wrote(model: Path, output: Path) -> None:
    done = convert(model, to="BF16", output=output)
    assert (done.path, done.format) == (output, "bf16")
    assert done.bytes == output.stat().st_size
    assert 16 < done.bits_per_weight < 17
    assert done.notes == ()
    assert [*output.parent.iterdir()] == [output]


@pytest.mark.parametrize(("name", "architecture"), [("llama2", "llama"), ("qwen3", "qwen3")])
def test_a_gguf_file_is_carried_over_as_it_is(
    name: str, architecture: str, tmp_path: Path, output: Path
) -> None:
    path = tmp_path / "original.gguf"
    write(GOLDEN / name, path, architecture)
    convert(path, to="f32", output=output)
    before, after = gguf.GGUFReader(path), gguf.GGUFReader(output)
    for key, field in before.fields.items():
        if not key.startswith("GGUF."):
            assert after.fields[key].types == field.types
            assert after.fields[key].contents() == field.contents()
    tensors = {tensor.name: tensor.data for tensor in after.tensors}
    assert len(tensors) == len(before.tensors)
    for tensor in before.tensors:
        assert np.array_equal(tensors[tensor.name], tensor.data)


def test_an_unknown_format_is_refused_with_the_nearest_and_all_others(
    model: Path, output: Path
) -> None:
    message = refused("CONVERT_UNSUPPORTED_FORMAT", model, to="bf15", output=output)
    assert "did you mean 'bf16'?" in message
    assert "f32, f16, bf16" in message


def test_quantised_weights_are_refused_by_name(output: Path) -> None:
    message = refused("CONVERT_ALREADY_QUANTIZED", smollm2(), to="f16", output=output)
    assert "model.embed_tokens.weight" in message
    assert "Q4_1" in message
    assert not output.exists()


def test_a_quantised_folder_is_refused(tmp_path: Path, output: Path) -> None:
    folder = convert("talu/pocket", to="mlx-8bit", output=tmp_path / "mlx").path
    message = refused("CONVERT_ALREADY_QUANTIZED", folder, to="q8_0", output=output)
    assert "take the original" in message


def test_a_split_file_becomes_one_file(tmp_path: Path, output: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write(GOLDEN / "qwen3", whole, "qwen3")
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "qwen3", split_max_tensors=8)
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            kind, inner = field.types[0], field.types[-1]
            inner = inner if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(min(tmp_path.glob("part-*.gguf")), to="f32", output=output)
    found = gguf.GGUFReader(output)
    assert not [key for key in found.fields if key.startswith("split.")]
    assert {t.name for t in found.tensors} == {t.name for t in reader.tensors}


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(model: Path, output: Path) -> None:
    output.write_text("precious")
    assert "exists" in refused("CONVERT_OUTPUT_EXISTS", model, to="f16", output=output)
    assert output.read_text() == "precious"
    convert(model, to="f16", output=output, force=True)
    assert output.read_bytes()[:4] == b"GGUF"


def test_an_existing_folder_is_never_replaced_by_a_file(model: Path, output: Path) -> None:
    output.mkdir()
    message = refused("CONVERT_OUTPUT_EXISTS", model, to="f16", output=output, force=True)
    assert "is a folder" in message


@pytest.mark.parametrize("force", [False, True])
def test_the_original_is_never_overwritten(model: Path, tmp_path: Path, force: bool) -> None:
    content = model.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    for place in (model, link):
        with pytest.raises(ConvertError):
            convert(model, to="f16", output=place, force=force)
    assert model.read_bytes() == content


def test_a_missing_folder_is_named(model: Path, tmp_path: Path) -> None:
    message = refused("CONVERT_FAILED", model, to="f16", output=tmp_path / "none" / "a.gguf")
    assert "none' is not a folder" in message


def test_too_little_space_is_found_before_anything_is_written(
    model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    message = refused("CONVERT_FAILED", model, to="f16", output=output)
    assert "needs" in message
    assert "1.00 kB are free" in message
    assert [*output.parent.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "value"), [("to", None), ("output", ""), ("output", 3), ("model", 1)]
)
def test_an_argument_of_a_wrong_type_is_named(
    model: Path, output: Path, name: str, value: Any
) -> None:
    arguments = {"model": model, "to": "f16", "output": output, name: value}
    with pytest.raises(ValidationError) as caught:
        convert(**arguments)
    assert caught.value.details["param"] == name


def test_a_model_behind_an_endpoint_is_refused(output: Path) -> None:
    with pytest.raises(ValidationError, match="behind an endpoint"):
        convert("openai::gpt-4o", to="f16", output=output)


def test_a_number_that_the_format_cannot_hold_ends_the_conversion(
    tmp_path: Path, output: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    write(GOLDEN / "qwen3", large / "model.gguf", "qwen3")
    reader = gguf.GGUFReader(large / "model.gguf", "r+")
    next(t for t in reader.tensors if t.name == "blk.0.ffn_up.weight").data[0, 0] = 1e6
    reader.data.flush()
    message = refused("CONVERT_FAILED", large / "model.gguf", to="f16", output=output)
    assert "1e+06" in message
    assert [*tmp_path.iterdir()] == [large]


def run(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


CONVERT = """
import sys
from talu.router.conversion import convert
from talu.exceptions import ConvertError
try:
    convert(sys.argv[1], to="f32", output=sys.argv[2])
except ConvertError as error:
    print(error.code, error)
"""


def test_a_disk_that_is_full_ends_the_conversion_without_a_trace(model: Path, output: Path) -> None:
    size = model.stat().st_size // 2

    def limit() -> None:  # for the process, a file of more bytes is what a full disk is
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = run(CONVERT, model, output, preexec_fn=limit)
    out, err = process.communicate()
    assert out.startswith("CONVERT_FAILED"), err
    assert [*output.parent.iterdir()] == []


WAITING = """
import sys, time
from pathlib import Path
import talu
from talu.conversion.destination import Destination
with Destination(Path(sys.argv[1]), is_folder=False).writing() as path:
    path.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def writing(output: Path) -> subprocess.Popen[str]:
    """A process that has written half of a result."""
    process = run(WAITING, output)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_an_interrupted_conversion_leaves_nothing(output: Path) -> None:
    process = writing(output)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert [*output.parent.iterdir()] == []


def test_what_a_killed_conversion_left_is_removed_by_the_next_one(
    model: Path, output: Path
) -> None:
    process = writing(output)
    process.kill()
    process.communicate()
    (left,) = output.parent.iterdir()
    assert left.name.startswith(".")
    convert(model, to="f16", output=output)
    assert [*output.parent.iterdir()] == [output]


def test_a_conversion_that_is_running_is_left_alone_by_another_one(
    model: Path, output: Path
) -> None:
    process = writing(output)
    convert(model, to="f16", output=output)
    assert len([*output.parent.iterdir()]) == 2
    process.kill()
    process.communicate()


def test_a_file_that_appears_in_the_meantime_is_kept(output: Path) -> None:
    def race() -> None:
        with Destination(output, is_folder=False).writing() as path:
            path.write_text("converted")
            output.write_text("precious")

    with pytest.raises(ConvertError, match="appeared"):
        race()
    assert output.read_text() == "precious"
    assert [*output.parent.iterdir()] == [output]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a model."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_is_replaced_as_a_whole(old: Path) -> None:
    with pytest.raises(ConvertError, match="exists"):
        Destination(old, is_folder=True)
    with Destination(old, is_folder=True, force=True).writing() as path:
        (path / "new.json").write_text("{}")
        assert (old / "config.json").exists()
    assert [entry.name for entry in old.iterdir()] == ["new.json"]
    assert [*old.parent.iterdir()] == [old]


def test_a_folder_that_was_to_be_replaced_stays_after_an_error(old: Path) -> None:
    with (
        pytest.raises(ConvertError, match="no space is left"),
        Destination(old, is_folder=True, force=True).writing(),
    ):
        raise OSError(28, "No space left on device")
    assert {entry.name for entry in old.iterdir()} == {"config.json", "model.safetensors"}
    assert [*old.parent.iterdir()] == [old]


@pytest.mark.parametrize("name", ["photos/", "notes.md", "config.yaml"])
def test_a_folder_that_holds_more_than_a_model_is_never_replaced(old: Path, name: str) -> None:
    if name.endswith("/"):
        (old / name).mkdir()
    else:
        (old / name).write_text("precious")
    with pytest.raises(ConvertError, match="more than a model"):
        Destination(old, is_folder=True, force=True)


def test_a_folder_without_weights_is_never_replaced(old: Path) -> None:
    (old / "model.safetensors").unlink()
    with pytest.raises(ConvertError, match="more than a model"):
        Destination(old, is_folder=True, force=True)


@pytest.mark.parametrize("to", ["bf16", "mlx-4bit"])
def test_what_was_converted_can_be_replaced_by_another_conversion(to: str, output: Path) -> None:
    convert("talu/pocket", to=to, output=output)
    assert convert("talu/pocket", to=to, output=output, force=True).path == output


@pytest.mark.parametrize("option", ["force", "offline"])
def test_an_option_that_is_not_a_bool_is_refused(option: str, output: Path) -> None:
    options: dict[str, Any] = {option: "no"}
    with pytest.raises(ValidationError, match=f"{option} must be True or False, got 'no'"):
        convert("talu/pocket", to="bf16", output=output, **options)


def test_a_weight_that_a_format_cannot_hold_is_an_error_with_its_file(
    folder: Path, output: Path
) -> None:
    path = folder / "model.safetensors"
    with_infinity(path, "model.layers.0.mlp.up_proj.weight")
    message = refused("CONVERT_FAILED", folder, to="q8_0", output=output)
    assert str(path) in message
    assert "row 0, column 0 is inf" in message
    assert not output.exists()


def test_a_folder_that_a_killed_conversion_moved_away_is_put_back(old: Path) -> None:
    hidden = old.parent / ".old.converting-killed"
    hidden.mkdir()
    old.rename(hidden / "replaced")
    with (
        pytest.raises(KeyboardInterrupt),
        Destination(old, is_folder=True, force=True).writing(),
    ):
        raise KeyboardInterrupt
    assert [*old.parent.iterdir()] == [old]
    assert (old / "config.json").exists()


def test_what_another_user_left_is_neither_put_back_nor_removed(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = old.parent / ".new.converting-killed"
    hidden.mkdir()
    (hidden / "replaced").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: old.stat().st_uid + 1)
    new = old.parent / "new"
    with Destination(new, is_folder=True).writing() as path:
        (path / "config.json").write_text("{}")
    assert {*old.parent.iterdir()} == {hidden, new, old}


def test_a_place_in_the_folder_of_the_model_is_refused(old: Path) -> None:
    place = Destination(old / "new.gguf", is_folder=False)
    with pytest.raises(ConvertError, match="belongs to the model"):
        place.check_apart(old, ())
    place = Destination(old, is_folder=True, force=True)
    with pytest.raises(ConvertError, match="belongs to the model"):
        place.check_apart(old, ())


def test_a_lone_surrogate_in_the_settings_is_kept_in_a_folder(folder: Path, tmp_path: Path) -> None:
    change(folder / "config.json", about=["\ud800 ä"])
    convert(folder, to="mlx-bf16", output=tmp_path / "converted")
    settings = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert settings["about"] == ["\ud800 ä"]


def test_a_lone_surrogate_in_a_template_is_refused_for_a_gguf_file(
    folder: Path, output: Path
) -> None:
    change(folder / "tokenizer_config.json", chat_template="{{ '\ud800' }}")
    with pytest.raises(ModelError, match=r"'tokenizer\.chat_template' has a lone surrogate"):
        convert(folder, to="f16", output=output)
    assert not output.exists()


def test_a_folder_whose_name_is_not_unicode_gives_a_readable_name(
    folder: Path, output: Path
) -> None:
    strange = Path(os.fsdecode(os.fsencode(folder) + b"\xff"))
    folder.rename(strange)
    convert(strange, to="f16", output=output)
    assert gguf.GGUFReader(output).fields["general.name"].contents() == "folder?"
