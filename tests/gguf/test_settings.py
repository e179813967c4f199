"""The settings of GGUF files, compared with those of config.json for the same networks."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.remote.llama import gguf as smollm

from talu.exceptions import ModelError
from talu.gguf.network import rope_factors
from talu.gguf.reader import open_gguf
from talu.gguf.settings import ARCHITECTURES, WINDOW, pooling_mode, sampling_of, settings_of
from talu.models import bert, llama, qwen
from talu.models.rope import default_frequencies
from talu.sources.settings import Settings

FAMILIES = {"llama": llama, "qwen2": qwen, "qwen3": qwen, "bert": bert}
SIZES = {
    "context_length": 2048,
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
}
DECODER = SIZES | {
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "rope.freq_base": 500_000.0,
}
BERT = SIZES | {"attention.layer_norm_epsilon": float(np.float32(1e-12)), "attention.causal": False}
SHAPES = {"token_embd.weight": (1000, 64)}
CONFIG = {
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
}


def metadata(architecture: str, keys: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Metadata with keys of an architecture; ``__`` in the names of changes is a dot."""
    keys = {**keys, **{name.replace("__", "."): value for name, value in changes.items()}}
    own = {f"{architecture}.{key}": value for key, value in keys.items() if value is not None}
    return {"general.architecture": architecture, **own}


def read(values: Mapping[str, object]) -> Any:
    """The configuration that a family reads."""
    settings = Settings(Path("file"), values)
    model_type = str(values["model_type"])
    return FAMILIES[model_type].read(settings, model_type)


def equal(one: Any, other: Any) -> bool:
    """Whether two configurations are equal, their arrays included."""
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0}),
        (
            "qwen2",
            {
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-5,
                "rope_theta": 500_000.0,
                "tie_word_embeddings": True,
            },
        ),
    ],
)
def test_a_decoder_is_configured_like_by_config_json(
    architecture: str, config: dict[str, Any]
) -> None:
    shapes = SHAPES if "tie_word_embeddings" in config else {**SHAPES, "output.weight": (1000, 64)}
    found = settings_of(metadata(architecture, DECODER), shapes, "file")
    assert equal(read(found), read({"model_type": architecture, **CONFIG, **config}))


def test_the_size_of_heads_and_the_biases_of_qwen3_are_read() -> None:
    keys = metadata("qwen3", DECODER, attention__key_length=32, attention__value_length=32)
    found = settings_of(keys, {**SHAPES, "blk.0.attn_q.bias": (128,)}, "file")
    expected = {
        "model_type": "qwen3",
        **CONFIG,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "head_dim": 32,
        "attention_bias": True,
        "tie_word_embeddings": True,
    }
    assert equal(read(found), read(expected))


def test_an_encoder_is_configured_like_by_config_json() -> None:
    shapes = {**SHAPES, "token_types.weight": (2, 64)}
    found = settings_of(metadata("bert", BERT), shapes, "file")
    expected = {"model_type": "bert", **CONFIG, "layer_norm_eps": 1e-12, "type_vocab_size": 2}
    assert equal(read(found), read(expected))


def test_a_real_model_is_configured_as_its_publisher_says() -> None:
    model = open_gguf(smollm())
    shapes = {name: model.tensors[name].shape for name in model.tensors.names}
    config = read(settings_of(model.metadata, shapes, "file"))
    sizes = config.sizes
    assert (sizes.vocabulary, sizes.context, sizes.width, sizes.layers) == (49_152, 8192, 576, 30)
    assert (sizes.heads, sizes.kv_heads, sizes.head_size, sizes.inner) == (9, 3, 64, 1536)
    assert (sizes.eps, sizes.tied) == (1e-5, True)
    assert np.array_equal(sizes.frequencies, default_frequencies(100_000.0, 64))


def test_values_that_are_left_out_are_those_of_llama_cpp() -> None:
    left_out = dict.fromkeys(("attention.head_count_kv", "rope.freq_base"))
    found = settings_of(metadata("qwen2", DECODER | left_out), SHAPES, "file")
    assert (found["num_key_value_heads"], found["rope_theta"], found["head_dim"]) == (4, 1e4, 16)


def test_linear_scaling_of_positions_is_read() -> None:
    keys = metadata("llama", DECODER, rope__scaling__type="linear", rope__scaling__factor=4.0)
    assert settings_of(keys, SHAPES, "file")["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 4.0,
    }


def test_another_scaling_of_positions_is_refused_like_in_config_json() -> None:
    keys = metadata("llama", DECODER, rope__scaling__type="yarn", rope__scaling__factor=4.0)
    with pytest.raises(ModelError, match="'yarn'"):
        read(settings_of(keys, SHAPES, "file"))


def test_frequencies_are_divided_by_the_factors_of_the_file(tmp_path: Path) -> None:
    factors = np.array([1, 2, 4, 8, 8, 8, 8, 8], np.float32)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = rope_factors(open_gguf(tmp_path / "model.gguf").tensors)
    config = read(settings_of(metadata("llama", DECODER), SHAPES, "file", rope_factors=found))
    assert np.array_equal(config.sizes.frequencies, default_frequencies(500_000.0, 16) / factors)


@pytest.mark.parametrize("factors", [[1.0] * 7, [0.0] * 8, [float("nan")] * 8, [-1.0] * 8])
def test_wrong_factors_are_refused(factors: list[float]) -> None:
    with pytest.raises(ModelError, match=r"factors' must be 8 numbers above 0"):
        read(settings_of(metadata("llama", DECODER), SHAPES, "file", rope_factors=factors))


def test_the_layers_of_gemma_3_alternate_between_windows_and_all_positions() -> None:
    keys = metadata(
        "gemma3",
        DECODER | {"block_count": 12, "attention.key_length": 256},
        attention__sliding_window=512,
        rope__scaling__type="linear",
        rope__scaling__factor=8.0,
        attention__value_length=256,
    )
    found = settings_of(keys, SHAPES, "file")
    assert found["layer_types"] == (["sliding_attention"] * 5 + ["full_attention"]) * 2
    assert (found["sliding_window"], found["query_pre_attn_scalar"]) == (512, 256)
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (500_000.0, 10_000.0)
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert found["model_type"] == "gemma3_text"
    assert found["hidden_activation"] == "gelu_pytorch_tanh"


def test_the_pattern_of_windows_in_the_file_is_followed() -> None:
    keys = metadata("gemma3", DECODER | {"block_count": 3}, attention__sliding_window=512)
    keys["gemma3.attention.sliding_window_pattern"] = np.array([False, True, False]).data
    types = settings_of(keys, SHAPES, "file")["layer_types"]
    assert types == ["full_attention", "sliding_attention", "full_attention"]
    keys["gemma3.attention.sliding_window_pattern"] = np.array([False, True]).data
    with pytest.raises(ModelError, match="2 values for 3 layers"):
        settings_of(keys, SHAPES, "file")


def test_the_caps_of_gemma_2_are_read() -> None:
    keys = metadata("gemma2", DECODER, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    found = settings_of(keys, SHAPES, "file")
    assert (found["attn_logit_softcapping"], found["final_logit_softcapping"]) == (50.0, 30.0)
    assert found["layer_types"] == ["sliding_attention", "full_attention"]
    assert found["sliding_window"] == 4096


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemmas_scale_queries_by_the_width_of_the_network(
    architecture: str, layers: int
) -> None:
    keys = DECODER | {"block_count": layers, "embedding_length": 5376, "attention.head_count": 32}
    sized = metadata(architecture, keys, attention__key_length=128, attention__value_length=128)
    assert settings_of(sized, SHAPES, "file")["query_pre_attn_scalar"] == 168


@pytest.mark.parametrize(
    ("mode", "expected"), [(None, None), (0, None), (1, "mean"), (2, "first"), (3, "last")]
)
def test_the_pooling_of_an_embedding_model_is_read(mode: int | None, expected: str | None) -> None:
    assert pooling_mode(metadata("bert", BERT, pooling_type=mode), "file") == expected


def test_a_reranker_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'bert.pooling_type' is 4: that of a reranker"):
        pooling_mode(metadata("bert", BERT, pooling_type=4), "file")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({"expert_count": 8}, "'llama.expert_count' is 8, which is not supported"),
    "scaled logits": ({"logit_scale": 0.5}, "'llama.logit_scale' is 0.5, which is not supported"),
    "window": ({"attention.sliding_window": 4096}, "'llama.attention.sliding_window' is 4096"),
    "labels": ({"classifier.output_labels": ["a"]}, "'llama.classifier.output_labels' is"),
    "text": ({"block_count": "many"}, "'llama.block_count' is 'many', not a number"),
    "missing": ({"block_count": None}, "lacks 'llama.block_count'"),
    "different layers": (
        {"attention.head_count_kv": np.array([2, 4]).data},
        "'llama.attention.head_count_kv' has different values for the layers",
    ),
    "empty array": ({"attention.head_count_kv": np.array([]).data}, "not a number"),
    "partial rotation": (
        {"rope.dimension_count": 8},
        "'llama.rope.dimension_count' is 8, but heads have 16 columns",
    ),
    "wider values": ({"attention.value_length": 64}, "but heads have 16 columns"),
    "no heads": ({"attention.head_count": 0}, "is 0, not a whole number above 0"),
    "negative heads": ({"attention.head_count": -4}, "is -4, not a whole number above 0"),
    "scaling that is no text": ({"rope.scaling.type": 3}, "'llama.rope.scaling.type' is 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_or_unsupported_value_is_named(name: str) -> None:
    changes, words = WRONG[name]
    with pytest.raises(ModelError, match=words):
        settings_of(metadata("llama", DECODER | changes), SHAPES, "file")


def test_a_value_without_effect_is_accepted() -> None:
    neutral = {"expert_count": 0, "expert_used_count": 0, "rope.scaling.finetuned": False}
    plain = settings_of(metadata("llama", DECODER), SHAPES, "file")
    assert settings_of(metadata("llama", DECODER | neutral), SHAPES, "file") == plain


def test_equal_values_for_all_layers_are_one_value() -> None:
    keys = metadata("llama", DECODER | {"attention.head_count_kv": np.array([2, 2]).data})
    assert settings_of(keys, SHAPES, "file")["num_key_value_heads"] == 2


def test_an_unknown_key_keeps_its_name_so_that_a_note_lists_it() -> None:
    found = settings_of(metadata("llama", DECODER | {"favourite_colour": 3}), SHAPES, "file")
    assert found["llama.favourite_colour"] == 3


def test_defaults_for_sampling_have_the_names_of_generation_config_json() -> None:
    values = {
        "general.sampling.temp": float(np.float32(0.7)),
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": float(np.float32(1.1)),
        "general.sampling.mirostat": 1,
        "general.name": "a",
    }
    assert sampling_of(values) == {
        "temperature": 0.7,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "general.sampling.mirostat": 1,
    }


KEYS = [*DECODER, *WINDOW, "attention.key_length", "rope.dimension_count", "rope.scaling.type"]
KEYS += ["attention.sliding_window_pattern", "rope.scaling.factor", "pooling_type", "vocab_size"]
VALUES = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.booleans()
    | st.text(max_size=3)
    | st.lists(st.text(max_size=2), max_size=2)
    | st.lists(st.integers(-1, 3), max_size=4).map(lambda values: np.array(values).data)
)


@settings(deadline=2000, max_examples=300)
@given(
    architecture=st.sampled_from(sorted(ARCHITECTURES)),
    changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3),
)
def test_any_value_is_read_or_refused(architecture: str, changes: dict[str, Any]) -> None:
    keys = metadata(architecture, DECODER | BERT | changes)
    with suppress(ModelError):
        found = settings_of(keys, SHAPES, "file")
        if found["model_type"] in FAMILIES:
            read(found)
    with suppress(ModelError):
        pooling_mode(keys, "file")


def test_the_nearest_architecture_is_named() -> None:
    with pytest.raises(ModelError, match=r"'qwen33'; did you mean 'qwen3'\? \(supported: 'llama'"):
        settings_of({"general.architecture": "qwen33"}, {}, "file")
    with pytest.raises(ModelError, match="does not say its architecture"):
        settings_of({}, {}, "file")
    assert "gemma3" in ARCHITECTURES
