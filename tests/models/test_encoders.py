"""The BERT family against hidden states that transformers computed in float32."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu import _native
from talu.exceptions import ModelError, ValidationError
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.weights.safetensors_folder import open_folder

GOLDEN = Path(__file__).parent / "golden"
ENCODERS = {"bert": 66, "bert_masked": 66, "distilbert": 66, "roberta": 64, "xlm_roberta": 64}
TOLERANCE = 1e-5  # of states whose spread is about 1
every_encoder = pytest.mark.parametrize("name", ENCODERS)


def answers(name: str) -> list[tuple[list[int], Any]]:
    with np.load(GOLDEN / name / "expected.npz") as file:
        return [
            (file[f"prompt_{length}"].tolist(), file[f"hidden_{length}"])
            for length in (7, ENCODERS[name])
        ]


@every_encoder
def test_hidden_states_are_those_of_the_reference(run: Any, name: str) -> None:
    for prompt, expected in answers(name):
        states = run(GOLDEN / name)(prompt)
        np.testing.assert_allclose(states, expected, rtol=0, atol=TOLERANCE)


@every_encoder
def test_16_bit_weights_change_the_states_only_slightly(open_with: Any, name: str) -> None:
    checkpoint = open_folder(GOLDEN / name)
    embeddings = next(n for n in checkpoint.names if "word_embeddings" in n)
    stored = checkpoint[embeddings].encoding.name.lower()
    blur = {"f32": 5e-3, "f16": 5e-3, "bf16": 6e-2}[_native.activation_format(stored)]
    for prompt, expected in answers(name):
        error = open_with("native as stored", GOLDEN / name)(prompt) - expected
        assert np.abs(error).max() < blur


@every_encoder
def test_an_encoder_does_not_generate(name: str) -> None:
    architecture = load_architecture(FolderSource(GOLDEN / name))
    assert not architecture.generates
    assert not architecture.causal
    assert architecture.context_length == ENCODERS[name]
    assert (architecture.vocabulary_size, architecture.hidden_size) == (131, 48)


@pytest.mark.parametrize("name", ["roberta", "xlm_roberta"])
def test_padding_in_a_text_takes_no_position(open_with: Any, name: str) -> None:
    tokens = [1, 5, 9, 1, 1, 33, 7, 1, 100]  # the reference values are in test_config_keys.py
    expected = open_with("numpy", GOLDEN / name)(tokens)
    np.testing.assert_allclose(open_with("native", GOLDEN / name)(tokens), expected, atol=1e-5)


def test_a_text_cannot_be_computed_in_parts(run: Any) -> None:
    runner = run(GOLDEN / "bert")
    runner([5, 6, 7])
    with pytest.raises(ValidationError, match="position 0"):
        runner([8])


def test_a_position_beyond_the_table_is_refused(open_with: Any) -> None:
    with pytest.raises(ValidationError, match="no position 66"):
        open_with("native", GOLDEN / "bert")([5] * 67)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"num_attention_heads": 5}, "hidden_size"),
        ({"architectures": ["BertForSequenceClassification"]}, "architectures"),
    ],
)
def test_an_unsupported_setting_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    config = json.loads((GOLDEN / "bert" / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"'{named}'"):
        load_architecture(FolderSource(tmp_path))


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ("mean",)),
        ({"pooling_mode_cls_token": True}, ("first",)),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, ("last",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("first", "mean")),
    ],
)
def test_the_pooling_of_the_folder_is_read(
    tmp_path: Path, modes: dict[str, bool], expected: tuple[str, ...]
) -> None:
    shutil.copy(GOLDEN / "bert" / "config.json", tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert load_architecture(FolderSource(tmp_path)).embedding.pooling == expected


def test_a_folder_without_a_pooling_module_has_no_pooling() -> None:
    assert load_architecture(FolderSource(GOLDEN / "bert")).embedding.pooling is None
