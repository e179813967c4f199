"""Another kind of model file is a module in a list: a toy kind opens by the same way and answers.

Its file names a model in memory: settings, a tokenizer built from a vocabulary, a template, and
tensors under other names, one of them with its rows in another order.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken

from talu.client import Client
from talu.engine.registry import acquire
from talu.exceptions import ModelError
from talu.models import load_architecture
from talu.sources import kinds
from talu.sources.embedding import EmbeddingSettings, TextSettings
from talu.sources.folder_on_hub import FolderOnHub
from talu.sources.hub import files_of
from talu.sources.hub_cache import find_in
from talu.sources.settings import Settings
from talu.tokenizer.files import TokenSettings
from talu.tokenizer.loading import Loaded, build
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import FileVersion, versions_of
from talu.weights.tensors import ENCODINGS, NUMBERS, Tensor

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}<s>assistant:"
PERMUTED = "model.layers.0.self_attn.q_proj.weight"
ORDER = np.random.default_rng(3).permutation(32)


@dataclass(frozen=True)
class Reordered:
    """Rows in memory, where row ``order[i]`` is the one that the network has as row i."""

    stored: NDArray[np.uint8]
    order: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.order)

    @property
    def width(self) -> int:
        return self.stored.shape[1]

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.stored[self.order[start:stop]]


@dataclass(frozen=True)
class ToySource:
    """A model in memory."""

    location: str
    files: tuple[FileVersion, ...]
    arrays: Mapping[str, NDArray[np.float32]]

    def licence(self) -> str | None:
        return None

    def settings(self) -> Settings:
        return Settings(Path(self.location), CONFIG)

    def generation(self) -> Settings | None:
        return Settings(Path(self.location), {"eos_token_id": 259, "temperature": 0.5})

    def other_files(self) -> Mapping[str, Path]:
        return {}

    def embedding(self, width: int, context: int, *, scores: bool = False) -> EmbeddingSettings:
        texts = TextSettings(max_tokens=context)
        return EmbeddingSettings(pooling=("mean",), dimension=width, texts=texts)

    def tokenizer(self, *, lower_case: bool = False) -> Loaded:
        named = {"eos_token": AddedToken("</s>", special=True)}
        settings = TokenSettings(config={}, named=named)
        return build(tokenizer_json(), settings, Path(self.location), lower_case=lower_case)

    def chat_templates(self) -> Mapping[str, str]:
        return {"default": TEMPLATE}

    def tensors(self, *, use_mmap: bool = True) -> Checkpoint:
        tensors = {name: self._tensor(name, array) for name, array in self.arrays.items()}
        return Checkpoint(self.location, tensors, described_in="the toy")

    def _tensor(self, name: str, array: NDArray[np.float32]) -> Tensor:
        rows = array.reshape(-1, array.shape[-1]).view(np.uint8)
        order = np.arange(len(rows))
        if name == PERMUTED:  # the toy stores them as its exporter likes
            rows, order = rows[np.argsort(ORDER)], ORDER
        return Tensor(
            name=f"toy.{name}",
            file=self.location,
            shape=array.shape,
            encoding=ENCODINGS["F32"],
            parts={NUMBERS: Reordered(rows, order)},
        )


class ToyOnHub:
    """One file is the whole model."""

    small = ()
    optional = ()

    def holds(self, names: Collection[str]) -> bool:
        return any(name.endswith(".toy") for name in names)

    def refusal(self, place: str, names: Collection[str]) -> ModelError | None:
        toys = [name for name in names if name.endswith(".toy")]
        return None if len(toys) == 1 else ModelError(f"{place} has {len(toys)} toys")

    def weights(self, place: str, names: Collection[str], folder: Path) -> Any:
        return {name for name in names if name.endswith(".toy")}, ()

    def unsupported(self, place: str, described: Mapping[str, object]) -> ModelError | None:
        return None

    def note(self, place: str, names: Collection[str]) -> str | None:
        return None

    def find(self, folder: Path, names: Collection[str] | None = None) -> Path:
        for path in folder.glob("*.toy"):
            return path
        raise ModelError("no toy")


def tokenizer_json() -> bytes:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    return backend.to_str().encode()


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(7)
    empty = ToySource("toy", (), {})
    return {
        name: random.normal(1.0 if len(shape) == 1 else 0.0, 0.25, shape).astype(np.float32)
        for name, shape in load_architecture(empty).graph.weights.items()
    }


@pytest.fixture
def toy(
    tmp_path: Path, arrays: dict[str, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A file of the toy kind, which is in the list of kinds."""
    kind: Any = ModuleType("talu.sources.toy")
    kind.on_hub = lambda tag: ToyOnHub() if tag is None else None
    kind.matches = lambda path: path.suffix == ".toy"
    kind.open_source = lambda path: ToySource(str(path), versions_of([path]), arrays)
    monkeypatch.setitem(sys.modules, "talu.sources.toy", kind)
    monkeypatch.setattr(kinds, "KINDS", [*kinds.KINDS, "toy"])
    path = tmp_path / "model.toy"
    path.write_text("a toy")
    return path


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, NDArray[np.float32]]) -> Path:
    """The same model as a folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text('{"eos_token_id": 259, "temperature": 0.5}')
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    save_file(arrays, folder / "model.safetensors")
    return folder


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Client]]:
    clients: list[Client] = []

    def new(path: Path) -> Client:
        clients.append(Client(path))
        return clients[-1]

    yield new
    for client in clients:
        client.close()


def test_a_toy_answers_as_the_same_model_in_a_folder(
    toy: Path, folder: Path, opened: Callable[[Path], Client]
) -> None:
    one, other = opened(toy), opened(folder)
    for prompt, temperature in (("Hi", 0.0), ("What is it?", 1.0)):
        answers = [
            client.ask(prompt, max_tokens=24, seed=5, temperature=temperature, logprobs=True)
            for client in (one, other)
        ]
        assert answers[0].prompt == answers[1].prompt == f"<s>user: {prompt}<s>assistant:"
        assert str(answers[0]) == str(answers[1])
        assert answers[0].logprobs == answers[1].logprobs
    assert list(one.embed("fox", pooling=None)) == list(other.embed("fox", pooling=None))


def test_a_toy_is_shared_until_its_file_changes(toy: Path) -> None:
    first, second = acquire(str(toy)), acquire(str(toy))
    assert first.location == str(toy)
    assert first.engine is second.engine
    toy.write_text("another toy")
    third = acquire(str(toy))
    assert third.engine is not first.engine
    for lease in (first, second, third):
        lease.release()


def test_a_file_that_is_a_link_keeps_its_name(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = toy.rename(tmp_path / "blobs" / "a9f3")
    toy.symlink_to(blob)
    (tmp_path / "folder").symlink_to(tmp_path)
    first, second = acquire(str(toy)), acquire(str(tmp_path / "folder" / toy.name))
    assert first.location == str(toy)
    assert first.engine is second.engine
    for lease in (first, second):
        lease.release()


def test_a_toy_is_named_where_it_does_not_fit_its_network(
    toy: Path, arrays: dict[str, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(arrays, PERMUTED, arrays[PERMUTED][:, :31].copy())
    with pytest.raises(ModelError, match=rf"{toy}: tensor 'toy.{PERMUTED}' has shape \(32, 31\)"):
        acquire(str(toy))
    monkeypatch.delitem(arrays, PERMUTED)
    with pytest.raises(ModelError, match=r"lack .*; the toy may belong to another model"):
        acquire(str(toy))


def test_a_repository_has_the_files_of_the_first_kind_that_it_holds(
    toy: Path, folder: Path, tmp_path: Path
) -> None:
    both = ["config.json", "model.safetensors", "m.toy"]
    assert isinstance(files_of("org/m", both), FolderOnHub)
    files = files_of("org/m", ["README.md", "m.toy"])
    assert files.weights("org/m", ["README.md", "m.toy"], tmp_path)[0] == {"m.toy"}
    with pytest.raises(ModelError, match=r"org/m has no config\.json"):
        files_of("org/m", ["README.md"])
    found = [find_in(place) for place in (toy.parent, folder, tmp_path / "none")]
    assert [place and place[0] for place in found] == [toy, folder, None]


def test_a_file_of_no_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toy").write_text("")
    with pytest.raises(ModelError, match="is a file; give the folder that holds it"):
        acquire(str(tmp_path / "x.toy"))
