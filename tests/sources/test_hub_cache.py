"""Models in the hub's cache, laid out as the hub's client does it."""

import importlib
import json
from pathlib import Path

import pytest
from tests.remote.llama import gguf as smollm2

from talu.client import Client

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
    """An empty cache that is the one in use."""
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
