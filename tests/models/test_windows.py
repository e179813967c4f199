"""Which layers use a sliding window, for each way to configure it, and what depends on it."""

from pathlib import Path
from typing import Any

import pytest

from talu.models import gemma, llama, qwen
from talu.sources.settings import Settings

SIZES: dict[str, Any] = {
    "vocab_size": 10,
    "hidden_size": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
}
FULL, SLIDING = "full_attention", "sliding_attention"


def windows(family: Any, model_type: str, **values: Any) -> list[int]:
    settings = Settings(Path("config.json"), SIZES | values)
    graph = family.build(family.read(settings, model_type), None)
    return [op.params["window"] for op in graph.ops if op.kind == "attention"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [0, 0, 0, 0]),
        ({"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 1}, [0, 0, 0, 0]),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3}, [0, 0, 0, 5]),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}, [5, 5, 5, 5]),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 4}, [0, 0, 0, 0]),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 5,
                "max_window_layers": 0,
                "layer_types": [SLIDING, FULL, SLIDING, FULL],
            },
            [5, 0, 5, 0],
        ),
    ],
)
def test_qwen_uses_a_window_in_the_layers_that_config_json_names(
    values: dict[str, Any], expected: list[int]
) -> None:
    assert windows(qwen, "qwen2", **values) == expected


@pytest.mark.parametrize("window", [None, 5])
def test_mistral_uses_a_window_in_every_layer_or_in_none(window: int | None) -> None:
    assert windows(llama, "mistral", sliding_window=window) == [window or 0] * 4


@pytest.mark.parametrize(("family", "model_type"), [(llama, "mistral"), (qwen, "qwen2")])
def test_a_missing_window_is_the_default_of_the_class_and_null_means_no_window(
    family: Any, model_type: str
) -> None:
    slides = {"use_sliding_window": True, "max_window_layers": 0}
    assert windows(family, model_type, **slides) == [4096] * 4
    assert windows(family, model_type, **slides, sliding_window=None) == [0] * 4


@pytest.mark.parametrize(
    ("model_type", "values", "expected"),
    [
        ("gemma", {}, [0, 0, 0, 0]),
        ("gemma2", {}, [4096, 0, 4096, 0]),
        ("gemma2", {"sliding_window": 5, "layer_types": [FULL] * 3 + [SLIDING]}, [0, 0, 0, 5]),
        ("gemma2", {"layer_types": [FULL] * 4}, [0, 0, 0, 0]),
        ("gemma3_text", {"sliding_window": 5}, [5, 5, 5, 5]),
        ("gemma3_text", {"sliding_window": 5, "sliding_window_pattern": 3}, [5, 5, 0, 5]),
    ],
)
def test_gemma_alternates_between_layers_with_and_without_a_window(
    model_type: str, values: dict[str, Any], expected: list[int]
) -> None:
    assert windows(gemma, model_type, **values) == expected


def test_layers_of_gemma_3_with_a_window_have_their_own_rotary_base() -> None:
    values = {"sliding_window": 5, "sliding_window_pattern": 2, "head_dim": 4}
    bases = {"rope_theta": 10_000.0, "rope_local_base_freq": 100.0}
    scaling = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    settings = Settings(Path("config.json"), SIZES | values | bases | scaling)
    graph = gemma.build(gemma.read(settings, "gemma3_text"), None)
    second = [op.params["frequencies"][1] for op in graph.ops if op.kind == "rope"]
    local, whole = pytest.approx(0.1), pytest.approx(0.01 / 8)
    assert second == [local, local, whole, whole, local, local, whole, whole]


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({}, 25.298221588134766),
        ({"torch_dtype": "float32"}, 25.298221588134766),
        ({"torch_dtype": "float16"}, 25.296875),
        ({"torch_dtype": "bfloat16"}, 25.25),
        ({"dtype": "bfloat16", "torch_dtype": "float32"}, 25.25),
    ],
)
def test_gemma_rounds_the_factor_of_its_embeddings_to_the_type_of_the_weights(
    values: dict[str, Any], factor: float
) -> None:
    settings = Settings(Path("config.json"), SIZES | {"hidden_size": 640} | values)
    graph = gemma.build(gemma.read(settings, "gemma"), None)
    assert [op.params["factor"] for op in graph.ops if op.kind == "scale"] == [factor]


@pytest.mark.parametrize(("values", "offset"), [({}, 1.0), ({"norms_have_one_added": True}, 0.0)])
def test_gemma_adds_1_to_the_weights_of_norms_unless_the_file_has_added_it(
    values: dict[str, Any], offset: float
) -> None:
    settings = Settings(Path("config.json"), SIZES | values)
    graph = gemma.build(gemma.read(settings, "gemma3_text"), None)
    assert {op.params["offset"] for op in graph.ops if op.kind == "rms_norm"} == {offset}
