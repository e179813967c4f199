"""The database file: unusable files, permissions, and several processes."""

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.exceptions import StorageError
from talu.storage.sqlite3.file import File
from talu.storage.sqlite3.migrations import MIGRATIONS


@pytest.fixture
def profile(home) -> Profile:
    """A profile with one session, closed."""
    client = Client(ModelSpec("m", ScriptedModel("a " * 2000)), profile=Profile("work"))
    client.chat(session_id="s").send("q")
    del client
    gc.collect()
    return Profile("work")


def database(profile: Profile) -> Path:
    return profile.path / "talu.db"


def uses(profile: Profile) -> list:
    """Every operation on a profile."""
    client = Client(ModelSpec("m", ScriptedModel()), profile=profile)
    return [
        profile.sessions,
        lambda: profile.sessions(search="a"),
        lambda: client.chat(session_id="s"),
        lambda: client.chat(system="S"),
        lambda: profile.delete("s"),
        lambda: profile.export("/dev/null/x"),
    ]


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])


def damage_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 2 * 4096])


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()


def add_trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TRIGGER bad AFTER INSERT ON nodes BEGIN DELETE FROM sessions; END")
    db.close()


def replace_by_view(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ALTER TABLE sessions RENAME TO hidden")
        db.execute("CREATE VIEW sessions AS SELECT * FROM hidden")
    db.close()


def drop_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE sessions")
    db.close()


def make_foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (damage_header, "is damaged"),
        (damage_pages, "is damaged"),
        (cut_short, "is damaged"),
        (make_newer, "was written by a newer talu"),
        (make_foreign, "is a database of another program"),
        (add_trigger, "is damaged: it has a trigger"),
        (replace_by_view, "is damaged: it has a view"),
        (drop_table, "is damaged: no such table"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_unchanged(profile, change, match) -> None:
    change(database(profile))
    before = database(profile).read_bytes()
    for use in uses(profile):
        with pytest.raises(StorageError, match=match) as caught:
            use()
        assert str(database(profile)) in str(caught.value)
        assert caught.value.code == "STORAGE_DAMAGED"
        assert database(profile).read_bytes() == before


def test_a_file_that_is_removed_while_it_is_in_use_is_an_error(profile) -> None:
    chat = Client(ModelSpec("m", ScriptedModel("a")), profile=profile).chat(session_id="s")
    database(profile).rename(profile.path / "elsewhere")
    with pytest.raises(StorageError, match="was removed or replaced while it was in use"):
        chat.append("user", "q")


def test_dropping_a_profile_closes_its_database(home) -> None:
    profile = Profile("work")
    Client(ModelSpec("m", ScriptedModel()), profile=profile).chat(system="S")
    path = profile.path
    assert (path / "talu.db-wal").exists()
    del profile
    assert not (path / "talu.db-wal").exists()


def test_an_older_database_is_migrated_to_the_newest_schema(profile, monkeypatch) -> None:
    def m003_added(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE added (x)")

    monkeypatch.setattr("talu.storage.sqlite3.file.MIGRATIONS", [*MIGRATIONS, m003_added])
    assert len(profile.sessions()) == 1
    with profile.database.file.reading() as db:
        assert db.execute("SELECT count(*) FROM added").fetchone() == (0,)
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_leaves_the_database_as_it_was(profile, monkeypatch) -> None:
    def m003_fails(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE words")
        raise RuntimeError("no")

    before = database(profile).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("talu.storage.sqlite3.file.MIGRATIONS", [*MIGRATIONS, m003_fails])
        with pytest.raises(RuntimeError):
            profile.sessions()
    assert database(profile).read_bytes() == before
    assert len(profile.sessions(search="a")) == 1


def test_foreign_keys_are_enforced(profile) -> None:
    with pytest.raises(StorageError, match="FOREIGN KEY"), profile.database.file.writing() as db:
        db.execute("DELETE FROM nodes")


def test_a_database_that_another_process_is_creating_is_not_mistaken_for_a_foreign_one(
    tmp_path, monkeypatch
) -> None:
    path, made = tmp_path / "talu.db", []
    connect = sqlite3.connect

    class Slow(sqlite3.Connection):
        def execute(self, sql, *parameters):
            if "sqlite_master" in sql and not made:
                made.append(subprocess.Popen([sys.executable, "-c", MAKE, path]))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    made[0].wait(0.5)  # it is waiting for the reader, or has finished
            return super().execute(sql, *parameters)

    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **rest: connect(*args, factory=Slow, **rest)
    )
    with File(path).reading() as db:
        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    assert made[0].wait() == 0


MAKE = """
import sys
from pathlib import Path
from talu.storage.sqlite3.file import File

with File(Path(sys.argv[1])).writing():
    pass
"""
TALK = """
import sys
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

who = sys.argv[1]
sys.stdin.readline()  # all begin together, on a profile that is not there yet
with Client(ModelSpec("m", ScriptedModel(*["answer"] * 20)), profile=Profile("busy")) as client:
    for number in range(20):
        client.chat(session_id=f"{who}-{number % 4}").send(f"{who} {number}")
"""


def test_several_processes_write_one_profile_at_once(home) -> None:
    command = [sys.executable, "-c", TALK]
    processes = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(6)
    ]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b""] * 6
    sessions = Profile("busy").sessions()
    assert len(sessions) == 24
    for session in sessions:
        loaded = Profile("busy").database.load(session["session_id"])
        assert len(loaded.items) == 10


def test_two_profile_objects_of_a_process_lose_nothing_when_another_process_closes_the_file(
    home,
) -> None:
    code = """
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

Client(ModelSpec("m", ScriptedModel("a")), profile=Profile("p")).chat(session_id="other").send("q")
print(*sorted(s["session_id"] for s in Profile("p").sessions()))
"""
    scripts = ("a", "b")
    clients = [Client(ModelSpec("m", ScriptedModel(*scripts)), profile=Profile("p")) for _ in "12"]
    for number, client in enumerate(clients):
        client.chat(session_id=f"before {number}").send("q")
    subprocess.run([sys.executable, "-c", code], check=True)
    for number, client in enumerate(clients):
        client.chat(session_id=f"after {number}").send("q")
    code = code.replace("other", "others")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "after 0 after 1 before 0 before 1 other others\n"


def modes(profile: Profile) -> list[str]:
    """The permissions of ~/.talu, ~/.talu/db, the profile's folder and its database."""
    folder = profile.path
    places = (folder.parent.parent, folder.parent, folder, database(profile))
    return [oct(place.stat().st_mode & 0o777) for place in places]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_created_files_are_private_with_any_umask(home, mask: int) -> None:
    before = os.umask(mask)
    try:
        profile = Profile("work")
        Client(ModelSpec("m", ScriptedModel()), profile=profile).chat(system="S")
        profile.export(home / "all.jsonl")
    finally:
        os.umask(before)
    assert modes(profile) == ["0o700", "0o700", "0o700", "0o600"]
    files = [*profile.path.iterdir(), home / "all.jsonl"]
    assert {path.name for path in files} >= {"talu.db", "talu.db-wal", "talu.db-shm"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_readable_files_are_made_private_when_they_are_opened(profile) -> None:
    database(profile).chmod(0o666)
    profile.path.chmod(0o777)
    profile.path.parent.chmod(0o755)
    assert len(profile.sessions()) == 1
    assert modes(profile)[1:] == ["0o700", "0o700", "0o600"]


def test_the_folder_above_the_profiles_keeps_its_readers_and_loses_its_writers(profile) -> None:
    folder = profile.path.parent.parent
    folder.chmod(0o777)
    assert len(profile.sessions()) == 1
    assert modes(profile)[0] == "0o755"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_place_of_the_database_is_an_error_that_says_so(
    home: Path, make: Callable[[Path], None]
) -> None:
    profile = Profile("work")
    profile.path.mkdir(parents=True)
    make(database(profile))
    for use in uses(profile):
        with pytest.raises(StorageError, match=r"talu\.db is not a file: move it away"):
            use()
