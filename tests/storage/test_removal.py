"""Deleting erases the text from the disk in small steps, despite readers and kills."""

import logging
import signal
import sqlite3
import subprocess
import sys

import pytest
from tests.threads import in_threads

from talu import Profile
from talu.exceptions import StorageError, ValidationError
from talu.storage.sqlite3 import removal


def ids(sessions) -> list[str]:
    return [session["session_id"] for session in sessions]


def bytes_on_disk(profile: Profile) -> bytes:
    return b"".join(path.read_bytes() for path in profile.path.iterdir())


def removals_left(profile: Profile) -> int:
    with profile.database.file.reading() as db:
        return db.execute("SELECT count(*) FROM removals").fetchone()[0]


def long_session(client_of, profile: Profile, items: int, session_id: str = "long") -> None:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": f"Xylophonic {i}"} for i in range(items)]
    client_of(profile).chat(session_id=session_id, messages=messages)


def test_deleting_removes_the_text_from_the_disk(profile, client_of) -> None:
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


def test_deleting_a_parent_keeps_only_the_items_its_forks_share(profile, client_of) -> None:
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


def test_a_deleted_title_leaves_the_index(filled, client_of) -> None:
    client_of(filled).chat(session_id="a").title = "Zoology"
    filled.delete("a")
    with filled.database.file.reading() as db:
        assert db.execute("SELECT count(*) FROM titles").fetchone() == (0,)


def test_deleting_twice_says_that_there_is_no_such_session(filled) -> None:
    filled.delete("a")
    with pytest.raises(ValidationError, match="has no session 'a'"):
        filled.delete("a")


@pytest.fixture
def reader(filled):
    """A transaction of another process, which prevents emptying the WAL."""
    db = sqlite3.connect(filled.path / "talu.db", isolation_level=None)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM nodes").fetchone()
    yield db
    db.close()


def test_a_reader_in_another_process_delays_the_erasure_and_the_result_says_so(
    filled, client_of, reader, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(removal, "LOG_SECONDS", 0.05)
    with caplog.at_level(logging.WARNING, "talu.storage"):
        assert filled.delete("a") is False
    assert "is still in" in caplog.text
    assert ids(filled.sessions()) == ["c", "b"]
    assert b"quick brown fox" in bytes_on_disk(filled)
    reader.execute("COMMIT")
    client_of(filled).chat(session_id="b").append("user", "and so on")  # the next write
    assert b"quick brown fox" not in bytes_on_disk(filled)
    assert removals_left(filled) == 0


def test_a_delayed_erasure_is_finished_by_the_next_process_that_opens_the_profile(
    filled, reader, monkeypatch
) -> None:
    monkeypatch.setattr(removal, "LOG_SECONDS", 0.05)
    assert filled.delete("a") is False
    reader.execute("COMMIT")
    assert ids(Profile("work").sessions()) == ["c", "b"]
    assert b"quick brown fox" not in bytes_on_disk(filled)


def test_a_deletion_without_readers_is_complete(filled) -> None:
    assert filled.delete("a") is True
    assert removals_left(filled) == 0


def test_a_full_disk_delays_the_removal_and_the_result_says_so(
    items_left, profile, client_of, caplog
) -> None:
    long_session(client_of, profile, 600)
    steps = []

    def fail(file) -> bool:
        steps.append(file)
        raise StorageError("database or disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "_step", fail)
        assert profile.delete("long") is False
    assert "still on the disk: database or disk is full" in caplog.text
    assert profile.sessions() == []
    assert len(steps) == 1
    Profile("work").sessions()
    assert items_left(profile) == 0


def test_the_steps_of_a_deletion_are_bounded(items_left, profile, client_of, monkeypatch) -> None:
    long_session(client_of, profile, 1000)
    left = []
    step = removal._step

    def counted(file) -> bool:
        more = step(file)
        left.append(items_left(profile))
        return more

    monkeypatch.setattr(removal, "_step", counted)
    assert profile.delete("long") is True
    assert left[:4] == [750, 500, 250, 0]
    assert b"xylophonic" not in bytes_on_disk(profile).lower()


def test_a_step_removes_few_items_when_they_are_large(
    items_left, profile, client_of, monkeypatch
) -> None:
    monkeypatch.setattr(removal, "MAX_BYTES", 1000)
    client_of(profile).chat(
        session_id="s", messages=[{"role": "user", "content": "x" * 2000} for _ in range(5)]
    )
    left = []
    step = removal._step

    def counted(file) -> bool:
        more = step(file)
        left.append(items_left(profile))
        return more

    monkeypatch.setattr(removal, "_step", counted)
    profile.delete("s")
    assert left[:5] == [4, 3, 2, 1, 0]


def test_another_process_writes_while_a_long_session_is_deleted(
    profile, client_of, monkeypatch
) -> None:
    long_session(client_of, profile, 2000)
    other = sqlite3.connect(profile.path / "talu.db", isolation_level=None, timeout=0)
    written = []
    step = removal._step

    def interrupted(file) -> bool:
        more = step(file)
        other.execute("UPDATE changes SET last = last + 1")  # fails at once if it is locked
        written.append(more)
        return more

    monkeypatch.setattr(removal, "_step", interrupted)
    assert profile.delete("long") is True
    assert len(written) > 8
    other.close()


def test_a_session_is_gone_before_its_items_are(profile, client_of, monkeypatch) -> None:
    long_session(client_of, profile, 300)
    chat = client_of(profile).chat(session_id="long")
    seen = []
    step = removal._step

    def look(file) -> bool:
        seen.append((ids(profile.sessions()), ids(profile.sessions(search="xylophonic"))))
        with pytest.raises(StorageError, match="was deleted since this chat read it"):
            chat.append("user", "more")
        return step(file)

    monkeypatch.setattr(removal, "_step", look)
    profile.delete("long")
    assert seen
    assert set(map(str, seen)) == {"([], [])"}


def test_items_being_deleted_are_not_exported(profile, client_of, tmp_path, monkeypatch) -> None:
    long_session(client_of, profile, 300)
    step = removal._step

    def export(file) -> bool:
        more = step(file)
        if not (tmp_path / "all.jsonl").exists():
            profile.export(tmp_path / "all.jsonl")
        return more

    monkeypatch.setattr(removal, "_step", export)
    profile.delete("long")
    assert "Xylophonic" not in (tmp_path / "all.jsonl").read_text()


def test_an_edit_that_drops_a_long_history_leaves_the_rest_to_later_steps(
    items_left, profile, client_of
) -> None:
    long_session(client_of, profile, 2000)
    chat = client_of(profile).chat(session_id="long")
    chat.clear()
    chat.append("user", "anew")
    while removals_left(profile):
        chat.append("user", "and on")
    assert items_left(profile) == len(chat)
    assert b"xylophonic" not in bytes_on_disk(profile).lower()


KILLED = """
import os, signal, sys
from talu import Profile
from talu.storage.sqlite3 import removal

step, left = removal._step, int(sys.argv[1])

def counted(file):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(file)

removal._step = counted
Profile("work").delete("long")
"""


@pytest.mark.parametrize("steps", [0, 2, 4, 5, 6])
def test_a_deletion_that_is_killed_is_finished_by_the_next_process(
    items_left, profile, client_of, steps: int
) -> None:
    long_session(client_of, profile, 1000)
    long_session(client_of, profile, 3, session_id="kept")
    del profile
    killed = subprocess.run([sys.executable, "-c", KILLED, str(steps)])
    profile = Profile("work")
    assert ids(profile.sessions()) == ["kept"]
    assert killed.returncode == -signal.SIGKILL
    assert removals_left(profile) == 0
    assert items_left(profile) == 3
    assert b"Xylophonic 999" not in bytes_on_disk(profile)
    with profile.database.file.writing() as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_two_processes_delete_forks_of_one_session_at_once(items_left, profile, client_of) -> None:
    long_session(client_of, profile, 1000)
    chat = client_of(profile).chat(session_id="long")
    forks = [chat.fork() for _ in range(3)]
    for fork in forks:
        fork.append("user", "own")
    names = ["long", *(fork.session_id for fork in forks)]
    in_threads(lambda name: Profile("work").delete(name), names)
    assert profile.sessions() == []
    client_of(profile).chat(system="S")
    assert items_left(profile) == 1
    assert removals_left(profile) == 0
