"""Profiles that cannot be used: the error says why, and nothing that is stored is lost."""

import gc
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from talu import Client, Profile, StorageError, ValidationError

GREEDY = {"temperature": 0, "max_tokens": 8}


@pytest.fixture
def stored(home: Path) -> Path:
    """A database with one session, closed."""
    with Client("talu/pocket", profile=Profile("work")) as client:
        client.chat(session_id="s").send("Hello!", **GREEDY)
    del client
    gc.collect()
    return home / ".talu" / "db" / "work" / "talu.db"


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "..", "a..b", "/etc", ".hidden", "", "a" * 61, "a\0"]
)
def test_a_name_that_points_outside_the_profiles_folder_is_refused(home: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="name of a profile is 1 to 60 letters") as caught:
        Profile(name)
    assert caught.value.details == {"param": "name", "value": name}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("use", "param"),
    [
        (lambda profile: profile.sessions(search=5), "search"),
        (lambda profile: profile.sessions(marker="starred"), "marker"),
        (lambda profile: profile.sessions(marker=["pinned"]), "marker"),
        (lambda profile: profile.sessions(limit=True), "limit"),
        (lambda profile: profile.delete(["s"]), "session_id"),
        (lambda profile: profile.delete("\ud800"), "session_id"),
        (lambda profile: profile.export(5), "path"),
        (lambda profile: profile.export("\ud800"), "path"),
        (lambda profile: profile.import_(b"bytes"), "path"),
        (lambda profile: profile.export("a\0b"), "path"),
        (lambda profile: profile.import_(None), "path"),
        (lambda profile: profile.import_("a\0b"), "path"),
        (lambda profile: profile.export(""), "path"),
        (lambda profile: profile.export("x" * 10**7), "path"),
        (lambda profile: profile.import_(Path("x" * 10**7)), "path"),
    ],
)
def test_a_wrong_argument_of_a_profile_is_named(home: Path, use, param: str) -> None:
    with pytest.raises(ValidationError, match=f"{param} must be") as caught:
        use(Profile("work"))
    assert caught.value.details["param"] == param
    assert len(str(caught.value)) < 300
    assert list(home.iterdir()) == []


def damage(path: Path) -> None:
    path.write_bytes(b"\xff" * 4096)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 1000")
    db.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [(damage, "is damaged"), (make_newer, "was written by a newer talu .schema 1000.*update talu")],
)
def test_a_database_that_cannot_be_read_is_named_and_left_as_it_is(
    stored: Path, change: Callable[[Path], None], words: str
) -> None:
    change(stored)
    before = stored.read_bytes()
    with Client("talu/pocket", profile=Profile("work")) as client:
        for use in (
            lambda: client.chat(session_id="s"),
            lambda: client.chat(system="S"),
            lambda: client.chat().send("Hello!", **GREEDY),
            Profile("work").sessions,
        ):
            with pytest.raises(StorageError, match=f"work/talu.db {words}") as caught:
                use()
            assert caught.value.code == "STORAGE_DAMAGED"
        assert client.ask("Hello!", **GREEDY).text
    assert stored.read_bytes() == before


def test_with_a_full_disk_the_answer_is_returned_and_nothing_earlier_is_lost(stored: Path) -> None:
    profile = Profile("work")
    with Client("talu/pocket", profile=profile) as client:
        chat = client.chat(session_id="s")
        earlier = list(chat.items)
        with profile.database.file.reading() as db:
            db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StorageError, match=r"talu\.db: .*full; free some space"):
            chat.metadata["size"] = "x" * 100_000  # stored again with the next turn
        with pytest.raises(StorageError, match=r"talu\.db: .*full; free some space") as caught:
            chat.send("What is 2 + 2?", **GREEDY)
        answer = caught.value.details["response"]
        assert answer is chat.last_response
        assert answer.text == chat.items.last.text
        assert list(client.chat(session_id="s").items) == earlier
        with profile.database.file.reading() as db:
            db.execute("PRAGMA max_page_count = 1000000")
        chat.send("Hello!", **GREEDY)
        kept = list(chat.items)
        assert len(kept) == 6
    with Client("talu/pocket", profile=Profile("work")) as client:
        assert list(client.chat(session_id="s").items) == kept
