import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import talu
from talu.exceptions import ModelError, ModelNotFoundError, ValidationError
from talu.sources import open_model
from talu.sources.resolve import BUNDLED_FOLDER, resolve


def test_the_bundled_model_is_in_the_package() -> None:
    folder = resolve("talu/pocket", offline=True).path
    assert folder == Path(talu.__file__).parent / "models" / "pocket"
    assert folder.is_dir()


def test_a_local_folder_does_not_replace_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talu" / "pocket").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("talu/pocket").path.is_absolute()
    assert resolve("./talu/pocket").path == Path("talu/pocket")


@pytest.mark.parametrize("ref", ["{tmp}/m", "./m", "../{name}/m", "~/m", "m", ".", "m/", "org/m"])
def test_a_folder_is_found_in_every_form_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "org" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = resolve(ref.format(tmp=tmp_path, name=tmp_path.name), offline=True).path
    assert found.resolve() in (tmp_path / "m", tmp_path, tmp_path / "org" / "m")


@pytest.mark.parametrize("ref", ["/absent/model", "./absent", "../absent/model", "~/absent"])
def test_a_path_that_does_not_exist_is_named_without_asking_the_hub(ref: str) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
        resolve(ref)
    assert repr(ref) in str(caught.value)


@pytest.mark.parametrize(
    "ref", ["word", "a/b/c", "a b/c", "hf://org/name", "https://hub/org/name", "org/näme", "org/"]
)
def test_a_reference_of_no_known_form_is_refused_with_the_accepted_forms(ref: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"no folder or file of that path.*talu/pocket"
    ) as caught:
        resolve(ref)
    assert repr(ref) in str(caught.value)


def test_a_missing_gguf_file_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(ModelNotFoundError, match="no folder or file of that path"):
        resolve("models/m.gguf")


def test_a_file_of_a_repository_with_a_slash_is_told_how_it_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match=r"is named org/m-GGUF:m-Q8_0\.gguf"):
        resolve("org/m-GGUF/m-Q8_0.gguf")


def test_a_folder_with_a_colon_in_its_name_takes_precedence_over_a_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "m:Q8_0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/m:Q8_0").path == Path("org/m:Q8_0")


@pytest.mark.parametrize("ref", ["", "  ", "a\0b", None, 7, Path("m")])
def test_a_reference_that_is_empty_or_not_text_is_refused(ref: object) -> None:
    with pytest.raises(ValidationError, match="a model reference must name") as caught:
        resolve(ref)  # deliberately violates the type
    assert caught.value.details == {"param": "model"}


def test_a_name_that_is_too_long_for_a_path_is_not_found() -> None:
    for ref in ("x" * 300, "x" * 5000, "org/" + "x" * 300, "./" + "x" * 300, "./" + "x" * 10**6):
        with pytest.raises(ModelError) as caught:
            resolve(ref, offline=True)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("ref", ["\ud800", "./\ud800", "org/\ud800", "/\ud800/m", "~/\ud800"])
def test_a_lone_surrogate_in_a_path_is_a_typed_error(ref: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no model") as caught:
        resolve(ref)
    str(caught.value).encode()


def test_a_folder_whose_name_is_not_utf_8_is_found(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(BUNDLED_FOLDER, folder)
    assert resolve(str(folder)).path == folder
    with talu.Client(folder) as client:
        assert client.ask("Hi", max_tokens=1).usage.completion_tokens == 1


def test_a_cycle_of_symbolic_links_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(ModelError, match=r"cannot be opened: Too many levels of symbolic links"):
        resolve(str(tmp_path / "a"))


@pytest.mark.parametrize("ref", ["{closed}/m", "closed/m", "./closed/m"])
def test_an_unreadable_folder_is_named_without_asking_the_hub(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed" / "m").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(ModelError, match="cannot be opened: Permission denied"):
            resolve(ref.format(closed=tmp_path / "closed"), offline=True)
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o700)


def test_an_unknown_home_is_an_error() -> None:
    with pytest.raises(ModelNotFoundError, match="home"):
        resolve("~nobody-of-that-name/model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_a_model_names_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(
        ModelError, match=f"is a file; give the folder that holds it: {str(tmp_path)!r}$"
    ):
        open_model(str(tmp_path / name))


def test_a_local_folder_does_not_import_the_hub_client(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom talu.sources.resolve import resolve\nresolve(sys.argv[1])\n"
        "assert not {m for m in sys.modules if m.startswith(('huggingface_hub', 'httpx'))}\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
