"""Checkpoints whose tensors or tensor names differ from what config.json suggests."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from talu.engine.cpu import CpuDevice, CpuWeights
from talu.engine.loading import load_network
from talu.exceptions import ModelError
from talu.graph.native_executor import NativeExecutor
from talu.models import Architecture, load_architecture
from talu.sources.folder import FolderSource
from talu.types import LocalBackend
from talu.weights import numbers, pack
from talu.weights.numbers import as_float32
from talu.weights.safetensors_folder import open_folder

GOLDEN = Path(__file__).parent / "golden"
Tensors = dict[str, NDArray[Any]]
Change = Callable[[Tensors], Tensors]
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
OPTIONS = LocalBackend(num_threads=1, weight_format="stored")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copies a golden checkpoint in float32, with changes to its tensors and config.json."""

    def copy(name: str, change: Change, **settings: Any) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(GOLDEN / name, folder)
        config = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(config))
        stored = open_folder(folder, use_mmap=False)
        tensors = {name: as_float32(stored[name]) for name in stored.names}
        save_file(change(tensors), folder / "model.safetensors")
        return folder

    return copy


def loaded(folder: Path) -> tuple[Architecture, CpuWeights]:
    architecture, weights, _ = load_network(FolderSource(folder), CpuDevice(OPTIONS), OPTIONS)
    return architecture, weights


def computed(folder: Path, tokens: list[int]) -> tuple[Architecture, NDArray[np.float32]]:
    """The network of a folder, and its result for all of the tokens."""
    architecture, weights = loaded(folder)
    executor = NativeExecutor(
        architecture.graph, weights.packed, blocks=32, block_size=16, kv_dtype="f32"
    )
    rows = np.arange(len(tokens), dtype=np.int32)
    starts, table = np.array([0, len(tokens)], np.int32), np.arange(32, dtype=np.int32)[None]
    result = np.asarray(executor.step(np.array(tokens, np.int32), rows, starts, table, rows))
    executor.close()
    return architecture, result


def renamed(rename: Callable[[str], str]) -> Change:
    return lambda tensors: {rename(name): array for name, array in tensors.items()}


def unchanged(tensors: Tensors) -> Tensors:
    return tensors


def gamma_and_beta(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


ENCODERS = {
    "gamma and beta": ("bert", gamma_and_beta, {}),
    "gamma and beta, with the prefix": ("bert_masked", gamma_and_beta, {}),
    "a prefix that the class lacks": ("bert", lambda name: f"bert.{name}", {}),
    "no prefix, though the class has one": (
        "bert_masked",
        lambda name: name.removeprefix("bert."),
        {},
    ),
    "the class of another head": ("bert", lambda n: n, {"architectures": ["BertForMaskedLM"]}),
    "no class": ("bert_masked", lambda name: name, {"architectures": None}),
    "roberta with a prefix": ("roberta", lambda name: f"roberta.{name}", {}),
    "xlm-roberta without": ("xlm_roberta", lambda name: name.removeprefix("roberta."), {}),
    "distilbert with a prefix": ("distilbert", lambda name: f"distilbert.{name}", {}),
}


@pytest.mark.parametrize(("name", "rename", "settings"), ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_does_not_depend_on_the_names_of_its_tensors(
    copied: Any, name: str, rename: Callable[[str], str], settings: dict[str, Any]
) -> None:
    tokens = [5, 9, 100, 33, 7]
    _, expected = computed(copied(name, unchanged), tokens)
    _, result = computed(copied(name, renamed(rename), **settings), tokens)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("qwen3", {}),
        ("qwen3_tied", {"architectures": ["Qwen3Model"]}),
        ("qwen2", {"architectures": ["Qwen2Model"]}),
        ("llama2", {"architectures": ["LlamaModel"]}),
        ("mistral", {"architectures": ["MistralModel"]}),
    ],
)
def test_a_decoder_without_the_prefix_is_the_same(
    copied: Any, name: str, settings: dict[str, Any]
) -> None:
    tokens = [5, 9, 100, 33, 7]
    _, expected = computed(copied(name, unchanged), tokens)
    folder = copied(name, renamed(lambda tensor: tensor.removeprefix("model.")), **settings)
    _, result = computed(folder, tokens)
    np.testing.assert_array_equal(result, expected)


def without(*names: str) -> Change:
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def test_a_model_without_a_head_only_makes_embeddings(copied: Any) -> None:
    architecture, states = computed(copied("qwen3", without(HEAD)), [5, 9, 100])
    assert states.shape == (3, architecture.hidden_size)
    assert not architecture.generates
    assert architecture.causal
    assert "no 'lm_head.weight'" in str(architecture.embeds_only)


@pytest.mark.parametrize(
    ("values", "words"), [({"tie_word_embeddings": False}, "is false"), ({}, "is not set")]
)
def test_the_error_for_a_missing_head_says_what_config_json_says(
    copied: Any, values: dict[str, bool], words: str
) -> None:
    folder = copied("qwen3", without(HEAD))
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config | values))
    reason = load_architecture(FolderSource(folder), stored=set()).embeds_only
    assert f"'tie_word_embeddings' {words} in config.json" in str(reason)


def test_the_table_of_a_tied_model_may_be_stored_under_the_name_of_the_head(copied: Any) -> None:
    _, expected = computed(copied("qwen3_tied", unchanged), [5, 9, 100])
    folder = copied("qwen3_tied", renamed(lambda name: HEAD if name == TABLE else name))
    architecture, logits = computed(folder, [5, 9, 100])
    np.testing.assert_array_equal(logits, expected)
    assert architecture.generates


def test_an_untied_model_needs_its_table(copied: Any) -> None:
    with pytest.raises(ModelError, match=r"lack 'model\.embed_tokens\.weight'"):
        loaded(copied("qwen3", without(TABLE)))


def test_a_stored_head_takes_precedence_over_config_json_with_a_note(copied: Any) -> None:
    _, expected = computed(copied("qwen3", unchanged), [5, 9, 100])
    folder = copied("qwen3", unchanged, tie_word_embeddings=True)
    architecture, logits = computed(folder, [5, 9, 100])
    np.testing.assert_array_equal(logits, expected)
    (note,) = architecture.notes
    assert "'lm_head.weight', which is used instead" in note


def test_a_stored_head_that_equals_the_table_is_not_read_twice(copied: Any) -> None:
    _, expected = computed(copied("qwen3_tied", unchanged), [5, 9, 100])
    folder = copied("qwen3_tied", lambda tensors: tensors | {HEAD: tensors[TABLE].copy()})
    architecture, logits = computed(folder, [5, 9, 100])
    np.testing.assert_array_equal(logits, expected)
    assert HEAD not in architecture.graph.weights
    assert architecture.notes == ()


def test_table_and_head_are_compared_only_when_the_weights_are_packed(
    copied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "CACHE_FROM_BYTES", 0)
    folder = copied("qwen3_tied", lambda tensors: tensors | {HEAD: tensors[TABLE].copy()})
    _, weights = loaded(folder)
    assert not weights.from_cache
    monkeypatch.delattr(numbers, "check_equal")
    architecture, weights = loaded(folder)
    assert weights.from_cache
    assert HEAD not in architecture.graph.weights


def test_a_stored_head_that_differs_is_used_from_the_packed_file_too(
    copied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "CACHE_FROM_BYTES", 0)
    folder = copied("qwen3", unchanged, tie_word_embeddings=True)
    for opened_before in (False, True):
        architecture, weights = loaded(folder)
        assert weights.from_cache == opened_before
        assert HEAD in architecture.graph.weights


def test_a_bidirectional_decoder_sees_the_whole_text_and_only_makes_embeddings(copied: Any) -> None:
    folder = copied("qwen3", unchanged, is_causal=False)
    architecture, first = computed(folder, [5, 9, 100])
    _, second = computed(folder, [5, 9, 7])
    assert not np.allclose(first[0], second[0])
    assert not architecture.causal
    assert not architecture.generates
    assert "'is_causal' is false" in str(architecture.embeds_only)
