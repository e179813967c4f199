"""Connections to the server: restarts, failures, secrets and forks."""

import logging
import os
import subprocess
import sys
import time
import traceback

import psycopg
import pytest
from tests.forked import in_child
from tests.threads import in_threads
from tests_system.postgres import PASSWORD, Server

from talu import Profile
from talu.exceptions import StorageError
from talu.storage.postgresql import server as server_module


def connections(server: Server, database: str = "work") -> list[int]:
    """The processes of the server that profiles are connected to."""
    shown = server.execute(
        "SELECT pid FROM pg_stat_activity "
        f"WHERE datname = '{database}' AND application_name LIKE 'test-%'"
    )
    return sorted(pid for (pid,) in shown)


def test_the_next_call_after_a_restart_of_the_server_works(server, filled, client_of) -> None:
    chat = client_of(filled, "answer").chat(session_id="a")
    server.stop()
    server.start()
    assert [session["session_id"] for session in filled.sessions()] == ["c", "b", "a"]
    server.stop()
    server.start()
    assert chat.send("Still there?").text == "answer"


def test_while_the_server_is_down_answers_are_given_and_the_next_change_stores_them(
    server, filled, client_of
) -> None:
    chat = client_of(filled, "one", "two").chat(session_id="a")
    server.stop()
    try:
        with pytest.raises(StorageError, match=r"cannot connect to .*work.*refused") as caught:
            chat.send("Are you there?")
        with pytest.raises(StorageError, match=r"cannot connect to .*work.*refused"):
            filled.sessions()
    finally:
        server.start()
    assert caught.value.code == "STORAGE_ERROR"
    assert caught.value.details["response"].text == "one"
    chat.send("And now?")
    again = client_of(filled).chat(session_id="a")
    assert [item.text for item in again.items][2:] == ["Are you there?", "one", "And now?", "two"]


def test_a_read_that_loses_its_connection_at_the_end_has_been_read(
    profile, client_of, server
) -> None:
    client_of(profile).chat(session_id="s", system="S")
    with profile.database.reading() as tables:
        found = tables.sessions()
        (own,) = connections(server)
        server.execute(f"SELECT pg_terminate_backend({own})")
    assert len(found) == len(profile.sessions()) == 1


def test_a_commit_that_is_not_confirmed_is_looked_up_before_the_next_change(
    profile, client_of, server, monkeypatch
) -> None:
    chat = client_of(profile).chat(session_id="s", system="S")
    execute, lost = psycopg.Connection.execute, []

    def lose(self, query, *arguments, **options):
        done = execute(self, query, *arguments, **options)
        if query == "COMMIT" and not lost:
            lost.append(self)
            self.close()
            raise psycopg.OperationalError("the connection is lost")
        return done

    monkeypatch.setattr(psycopg.Connection, "execute", lose)
    with pytest.raises(StorageError, match="not known whether it was stored") as caught:
        chat.append("user", "one")
    assert caught.value.code == "STORAGE_UNCERTAIN"
    chat.append("user", "two")
    assert [item.text for item in client_of(profile).chat(session_id="s").items][-1] == "two"


def everything_about(error: BaseException) -> str:
    """What a log or a debugger would show of an error, with its causes."""
    parts = []
    while error is not None:
        parts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


@pytest.mark.parametrize(
    "change",
    [
        lambda server: server.url("work", password="wrong@s3cret"),
        lambda server: server.url("missing", password=PASSWORD),
        lambda server: server.url("work").replace(str(server.port), "1"),
        lambda server: server.url("work").replace("127.0.0.1", "no.such.host.invalid"),
        lambda server: server.url("work", sslmode="require"),
    ],
    ids=["password", "database", "port", "host", "tls"],
)
def test_the_password_is_in_no_error_name_or_log(server, home, url_of, caplog, change) -> None:
    url_of("work")
    url = change(server)
    caplog.set_level(logging.DEBUG)
    profile = Profile(url)
    with pytest.raises(StorageError, match="cannot connect to postgresql://") as caught:
        profile.sessions()
    shown = [repr(profile), profile.name, profile.database.name, repr(profile.database.server)]
    shown += [everything_about(caught.value), *traceback.format_exception(caught.value)]
    shown += [caplog.text, repr(vars(profile.database.server))]
    for secret in (PASSWORD, "s3cret"):
        assert secret not in "\n".join(shown)
    assert len(str(caught.value)) < 500


def test_all_profiles_of_a_process_share_connections_that_end_with_the_last_one(
    server, profile_of
) -> None:
    profiles = [profile_of("work") for _ in range(5)]
    for profile in profiles:
        assert profile.sessions() == []
    assert len(connections(server)) == 1
    profiles.clear()
    del profile
    deadline = time.monotonic() + 10
    while connections(server):  # the server needs a moment to notice
        assert time.monotonic() < deadline


def test_a_process_has_few_connections_for_many_threads(server, filled) -> None:
    assert in_threads(lambda _: len(filled.sessions()), range(12)) == [3] * 12
    assert len(connections(server)) <= server_module.MAX_CONNECTIONS


def test_a_thread_that_gets_no_connection_in_time_is_told_so(filled, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "SLOT_SECONDS", 0.05)
    with (
        filled.database.reading(),
        filled.database.reading(),
        filled.database.reading(),
        filled.database.reading(),
        pytest.raises(StorageError, match="have been in use for"),
    ):
        filled.sessions()


def test_a_lock_that_is_held_too_long_is_an_error(server, filled, client_of, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "WRITE", server_module.WRITE.replace("10s", "50ms"))
    chat = client_of(filled).chat(session_id="a")
    with psycopg.connect(server.url("work")) as other:
        other.execute("SELECT * FROM talu.sessions FOR UPDATE")
        with pytest.raises(StorageError, match="another client has locked it"):
            chat.append("user", "more")
    chat.append("user", "more")


def test_parent_and_child_use_connections_of_their_own(server, filled, client_of) -> None:
    chat = client_of(filled).chat(session_id="a")
    before = connections(server)

    def work() -> None:
        client_of(filled).chat(session_id="child", system="S")
        with filled.database.server.reading() as db:
            assert db.info.backend_pid not in before

    assert in_child(work) == 0
    chat.append("user", "of the parent")
    assert set(before) <= set(connections(server))
    assert [session["session_id"] for session in filled.sessions()] == ["a", "child", "c", "b"]


def test_a_child_that_ends_normally_closes_no_connection_of_its_parent(
    server, url_of, home
) -> None:
    script = """
import os, sys
from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

client = Client(ModelSpec("m", ScriptedModel("a", "b")), profile=Profile())
chat = client.chat(session_id="s")
chat.send("q")
with client.profile.database.reading() as tables:
    child = os.fork()
    if child == 0:
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    print(len(tables.sessions()))
chat.send("q")
print(len(client.profile.sessions()))
"""
    done = run(script, url_of("work"))
    assert (done.stderr, done.stdout) == ("", "1\n1\n")


def test_a_child_that_was_forked_in_a_transaction_cannot_go_on_with_it(server, filled) -> None:
    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            tables.sessions()
        assert len(filled.sessions()) == 3  # on a connection of its own

    with filled.database.reading() as tables:
        assert in_child(work) == 0
        assert len(tables.sessions()) == 3


def run(script: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script, whose ``Profile()`` is on the server; a connection left open is an error."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-W", "ignore::DeprecationWarning"]
    environment = os.environ | {"TALU_PROFILE": url}
    return subprocess.run(
        [*command, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_client_without_a_profile_connects_to_nothing(server, url_of, home) -> None:
    done = run("import talu, sys; talu.Client('x/y'); print('psycopg' in sys.modules)", url_of("w"))
    assert done.stdout == "False\n"


def test_commands_work_with_a_url_and_never_show_its_password(
    filled, url_of, talu, scripted, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("TALU_PROFILE", url_of("work"))
    file = str(tmp_path / "all.jsonl")

    def ask(*arguments: str) -> object:
        scripted("Hello.")  # a command closes its model
        return talu("ask", *arguments, "Hi")

    told = [
        talu("log", "list"),
        talu("log", "search", "lazy"),
        talu("log", "export", file),
        talu("log", "delete", "--yes", "a"),
        talu("log", "import", file),  # b exists
        ask("--store"),
        ask("--continue"),
        talu("log", "list", "--profile", url_of("empty")),
        talu("log", "list", "--profile", url_of("work").replace("talu:", "nobody:")),
    ]
    assert [outcome.status for outcome in told] == [0, 0, 0, 0, 1, 0, 0, 1, 1]
    assert "[lazy]" in told[1].out
    assert "stored as" in told[5].err
    shown = "".join(outcome.out + outcome.err for outcome in told)
    assert PASSWORD not in shown
    assert "s3cret" not in shown


def test_clients_are_told_where_a_profile_is(profile, server) -> None:
    assert profile.path is None
    assert profile.name == f"postgresql://***@127.0.0.1:{server.port}/work?***"
    assert repr(profile) == f"Profile({profile.name!r})"
