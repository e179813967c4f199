"""Wrong model folders: each is refused with the file, the setting and what is supported."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talu.exceptions import ModelError
from talu.models import load_architecture

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
LLAMA = {k: v for k, v in QWEN3.items() if k not in ("architectures", "head_dim")} | {
    "model_type": "llama"
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ABSENT = object()


def write(folder: Path, config: object, name: str = "config.json") -> Path:
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (base | changes).items() if v is not ABSENT}


@pytest.mark.parametrize("base", [QWEN3, LLAMA], ids=["qwen3", "llama"])
def test_the_unchanged_settings_are_accepted(tmp_path: Path, base: dict[str, Any]) -> None:
    assert load_architecture(write(tmp_path, base)).layer_count == 2


FILES = {
    "empty": ("", "not valid JSON"),
    "cut short": ('{"model_type": "qwen3", ', "not valid JSON"),
    "a list": ("[]", r"holds \[\] where an object"),
    "a number": ("7", "holds 7 where an object"),
    "a key twice": ('{"hidden_size": 1, "hidden_size": 2}', "'hidden_size' stands twice"),
    "not a number": ('{"rms_norm_eps": NaN}', "NaN is no number"),
    "infinity": ('{"rope_theta": -Infinity}', "-Infinity is no number"),
    "nested without end": ("[" * 100_000, "not valid JSON"),
    "digits without end": ('{"vocab_size": ' + "9" * 5000 + "}", "not valid JSON"),
    "too large": ('{"model_type": "' + "x" * (4 * 1024 * 1024) + '"}', "larger than"),
}


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    write(write(tmp_path, QWEN3), text, file)
    with pytest.raises(ModelError, match=message) as caught:
        load_architecture(tmp_path)
    assert str(tmp_path / file) in str(caught.value)
    assert caught.value.details["path"] == str(tmp_path / file)
    assert len(str(caught.value)) < 500


def test_text_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(ModelError, match="not valid JSON"):
        load_architecture(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_architecture(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match="is not a file"):
        load_architecture(tmp_path)


def test_a_pipe_in_the_place_of_the_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match="is not a file"):
        load_architecture(tmp_path)


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # what is wrong: (settings, change, key that the error names, part of the message)
    "no model type": (QWEN3, {"model_type": ABSENT}, "model_type", "is missing"),
    "unknown model type": (
        QWEN3,
        {"model_type": "qwen4"},
        "model_type",
        "is 'qwen4'; did you mean 'qwen3'? (supported: 'bert', 'distilbert', 'llama', 'mistral', "
        "'qwen2', 'qwen3', 'roberta', 'xlm-roberta')",
    ),
    "model type of a wrong type": (QWEN3, {"model_type": ["qwen3"]}, "model_type", "a text"),
    "a classifier": (
        QWEN3,
        {"architectures": ["Qwen3ForSequenceClassification"]},
        "architectures",
        "supported: 'Qwen3ForCausalLM'",
    ),
    "architectures of a wrong type": (QWEN3, {"architectures": 3}, "architectures", "a list"),
    "no width": (QWEN3, {"hidden_size": ABSENT}, "hidden_size", "is missing"),
    "null width": (QWEN3, {"hidden_size": None}, "hidden_size", "is missing"),
    "width 0": (QWEN3, {"hidden_size": 0}, "hidden_size", "from 1 to"),
    "width as text": (QWEN3, {"hidden_size": "32"}, "hidden_size", "whole number, got '32'"),
    "width as float": (QWEN3, {"hidden_size": 32.0}, "hidden_size", "whole number"),
    "width as truth": (QWEN3, {"hidden_size": True}, "hidden_size", "whole number"),
    "gigantic width": (QWEN3, {"hidden_size": 2**40}, "hidden_size", "from 1 to"),
    "negative layers": (QWEN3, {"num_hidden_layers": -1}, "num_hidden_layers", "from 1 to"),
    "no vocabulary": (QWEN3, {"vocab_size": ABSENT}, "vocab_size", "is missing"),
    "gigantic vocabulary": (QWEN3, {"vocab_size": 10**12}, "vocab_size", "from 1 to"),
    "no context": (QWEN3, {"max_position_embeddings": 0}, "max_position_embeddings", "from 1"),
    "inner width nested": (QWEN3, {"intermediate_size": {"a": 1}}, "intermediate_size", "whole"),
    "heads do not group": (
        QWEN3,
        {"num_key_value_heads": 3},
        "num_key_value_heads",
        "is 3, no divisor of 4",
    ),
    "more key heads than heads": (
        QWEN3,
        {"num_key_value_heads": 8},
        "num_key_value_heads",
        "from 1 to 4",
    ),
    "odd head": (QWEN3, {"head_dim": 7}, "head_dim", "pairs"),
    "qwen3 without head size": (QWEN3, {"head_dim": ABSENT}, "head_dim", "is missing"),
    "heads do not divide": (LLAMA, {"hidden_size": 30}, "hidden_size", "no multiple of 4 heads"),
    "eps 0": (QWEN3, {"rms_norm_eps": 0.0}, "rms_norm_eps", "above 0"),
    "eps overflows": ("1e999", {}, "rms_norm_eps", "at most 1"),
    "eps as text": (QWEN3, {"rms_norm_eps": "1e-6"}, "rms_norm_eps", "must be a number"),
    "unknown activation": (QWEN3, {"hidden_act": "gelu"}, "hidden_act", "supported: 'silu'"),
    "tied by a number": (QWEN3, {"tie_word_embeddings": 1}, "tie_word_embeddings", "true or"),
    "theta 0": (QWEN3, {"rope_theta": 0}, "rope_theta", "above 1"),
    "unknown rope type": (
        QWEN3,
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "rope_scaling.rope_type",
        "is 'yarn' (supported: 'default', 'linear', 'llama3'",
    ),
    "unknown rope type in an old file": (
        LLAMA,
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "rope_scaling.type",
        "is 'dynamic'",
    ),
    "unknown rope type in a new file": (
        LLAMA,
        {"rope_parameters": {"rope_type": "longrope"}},
        "rope_parameters.rope_type",
        "is 'longrope'",
    ),
    "two rope types": (
        LLAMA,
        {"rope_scaling": {"type": "linear", "rope_type": "default"}},
        "rope_scaling.rope_type",
        "contradict",
    ),
    "rope scaling is no object": (LLAMA, {"rope_scaling": 2.0}, "rope_scaling", "an object"),
    "linear without factor": (
        LLAMA,
        {"rope_scaling": {"type": "linear"}},
        "rope_scaling.factor",
        "is missing",
    ),
    "factor 0": (
        LLAMA,
        {"rope_scaling": {"type": "linear", "factor": 0}},
        "rope_scaling.factor",
        "above 0",
    ),
    "llama3 without the old context": (
        LLAMA,
        {"rope_scaling": changed(LLAMA3_SCALING, original_max_position_embeddings=ABSENT)},
        "rope_scaling.original_max_position_embeddings",
        "is missing",
    ),
    "llama3 with an empty ramp": (
        LLAMA,
        {"rope_scaling": LLAMA3_SCALING | {"high_freq_factor": 1.0}},
        "rope_scaling.high_freq_factor",
        "above 1.0",
    ),
    "an unknown rope setting": (
        LLAMA,
        {"rope_scaling": LLAMA3_SCALING | {"attention_factor": 1.2}},
        "rope_scaling.attention_factor",
        "does not know",
    ),
    "both forms of rope, two meanings": (
        LLAMA,
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA3_SCALING},
        "rope_parameters",
        "'rope_scaling' contradict",
    ),
    "two thetas": (
        LLAMA,
        {"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 1e4},
        "rope_theta",
        "500000.0 in 'rope_parameters'",
    ),
    "partial rotation": (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor", "not 1"),
    "partial rotation, nested": (
        LLAMA,
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary_factor",
        "not 1",
    ),
    "layer types of a wrong length": (
        QWEN3,
        {"layer_types": ["full_attention"]},
        "layer_types",
        "1 entries for 2 layers",
    ),
    "unknown layer type": (
        QWEN3,
        {"layer_types": ["full_attention", "linear_attention"]},
        "layer_types",
        "is 'linear_attention'",
    ),
    "sliding layers without a window": (
        QWEN3,
        {"use_sliding_window": True, "max_window_layers": 1},
        "sliding_window",
        "is missing",
    ),
    "sliding layers while sliding is off": (
        QWEN3,
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8},
        "layer_types",
        "'use_sliding_window' is off",
    ),
    "sliding without saying where": (
        QWEN3,
        {"use_sliding_window": True, "sliding_window": 8},
        "max_window_layers",
        "is missing",
    ),
    "window 0": (LLAMA, {"model_type": "mistral", "sliding_window": 0}, "sliding_window", "from 1"),
    "a window that llama lacks": (LLAMA, {"sliding_window": 8}, "sliding_window", "does not know"),
    "a soft cap": (LLAMA, {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping", "30.0"),
    "a multiplier": (LLAMA, {"embedding_multiplier": 12}, "embedding_multiplier", "remove it"),
    "experts": (QWEN3, {"num_experts": 8}, "num_experts", "does not know"),
    "quantized weights": (
        QWEN3,
        {"quantization_config": {"quant_method": "awq"}},
        "quantization_config",
        "does not know",
    ),
    "a bias that qwen2 lacks": (
        LLAMA,
        {"model_type": "qwen2", "attention_bias": True},
        "attention_bias",
        "does not know",
    ),
    "an end token beyond the vocabulary": (QWEN3, {"eos_token_id": 100}, "eos_token_id", "to 99"),
    "an end token of a wrong type": (QWEN3, {"eos_token_id": "</s>"}, "eos_token_id", "whole"),
    "an end token in a nested list": (QWEN3, {"eos_token_id": [[1]]}, "eos_token_id", "whole"),
}


@pytest.mark.parametrize(("base", "change", "key", "message"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_is_named(
    tmp_path: Path, base: Any, change: dict[str, Any], key: str, message: str
) -> None:
    if base == "1e999":
        base = json.dumps(QWEN3).replace("1e-06", base)
    write(tmp_path, base if isinstance(base, str) else changed(base, **change))
    with pytest.raises(ModelError) as caught:
        load_architecture(tmp_path)
    assert f"{tmp_path / 'config.json'}: {key!r}" in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.details == {"path": str(tmp_path / "config.json"), "key": key}


GENERATION: dict[str, tuple[dict[str, Any], str]] = {
    "temperature below 0": ({"temperature": -0.1}, "temperature"),
    "temperature as text": ({"temperature": "hot"}, "temperature"),
    "top_p above 1": ({"top_p": 1.5}, "top_p"),
    "top_k as fraction": ({"top_k": 2.5}, "top_k"),
    "min_p as list": ({"min_p": [0.1]}, "min_p"),
    "penalty 0": ({"repetition_penalty": 0}, "repetition_penalty"),
    "no new tokens": ({"max_new_tokens": 0}, "max_new_tokens"),
    "do_sample as text": ({"do_sample": "yes"}, "do_sample"),
    "end token beyond the vocabulary": ({"eos_token_id": [2, 100]}, "eos_token_id"),
}


@pytest.mark.parametrize(("generation", "key"), GENERATION.values(), ids=GENERATION)
def test_a_wrong_generation_setting_is_named(
    tmp_path: Path, generation: dict[str, Any], key: str
) -> None:
    write(write(tmp_path, QWEN3), generation, "generation_config.json")
    with pytest.raises(ModelError, match=rf"generation_config\.json: '{key}'"):
        load_architecture(tmp_path)


HARMLESS = {
    "auto_map": {"AutoModelForCausalLM": "evil--repo.modeling.Evil"},
    "torch_dtype": "bfloat16",
    "attention_dropout": 0.1,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "rope_scaling": None,
    "use_mrope": False,
    "custom": None,
    "pruned_heads": {},
    "partial_rotary_factor": 1.0,
}


@pytest.mark.parametrize(("key", "value"), HARMLESS.items(), ids=HARMLESS)
def test_a_setting_that_changes_nothing_is_accepted(tmp_path: Path, key: str, value: Any) -> None:
    graphs = [load_architecture(write(tmp_path, QWEN3 | more)).graph for more in ({}, {key: value})]
    assert [(op.kind, op.inputs, op.weights) for op in graphs[0].ops] == [
        (op.kind, op.inputs, op.weights) for op in graphs[1].ops
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [*QWEN3, "rope_scaling", "rope_parameters", "layer_types", "eos_token_id", "hidden_act"]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(base=st.sampled_from([QWEN3, LLAMA]), change=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_stands_in_the_file_a_network_or_a_model_error_comes_of_it(
    tmp_path: Path, base: dict[str, Any], change: dict[str, Any]
) -> None:
    write(tmp_path, base | change)
    with suppress(ModelError):
        load_architecture(tmp_path)
