"""End tokens and sampling defaults of a model folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from talu.models.generation import GenerationDefaults, read_generation
from talu.models.settings import Settings


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads a folder with these two files; no generation_config.json when that is None."""

    def from_files(
        generation: dict[str, Any] | None, config: dict[str, Any] | None = None
    ) -> GenerationDefaults:
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        settings = Settings(tmp_path / "config.json", config or {})
        return read_generation(tmp_path, settings, vocabulary=100)

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


def test_a_model_that_does_not_sample_has_temperature_0(read: Any) -> None:
    assert read({"do_sample": False, "temperature": 0.6, "top_k": 5}).values == {
        "temperature": 0.0,
        "top_k": 5,
    }


def test_settings_that_talu_does_not_have_are_listed_when_they_do_something(read: Any) -> None:
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
    assert read(generation).not_honoured == ("num_beams", "suppress_tokens", "token_healing")
