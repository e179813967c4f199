"""The schema in the database: who makes it, whose it is, and what it needs."""

import psycopg
import pytest

from talu import Client, Profile
from talu.exceptions import StorageError, ValidationError
from talu.storage.postgresql import server as server_module
from talu.storage.postgresql.migrations import MIGRATIONS


def uses(profile: Profile, client: Client) -> list:
    """Every operation on a profile."""
    return [
        profile.sessions,
        lambda: profile.sessions(search="a"),
        lambda: client.chat(session_id="a"),
        lambda: client.chat(system="S"),
        lambda: profile.delete("a"),
        lambda: profile.export("/dev/null/x"),
    ]


def test_reading_a_profile_without_tables_creates_nothing(server, profile, client_of, tmp_path):
    assert profile.sessions() == profile.sessions(search="x") == []
    assert len(client_of(profile).chat(session_id="s").items) == 0
    assert profile.export(tmp_path / "none.jsonl") == 0
    with pytest.raises(ValidationError, match="has no session 's'"):
        profile.delete("s")
    assert server.execute("SELECT to_regnamespace('talu')", "work") == [(None,)]


def test_a_schema_of_a_newer_version_is_named_and_left_as_it_is(
    server, url_of, filled, client_of
) -> None:
    server.execute(f"INSERT INTO talu.schema_version VALUES ({len(MIGRATIONS) + 1})", "work")
    profile = Profile(url_of("work") + "&connect_timeout=9")  # no connection to it is open yet
    for use in uses(profile, client_of(profile)):
        with pytest.raises(
            StorageError, match=r"was written by a newer talu .*update talu"
        ) as caught:
            use()
        assert caught.value.code == "STORAGE_DAMAGED"
    assert server.execute("SELECT count(*) FROM talu.sessions", "work") == [(3,)]


def test_a_schema_of_another_program_is_named_and_left_as_it_is(server, profile, client_of) -> None:
    server.execute("CREATE SCHEMA talu", "work")
    server.execute("CREATE TABLE talu.sessions (theirs text)", "work")
    for use in uses(profile, client_of(profile)):
        with pytest.raises(StorageError, match="schema talu of another program") as caught:
            use()
        assert caught.value.code == "STORAGE_DAMAGED"
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'talu'::regnamespace"
    assert server.execute(tables, "work") == [("sessions",)]


def test_tables_of_other_schemas_are_left_alone(server, profile, client_of) -> None:
    server.execute("CREATE TABLE public.sessions (theirs text)", "work")
    try:
        client_of(profile).chat(session_id="s", system="S")
        assert len(profile.sessions()) == 1
        assert server.execute("SELECT * FROM public.sessions", "work") == []
    finally:
        server.execute("DROP TABLE public.sessions", "work")


def test_a_table_that_was_dropped_is_damage(server, filled, client_of) -> None:
    server.execute("DROP TABLE talu.sessions", "work")
    for use in uses(filled, client_of(filled)):
        with pytest.raises(StorageError, match=r'is damaged: .*"talu\.sessions"') as caught:
            use()
        assert caught.value.code == "STORAGE_DAMAGED"


def test_a_damaged_item_is_named_and_other_sessions_still_open(server, filled, client_of) -> None:
    server.execute("UPDATE talu.nodes SET item = '{' WHERE node = 2", "work")
    with pytest.raises(StorageError, match=r"session 'a' cannot be read: item 1: .* not JSON"):
        client_of(filled).chat(session_id="a")
    assert len(client_of(filled).chat(session_id="c").items) == 3


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    server, profile, client_of, monkeypatch
) -> None:
    def m002_fails(db: psycopg.Connection) -> None:
        db.execute("CREATE TABLE talu.added (x integer)")
        raise RuntimeError("no")

    MIGRATIONS.append(m002_fails)
    try:
        with pytest.raises(RuntimeError):
            client_of(profile).chat(system="S")
    finally:
        MIGRATIONS.remove(m002_fails)
    assert server.execute("SELECT to_regnamespace('talu')", "work") == [(None,)]
    client_of(profile).chat(system="S")


def test_an_older_schema_is_migrated_by_the_first_that_reads_it(server, url_of, filled) -> None:
    def m002_added(db: psycopg.Connection) -> None:
        db.execute("CREATE TABLE talu.added (x integer)")

    MIGRATIONS.append(m002_added)
    try:
        assert len(Profile(url_of("work") + "&connect_timeout=9").sessions()) == 3
    finally:
        MIGRATIONS.remove(m002_added)
    assert server.execute("SELECT max(version) FROM talu.schema_version", "work") == [(2,)]
    assert server.execute("SELECT count(*) FROM talu.added", "work") == [(0,)]


def test_a_database_that_cannot_store_every_character_is_refused(server, home, client_of) -> None:
    name = "latin"
    server.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StorageError, match=r"has the encoding LATIN1, .* UTF8"):
        client_of(Profile(server.url(name))).chat(system="S")


@pytest.fixture
def plain(server):
    """A user who may do nothing, and is dropped at the end."""
    server.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    yield "plain"
    for statement in ("DROP OWNED BY plain CASCADE", "DROP ROLE plain"):
        server.execute(statement, "work")


def url_as(url: str, user: str) -> str:
    return f"postgresql://{user}:{user}@{url.rpartition('@')[2]}"


def test_a_user_without_rights_is_told_what_is_missing(plain, url_of, home, client_of) -> None:
    profile = Profile(url_as(url_of("work"), plain))
    assert profile.sessions() == []
    with pytest.raises(StorageError, match="needs the right to create the schema talu"):
        client_of(profile).chat(system="S")


def test_a_user_who_owns_only_the_schema_can_use_it_without_the_extension(
    server, plain, url_of, home, client_of
) -> None:
    url = url_of("work")
    server.execute("DROP EXTENSION IF EXISTS pg_trgm", "work")
    server.execute("CREATE SCHEMA talu AUTHORIZATION plain", "work")
    profile = Profile(url_as(url, plain))
    client_of(profile, "The fox jumps").chat(session_id="s").send("今天天气很好 C++")
    for search in ("fo", "天气", "C++", "好"):
        assert len(profile.sessions(search=search)) == 1
    assert server.execute("SELECT to_regclass('talu.nodes_by_words')", "work") == [(None,)]


def test_a_search_uses_the_index_of_trigrams(server, filled) -> None:
    assert server.execute("SELECT to_regclass('talu.nodes_by_words') IS NOT NULL", "work") == [
        (True,)
    ]
    with filled.database.server.reading() as db:
        db.execute("SET LOCAL enable_seqscan = off")
        plan = db.execute("EXPLAIN SELECT node FROM talu.nodes WHERE words LIKE '% lazy%'")
        assert "nodes_by_words" in "\n".join(line for (line,) in plan)


def test_a_user_who_may_only_read_reads(server, plain, url_of, filled, client_of) -> None:
    server.execute("GRANT USAGE ON SCHEMA talu TO plain", "work")
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA talu TO plain", "work")
    profile = Profile(url_as(url_of("work"), plain))
    assert [session["session_id"] for session in profile.sessions(search="fox")] == ["a"]
    chat = client_of(profile, "answer").chat(session_id="a")
    with pytest.raises(StorageError, match=r"permission denied .*the user needs the right"):
        chat.append("user", "more")


def test_statements_are_not_prepared_for_poolers(server, filled) -> None:
    for _ in range(12):
        filled.sessions()
    with filled.database.server.reading() as db:
        assert db.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


@pytest.mark.parametrize("begin", ["READ", "WRITE"])
def test_transactions_have_limits(filled, begin: str) -> None:
    assert "statement_timeout" in getattr(server_module, begin)
    transaction = (
        filled.database.server.reading if begin == "READ" else filled.database.server.writing
    )
    with transaction() as db:
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            assert db.execute(f"SHOW {name}").fetchone() != ("0",)
