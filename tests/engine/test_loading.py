import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talu import _native
from talu.engine import cpu
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.exceptions import (
    GenerationError,
    ModelError,
    ModelNotFoundError,
    TokenizerError,
    ValidationError,
)
from talu.models import load_architecture
from talu.sampling import SamplingParams
from talu.sources.folder import FolderSource
from talu.types import LocalBackend

GOLDEN = Path(__file__).parents[1] / "models" / "golden"


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_info_of_an_open_model_describes_it(folder: Path) -> None:
    model = load_model(FolderSource(folder))
    info = model.info
    assert (info.model_type, info.device, info.weight_format, info.kv_dtype) == (
        "qwen3", "cpu", "f32", "f32",
    )  # fmt: skip
    assert info.parameters == sum(a.size for a in load_file(folder / "model.safetensors").values())
    assert info.context_length == info.model_context_length == 256
    assert info.kv_bytes == 16 * 256 * 2 * 2 * 2 * 16 * 4
    assert info.notes == ()
    model.executor.close()


def test_16_bit_weights_get_a_16_bit_cache(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: a.astype(np.float16) for name, a in load_file(path).items()}, path)
    model = load_model(FolderSource(folder))
    assert (model.info.weight_format, model.info.kv_dtype) == ("f16", "f16")
    model.executor.close()


def test_matrices_that_cannot_be_quantised_stay_as_they_are_and_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    model = load_model(FolderSource(folder), LocalBackend(weight_format="q4"))
    assert model.info.weight_format == "f32+r4+r8"
    (note,) = model.info.notes
    assert note == (
        "weight_format='q4' leaves 2 matrices, such as 'model.layers.0.mlp.down_proj.weight', as "
        "the file has them: their columns are not a multiple of 64"
    )
    model.executor.close()


@pytest.mark.parametrize("kv_dtype", ["f32", "bf16"])
def test_an_overflow_of_the_f16_cache_names_a_format_with_enough_range(
    folder: Path, kv_dtype: Any
) -> None:
    path = folder / "model.safetensors"
    tensors = {name: a.astype(np.float16) for name, a in load_file(path).items()}
    for name in tensors:
        if "v_proj" in name:
            tensors[name] = np.where(tensors[name] > 0, np.float16(60_000), np.float16(-60_000))
    save_file(tensors, path)
    params = SamplingParams(max_tokens=3, temperature=0.0)
    with closing(Engine(load_model(FolderSource(folder)))) as engine:
        assert engine.info.kv_dtype == "f16"
        with pytest.raises(GenerationError, match=r"65,504.*LocalBackend\(kv_dtype='bf16'\)"):
            list(engine.submit([1, 2, 3], params))
    model = load_model(FolderSource(folder), LocalBackend(kv_dtype=kv_dtype))
    with closing(Engine(model)) as engine:
        assert engine.info.kv_dtype == kv_dtype
        assert len(list(engine.submit([1, 2, 3], params))) == 3
        with pytest.raises(GenerationError, match="no token could be sampled"):
            list(engine.submit([1], replace(params, logit_bias=dict.fromkeys(range(320), -100.0))))


@pytest.mark.parametrize("kv_dtype", ["f16", "bf16"])
def test_a_key_that_overflows_to_a_low_score_is_an_error_and_not_another_answer(
    folder: Path, kv_dtype: Any
) -> None:
    path = folder / "model.safetensors"
    tensors = {name: a.astype(np.float16) for name, a in load_file(path).items()}
    column = 7  # of a head of 16: the one that the rotation hardly turns
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:, 0], embedding[:, 1] = 20, 0
    embedding[9, 1] = -20
    attention = "model.layers.0.self_attn."
    for name, source in (("q", 0), ("k", 1)):  # queries are positive, the key of token 9 negative
        projection = tensors[f"{attention}{name}_proj.weight"]
        projection[column::16] = 0
        projection[column::16, source] = 8
        norm = tensors[f"{attention}{name}_norm.weight"]
        norm[:] = 0
        norm[column] = 30_000
    save_file(tensors, path)
    params = SamplingParams(max_tokens=3, temperature=0.0)
    model = load_model(FolderSource(folder), LocalBackend(kv_dtype=kv_dtype))
    with closing(Engine(model)) as engine:
        assert len(list(engine.submit([1, 2, 3, 4], params))) == 3
        ticket = engine.submit([1, 2, 9, 3, 4], params)
        if kv_dtype == "f16":
            with pytest.raises(GenerationError, match=r"65,504.*LocalBackend\(kv_dtype='bf16'\)"):
                list(ticket)
        else:
            assert len(list(ticket)) == 3


def encoder(folder: Path) -> Path:
    """An encoder in f32, with the tokenizer of ``folder``."""
    shutil.copy(GOLDEN / "bert" / "config.json", folder)
    edit(folder / "config.json", vocab_size=320)
    shapes = load_architecture(FolderSource(folder)).graph.weights
    save_file({n: np.ones(s, np.float32) for n, s in shapes.items()}, folder / "model.safetensors")
    return folder


def test_an_f32_encoder_multiplies_integers_with_a_note(folder: Path) -> None:
    model = load_model(FolderSource(encoder(folder)))
    assert (model.info.weight_format, model.info.kv_dtype) == ("f32+i16", "f32")
    assert "16-bit integers" in model.info.notes[0]
    formats = {name: tensor.format for name, tensor in model.weights.packed.items()}
    assert formats["bert.embeddings.word_embeddings.weight"] == "f32"
    assert formats["bert.encoder.layer.0.output.dense.weight"] == "i16"
    model.executor.close()


@pytest.mark.parametrize("option", [{"speculative": "ngram"}, {"prefix_cache_bytes": 10**9}])
def test_an_option_for_answers_is_refused_by_a_model_that_only_makes_embeddings(
    folder: Path, option: dict[str, Any]
) -> None:
    (name,) = option
    with pytest.raises(ValidationError, match=rf"{name}=.* leave it out"):
        load_model(FolderSource(encoder(folder)), LocalBackend(**option))


def test_an_encoder_keeps_f32_where_that_is_asked(folder: Path) -> None:
    model = load_model(FolderSource(encoder(folder)), LocalBackend(weight_format="stored"))
    assert (model.info.weight_format, model.info.kv_dtype) == ("f32", "f32")
    assert model.info.notes == ()
    model.executor.close()


def test_a_tokenizer_may_have_tokens_that_the_model_has_no_row_for(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", additional_special_tokens=[f"<{n}>" for n in range(90)])
    model = load_model(FolderSource(folder))
    assert model.tokenizer.vocabulary_size > model.architecture.vocabulary_size
    model.executor.close()


def test_a_missing_tokenizer_is_refused_before_the_weights_are_read(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(TokenizerError):
        load_model(FolderSource(folder))


def test_a_context_that_memory_does_not_allow_is_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "config.json", max_position_embeddings=4096)
    monkeypatch.setattr(cpu, "available_memory", lambda: 4 * 1024 * 512)
    model = load_model(FolderSource(folder))
    assert model.cache.context_length == model.info.context_length == 1024
    assert "1024 tokens instead of 4096" in model.info.notes[0]
    model.executor.close()


def test_more_threads_than_the_process_may_use_are_refused(folder: Path) -> None:
    available = _native.available_threads()
    with pytest.raises(ValidationError, match=r"num_threads=1024 is more than the") as caught:
        load_model(FolderSource(folder), LocalBackend(num_threads=1024))
    assert caught.value.details["available"] == available
    model = load_model(FolderSource(folder), LocalBackend(num_threads=available))
    assert (model.info.threads, model.info.notes) == (available, ())
    model.executor.close()


def test_settings_of_the_model_without_effect_are_noted(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"no_repeat_ngram_size": 3}))
    model = load_model(FolderSource(folder))
    assert "no_repeat_ngram_size" in model.info.notes[0]
    model.executor.close()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(FolderSource(tmp_path))
    assert not isinstance(caught.value, ModelNotFoundError)
