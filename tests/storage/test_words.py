"""The words of a text, as databases without FTS5 have them."""

import sqlite3
import unicodedata
from contextlib import closing

import pytest

from talu.storage.words import TOKENIZER, index_form, parse_query, token_text


def tokens_of(texts: list[str]) -> list[list[str]]:
    """The words of these texts, as FTS5 divides them."""
    tokenizer = TOKENIZER.replace("'", "''")
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = '{tokenizer}')")
        db.execute("CREATE VIRTUAL TABLE words USING fts5vocab ('texts', 'instance')")
        for number, text in enumerate(texts):
            db.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (number, text))
        found: list[list[str]] = [[] for _ in texts]
        for word, document in db.execute("SELECT term, doc FROM words ORDER BY doc, offset"):
            found[document].append(word)
        return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick (brown) fox's 3.5", " the quick brown fox s 3 5"),
        ("今天天气", " 今 天 天 气"),
        ("C++ and a_b, 100%\\n", " c and a b 100 n"),
        ("मैं हिन्दी", " मैं हिन्दी"),
        ("", ""),
        ("->", ""),
    ],
)
def test_the_words_of_a_text_each_follow_a_space(text: str, words: str) -> None:
    assert token_text(index_form(text)) == words
    assert token_text(index_form(text)).split() == tokens_of([index_form(text)])[0]


def test_every_character_divides_words_as_in_fts5_unless_it_is_a_newer_sign() -> None:
    characters = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    texts = [f"a{index_form(char)}b" for char in characters]
    differing = [
        char
        for char, text, words in zip(characters, texts, tokens_of(texts), strict=True)
        if token_text(text).split() != words
    ]
    assert {unicodedata.category(char)[0] for char in differing} <= {"P", "S", "C"}
    assert {unicodedata.ucd_3_2_0.category(char) for char in differing} == {"Cn"}


def test_a_pattern_has_none_of_the_signs_of_like() -> None:
    query = parse_query("100% a_b c\\d 天气")
    assert query.patterns == ["% 100%", "% a b%", "% c d%", "% 天 气%"]
