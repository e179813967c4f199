"""Databases written by earlier versions can be opened and support every operation."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from talu import Profile
from talu.storage.sqlite3.file import APPLICATION_ID
from talu.storage.sqlite3.migrations import MIGRATIONS


def item(role: str, text: str, item_id: str) -> str:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    record = {"type": "message", "id": item_id, "role": role, "content": content}
    return json.dumps(record, ensure_ascii=False)


@pytest.fixture
def first_version(home: Path) -> Path:
    """A database as the first migration alone makes it: one session, two items, a title."""
    path = home / ".talu" / "db" / "old" / "talu.db"
    path.parent.mkdir(parents=True)
    record = {
        "parent_session_id": None,
        "title": "旅行 Plan",
        "model": "m",
        "system_prompt": None,
        "config": {"temperature": 0.5},
        "chat_template": None,
        "metadata": {"user": "ada"},
    }
    with closing(sqlite3.connect(path)) as db, db:
        MIGRATIONS[0](db)
        for node, role, text in (
            (1, "user", "今天天气很好"),
            (2, "assistant", "Ja, über dem Fluß"),
        ):
            parent = node - 1 or None
            db.execute("INSERT INTO nodes VALUES (?, ?, ?)", (node, parent, item(role, text, "i")))
            db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (node, text))
        db.execute(
            "INSERT INTO nodes VALUES (3, NULL, '{')"
        )  # an unreadable item does not stop the migration
        values = ("s", 1, 2, "pinned", 1000, 2000, json.dumps(record))
        db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("UPDATE changes SET last = 1")
        db.execute("PRAGMA user_version = 1")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.close()
    return path


def test_a_database_of_the_first_version_opens_without_loss(first_version, client_of) -> None:
    (session,) = Profile("old").sessions()
    assert (session["title"], session["marker"], session["created_at_ms"]) == (
        "旅行 Plan",
        "pinned",
        1000,
    )
    chat = client_of(Profile("old"), "Gern").chat(session_id="s")
    assert [entry.text for entry in chat.items] == ["今天天气很好", "Ja, über dem Fluß"]
    assert chat.config.temperature == 0.5
    assert chat.metadata == {"user": "ada"}
    assert chat.send("Danke").text == "Gern"


@pytest.mark.parametrize("search", ["天气", "fluss", "旅行", "uber dem"])
def test_a_database_of_the_first_version_is_indexed_again(first_version, search: str) -> None:
    assert [session["session_id"] for session in Profile("old").sessions(search=search)] == ["s"]


def test_a_session_of_the_first_version_can_be_deleted_and_renamed(
    first_version, client_of
) -> None:
    profile = Profile("old")
    client_of(profile).chat(session_id="s").title = "Anders"
    assert profile.sessions(search="旅行") == []
    assert profile.delete("s") is True
    content = b"".join(path.read_bytes() for path in profile.path.iterdir())
    for text in ("天气", "旅行", "Anders"):
        assert text.encode() not in content
