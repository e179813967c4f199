"""Errors in a model's configuration: they name the file, the key and the supported values."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talu import models
from talu.exceptions import ModelError
from talu.models import Architecture
from talu.sources.folder import FolderSource

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
GEMMA3 = {k: v for k, v in QWEN3.items() if k != "architectures"} | {
    "model_type": "gemma3_text",
    "sliding_window": 8,
}
GEMMA2 = GEMMA3 | {"model_type": "gemma2"}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ABSENT = object()


def load_architecture(folder: Path) -> Architecture:
    return models.load_architecture(FolderSource(folder))


def write(folder: Path, config: object, name: str = "config.json") -> Path:
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (base | changes).items() if v is not ABSENT}


@pytest.mark.parametrize("base", [QWEN3, LLAMA, GEMMA2, GEMMA3], ids=lambda b: b["model_type"])
def test_the_unchanged_settings_are_accepted(tmp_path: Path, base: dict[str, Any]) -> None:
    assert load_architecture(write(tmp_path, base)).layer_count == 2


@pytest.mark.parametrize(
    "classes", [["LLaMAForCausalLM"], ["LlamaModel"], ["LlamaForCausalLM", "LlamaModel"], [], None]
)
def test_the_case_of_a_class_does_not_matter(tmp_path: Path, classes: list[str] | None) -> None:
    config = LLAMA | {"architectures": classes}
    assert load_architecture(write(tmp_path, config)).model_type == "llama"


def test_an_unknown_class_with_a_known_head_is_noted(tmp_path: Path) -> None:
    config = LLAMA | {"architectures": ["TinyForCausalLM"]}
    architecture = load_architecture(write(tmp_path, config))
    assert architecture.graph.weights == load_architecture(write(tmp_path, LLAMA)).graph.weights
    (note,) = architecture.notes
    assert note.endswith(
        "does not know; the network is that of the model type 'llama': TinyForCausalLM"
    )


FILES = {
    "empty": ("", "not valid JSON"),
    "cut short": ('{"model_type": "qwen3", ', "not valid JSON"),
    "a list": ("[]", r"holds \[\] instead of an object"),
    "a number": ("7", "holds 7 instead of an object"),
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


def test_the_last_value_of_a_repeated_key_is_used_with_a_note(
    tmp_path: Path,
) -> None:
    write(tmp_path, json.dumps(QWEN3).replace('"head_dim": 8', '"head_dim": 6, "head_dim": 8'))
    architecture = load_architecture(tmp_path)
    assert architecture.graph.layers[0] == (2, 8)
    assert architecture.notes == (
        "keys that occur more than once in config.json; the last value is used: head_dim",
    )


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_a_broken_link_is_an_error(tmp_path: Path, file: str) -> None:
    write(tmp_path, QWEN3)
    (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / file).symlink_to(tmp_path / "absent")
    with pytest.raises(ModelError, match=rf"{file} is not a file, or is a broken link"):
        load_architecture(tmp_path)


def test_a_name_that_is_too_long_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: File name too long"):
        load_architecture(tmp_path / ("x" * 300))


def test_a_file_that_is_not_utf8_is_reported_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(ModelError, match="not valid JSON"):
        load_architecture(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_architecture(tmp_path)


def test_a_folder_instead_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match="is not a file"):
        load_architecture(tmp_path)


def test_a_pipe_instead_of_the_file_does_not_hang(tmp_path: Path) -> None:
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
        "is 'qwen4'; did you mean 'qwen3'? (supported: 'bert', 'distilbert', 'gemma', 'gemma2', "
        "'gemma3_text', 'llama', 'mistral', "
        "'qwen2', 'qwen3', 'roberta', 'xlm-roberta')",
    ),
    "model type of a wrong type": (QWEN3, {"model_type": ["qwen3"]}, "model_type", "a text"),
    "a classifier": (
        QWEN3,
        {"architectures": ["Qwen3ForSequenceClassification"]},
        "architectures",
        "supported: 'Qwen3ForCausalLM'",
    ),
    "an unknown class with another head": (
        LLAMA,
        {"architectures": ["LlamaForCausalLM", "LlamaBidirectionalModel"]},
        "architectures",
        "is 'LlamaBidirectionalModel'",
    ),
    "architectures of a wrong type": (QWEN3, {"architectures": 3}, "architectures", "a list"),
    "no sizes at all": (
        LLAMA,
        {
            "hidden_size": ABSENT,
            "intermediate_size": ABSENT,
            "num_attention_heads": ABSENT,
            "num_hidden_layers": ABSENT,
        },
        "hidden_size",
        "is missing, as are all other sizes",
    ),
    "null width": (QWEN3, {"hidden_size": None}, "hidden_size", "is null"),
    "width 0": (QWEN3, {"hidden_size": 0}, "hidden_size", "from 1 to"),
    "width as text": (QWEN3, {"hidden_size": "32"}, "hidden_size", "whole number, got '32'"),
    "width as float": (QWEN3, {"hidden_size": 32.0}, "hidden_size", "whole number"),
    "width as truth": (QWEN3, {"hidden_size": True}, "hidden_size", "whole number"),
    "gigantic width": (QWEN3, {"hidden_size": 2**40}, "hidden_size", "from 1 to"),
    "negative layers": (QWEN3, {"num_hidden_layers": -1}, "num_hidden_layers", "from 1 to"),
    "gigantic vocabulary": (QWEN3, {"vocab_size": 10**12}, "vocab_size", "from 1 to"),
    "no context": (QWEN3, {"max_position_embeddings": 0}, "max_position_embeddings", "from 1"),
    "inner width nested": (QWEN3, {"intermediate_size": {"a": 1}}, "intermediate_size", "whole"),
    "heads do not group": (
        QWEN3,
        {"num_key_value_heads": 3},
        "num_key_value_heads",
        "is 3, which does not divide 4",
    ),
    "more key heads than heads": (
        QWEN3,
        {"num_key_value_heads": 8},
        "num_key_value_heads",
        "is 8, which does not divide 4",
    ),
    "odd head": (QWEN3, {"head_dim": 7}, "head_dim", "pairs"),
    "enormous width": (QWEN3, {"hidden_size": 10**400}, "hidden_size", "from 1 to"),
    "enormous eps": (QWEN3, {"rms_norm_eps": 10**400}, "rms_norm_eps", "decimal number"),
    "enormous theta": (QWEN3, {"rope_theta": 10**400}, "rope_theta", "at most"),
    "heads do not divide": (LLAMA, {"hidden_size": 30}, "hidden_size", "not a multiple of 4 heads"),
    "eps as whole number": (QWEN3, {"rms_norm_eps": 0}, "rms_norm_eps", "decimal number"),
    "eps overflows": ("1e999", {}, "rms_norm_eps", "from 0.0 to 1.0"),
    "eps not a number": ("NaN", {}, "rms_norm_eps", "got nan"),
    "eps as text": (QWEN3, {"rms_norm_eps": "1e-6"}, "rms_norm_eps", "decimal number"),
    "unknown activation": (QWEN3, {"hidden_act": "mish"}, "hidden_act", "supported: 'silu'"),
    "tied by a number": (QWEN3, {"tie_word_embeddings": 1}, "tie_word_embeddings", "true or"),
    "theta 0": (QWEN3, {"rope_theta": 0}, "rope_theta", "above 0"),
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
    "partial rotation": (
        LLAMA,
        {"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "partial_rotary_factor",
        "not 1",
    ),
    "partial rotation, nested": (
        LLAMA,
        {"rope_parameters": LLAMA3_SCALING | {"partial_rotary_factor": 0.5}},
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
    "sliding layers while sliding is off": (
        QWEN3,
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8},
        "layer_types",
        "'use_sliding_window' is off",
    ),
    "window 0": (LLAMA, {"model_type": "mistral", "sliding_window": 0}, "sliding_window", "from 2"),
    "window 1": (
        LLAMA,
        {"model_type": "mistral", "sliding_window": 1},
        "sliding_window",
        "got 1: transformers gives other results",
    ),
    "a window that llama lacks": (LLAMA, {"sliding_window": 8}, "sliding_window", "not supported"),
    "attention in chunks": (
        LLAMA,
        {"attention_chunk_size": 8},
        "attention_chunk_size",
        "chunked attention is not supported",
    ),
    "layers that differ": (
        QWEN3,
        {"per_layer_config": {"0": {"intermediate_size": 32}}},
        "per_layer_config",
        "differ in size",
    ),
    "weights quantised by a method that talu lacks": (
        QWEN3,
        {"quantization_config": {"quant_method": "hqq"}},
        "quantization_config.quant_method",
        "is 'hqq', which is not supported",
    ),
    "a window of 1 in Gemma": (GEMMA2, {"sliding_window": 1}, "sliding_window", "from 2"),
    "no window in Gemma": (GEMMA2, {"sliding_window": None}, "sliding_window", "is null"),
    "a layer of an unknown kind in Gemma": (
        GEMMA3,
        {"layer_types": ["full_attention", "chunked_attention"]},
        "layer_types",
        "is 'chunked_attention'",
    ),
    "too few layers in Gemma": (GEMMA3, {"layer_types": []}, "layer_types", "0 entries for 2"),
    "a pattern of 0": (GEMMA3, {"sliding_window_pattern": 0}, "sliding_window_pattern", "from 1"),
    "scores limited to 0": (
        GEMMA2,
        {"attn_logit_softcapping": 0.0},
        "attn_logit_softcapping",
        "must be above 0",
    ),
    "logits limited to less than 0": (
        GEMMA3,
        {"final_logit_softcapping": -30.0},
        "final_logit_softcapping",
        "decimal number from 0.0",
    ),
    "a scale of queries that is not whole": (
        GEMMA3,
        {"query_pre_attn_scalar": 256.5},
        "query_pre_attn_scalar",
        "whole number",
    ),
    "Gemma in both directions": (
        GEMMA3,
        {"use_bidirectional_attention": True},
        "use_bidirectional_attention",
        "both directions is not supported",
    ),
    "an unknown type of numbers": (GEMMA3, {"dtype": "float8"}, "dtype", "supported: 'float32'"),
    "a local base of 0": (
        GEMMA3,
        {"rope_local_base_freq": 0.0},
        "rope_local_base_freq",
        "above 0",
    ),
    "a window that the first Gemma lacks": (
        GEMMA2,
        {"model_type": "gemma"},
        "sliding_window",
        "not supported",
    ),
    "the old name of the rotation's type": (
        GEMMA3,
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling.type",
        "write 'rope_type'",
    ),
    "two descriptions of the rotation": (
        GEMMA3,
        {"rope_scaling": {"factor": 2.0}, "rope_parameters": {"full_attention": {}}},
        "rope_scaling",
        "beside 'rope_parameters'",
    ),
    "rotation by kind of layer in Gemma 2": (
        GEMMA2,
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
        "rope_parameters.full_attention",
        "one kind of layer",
    ),
    "a rotation of an unknown type in one kind of layer": (
        GEMMA3,
        {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
        "rope_parameters.sliding_attention.rope_type",
        "is 'yarn'",
    ),
    "bidirectional within a window": (
        LLAMA,
        {"model_type": "mistral", "is_causal": False, "sliding_window": 8},
        "is_causal",
        "together with a sliding window",
    ),
}


@pytest.mark.parametrize(("base", "change", "key", "message"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_is_named(
    tmp_path: Path, base: Any, change: dict[str, Any], key: str, message: str
) -> None:
    if base in ("1e999", "NaN"):
        base = json.dumps(QWEN3).replace("1e-06", base)
    write(tmp_path, base if isinstance(base, str) else changed(base, **change))
    with pytest.raises(ModelError) as caught:
        load_architecture(tmp_path)
    assert f"{tmp_path / 'config.json'}: {key!r}" in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.details == {"path": str(tmp_path / "config.json"), "key": key}


HARMLESS: dict[str, Any] = {
    "auto_map": {"AutoModelForCausalLM": "evil--repo.modeling.Evil"},
    "torch_dtype": "bfloat16",
    "attention_dropout": 0.1,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "rope_scaling": None,
    "use_mrope": False,
    "custom": None,
    "pruned_heads": {},
    "partial_rotary_factor": 0.5,  # without effect where the type of the rotation is default
    "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5},
    "output_past": True,
    "num_beams": 1,
}
IGNORED: dict[str, Any] = {
    "attn_logit_softcapping": 30.0,
    "embedding_multiplier": 12,
    "num_experts": 8,
    "uniem_embedding_strategy": "last_mean",
    "badwordsids": [[0]],
    "x" * 100: 1,
    "rope_parameters": {"rope_type": "default", "mscale": 1.2},
}


def network(config: dict[str, Any], folder: Path) -> list[Any]:
    graph = load_architecture(write(folder, config)).graph
    return [(op.kind, op.inputs, op.weights) for op in graph.ops]


@pytest.mark.parametrize("key", HARMLESS)
def test_a_common_key_without_effect_is_ignored_without_a_note(tmp_path: Path, key: str) -> None:
    assert network(QWEN3 | {key: HARMLESS[key]}, tmp_path) == network(QWEN3, tmp_path)
    assert load_architecture(write(tmp_path, QWEN3 | {key: HARMLESS[key]})).notes == ()


@pytest.mark.parametrize("key", IGNORED)
def test_an_unknown_key_is_ignored_with_a_note(tmp_path: Path, key: str) -> None:
    assert network(QWEN3 | {key: IGNORED[key]}, tmp_path) == network(QWEN3, tmp_path)
    (note,) = load_architecture(write(tmp_path, QWEN3 | {key: IGNORED[key]})).notes
    assert "keys of config.json that talu does not read" in note
    assert (key[:57] if len(key) > 60 else key) in note


def test_many_unknown_keys_make_one_short_note(tmp_path: Path) -> None:
    (note,) = load_architecture(
        write(tmp_path, QWEN3 | {f"key {n}": n + 1 for n in range(500)})
    ).notes
    assert "and 488 more" in note
    assert len(note) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    *QWEN3,
    *("rope_scaling", "rope_parameters", "layer_types", "eos_token_id", "hidden_act"),
    *("hidden_activation", "sliding_window", "sliding_window_pattern", "rope_local_base_freq"),
    *("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "dtype"),
]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    base=st.sampled_from([QWEN3, LLAMA, GEMMA2, GEMMA3]),
    change=st.dictionaries(st.sampled_from(KEYS), JSON),
)
def test_any_json_gives_a_network_or_a_model_error(
    tmp_path: Path, base: dict[str, Any], change: dict[str, Any]
) -> None:
    write(tmp_path, base | change)
    with suppress(ModelError):
        load_architecture(tmp_path)
