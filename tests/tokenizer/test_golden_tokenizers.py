"""Compares the tokenizers of many kinds of folders with transformers.

``tools/golden/make_tokenizers.py`` records the expectations.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend

from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "cases.json").read_text())
REPLACED = {
    "gpt2_of_other_words": r"pre-tokenizer \(Digits, ByteLevel\) by ByteLevel\.",
    "qwen_of_other_words": r"normalizer \(none\) by NFC and the pre-tokenizer \(ByteLevel\)",
    "roberta_of_other_words": r"normalizer \(NFC\) by none and the pre-tokenizer \(Split, ",
    "xlm_roberta_of_other_words": r"\(Metaspace\) by WhitespaceSplit, Metaspace\.",
    "bert_of_long_words": r"model \(max_input_chars_per_word=200\) by max_.*=100\.",
}


@pytest.fixture(params=RECORDED["cases"])
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(RECORDED["cases"][request.param])


@pytest.fixture
def tokenizer(case: dict[str, Any], tmp_path: Path) -> Tokenizer:
    return opened(case, tmp_path)


def opened(case: dict[str, Any], tmp_path: Path) -> Tokenizer:
    base = (GOLDEN / f"{case['base']}.tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(base)
    for name, content in case["files"].items():
        (tmp_path / name).write_text(json.dumps(content))
    return Tokenizer(load(tmp_path))


def test_texts_have_the_ids_of_transformers_unless_a_note_names_the_part_that_differs(
    case: dict[str, Any], tokenizer: Tokenizer
) -> None:
    ids = [tokenizer.encode(text) for text in RECORDED["texts"]]
    plain_ids = [tokenizer.encode(text, special_tokens=False) for text in RECORDED["texts"]]
    noted = any("transformers 5 loads this model with" in note for note in tokenizer.notes)
    assert (ids == case["ids"]) == (plain_ids == case["plain_ids"]) == (not noted)


@pytest.mark.parametrize(("name", "part"), REPLACED.items())
def test_the_note_names_the_parts_that_transformers_replaces(
    name: str, part: str, tmp_path: Path
) -> None:
    (note,) = opened(RECORDED["cases"][name], tmp_path).notes
    assert re.search(part, note)
    assert "tokenizer.json decides" in note


@pytest.mark.parametrize("name", REPLACED)
def test_where_parts_differ_the_ids_are_those_of_tokenizer_json(name: str, tmp_path: Path) -> None:
    tokenizer = opened(RECORDED["cases"][name], tmp_path)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    for text in RECORDED["texts"]:
        ids = backend.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, special_tokens=False) == ids


def test_special_tokens_have_the_names_that_transformers_gives_them(
    case: dict[str, Any], tokenizer: Tokenizer
) -> None:
    assert tokenizer.names == case["names"]
