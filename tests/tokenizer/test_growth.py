"""How much longer the parts of a tokenizer.json may make a text."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from talu.exceptions import TokenizerError
from talu.tokenizer.growth import check_growth, normalizer_in
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

Json = dict[str, Any]
FDFA = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"
TABLE = base64.b64encode(b"\4\0\0\0abcd" + b"x" * 18 + b"\0").decode()
LONG_TABLE = base64.b64encode(b"\4\0\0\0abcd" + b"x" * 1000 + b"\0").decode()
PREFIXED = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def replace(pattern: str, content: str, kind: str = "String") -> Json:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def sequence(*steps: Json, name: str = "normalizers") -> Json:
    return {"type": "Sequence", name: [*steps]}


def template(pieces: int, ids: int) -> Json:
    token = {"id": "x", "ids": [1] * ids, "tokens": ["x"] * ids}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [text, *[{"SpecialToken": {"id": "x", "type_id": 0}}] * pieces]
    tokens = {"x": token}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens}


def change(folder: Path, **parts: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


HOSTILE: dict[str, tuple[Json, str]] = {
    "content": ({"normalizer": replace("a", "a" * 65)}, "content of Replace in the normalizer"),
    "product": ({"normalizer": sequence(*[replace("a", "a" * 50)] * 4)}, "6,250,000 times"),
    "nested": (
        {"normalizer": sequence(sequence(replace("a", "a" * 60)), replace("a", "a" * 60))},
        "3,600 times",
    ),
    "regex": ({"normalizer": sequence(*[replace("(?=a)", "a", "Regex")] * 9)}, "512 times"),
    "prepend": (
        {"normalizer": sequence(*[{"type": "Prepend", "prepend": "a" * 16}] * 2)},
        "289 times",
    ),
    "decompositions": (
        {"normalizer": sequence(*[replace("a", FDFA), {"type": "NFKD"}] * 2)},
        "324 times",
    ),
    "table": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": LONG_TABLE}},
        "1,000 times",
    ),
    "steps": ({"normalizer": sequence(*[{"type": "NFC"}] * 257)}, "257 steps"),
    "bytes": (
        {"pre_tokenizer": sequence(*[PREFIXED] * 3, name="pretokenizers")},
        "the pre-tokenizer can make a text 512 times",
    ),
    "decoder": (
        {"decoder": sequence(*[replace("a", "a" * 50)] * 2, name="decoders")},
        "the decoder can make a text 2,500 times",
    ),
    "template": ({"post_processor": template(65, 1)}, "the post-processor puts 65 special tokens"),
    "ids": ({"post_processor": template(1, 1000)}, "the post-processor puts 1,000 special tokens"),
}


@pytest.mark.parametrize(("parts", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_parts_that_can_make_a_text_far_longer_are_refused(
    folder: Path, parts: Json, problem: str
) -> None:
    change(folder, **parts)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json is refused: .*{problem}.* limit"):
        Tokenizer(load(folder))


@pytest.mark.parametrize("name", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_a_long_affix_of_the_model_is_refused(folder: Path, name: str) -> None:
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [], name: "x" * 2**20}
    change(folder, model=model, added_tokens=[])
    with pytest.raises(TokenizerError, match=f"{name} of the model has 1,048,576 characters"):
        Tokenizer(load(folder))


def test_long_words_of_word_piece_are_refused(folder: Path) -> None:
    model = {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    more = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 10**6}
    change(folder, model=model | more, added_tokens=[])
    with pytest.raises(TokenizerError, match=r"max_input_chars_per_word of the model is 1,000,000"):
        Tokenizer(load(folder))


def test_the_normalizer_is_checked_before_it_is_applied_to_added_tokens(folder: Path) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    token = {"id": 0, "content": "a", "normalized": True, **flags}
    bomb = sequence(*[replace("a", "a" * 64)] * 10)
    change(folder, added_tokens=[token], normalizer=bomb)
    with pytest.raises(TokenizerError, match="more than 10¹² times as long"):
        Tokenizer(load(folder))


@pytest.mark.parametrize(
    "content",
    [
        '{"normalizer": {"a": 1}, "model": {"vocab": {"model": 1}}}',
        '{"model": {}, "normalizer": {"a": 1}}',
        '{"normalizer": null, "model": {}, "norm\\u0061lizer": {"a": 1}}',
        '{"added_tokens": ["model"], "normalizer": {"a": 1}, "model": {}}',
    ],
)
def test_the_normalizer_is_found_wherever_it_stands(content: str) -> None:
    assert normalizer_in(content) == {"a": 1}


@pytest.mark.parametrize(
    "steps",
    [
        # the normalizers of T5, of ALBERT and of CLIP
        [
            {"type": "Precompiled", "precompiled_charsmap": TABLE},
            {"type": "Strip"},
            replace(" {2,}", "▁", "Regex"),
        ],
        [
            replace("``", '"'),
            replace("''", '"'),
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            {"type": "Precompiled", "precompiled_charsmap": TABLE},
        ],
        [{"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"}],
    ],
)
def test_normalizers_of_known_models_are_within_the_limits(steps: list[Json]) -> None:
    check_growth({"normalizer": sequence(*steps)})
