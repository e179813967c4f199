"""Compares the tokenizers of many kinds of folders with transformers.

``tools/golden/make_tokenizers.py`` records the expectations.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from talu.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "cases.json").read_text())


@pytest.fixture(params=RECORDED["cases"])
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(RECORDED["cases"][request.param])


@pytest.fixture
def tokenizer(case: dict[str, Any], tmp_path: Path) -> Tokenizer:
    base = (GOLDEN / f"{case['base']}.tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(base)
    for name, content in case["files"].items():
        (tmp_path / name).write_text(json.dumps(content))
    return Tokenizer.from_folder(tmp_path)


def test_texts_have_the_ids_that_transformers_gives_them(
    case: dict[str, Any], tokenizer: Tokenizer
) -> None:
    for text, ids, plain_ids in zip(RECORDED["texts"], case["ids"], case["plain_ids"], strict=True):
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode(text, special_tokens=False) == plain_ids


def test_special_tokens_have_the_names_that_transformers_gives_them(
    case: dict[str, Any], tokenizer: Tokenizer
) -> None:
    assert tokenizer.names == case["names"]
