"""Which layers use a sliding window, for each way to configure it."""

from pathlib import Path
from typing import Any

import pytest

from talu.models import llama, qwen
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
