"""Profiles: names, places, listings, search, deletion, and the way out and in."""

import json
import stat

import pytest

import talu
from talu import Client, ModelSpec, Profile, list_sessions
from talu.backends.scripted import ScriptedModel
from talu.exceptions import IOError, StorageError, ValidationError
from talu.profile import new_session_id
from talu.types import ReasoningDelta


def client_of(profile: Profile, *scripts) -> Client:
    return Client(ModelSpec("m", ScriptedModel(*scripts)), profile=profile)


@pytest.fixture
def profile(home) -> Profile:
    return Profile("work")


@pytest.fixture
def filled(profile) -> Profile:
    """Sessions a, b and c, in this order."""
    client = client_of(profile, "The fox jumps over the lazy dog.", "Über den Wolken", "1 2 3")
    client.chat(session_id="a").send("Tell me about a quick brown fox")
    client.chat(session_id="b", marker="pinned").send("Ein Lied, bitte")
    client.chat(session_id="c", system="You like foxes.").send("Count to three")
    return profile


def ids(sessions) -> list[str]:
    return [session["session_id"] for session in sessions]


def bytes_on_disk(profile: Profile) -> bytes:
    return b"".join(path.read_bytes() for path in profile.path.iterdir())


def test_the_name_is_the_argument_then_the_environment_then_default(home, monkeypatch) -> None:
    assert Profile().name == "default"
    monkeypatch.setenv("TALU_PROFILE", "home")
    assert Profile().name == "home"
    assert Profile("work").name == "work"
    assert Profile("work").path == home / ".talu" / "db" / "work"
    assert repr(Profile("work")) == "Profile('work')"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "../x", "a..b", ".a", "-a", "a" * 61, "a\n", "a b", 3]
)
def test_a_name_that_is_not_that_of_a_folder_is_refused(home, name) -> None:
    with pytest.raises(ValidationError, match="the name of a profile is"):
        Profile(name)


def test_a_wrong_name_in_the_environment_is_named_as_such(home, monkeypatch) -> None:
    monkeypatch.setenv("TALU_PROFILE", "../x")
    with pytest.raises(ValidationError, match=r"TALU_PROFILE is '\.\./x'"):
        Profile()


def test_looking_into_a_profile_that_is_not_there_makes_nothing(home, tmp_path) -> None:
    profile = Profile("typo")
    assert profile.sessions() == profile.sessions(search="x") == list_sessions(profile="typo") == []
    assert len(client_of(profile).chat(session_id="s").items) == 0
    with pytest.raises(ValidationError, match="has no session 's'"):
        profile.delete("s")
    assert list(home.iterdir()) == []


def test_only_the_user_can_read_what_is_stored(filled) -> None:
    assert stat.S_IMODE(filled.path.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in filled.path.iterdir()}
    assert files.keys() >= {"talu.db", "talu.db-wal"}
    assert set(files.values()) == {0o600}


def test_profiles_do_not_see_each_other(filled) -> None:
    other = Profile("home")
    assert other.sessions() == []
    assert len(client_of(other).chat(session_id="a").items) == 0


def test_sessions_are_listed_with_the_last_changed_first(filled) -> None:
    assert ids(filled.sessions()) == ["c", "b", "a"]
    client_of(filled).chat(session_id="a").append("user", "more")
    assert ids(filled.sessions()) == ["a", "c", "b"]
    assert ids(talu.list_sessions(profile="work", limit=2)) == ["a", "c"]


def test_a_cursor_goes_on_where_a_page_ended(filled) -> None:
    first = filled.sessions(limit=2)
    assert ids(filled.sessions(limit=2, cursor=first[-1]["cursor"])) == ["a"]
    assert ids(filled.sessions(search="e", limit=5, cursor=first[0]["cursor"])) == ["b"]


def test_a_marker_filters(filled) -> None:
    assert ids(filled.sessions(marker="pinned")) == ["b"]
    assert ids(filled.sessions(marker="")) == ["c", "a"]
    assert filled.sessions(marker="archived") == []


def test_a_search_finds_what_was_said_and_shows_where(filled) -> None:
    (session,) = filled.sessions(search="LAZY dog")
    assert session["session_id"] == "a"
    assert session["search_snippet"] == "The fox jumps over the [lazy] [dog]."
    assert ids(filled.sessions(search="uber wolk")) == ["b"]
    assert filled.sessions()[0]["search_snippet"] is None
    assert ids(filled.sessions(search="t")) == ["c", "a"]
    assert filled.sessions(search="lazy cat") == []
    assert ids(filled.sessions(search=" ")) == ["c", "b", "a"]


def test_a_search_does_not_find_system_messages_reasoning_and_what_is_hidden(profile) -> None:
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


def test_a_search_finds_shared_history_in_every_fork_and_shows_the_last_place(profile) -> None:
    client = client_of(profile, "alpha", "beta", "alpha again")
    chat = client.chat(session_id="s")
    chat.send("1")
    fork = chat.fork()
    chat.send("2")
    fork.send("3")
    found = {s["session_id"]: s["search_snippet"] for s in profile.sessions(search="alpha")}
    assert found == {"s": "[alpha]", fork.session_id: "[alpha] again"}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"limit": 0}, "limit must be"),
        ({"limit": "5"}, "limit must be"),
        ({"cursor": "next"}, "cursor must be"),
        ({"cursor": 5}, "cursor must be"),
    ],
)
def test_a_wrong_argument_of_a_listing_is_refused(filled, arguments, match) -> None:
    with pytest.raises(ValidationError, match=match):
        filled.sessions(**arguments)


def test_deleting_removes_the_text_from_the_disk(profile) -> None:
    client = client_of(profile, "other", "Xylophonic", "third", "Zebra")
    kept = client.chat(session_id="kept")
    kept.send("keep this")
    gone = client.chat(session_id="gone", system="Quixotic", metadata={"k": "Jabberwocky"})
    gone.send("tell me of the Bandersnatch")
    gone.title = "Vorpal"
    gone.send("more")
    words = [b"xylophonic", b"quixotic", b"jabberwocky", b"bandersnatch", b"vorpal", b"zebra"]
    assert [word in bytes_on_disk(profile).lower() for word in words] == [True] * 5 + [False]
    profile.delete("gone")
    assert [word in bytes_on_disk(profile).lower() for word in words] == [False] * 6
    assert ids(profile.sessions()) == ["kept"]
    assert profile.sessions(search="bandersnatch") == []
    kept.append("user", "and go on")


def test_deleting_a_parent_keeps_what_its_forks_share_and_no_more(profile) -> None:
    client = client_of(profile, "shared", "own")
    chat = client.chat(session_id="s")
    chat.send("1")
    fork = chat.fork()
    chat.send("2 secretword")
    profile.delete("s")
    assert [i.text for i in client.chat(session_id=fork.session_id).items] == ["1", "shared"]
    assert b"secretword" not in bytes_on_disk(profile)
    profile.delete(fork.session_id)
    with profile.database.file.reading() as db:
        assert db.execute("SELECT count(*) FROM nodes").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM words").fetchone() == (0,)


def test_deleting_twice_says_that_there_is_no_such_session(filled) -> None:
    filled.delete("a")
    with pytest.raises(ValidationError, match="has no session 'a'"):
        filled.delete("a")


def test_an_export_read_into_another_profile_is_the_same(filled, tmp_path) -> None:
    fork = client_of(filled).chat(session_id="a").fork()
    fork.append("user", "half \ud800 a pair\x00")
    assert filled.export(tmp_path / "all.jsonl") == 4
    other = Profile("other")
    assert other.import_(tmp_path / "all.jsonl") == 4
    without_cursor = [{k: v for k, v in s.items() if k != "cursor"} for s in filled.sessions()]
    assert [
        {k: v for k, v in s.items() if k != "cursor"} for s in other.sessions()
    ] == without_cursor
    for session in filled.sessions():
        there, here = (p.database.load(session["session_id"]) for p in (other, filled))
        assert there.items == here.items
    assert ids(other.sessions(search="fox")) == ids(filled.sessions(search="fox"))
    other.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
    assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600


def test_an_export_overwrites_nothing(filled, tmp_path) -> None:
    (tmp_path / "all.jsonl").write_text("precious")
    with pytest.raises(IOError, match="cannot export to"):
        filled.export(tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_text() == "precious"


def test_a_profile_without_sessions_is_exported_as_such(home, tmp_path) -> None:
    assert Profile("empty").export(tmp_path / "none.jsonl") == 0
    assert Profile("other").import_(tmp_path / "none.jsonl") == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: [], "does not begin with the line"),
        (lambda lines: lines[1:], "does not begin with the line"),
        (lambda lines: [*lines[:2], "{", *lines[2:]], r"line 3 is not JSON"),
        (lambda lines: [*lines, "[]"], r"line 12 is not a JSON object"),
        (lambda lines: [lines[0], *lines[2:]], r"line 2 is not an item or a session \(KeyError: 1"),
        (lambda lines: [*lines, '{"session": 3}'], r"line 12 is not an item or a session"),
        (lambda lines: [*lines, lines[-1]], r"line 12 has session 'c', which is there already"),
        (lambda lines: [*lines, '{"node": 99, "parent": null, "item": {"type": "message", '
                                '"role": "user"}}'], r"line 12 is not an item or a session"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_by_its_line_and_nothing_is_imported(
    filled, tmp_path, change, match
) -> None:
    filled.export(tmp_path / "all.jsonl")
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    (tmp_path / "bad.jsonl").write_text("".join(f"{line}\n" for line in change(lines)))
    with pytest.raises(ValidationError, match=match):
        Profile("other").import_(tmp_path / "bad.jsonl")
    assert Profile("other").sessions() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", None),
        ("metadata", []),
        ("marker", "starred"),
        ("title", 5),
        ("session_id", 5),
        ("created_at_ms", "now"),
        ("updated_at_ms", float("inf")),
        ("updated_at_ms", 10**30),
    ],
)
def test_a_session_that_could_not_be_opened_again_is_not_imported(
    filled, tmp_path, name, value
) -> None:
    filled.export(tmp_path / "all.jsonl")
    *lines, last = (tmp_path / "all.jsonl").read_text().splitlines()
    line = json.loads(last)
    line["session"][name] = value
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines, json.dumps(line)]))
    with pytest.raises(ValidationError, match=r"line 11 .*(malformed: " + name + "|too large)"):
        Profile("other").import_(tmp_path / "bad.jsonl")
    assert Profile("other").sessions() == []


def test_a_line_that_nests_without_end_is_named(filled, tmp_path) -> None:
    filled.export(tmp_path / "all.jsonl")
    with (tmp_path / "all.jsonl").open("a") as file:
        file.write("[" * 100_000)
    with pytest.raises(ValidationError, match="line 12 is not JSON"):
        Profile("other").import_(tmp_path / "all.jsonl")


def test_a_session_that_lacks_something_is_named_as_damaged(filled, tmp_path) -> None:
    with filled.database.file.writing() as db:
        db.execute("UPDATE sessions SET record = '{}' WHERE session_id = 'a'")
    for use in (
        filled.sessions,
        lambda: filled.export(tmp_path / "all.jsonl"),
        lambda: client_of(filled).chat(session_id="a"),
    ):
        with pytest.raises(StorageError, match=r"session 'a' cannot be read: .* missing") as error:
            use()
        assert error.value.code == "STORAGE_DAMAGED"


def test_a_session_that_is_there_is_not_imported_again(filled, tmp_path) -> None:
    filled.export(tmp_path / "all.jsonl")
    before = filled.sessions()
    with pytest.raises(ValidationError, match="session 'a', which is there already"):
        filled.import_(tmp_path / "all.jsonl")
    assert filled.sessions() == before


def test_a_file_that_is_not_there_is_named(home, tmp_path) -> None:
    with pytest.raises(IOError, match=r"cannot import .*none\.jsonl"):
        Profile().import_(tmp_path / "none.jsonl")


def test_session_ids_are_random_uuids() -> None:
    assert len({new_session_id() for _ in range(100)}) == 100
    assert new_session_id()[14] == "4"


def test_a_folder_that_cannot_be_made_is_a_storage_error(home) -> None:
    (home / ".talu").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write .*talu\.db"):
        client_of(Profile()).chat(system="S")
