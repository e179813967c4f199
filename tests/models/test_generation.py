"""End tokens and sampling defaults of a model folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from talu.models.generation import GenerationDefaults, read_generation
from talu.sources.settings import Settings


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads a folder with these two files; no generation_config.json when that is None."""

    def from_files(
        generation: dict[str, Any] | None, config: dict[str, Any] | None = None
    ) -> GenerationDefaults:
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        settings = Settings(tmp_path / "config.json", config or {})
        own = Settings.from_optional_file(tmp_path / "generation_config.json")
        return read_generation(own, settings, vocabulary=100)

    return from_files


def test_a_folder_without_the_file_has_no_defaults(read: Any) -> None:
    assert read(None) == GenerationDefaults(frozenset(), {}, ())


@pytest.mark.parametrize(("ends", "expected"), [(7, {7}), ([7, 9, 7], {7, 9}), ([], set())])
def test_end_tokens_are_one_or_many(read: Any, ends: Any, expected: set[int]) -> None:
    assert read({"eos_token_id": ends}, {"eos_token_id": 3}).end_token_ids == expected


@pytest.mark.parametrize("generation", [None, {}, {"eos_token_id": None}])
def test_end_tokens_come_from_config_json_when_the_file_names_none(
    read: Any, generation: dict[str, Any] | None
) -> None:
    assert read(generation, {"eos_token_id": [3, 4]}).end_token_ids == {3, 4}


def test_known_settings_are_read_and_checked(read: Any) -> None:
    known = {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.0,
        "repetition_penalty": 1.05,
        "max_new_tokens": 32,
    }
    assert read({"do_sample": True, **known}).values == known


def test_do_sample_false_is_a_temperature_of_0(read: Any) -> None:
    assert read({"do_sample": False, "temperature": 0.6, "top_k": 5}).values == {
        "temperature": 0.0,
        "top_k": 5,
    }


def test_unsupported_settings_with_an_effect_are_listed(read: Any) -> None:
    generation = {
        "num_beams": 4,
        "suppress_tokens": [5],
        "token_healing": True,
        "typical_p": 1.0,
        "no_repeat_ngram_size": 0,
        "early_stopping": False,
        "bos_token_id": 1,
        "transformers_version": "4.51.0",
    }
    assert read(generation).notes == (
        "settings of generation_config.json that have no effect: num_beams, suppress_tokens, "
        "token_healing",
    )


@pytest.mark.parametrize(
    ("name", "neutral", "effective"),
    [
        ("no_repeat_ngram_size", 0, 1),
        ("min_new_tokens", 0, 1),
        ("forced_eos_token_id", None, 1),
        ("forced_bos_token_id", None, 0),
        ("encoder_repetition_penalty", 1.0, 0.0),
        ("typical_p", 1.0, 0.0),
        ("guidance_scale", 1, 0),
        ("stop_strings", [], ["###"]),
        ("num_beams", 1, 2),
    ],
)
def test_the_neutral_value_depends_on_the_setting(
    read: Any, name: str, neutral: Any, effective: Any
) -> None:
    assert read({name: neutral}).notes == ()
    (note,) = read({name: effective}).notes
    assert name in note


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", 10**400),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 2.5),
        ("min_p", [0.1]),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("do_sample", "yes"),
    ],
)
def test_a_value_out_of_range_is_dropped_with_a_note(read: Any, name: str, value: Any) -> None:
    found = read({name: value, "min_p": 0.5} if name != "min_p" else {name: value})
    assert name not in found.values
    (note,) = found.notes
    assert note.startswith("settings of generation_config.json that are out of range: " + name)
    assert len(note) < 150


def test_a_whole_number_may_be_written_with_a_decimal_point(read: Any) -> None:
    assert read({"top_k": 50.0, "max_new_tokens": 8.0}).values == {"top_k": 50, "max_new_tokens": 8}


@pytest.mark.parametrize(
    ("ends", "expected"), [([2, 100], {2}), (100, set()), ("</s>", set()), ([[1], 3], {3})]
)
def test_an_end_token_outside_the_vocabulary_is_not_used(
    read: Any, ends: Any, expected: set[int]
) -> None:
    found = read({"eos_token_id": ends})
    assert found.end_token_ids == expected
    assert len(found.notes) == (0 if expected else 1)


def test_without_the_file_the_settings_come_from_config_json(read: Any) -> None:
    config = {"temperature": 0.5, "top_k": 7, "num_beams": 1, "no_repeat_ngram_size": 3, "x": 1}
    found = read(None, config)
    assert found.values == {"temperature": 0.5, "top_k": 7}
    assert found.notes == ("settings of config.json that have no effect: no_repeat_ngram_size",)
    assert read({}, config) == GenerationDefaults(frozenset(), {}, ())
