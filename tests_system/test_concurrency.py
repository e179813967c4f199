"""Several processes and threads on one database: conflicts, removals, kills."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from tests.threads import in_threads

from talu import Profile
from talu.exceptions import StorageError
from talu.storage import sessions
from talu.storage.postgresql import removal
from talu.storage.postgresql.migrations import LOCKS


def ids(listed) -> list[str]:
    return sorted(session["session_id"] for session in listed)


def removals_left(profile: Profile) -> int:
    with profile.database.server.reading() as db:
        return db.execute("SELECT count(*) FROM talu.removals").fetchone()[0]


def long_session(client_of, profile: Profile, items: int, session_id: str = "long") -> None:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": f"Xylophonic {i}"} for i in range(items)]
    client_of(profile).chat(session_id=session_id, messages=messages)


def started(script: str, url: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process that runs a script, whose ``Profile()`` is on the server."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"TALU_PROFILE": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


TALK = """
import sys
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

who = sys.argv[1]
sys.stdin.readline()  # all begin together, on a database that has no tables yet
with Client(ModelSpec("m", ScriptedModel(*["answer"] * 20)), profile=Profile()) as client:
    for number in range(20):
        client.chat(session_id=f"{who}-{number % 4}").send(f"{who} {number}")
"""


def test_several_processes_write_one_database_at_once(profile, url_of) -> None:
    processes = [started(TALK, url_of("work"), str(number)) for number in range(3)]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b""] * 3
    listed = profile.sessions()
    assert len(listed) == 12
    for session in listed:
        assert len(profile.database.load(session["session_id"]).items) == 10


def test_many_threads_create_the_tables_together(profile_of, client_of) -> None:
    def store(number: int) -> None:
        client_of(profile_of("work")).chat(session_id=str(number), system="S")

    in_threads(store, range(8))
    assert len(profile_of("work").sessions()) == 8


def test_one_of_two_first_saves_is_a_conflict(profile, client_of) -> None:
    client_of(profile).chat(session_id="before", system="S")
    for number in range(10):
        chats = [client_of(profile).chat(session_id=f"s{number}") for _ in range(2)]

        def save(chat) -> str | None:
            try:
                chat.append("user", "mine")
            except StorageError as error:
                return error.code
            return None

        assert sorted(map(str, in_threads(save, chats))) == ["None", "STORAGE_CONFLICT"]


def test_one_of_two_changes_is_a_conflict(profile, client_of) -> None:
    client_of(profile).chat(session_id="s", system="S")
    for number in range(10):
        chats = [client_of(profile).chat(session_id="s") for _ in range(2)]

        def save(chat) -> str | None:
            try:
                chat.append("user", f"mine {number}")  # noqa: B023 - called in this round
            except StorageError as error:
                return error.code
            return None

        assert sorted(map(str, in_threads(save, chats))) == ["None", "STORAGE_CONFLICT"]
    assert len(client_of(profile).chat(session_id="s").items) == 11


def test_deleting_says_that_the_disk_still_has_the_text_and_removes_every_row(
    server, filled, client_of, items_left
) -> None:
    assert [filled.delete(name) for name in "abc"] == [False] * 3
    assert items_left(filled) == removals_left(filled) == 0
    assert server.execute("SELECT count(*) FROM talu.sessions", "work") == [(0,)]


def test_deleting_a_parent_keeps_only_the_items_its_forks_share(
    profile, client_of, items_left
) -> None:
    client = client_of(profile, "shared", "own")
    chat = client.chat(session_id="s")
    chat.send("1")
    fork = chat.fork()
    chat.send("2 secretword")
    profile.delete("s")
    assert [i.text for i in client.chat(session_id=fork.session_id).items] == ["1", "shared"]
    assert items_left(profile) == 2
    profile.delete(fork.session_id)
    assert items_left(profile) == 0


def test_the_steps_of_a_deletion_are_bounded(profile, client_of, items_left, monkeypatch) -> None:
    long_session(client_of, profile, 600)
    left, step = [], removal._step

    def counted(server, *, wait: bool) -> bool:
        more = step(server, wait=wait)
        left.append(items_left(profile))
        return more

    monkeypatch.setattr(removal, "_step", counted)
    profile.delete("long")
    assert left[:3] == [350, 100, 0]


def test_a_step_removes_few_items_when_they_are_large(
    profile, client_of, items_left, monkeypatch
) -> None:
    monkeypatch.setattr(removal, "MAX_BYTES", 1000)
    messages = [{"role": "user", "content": "x" * 2000} for _ in range(3)]
    client_of(profile).chat(session_id="s", messages=messages)
    left, step = [], removal._step

    def counted(server, *, wait: bool) -> bool:
        more = step(server, wait=wait)
        left.append(items_left(profile))
        return more

    monkeypatch.setattr(removal, "_step", counted)
    profile.delete("s")
    assert left[:3] == [2, 1, 0]


KILLED = """
import os, signal, sys
from talu import Profile
from talu.storage.postgresql import removal

step, left = removal._step, int(sys.argv[1])

def counted(server, *, wait):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(server, wait=wait)

removal._step = counted
Profile().delete("long")
"""


@pytest.mark.parametrize("steps", [0, 2])
def test_a_deletion_that_is_killed_is_finished_by_the_next_process(
    profile_of, url_of, client_of, items_left, monkeypatch, steps: int
) -> None:
    monkeypatch.setattr(sessions, "OPEN_SECONDS", 60)
    long_session(client_of, profile_of("work"), 600)
    long_session(client_of, profile_of("work"), 3, session_id="kept")
    killed = started(KILLED, url_of("work"), str(steps))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    profile = profile_of("work")
    assert ids(profile.sessions()) == ["kept"]
    assert removals_left(profile) == 0
    assert items_left(profile) == 3


def wait_for_a_waiter(server) -> None:
    """Return when a transaction waits for a lock of another one."""
    deadline = time.monotonic() + 10
    while server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
        assert time.monotonic() < deadline


def test_a_removal_waits_for_a_save_that_appends_to_one_of_its_items_and_keeps_it(
    server, profile, client_of, items_left
) -> None:
    client_of(profile, "a").chat(session_id="s").send("q")
    stored = profile.database.load("s")
    with profile.database.writing() as tables:
        assert tables.has_node(stored.nodes[-1])
        deleting = threading.Thread(target=profile.delete, args=("s",))
        deleting.start()
        wait_for_a_waiter(server)
        assert profile.sessions() == []  # the session is gone, its items wait
        (node,) = tables.add_items(stored.nodes[-1], [('{"type": "x"}', "")])
        tables.add_session({**stored.record, "session_id": "fork"}, node)
    deleting.join()
    assert ids(profile.sessions()) == ["fork"]
    assert items_left(profile) == 3
    assert removals_left(profile) == 0
    assert len(profile.database.load("fork").items) == 3


def test_a_save_waits_for_the_removal_of_the_item_that_it_appends_to_and_is_told_so(
    server, profile, client_of
) -> None:
    client_of(profile).chat(session_id="s", system="S")
    stored, failed = profile.database.load("s"), []

    def save() -> None:
        try:
            record = {**stored.record, "session_id": "fork"}
            profile.database.save(record, change=None, after=stored.nodes[-1], items=[])
        except LookupError as error:
            failed.append(error)

    with psycopg.connect(server.url("work")) as other:
        other.execute("DELETE FROM talu.sessions")
        other.execute("DELETE FROM talu.nodes")
        saving = threading.Thread(target=save)
        saving.start()
        wait_for_a_waiter(server)
    saving.join()
    assert [error.args for error in failed] == [(stored.nodes[-1],)]
    assert profile.sessions() == []


def test_one_removal_runs_at_a_time_and_saves_do_not_wait_for_it(
    server, filled, client_of, items_left
) -> None:
    with psycopg.connect(server.url("work")) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, 2)", (LOCKS,))
        deleting = threading.Thread(target=filled.delete, args=("a",))
        deleting.start()
        wait_for_a_waiter(server)
        chat = client_of(filled).chat(session_id="b")
        chat.pop()
        assert items_left(filled) == 7
    deleting.join()
    assert items_left(filled) == 4
    assert ids(filled.sessions()) == ["b", "c"]


FORKS = """
import sys
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

chat_id = sys.argv[1]
sys.stdin.readline()
profile = Profile()
client = Client(ModelSpec("m", ScriptedModel()), profile=profile)
for number in range(30):
    try:
        chat = client.chat(session_id="trunk")
        if not len(chat.items):
            chat.append("user", f"first of {chat_id}")
        fork = chat.fork()
        fork.append("user", f"{chat_id} {number}")
        if number % 3 == int(chat_id):
            profile.delete("trunk")
        if number % 2:
            profile.delete(fork.session_id)
        else:
            fork.pop()
            fork.append("user", "again")
    except Exception as error:
        if getattr(error, "code", "") not in ("STORAGE_CONFLICT", "INVALID_ARGUMENT"):
            raise
"""


def test_processes_that_fork_edit_and_delete_one_history_lose_nothing_and_leave_nothing(
    profile, url_of, client_of, items_left
) -> None:
    processes = [started(FORKS, url_of("work"), str(number)) for number in range(3)]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b""] * 3
    live = set()
    for session in profile.sessions(limit=1000):
        live |= set(profile.database.load(session["session_id"]).nodes)
    client_of(profile).chat(session_id="last", system="S")  # continues what is left to remove
    while removals_left(profile):
        profile.database.advance_removals(1)
    assert items_left(profile) == len(live) + 1
    for session in profile.sessions(limit=1000):
        profile.delete(session["session_id"])
    assert items_left(profile) == 0


WRITE = """
import os, sys
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

client = Client(ModelSpec("m", ScriptedModel(*["answer"] * 1000)), profile=Profile())
chat = client.chat(session_id="s")
for number in range(1000):
    chat.send(str(number))
    os.write(1, b"%d\\n" % number)
"""


def test_a_process_that_is_killed_loses_at_most_the_answer_in_flight(profile, url_of) -> None:
    chance, known = random.Random(5), 0
    for _ in range(4):
        process = started(WRITE, url_of("work"))
        told = [process.stdout.readline() for _ in range(chance.randint(1, 4))]
        for _ in range(chance.randrange(50_000)):  # somewhere between two lines
            pass
        os.kill(process.pid, signal.SIGKILL)
        told += process.communicate()[0].splitlines(keepends=True)
        stored = profile.database.load("s").items
        complete = 2 * sum(line.endswith(b"\n") for line in told)
        assert known + complete <= len(stored) <= known + complete + 2
        known = len(stored)
    with profile.database.server.reading() as db:
        heads = "SELECT node FROM talu.nodes EXCEPT SELECT parent FROM talu.nodes"
        assert db.execute(f"{heads} EXCEPT SELECT head FROM talu.sessions").fetchall() == []
