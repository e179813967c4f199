"""A part of a vocabulary gives the same ids as all of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.threads import in_threads

from talu._native import Merges, Texts, read_tokenizer_json
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer
from talu.tokenizer.vocabulary import MAX_SEEN, MAX_TEXT

GOLDEN = Path(__file__).parent / "golden"
KINDS = ("byte_level", "byte_level_prefix", "byte_fallback", "digits", "qwen")
PIECES = ["the", " ", "ing", "<s>", "</s>", "\n", "é", "e\u0301", "日", "Ġ", "▁", "0", "don't"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(PIECES), max_size=30
).map("".join)


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        shutil.copy(GOLDEN / f"{kind}.tokenizer.json", folder / "tokenizer.json")
    return folders.__getitem__


@pytest.fixture(scope="module")
def whole(golden_folder: Callable[[str], Path]) -> dict[str, Tokenizer]:
    loaded = {kind: Tokenizer(load(golden_folder(kind))) for kind in KINDS}
    for each in loaded.values():
        each._vocabulary.whole()
    return loaded


def is_part(tokenizer: Tokenizer) -> bool:
    return tokenizer._vocabulary._entries is not None


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_vocabulary_gives_the_ids_and_texts_of_all_of_it(
    golden_folder: Callable[[str], Path], whole: dict[str, Tokenizer], kind: str, texts: list[str]
) -> None:
    part = Tokenizer(load(golden_folder(kind)))
    for text in texts:
        ids = whole[kind].encode(text)
        assert part.encode(text) == ids
        assert part.decode(ids) == whole[kind].decode(ids)
        pieces = [("<s>", False), (text, True), ("</s>", False)]
        assert part.encode_parts(pieces) == whole[kind].encode_parts(pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_knows_the_size_and_every_token_of_the_vocabulary(
    golden_folder: Callable[[str], Path], whole: dict[str, Tokenizer], kind: str
) -> None:
    part, all_of_it = Tokenizer(load(golden_folder(kind))), whole[kind]
    assert part.vocabulary_size == all_of_it.vocabulary_size
    for number in range(-1, part.vocabulary_size + 3):
        if number >= 0:
            assert part._vocabulary.token(number) == all_of_it._vocabulary.token(number)
            assert part.token_text(number) == all_of_it.token_text(number)
    for text in all_of_it._vocabulary.whole().get_vocab():
        assert part.token_id(text) == all_of_it.token_id(text)
    assert part.token_id("no such token") is None
    assert is_part(part)


def test_a_long_text_and_many_short_ones_need_the_whole_vocabulary(
    golden_folder: Callable[[str], Path],
) -> None:
    folder = golden_folder("byte_level")
    part = Tokenizer(load(folder))
    part.encode("x" * MAX_TEXT)
    assert is_part(part)
    part.encode("x" * (MAX_TEXT + 1))
    assert not is_part(part)
    part = Tokenizer(load(folder))
    for _ in range(MAX_SEEN // 1000):
        part.encode("x" * 1000)
    assert is_part(part)
    part.encode("x")
    assert not is_part(part)


def test_threads_can_share_a_growing_vocabulary(
    golden_folder: Callable[[str], Path], whole: dict[str, Tokenizer]
) -> None:
    part = Tokenizer(load(golden_folder("byte_level")))
    texts = [[f"{chr(97 + t)}{n} the singing {n * t}" for n in range(60)] for t in range(4)]

    def encode(some: list[str]) -> list[list[int]]:
        return [part.encode(text) for text in some]

    expected = [[whole["byte_level"].encode(text) for text in each] for each in texts]
    assert in_threads(encode, texts) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model["vocab"].update({"zz": 0}),  # an id twice
        lambda model: model["vocab"].update({"zz": 10**6}),  # a gap
        lambda model: model["merges"].append("zz y"),  # of no tokens
        lambda model: model.update(merges={}),
        lambda model: model["vocab"].update({"zz": -1}),
        lambda model: model["vocab"].update({"zz": 1.5}),
    ],
)
def test_an_unusual_file_is_read_as_a_whole(
    golden_folder: Callable[[str], Path], change: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads((golden_folder("byte_level") / "tokenizer.json").read_text())
    assert read_tokenizer_json(json.dumps(content).encode()) is not None
    change(content["model"])
    assert read_tokenizer_json(json.dumps(content).encode()) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_all_ways_to_write_a_vocabulary_are_read(
    golden_folder: Callable[[str], Path], kind: str, pairs: bool, ascii_only: bool
) -> None:
    path = golden_folder(kind) / "tokenizer.json"
    state = json.loads(tokenizers.Tokenizer.from_file(str(path)).to_str())
    vocabulary = state["model"]["vocab"]
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    state["model"]["merges"] = merges if pairs else [" ".join(merge) for merge in merges]
    read = read_tokenizer_json(json.dumps(state, ensure_ascii=ascii_only).encode())
    assert read is not None
    rest, texts, found = read
    assert {text: number for number, text in enumerate(texts)} == vocabulary
    assert [(texts[a], texts[b]) for a, b in map(found.__getitem__, range(len(found)))] == merges
    expected = state | {"model": state["model"] | {"vocab": {}, "merges": []}}
    assert json.loads(rest) == json.loads(json.dumps(expected))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(content: bytes) -> None:
    assert read_tokenizer_json(content) is None
    start = b'{"model": {"vocab": {"a": 0}, "merges": ['
    assert read_tokenizer_json(start + content) is None


def test_a_file_that_is_cut_anywhere_is_not_read(golden_folder: Callable[[str], Path]) -> None:
    content = (golden_folder("byte_level") / "tokenizer.json").read_bytes()
    for end in range(0, len(content) - 1, 97):
        assert read_tokenizer_json(content[:end]) is None


@given(st.lists(st.text("ab▁é", min_size=1, max_size=4), unique=True), st.text("ab▁é", max_size=12))
def test_texts_within_a_text_are_its_parts(texts: list[str], text: str) -> None:
    known = Texts(texts)
    assert known.within(text) == [n for n, each in enumerate(texts) if each in text]
    marked = [n for n, each in enumerate(texts) if each[0] == "▁" and each[1:] in text]
    assert known.within(text, "▁") == marked


@given(st.lists(st.text("abcé", max_size=3)))
def test_texts_are_found_by_their_content(texts: list[str]) -> None:
    known = Texts(texts)
    last = {text: number for number, text in enumerate(texts)}
    assert [known.find(text) for text in texts] == [last[text] for text in texts]
    assert known.find("zz") is None
    assert (known.repeated is None) == (len(last) == len(texts))
    assert list(known) == texts
    assert known.characters == sum(map(len, texts))
    assert known.longest == max(map(len, texts), default=0)


def test_texts_with_characters_that_are_no_texts_are_found() -> None:
    texts = Texts(["a", "ab", "b", "aé", "日", "日本"])
    assert texts.incomplete(b"\1\1\1\1\1\1") == [3, 5]
    assert texts.incomplete(b"\0\1\1\0\0\0") == [1]
    with pytest.raises(ValueError, match=r"^a byte for each text is needed$"):
        texts.incomplete(b"\1")


def test_each_of_many_texts_is_found_by_its_content() -> None:
    texts = [f"token {number * number % 1009}" for number in range(5000)]
    last = {text: number for number, text in enumerate(texts)}
    known = Texts(texts)
    assert [known.find(text) for text in texts] == [last[text] for text in texts]
    assert known.repeated is not None
    assert texts.count(texts[known.repeated]) > 1


def test_a_merge_of_other_texts_is_named() -> None:
    texts = Texts(["a", "b", "ab", " ", " b"])
    assert Merges(texts, Texts(["a b", "  b"])).among(texts, [2, 4]) == [0, 1]
    with pytest.raises(IndexError, match=r"^1$"):
        Merges(texts, Texts(["a b", "b a"]))
