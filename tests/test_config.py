"""Generation settings: ranges, what is unset, and which level wins."""

import copy
import math
from fractions import Fraction
from typing import get_type_hints

import numpy as np
import pytest

from talu.config import (
    ELSEWHERE,
    FIELDS,
    GenerationConfig,
    GenerationSettings,
    merged,
)
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.structured.formats import format_of

WRONG = [
    ("max_tokens", 0),
    ("max_tokens", 2.0),
    ("max_tokens", True),
    ("max_tokens", 2**31),
    ("max_tokens", 10**400),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", 1001),
    ("temperature", "hot"),
    ("temperature", 10**400),
    ("temperature", -(10**400)),
    ("temperature", Fraction(10**400)),
    ("temperature", np.zeros(3)),
    ("top_k", -1),
    ("top_k", 2**31),
    ("top_p", 0.0),
    ("top_p", 1.01),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 1001),
    ("presence_penalty", 2.01),
    ("presence_penalty", -2.01),
    ("frequency_penalty", 2.01),
    ("frequency_penalty", math.nan),
    ("logit_bias", {5: -1_000_001}),
    ("stop_sequences", "stop"),
    ("stop_sequences", [""]),
    ("stop_sequences", [1]),
    ("stop_sequences", ["x" * 1001]),
    ("stop_sequences", ["x"] * 65),
    ("stop_token_ids", 7),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [True]),
    ("stop_token_ids", [2**31]),
    ("stop_token_ids", [10**400]),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 10**400),
    ("seed", 1.0),
    ("seed", "1"),
    ("seed", True),
    ("logprobs", 1),
    ("top_logprobs", -1),
    ("top_logprobs", 21),
    ("logit_bias", [1]),
    ("logit_bias", {"1": 0.5}),
    ("logit_bias", {1: math.inf}),
    ("logit_bias", {1: 10**400}),
    ("logit_bias", {2**31: 1}),
    ("logit_bias", {1: None}),
    ("chat_template", 3),
    ("extra_context", {1: "x"}),
    ("extra_context", "x"),
    ("allow_special_tokens", 1),
    ("cache_namespace", ""),
    ("cache_namespace", "x" * 257),
    ("cache_namespace", "\ud800"),
    ("cache_namespace", b"tenant"),
    ("cache_namespace", 7),
    ("response_format", 3),
    ("response_format", "name, age"),
    ("response_format", complex),
    ("validation_retries", 11),
    ("inject_schema_prompt", 1),
    ("schema_strategy", "yaml"),
    ("schema_strategy", None.__class__),
    ("allow_thinking", "yes"),
    ("max_thinking_tokens", -1),
    ("max_thinking_tokens", 1.0),
    ("extra_body", "x"),
    ("extra_body", {1: "x"}),
    ("extra_body", {"x": {1}}),
    ("extra_body", {"x": math.nan}),
    ("extra_body", {"x": "y" * 1_000_001}),
]
RIGHT = {
    "max_tokens": 1,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 1.0,
    "repetition_penalty": 0.5,
    "presence_penalty": -2.0,
    "frequency_penalty": 2.0,
    "stop_sequences": ["a"],
    "stop_token_ids": [],
    "seed": 2**64 - 1,
    "logprobs": True,
    "top_logprobs": 20,
    "logit_bias": {3: -100.0},
    "chat_template": "{{ messages }}",
    "extra_context": {"date": "today"},
    "allow_special_tokens": True,
    "cache_namespace": "x" * 256,
    "response_format": format_of({"type": "integer"}),
    "inject_schema_prompt": False,
    "schema_strategy": "json_schema",
    "allow_thinking": True,
    "max_thinking_tokens": 0,
    "validation_retries": 10,
    "extra_body": {"provider": {"order": ["a", "b"]}},
}


def pairs(rows: list[tuple[str, object]]) -> list[str]:
    return [f"{name}={shown(value)}" for name, value in rows]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=pairs(WRONG))
def test_an_invalid_value_is_refused_when_it_is_set(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"^{name} must be ") as caught:
        GenerationConfig(**{name: value})
    assert caught.value.details["param"] == name
    with pytest.raises(ValidationError, match=f"^{name} must be "):
        setattr(GenerationConfig(), name, value)


@pytest.mark.parametrize("name", RIGHT)
def test_ranges_include_their_limits(name: str) -> None:
    config = GenerationConfig(**{name: RIGHT[name]})
    assert getattr(config, name) == RIGHT[name]
    assert config.given == {name: RIGHT[name]}


def test_every_field_has_a_keyword_type_and_a_row_in_these_tests() -> None:
    assert set(FIELDS) == set(get_type_hints(GenerationSettings)) == set(RIGHT)


def test_an_unset_field_reads_as_the_library_default() -> None:
    config = GenerationConfig()
    assert (config.max_tokens, config.temperature, config.top_k, config.top_p) == (
        256,
        0.7,
        50,
        0.9,
    )
    assert (config.min_p, config.repetition_penalty, config.seed) == (0.0, 1.0, None)
    assert config.given == {}


@pytest.mark.parametrize("name", FIELDS)
def test_none_unsets_a_field_and_overrides_lower_levels(name: str) -> None:
    default = getattr(GenerationConfig(), name)
    config = merged(GenerationConfig(**{name: RIGHT[name]}), settings={name: None})
    assert getattr(config, name) == default
    assert config.to_dict(only_given=True) == {name: None}
    assert merged(settings=config.to_dict(only_given=True)) == config
    assert config.without_none() == GenerationConfig()


@pytest.mark.parametrize(
    "value",
    [10**400, 10**5000, "x" * 1_000_000, ["x" * 1_000_000] * 3],
    ids=["number", "very long number", "text", "list"],
)
def test_the_error_for_a_long_value_is_short(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        GenerationConfig(temperature=value)
    assert len(str(caught.value)) < 300


def test_numbers_of_numpy_are_numbers() -> None:
    config = GenerationConfig(seed=int(np.int64(3)), temperature=np.float32(0.5))
    config.top_k = np.int64(4)
    assert type(config.top_k) is int
    assert type(config.temperature) is float


def test_a_single_stop_sequence_as_plain_text_names_the_remedy() -> None:
    with pytest.raises(ValidationError, match=r"\['END'\]"):
        GenerationConfig(stop_sequences="END")


def test_an_unknown_keyword_of_the_constructor_is_a_type_error_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        GenerationConfig(temprature=0.1)
    with pytest.raises(TypeError, match="'topk'; did you mean 'top_k'"):
        GenerationConfig().override(topk=3)


def test_an_unknown_keyword_of_a_call_is_a_validation_error_with_the_nearest_name() -> None:
    with pytest.raises(ValidationError, match="'max_token'; did you mean 'max_tokens'") as caught:
        merged(settings={"max_token": 3})
    assert caught.value.details["param"] == "max_token"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_parameter_that_is_not_a_setting_is_refused_with_its_place(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is not .*: it is {ELSEWHERE[name]}"):
        merged(settings={name: None})


def test_or_prefers_the_set_fields_of_the_right_side() -> None:
    left = GenerationConfig(temperature=0.2, top_k=5)
    right = GenerationConfig(temperature=0.7, seed=None)
    assert (left | right).given == {"temperature": 0.7, "top_k": 5, "seed": None}
    assert left.given == {"temperature": 0.2, "top_k": 5}


def test_or_with_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        GenerationConfig() | {"seed": 1}


def test_override_copies_and_leaves_the_original_alone() -> None:
    base = GenerationConfig(stop_sequences=["a"])
    changed = base.override(seed=1)
    changed.stop_sequences.append("b")
    assert base == GenerationConfig(stop_sequences=["a"])
    assert changed == GenerationConfig(stop_sequences=["a", "b"], seed=1)
    assert base.override() == base
    assert base.override() is not base


def test_a_copied_config_does_not_share_its_values() -> None:
    base = GenerationConfig(logit_bias={1: 2.0})
    copies = [copy.copy(base), copy.deepcopy(base)]
    base.logit_bias[1] = 3.0
    base.seed = 4
    assert copies == [GenerationConfig(logit_bias={1: 2.0})] * 2


def test_a_body_is_copied_and_replaced_as_a_whole() -> None:
    body = {"a": {"b": [1]}}
    config = GenerationConfig(extra_body=body)
    body["a"]["b"].append(2)
    assert config.extra_body == {"a": {"b": [1]}}
    assert merged(config, settings={"extra_body": {"c": 1}}).extra_body == {"c": 1}


def test_repr_shows_what_is_set_and_nothing_else() -> None:
    assert repr(GenerationConfig(seed=1, top_k=2)) == "GenerationConfig(seed=1, top_k=2)"


def test_to_dict_has_every_field_as_it_reads() -> None:
    values = GenerationConfig(seed=5).to_dict()
    assert set(values) == set(FIELDS)
    assert values["seed"] == 5
    assert values["max_tokens"] == 256


def test_merged_takes_the_call_before_its_config_before_the_chat() -> None:
    chat = GenerationConfig(temperature=0.1, top_k=1, seed=1)
    call = GenerationConfig(temperature=0.2, top_k=2)
    config = merged(chat, None, call, settings={"temperature": 0.3})
    assert config.given == {"temperature": 0.3, "top_k": 2, "seed": 1}


def test_a_config_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="config must be a GenerationConfig"):
        merged({"seed": 1})
