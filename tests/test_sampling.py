"""The engine's settings come from the caller, then the model, then the library."""

import pytest

from talu.config import GenerationConfig
from talu.exceptions import ModelError
from talu.sampling import SamplingParams, resolve_sampling


def resolve(config: GenerationConfig, defaults: dict[str, object] | None = None) -> SamplingParams:
    return resolve_sampling(config, defaults or {}, end_token_ids=frozenset({2}), fresh_seed=77)


def test_the_model_wins_over_the_library_and_the_caller_over_the_model() -> None:
    model = {"temperature": 0.6, "top_k": 20, "max_new_tokens": 99, "top_p": None}
    params = resolve(GenerationConfig(top_k=7), model)
    assert (params.temperature, params.top_k, params.max_tokens) == (0.6, 7, 99)
    assert (params.top_p, params.min_p, params.repetition_penalty) == (0.9, 0.0, 1.0)


def test_a_model_that_does_not_sample_is_greedy_by_default() -> None:
    model = {"do_sample": False, "temperature": 0.6}
    assert resolve(GenerationConfig(), model).temperature == 0.0
    assert resolve(GenerationConfig(temperature=0.9), model).temperature == 0.9


def test_a_wrong_default_of_the_model_is_the_models_error() -> None:
    with pytest.raises(ModelError, match=r"generation_config\.json is wrong: top_p"):
        resolve(GenerationConfig(), {"top_p": 3})


def test_a_fresh_seed_is_used_without_a_seed_and_zero_is_a_seed() -> None:
    assert resolve(GenerationConfig()).seed == 77
    assert resolve(GenerationConfig(seed=None)).seed == 77
    assert resolve(GenerationConfig(seed=0)).seed == 0


def test_none_leaves_a_setting_to_the_model_and_then_to_the_library() -> None:
    model = {"temperature": 0.6, "max_new_tokens": 99}
    nothing = GenerationConfig(temperature=None, max_tokens=None, top_k=None, logprobs=None)
    params = resolve(nothing, model)
    assert (params.temperature, params.max_tokens, params.top_k) == (0.6, 99, 50)
    assert params.top_logprobs == -1


def test_stop_token_ids_replace_the_models_end_tokens() -> None:
    assert resolve(GenerationConfig()).stop_token_ids == {2}
    assert resolve(GenerationConfig(stop_token_ids=[])).stop_token_ids == frozenset()
    assert resolve(GenerationConfig(stop_token_ids=[5, 6])).stop_token_ids == {5, 6}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, -1),
        ({"logprobs": True}, 0),
        ({"top_logprobs": 3}, 3),
        ({"top_logprobs": 3, "logprobs": True}, 3),
        ({"top_logprobs": 3, "logprobs": False}, -1),
    ],
)
def test_asking_for_alternatives_asks_for_log_probabilities(settings, wanted) -> None:
    assert resolve(GenerationConfig(**settings)).top_logprobs == wanted
