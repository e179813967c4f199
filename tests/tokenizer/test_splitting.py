"""Long texts are tokenized in pieces, with the tokens of the whole text."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

from talu.tokenizer import splitting
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]
KINDS = [  # one folder for each way in which texts become words
    *("plain", "added_token_with_spaces", "gpt2_of_other_words", "gpt2_prefix_space", "qwen"),
    *("llama", "llama_legacy", "llama_without_prefix_space", "llama_of_the_general_class"),
    *("bert", "bert_cased", "bert_without_chinese_characters", "roberta", "xlm_roberta"),
    *("xlm_roberta_of_other_words", "added_token_as_a_word", "split_special_tokens"),
]
WORDS = [
    *("The", " quick", " fox", "\n", "\r\n", " ", "  ", "\t", "1234", " 5", "'s", "!?", " (", ")"),
    *(
        "今日は",
        "\uff0c",
        "。",
        "天気",
        "안녕",
        "é",
        "e\u0301",
        "\u0301",
        "½",
        "²",
        "Ⅷ",
        "👍🏽",
        "\u0600",
    ),
    *("<s>", " <mask>", "</s>", "[SEP]", "<|tool|>", "\u200d", "\u00a0", "\u2028", "Straße", "ﬁ"),
    *("▁", " ▁", "\x00", "\u0d4e", "क्षि", "Σ", "İ", "x ", "q", " q ", ",\n", "a\nb", "Ж", "א"),
]
CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
TEXT = st.lists(st.sampled_from(WORDS) | CHARACTERS, max_size=60).map("".join)
ANY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut wherever it is allowed."""
    monkeypatch.setattr("talu.tokenizer.encoding.PIECE", 1)


def opened(name: str, folder: Path) -> Tokenizer:
    base = (GOLDEN / f"{CASES[name]['base']}.tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(base)
    for file, content in CASES[name]["files"].items():
        (folder / file).write_text(json.dumps(content))
    return Tokenizer(load(folder))


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("name", KINDS)
def test_the_tokens_of_all_pieces_are_the_tokens_of_the_text(name: str, tmp_path: Path) -> None:
    tokenizer = opened(name, tmp_path)
    whole = tokenizer._backend

    @ANY
    @given(TEXT)
    def check(text: str) -> None:
        assert tokenizer.encode(text) == whole.encode(text).ids
        plain = whole.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, special_tokens=False) == plain
        for most in (2, 3, 7):
            ids, cut = tokenizer.encode_at_most(text, most)
            encoding = whole.encode(text, add_special_tokens=False)
            encoding.truncate(most - whole.num_special_tokens_to_add(False))
            assert ids == whole.post_process(encoding).ids
            assert cut == (len(whole.encode(text).ids) > most)

    check()


@pytest.mark.parametrize("name", ["plain", "qwen", "bert", "xlm_roberta"])
def test_parts_with_literal_special_tokens_have_the_same_tokens_in_pieces(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = opened(name, tmp_path)

    @ANY
    @given(TEXT, TEXT)
    def check(before: str, after: str) -> None:
        parts = [(before, False), ("</q>", True), (after, False)]
        with monkeypatch.context() as patch:
            whole = tokenizer.encode_parts(parts)
            patch.setattr("talu.tokenizer.encoding.PIECE", 1)
            assert tokenizer.encode_parts(parts) == whole

    check()


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def splitter(pattern: str, behavior: str = "isolated") -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior)
    return pre_tokenizers.Sequence([split, BYTES])


def pattern_of(
    normalizer: object, words: object, *tokens: AddedToken, vocabulary: tuple[str, ...] = ()
) -> re.Pattern[str] | None:
    return splitting.break_pattern(normalizer, words, tokens, vocabulary)


def test_texts_are_cut_at_spaces_lines_and_punctuation_of_cjk() -> None:
    places = pattern_of(None, splitter(LLAMA_3))
    text = "one, two\n" + "今日は\uff0c良い天気" + " " * 3 + "end"
    assert places is not None
    assert [match.start() for match in places.finditer(text)] == [4, 8, 12]


@pytest.mark.parametrize(
    "words",
    [
        splitter(LLAMA_3.replace(r"\s+(?!\S)", r"\S \S")),
        splitter(LLAMA_3, "removed"),
        splitter(LLAMA_3.removesuffix(r"|\s+")),
        pre_tokenizers.FixedLength(5),
        BYTES,
        None,
    ],
    ids=["unknown pattern", "drops text", "incomplete pattern", "by length", "no words", "nothing"],
)
def test_a_text_is_not_cut_where_words_may_continue(
    words: pre_tokenizers.PreTokenizer | None,
) -> None:
    assert pattern_of(None, words) is None


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Prepend("▁"),
        normalizers.Strip(),
        normalizers.Replace(" ", ""),
        normalizers.Replace(Regex("a b"), "c"),
        normalizers.Sequence([normalizers.NFC(), normalizers.Nmt()]),
    ],
)
def test_a_text_is_not_cut_where_a_normalizer_looks_at_both_sides(
    normalizer: normalizers.Normalizer,
) -> None:
    assert pattern_of(normalizer, splitter(LLAMA_3)) is None


@pytest.mark.parametrize(
    "token", [AddedToken("a b"), AddedToken(" "), AddedToken("a\n"), AddedToken("x", rstrip=True)]
)
def test_a_text_is_not_cut_where_an_added_token_may_be(token: AddedToken) -> None:
    assert pattern_of(None, splitter(LLAMA_3), AddedToken("<s>")) is not None
    assert pattern_of(None, splitter(LLAMA_3), token) is None


def test_without_words_a_text_is_cut_only_if_no_token_continues_over_a_space() -> None:
    whole = pre_tokenizers.Metaspace(split=False)
    assert pattern_of(None, whole, vocabulary=("▁", "a", "▁▁a")) is not None
    assert pattern_of(None, whole, vocabulary=("▁", "a", "a▁a")) is None
    assert pattern_of(None, whole, vocabulary=("a",)) is None


def test_the_rest_of_a_long_text_is_not_tokenized_where_only_its_beginning_is_needed(
    tmp_path: Path,
) -> None:
    tokenizer = opened("bert", tmp_path)
    seen: list[int] = []
    ids, cut = tokenizer.encode_at_most("the fox " * 100_000, 10, watch=seen.append)
    assert (len(ids), cut, len(seen)) == (10, True, 1)


def test_what_the_watch_raises_ends_the_work(tmp_path: Path) -> None:
    tokenizer = opened("qwen", tmp_path)
    seen: list[int] = []

    def watch(count: int) -> None:
        seen.append(count)
        if count > 100_000:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        tokenizer.encode("the fox " * 1_000_000, watch=watch)
    assert 1 < len(seen) < 10
