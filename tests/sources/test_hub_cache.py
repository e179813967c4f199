"""Models in the hub's cache, laid out as the hub's client does it."""

import hashlib
import importlib
import json
import shutil
import time
from pathlib import Path

import pytest
from tests.remote.llama import gguf as smollm2

from talu import describe
from talu.client import Client
from talu.exceptions import ModelError, ModelNotFoundError
from talu.sources.hub_cache import cached_models
from talu.sources.inventory import stored_models
from talu.sources.removal import removal_of
from talu.sources.resolve import BUNDLED_FOLDER

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def add(cache: Path, model_id: str, files: dict[str, Path], others: tuple[str, ...] = ()) -> Path:
    """A repository in the cache: links to blobs, and the list of all files; its snapshot."""
    home = cache / f"models--{model_id.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    for folder in (home / "refs", home / "trees", home / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT)
    listing = {name: {"size": 1, "blob_id": "0"} for name in [*files, *others]}
    (home / "trees" / f"{COMMIT}.json").write_text(json.dumps({"files": listing}))
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(content)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that is the one in use; that of packed weights is empty too."""
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "talu"))
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_an_answer_notes_which_of_several_models_was_used_unless_the_tag_says_it(
    cache: Path,
) -> None:
    add(cache, "org/smol-GGUF", {"s-Q4_K_M.gguf": smollm2()}, others=("s-Q8_0.gguf",))
    with Client(["org/smol-GGUF", "org/smol-GGUF:Q4_K_M"]) as client:
        left, named = (client.ask("Hi", model=name, max_tokens=1) for name in client.models)
        embedding = client.embed_batch(["Hi"], model="org/smol-GGUF", pooling="mean")
    note = "org/smol-GGUF has 2 GGUF models; s-Q4_K_M.gguf is used"
    assert [note in text for text in left.notes].count(True) == 1
    assert [note in text for text in embedding.notes].count(True) == 1
    assert [note in text for text in named.notes].count(True) == 0


def blob(cache: Path, model_id: str, content: bytes) -> Path:
    """A file with this content in the folder of a repository."""
    home = cache / f"models--{model_id.replace('/', '--')}"
    path = home / "blobs" / hashlib.sha256(content).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def several(cache: Path) -> Path:
    """The folder of a repository with two GGUF models, one in two parts, and a README."""
    parts = [f"f/m-F16-0000{number}-of-00002.gguf" for number in (1, 2)]
    names = ["README.md", "m-Q8_0.gguf", *parts]
    files = {name: blob(cache, "org/m", name.encode()) for name in names}
    return add(cache, "org/m", files).parents[1]


def folder_model(cache: Path, model_id: str) -> Path:
    """The bundled model as a repository in the cache."""
    files = {
        path.name: blob(cache, model_id, path.read_bytes())
        for path in BUNDLED_FOLDER.iterdir()
        if path.suffix in (".json", ".safetensors", ".jinja")
    }
    return add(cache, model_id, files).parents[1]


def test_the_models_of_the_cache_are_listed_with_format_and_size(
    cache: Path, several: Path
) -> None:
    folder_model(cache, "talu/copy")
    add(cache, "org/other", {"pytorch_model.bin": blob(cache, "org/other", b"pickle")})
    sha = hashlib.sha256(b"whole").hexdigest()
    (several / "blobs" / f"{sha}.talu.incomplete").write_bytes(b"who")
    tree = several / "trees" / f"{COMMIT}.json"
    listing = json.loads(tree.read_text())
    listing["files"]["m-Q4_0.gguf"] = {"size": 5, "lfs_sha256": sha}
    tree.write_text(json.dumps(listing))
    listed = [(each.ref, each.status, each.format) for each in stored_models()]
    assert listed == [
        ("org/m:F16", "ready", "F16"),
        ("org/m:Q4_0", "incomplete", None),
        ("org/m:Q8_0", "ready", "Q8_0"),
        ("org/other", "other", None),
        ("talu/copy", "ready", "BF16"),
    ]
    sizes = {each.ref: each.bytes for each in stored_models()}
    assert sizes["org/m:F16"] == 2 * len("f/m-F16-00001-of-00002.gguf")
    assert sizes["org/m:Q4_0"] == 3
    assert sizes["talu/copy"] > 5_000_000
    assert all(abs(each.last_used - time.time()) < 600 for each in stored_models())
    assert cached_models() == ["org/m:F16", "org/m:Q8_0", "talu/copy"]
    assert describe("talu/copy").parameters == describe("talu/pocket").parameters


@pytest.fixture
def packed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of packed weights, in which even small models are kept."""
    monkeypatch.setattr("talu.weights.pack.CACHE_FROM_BYTES", 0)
    return tmp_path / "talu" / "packed"


def use(ref: str | Path) -> None:
    with Client(ref) as client:
        client.ask("Hi", max_tokens=1)


def test_packed_weights_are_listed_with_their_model_or_alone(
    cache: Path, packed: Path, tmp_path: Path
) -> None:
    folder_model(cache, "talu/copy")
    use("talu/copy")
    own = tmp_path / "own"
    shutil.copytree(BUNDLED_FOLDER, own)
    use(own)
    cached, alone = sorted(stored_models(), key=lambda each: each.bytes, reverse=True)
    assert (cached.ref, cached.status) == ("talu/copy", "ready")
    assert (alone.ref, alone.status, alone.bytes) == (str(own), "packed", 0)
    assert cached.packed_bytes == alone.packed_bytes > 5_000_000


def test_removing_a_model_removes_its_repository_and_its_packed_weights_only(
    cache: Path, packed: Path, several: Path, tmp_path: Path
) -> None:
    home = folder_model(cache, "talu/copy")
    lock = cache / ".locks" / home.name / "x.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    own = tmp_path / "own"
    shutil.copytree(BUNDLED_FOLDER, own)
    use("talu/copy")
    use(own)
    removal = removal_of("talu/copy")
    size = sum(path.stat().st_size for path in home.glob("blobs/*"))
    assert removal.bytes == pytest.approx(size + 5_520_000, rel=0.01)
    assert home.is_dir()
    removal.execute()
    assert not home.exists()
    assert not lock.parent.exists()
    assert [each.ref for each in stored_models()] == ["org/m:F16", "org/m:Q8_0", str(own)]
    assert several.is_dir()


def test_removing_a_tag_leaves_the_other_models_of_the_repository(several: Path) -> None:
    removal = removal_of("org/m:f16")
    assert removal.bytes == 2 * len("f/m-F16-00001-of-00002.gguf")
    removal.execute()
    assert [each.ref for each in stored_models()] == ["org/m:Q8_0"]
    assert len([*several.glob("blobs/*")]) == 2
    names = [path.name for path in several.rglob("*") if path.is_symlink()]
    assert sorted(names) == ["README.md", "m-Q8_0.gguf"]


def test_what_an_interrupted_download_left_is_removed_by_its_tag(several: Path) -> None:
    part = several / "blobs" / ("ab" * 32 + ".m%20x-Q4_0.gguf.talu.incomplete")
    part.write_bytes(b"part")
    assert [each.ref for each in stored_models()] == ["org/m:F16", "org/m:Q4_0", "org/m:Q8_0"]
    removal = removal_of("org/m:Q4_0")
    assert (removal.files, removal.home, removal.bytes) == ((part,), None, 4)
    removal.execute()
    assert [each.ref for each in stored_models()] == ["org/m:F16", "org/m:Q8_0"]


@pytest.mark.parametrize("content", ["", "[", "[]", '{"files": 5}', "[" * 100_000, "\xff"])
def test_a_damaged_list_of_files_is_as_good_as_none(several: Path, content: str) -> None:
    (several / "trees" / f"{COMMIT}.json").write_text(content, "latin-1")
    (several / "blobs" / "ab.incomplete").write_bytes(b"part")
    listed = [(each.ref, each.status) for each in stored_models()]
    assert listed == [("org/m", "incomplete"), ("org/m:F16", "ready"), ("org/m:Q8_0", "ready")]


def test_content_that_two_models_share_stays_with_the_other(cache: Path) -> None:
    same = blob(cache, "org/m", b"same")
    home = add(cache, "org/m", {"m-Q4_0.gguf": same, "m-Q8_0.gguf": same}).parents[1]
    removal_of("org/m:Q4_0").execute()
    assert [path.read_bytes() for path in home.rglob("*.gguf")] == [b"same"]


def test_files_of_a_user_are_never_removed(
    cache: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "org" / "m"
    shutil.copytree(BUNDLED_FOLDER, own)
    add(cache, "org/m", {"config.json": blob(cache, "org/m", b"{}")})
    monkeypatch.chdir(tmp_path)
    for ref in ("org/m", "./org/m", str(own), str(own / "config.json"), str(cache), "."):
        with pytest.raises(ModelError, match="a file or folder of your own"):
            removal_of(ref)
    with pytest.raises(ModelError, match="is a part of talu"):
        removal_of("talu/pocket")
    use(own)
    removal_of(str(own), packed_only=True).execute()
    assert stored_models()[0].ref == "org/m"
    assert [*packed.iterdir()] == []
    use(own)
    with pytest.raises(ModelNotFoundError, match="no packed weights"):
        removal_of("./none", packed_only=True)


@pytest.mark.parametrize("others", [[], ["m-Q8_0.gguf"]], ids=["whole", "one of two"])
def test_a_link_out_of_the_cache_is_removed_without_what_it_refers_to(
    cache: Path, tmp_path: Path, others: list[str]
) -> None:
    kept = tmp_path / "kept.gguf"
    kept.write_bytes(b"mine" * 1000)
    files = {name: blob(cache, "org/m", b"x") for name in others}
    home = add(cache, "org/m", {"m-Q4_0.gguf": kept, **files}).parents[1]
    removal = removal_of("org/m:Q4_0")
    assert removal.bytes < 200  # the list of files
    removal.execute()
    assert kept.read_bytes() == b"mine" * 1000
    assert [path.name for path in home.rglob("*.gguf")] == others
    assert home.exists() == bool(others)


@pytest.mark.parametrize("tag", ["", ":Q4_0"])
def test_content_that_repositories_share_stays_until_the_last_is_removed(
    cache: Path, tag: str
) -> None:
    client = importlib.import_module("huggingface_hub.utils._shared_blobs")
    place = {"cache_dir": str(cache), "expected_size": 1000, "xet_hash": "cd" * 32}
    others = [":Q8_0"] if tag else []
    first = blob(cache, "org/a", b"x" * 1000)
    assert client.publish_blob_to_shared_store(
        blob_path=str(first), replace_existing=False, **place
    )
    second = cache / "models--org--b" / "blobs" / first.name
    second.parent.mkdir(parents=True)
    assert client.try_link_from_shared_store(blob_path=str(second), **place)
    for model_id, path in (("org/a", first), ("org/b", second)):
        rest = {f"m-{other[1:]}.gguf": blob(cache, model_id, b"") for other in others}
        add(cache, model_id, {"m-Q4_0.gguf": path} | rest)
    shared = first.resolve()
    assert removal_of("org/a" + tag).bytes >= 1000
    removal_of("org/a" + tag).execute()
    assert shared.exists()
    assert [each.ref for each in stored_models() if each.bytes] == ["org/b:Q4_0"]
    removal_of("org/b" + tag).execute()
    assert not shared.exists()
    assert [each.ref for each in stored_models()] == [f"org/{x}{o}" for x in "ab" for o in others]


def test_what_is_not_in_the_cache_is_not_found(several: Path) -> None:
    for ref, words in (
        ("org/none", "'org/none' is not in"),
        ("org/m:Q4_0", "it has :F16, :Q8_0"),
        ("word", "is not the hub id of a model"),
    ):
        with pytest.raises(ModelNotFoundError, match=words):
            removal_of(ref)


def test_a_folder_that_cannot_be_removed_is_named(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/the/file")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(OSError, match="cannot remove /the/file: Permission denied"):
        removal_of("org/m").execute()
