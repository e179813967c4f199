# ruff: noqa: RUF001 - the characters of many scripts are the subject
"""Search over chats: matches, scripts and snippets."""

import pytest

from talu.exceptions import ValidationError
from talu.types import ReasoningDelta


def ids(sessions) -> list[str]:
    return [session["session_id"] for session in sessions]


@pytest.fixture
def found(profile, client_of):
    """Whether a search finds a session in which the user says a text, and the snippet."""

    def find(search: str, text: str) -> str | None:
        client_of(profile, "ok").chat(session_id="s").send(text)
        sessions = profile.sessions(search=search)
        return sessions[0]["search_snippet"] if sessions else None

    return find


def test_a_search_finds_messages_and_shows_the_match(filled) -> None:
    (session,) = filled.sessions(search="LAZY dog")
    assert session["session_id"] == "a"
    assert session["search_snippet"] == "The fox jumps over the [lazy] [dog]."
    assert ids(filled.sessions(search="uber wolk")) == ["b"]
    assert filled.sessions()[0]["search_snippet"] is None
    assert ids(filled.sessions(search="t")) == ["c", "a"]
    assert filled.sessions(search="lazy cat") == []
    assert ids(filled.sessions(search=" ")) == ["c", "b", "a"]


def test_a_search_ignores_system_messages_reasoning_and_hidden_items(profile, client_of) -> None:
    chat = client_of(profile, [ReasoningDelta("banana"), "answer"]).chat(system="apple")
    chat.send("question").chat.append_hidden("user", "cherry")
    assert [len(profile.sessions(search=w)) for w in ("banana", "apple", "cherry")] == [0, 0, 0]
    assert len(profile.sessions(search="question")) == 1


@pytest.mark.parametrize(
    "search", ['"', "a AND", "NEAR(", "text:", "*", "\ud800", "'; DROP TABLE words", "\0"]
)
def test_no_search_is_a_syntax_error(filled, search) -> None:
    filled.sessions(search=search)
    assert len(filled.sessions()) == 3


def test_a_search_finds_shared_history_in_every_fork_and_shows_the_last_place(
    profile, client_of
) -> None:
    client = client_of(profile, "alpha", "beta", "alpha again")
    chat = client.chat(session_id="s")
    chat.send("1")
    fork = chat.fork()
    chat.send("2")
    fork.send("3")
    found = {s["session_id"]: s["search_snippet"] for s in profile.sessions(search="alpha")}
    assert found == {"s": "[alpha]", fork.session_id: "[alpha] again"}


@pytest.mark.parametrize(
    ("search", "text", "snippet"),
    [
        ("天气", "今天天气很好，我们去公园吧。", "今天[天气]很好，我们去公园吧。"),
        ("园", "今天天气很好，我们去公园吧。", "今天天气很好，我们去公[园]吧。"),
        ("天气 公园", "今天天气很好，我们去公园吧。", "今天[天气]很好，我们去[公园]吧。"),
        ("テスト", "サンドボックス修正テスト", "サンドボックス修正[テスト]"),
        ("ﾃｽﾄ", "サンドボックス修正テスト", "サンドボックス修正[テスト]"),
        ("が", "テストか\u3099", "テスト[が]"),
        ("ดีมาก", "วันนี้อากาศดีมาก", "วันนี้อากาศ[ดีมาก]"),
        ("검색", "한국어 문장검색", "한국어 문장[검색]"),
        ("itgc", "重跑gen-itgc后50条", "重跑gen-[itgc]后50条"),
        ("gen", "重跑gen-itgc后50条", "重跑[gen]-itgc后50条"),
        ("后50", "重跑gen-itgc后50条", "重跑gen-itgc[后50]条"),
        ("हिन्द", "मैं हिन्दी बोलता हूँ", "मैं [हिन्दी] बोलता हूँ"),
        ("محمد", "قال مُحَمَّد", "قال [مُحَمَّد]"),
        ("strasse", "Große Straße", "Große [Straße]"),
        ("cafe", "Cafe\u0301 und ＣＡＦＥ", "[Café] und [ＣＡＦＥ]"),
        ("fox", "🦊fox", "🦊[fox]"),
        ("𠀋", "漢字𠀋漢字", "漢字[𠀋]漢字"),
    ],
)
def test_a_word_is_found_in_every_script(found, search, text, snippet) -> None:
    assert found(search, text) == snippet


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ("气天", "今天天气很好"),
        ("天好", "今天天气很好"),
        ("ดู", "วันนี้อากาศดีมาก"),
        ("テフト", "サンドボックス修正テスト"),
        ("ox", "the fox"),
        ("天气 雨", "今天天气很好"),
        ("か", "が"),
        ("fo%x", "fox"),
        ("f_x", "fox"),
        ("fo\\x", "fox"),
    ],
)
def test_words_that_a_text_does_not_have_are_not_found(found, search, text) -> None:
    assert found(search, text) is None


@pytest.mark.parametrize(
    ("search", "text", "snippet"),
    [
        ('"', 'he said "yes"', 'he said ["]yes["]'),
        ("*", "a * b", "a [*] b"),
        ("->", "x -> y", "x [->] y"),
        ("👍", "great 👍👍", "great [👍][👍]"),
        ("C++", "C and C++", "[C] and [C++]"),
        ("fox,", "a fox and a dog", "a [fox] and a dog"),
        ("don’t", "I don't know", "I [don't] know"),
        ("a_b", "name a_b here", "name [a_b] here"),
    ],
)
def test_punctuation_alone_is_matched_literally(found, search, text, snippet) -> None:
    assert found(search, text) == snippet


@pytest.mark.parametrize("search", ['"', "*", "+", "👍", "C++", "%", "\ud800", "\0"])
def test_punctuation_that_no_text_has_finds_nothing(filled, search) -> None:
    assert filled.sessions(search=search) == []


def test_a_search_finds_titles(filled, client_of) -> None:
    chat = client_of(filled).chat(session_id="b")
    chat.title = "旅行 in Zürich"
    (session,) = filled.sessions(search="zurich 旅行")
    assert (session["session_id"], session["search_snippet"]) == ("b", "[旅行] in [Zürich]")
    chat.title = "Bern"
    assert filled.sessions(search="zurich") == []
    assert ids(filled.sessions(search="bern")) == ["b"]
    chat.title = None
    assert filled.sessions(search="bern") == []


def test_a_message_that_is_found_is_shown_before_the_title(filled, client_of) -> None:
    client_of(filled).chat(session_id="a").title = "About a fox"
    (session,) = filled.sessions(search="fox")
    assert session["search_snippet"] == "The [fox] jumps over the lazy dog."


def test_words_that_only_title_and_message_together_have_are_not_found(filled, client_of) -> None:
    client_of(filled).chat(session_id="a").title = "Zoology"
    assert filled.sessions(search="zoology fox") == []


def test_a_deleted_title_is_not_found(filled, client_of) -> None:
    client_of(filled).chat(session_id="a").title = "Zoology"
    filled.delete("a")
    assert filled.sessions(search="zoology") == []


@pytest.mark.parametrize(
    ("search", "match"),
    [
        ("a" * 1001, "search must be text of at most 1000 characters, got 1001"),
        ("a " * 33, "search must be at most 32 words, got 33"),
        (5, "search must be text of at most 1000 characters, got 5"),
    ],
)
def test_a_search_has_a_bound(filled, search, match) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        filled.sessions(search=search)
    assert caught.value.details["param"] == "search"


def test_the_longest_search_is_answered(filled) -> None:
    assert filled.sessions(search=" ".join("abcdefghijklmnopqrstuvwxyzäöüßéè"[:32])) == []
    assert filled.sessions(search="天" * 1000) == []


def test_a_snippet_shows_the_place_in_a_long_text(found) -> None:
    text = "lorem ipsum " * 500 + "the needle lies here " + "dolor sit " * 500
    snippet = found("needle lies", text)
    assert "[needle] [lies] here" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) < 100


def test_a_snippet_shows_the_place_in_a_long_text_without_spaces(found) -> None:
    snippet = found("公园", "天气很好" * 1000 + "我们去公园吧" + "今天" * 1000)
    assert "我们去[公园]吧今天" in snippet
    assert len(snippet) < 100


def test_a_snippet_shows_where_most_of_the_words_are(found) -> None:
    text = "red " + "x " * 100 + "red green blue " + "x " * 100 + "blue"
    assert "[red] [green] [blue]" in found("red green blue", text)


def test_a_match_that_is_longer_than_a_snippet_is_shown_from_its_start(found) -> None:
    snippet = found("x" * 50, "before " + "x" * 300 + " after")
    assert "[xxx" in snippet
    assert len(snippet) < 100
