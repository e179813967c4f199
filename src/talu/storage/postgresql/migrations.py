"""The migrations of the schema in PostgreSQL, in the order in which they are applied.

The list is append-only: opening a database written by an older version runs the functions that
are new to it. A released function is never changed. All tables are in the schema ``talu``.
"""

from collections.abc import Callable
from typing import Any

import psycopg

from talu.exceptions import StorageError

__all__ = ["LOCKS", "MIGRATIONS", "migrate", "schema_version"]

LOCKS = int.from_bytes(b"talu")  # the first number of its advisory locks; 1 is that of migrations
Connection = psycopg.Connection[tuple[Any, ...]]


def m001_sessions(db: Connection) -> None:
    """Create the sessions, the tree of their items, and the texts for the search.

    The columns have the meaning that they have in SQLite. ``words`` is what ``token_text`` makes
    of the text of a message, ``form`` its index form; both are NULL if it is not searched. A
    removal is a deletion whose items from ``node`` upwards still have to be removed.
    """
    db.execute(
        """CREATE TABLE talu.nodes (
            node bigserial PRIMARY KEY,
            parent bigint REFERENCES talu.nodes (node),
            item text NOT NULL,
            words text COLLATE "C",
            form text COLLATE "C"
        )"""
    )
    db.execute("CREATE INDEX nodes_by_parent ON talu.nodes (parent)")
    db.execute("CREATE SEQUENCE talu.changes")
    db.execute(
        """CREATE TABLE talu.sessions (
            session_id text COLLATE "C" PRIMARY KEY,
            change bigint NOT NULL UNIQUE,
            head bigint REFERENCES talu.nodes (node),
            marker text NOT NULL,
            created_at_ms bigint NOT NULL,
            updated_at_ms bigint NOT NULL,
            record text NOT NULL,
            title_words text COLLATE "C",
            title_form text COLLATE "C"
        )"""
    )
    db.execute("CREATE INDEX sessions_by_head ON talu.sessions (head)")
    db.execute("CREATE TABLE talu.removals (removal bigserial PRIMARY KEY, node bigint NOT NULL)")
    _index_words(db)


def _index_words(db: Connection) -> None:
    """Index the words by their trigrams, if the server has the extension and lets the user have it.

    Without the index a search reads all texts, and finds the same.
    """
    try:
        with db.transaction():
            db.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except psycopg.Error:
        return
    found = db.execute(
        "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid ="
        " extnamespace WHERE extname = 'pg_trgm'"
    ).fetchone()
    schema = found[0] if found else "public"
    db.execute(f"CREATE INDEX nodes_by_words ON talu.nodes USING gin (words {schema}.gin_trgm_ops)")


MIGRATIONS: list[Callable[[Connection], None]] = [m001_sessions]


def schema_version(db: Connection, name: str) -> int:
    """The number of applied migrations, 0 without tables; a foreign or newer schema is an error.

    Raises:
        StorageError: the schema cannot be used (code ``STORAGE_DAMAGED``).
    """
    known, used = db.execute(
        "SELECT to_regclass('talu.schema_version') IS NOT NULL,"
        " EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('talu'))"
    ).fetchone() or (False, False)
    if not known and used:
        wrong = f"{name} has a schema talu of another program: use another database"
        raise StorageError(wrong, "STORAGE_DAMAGED")
    if not known:
        return 0
    (version,) = db.execute("SELECT max(version) FROM talu.schema_version").fetchone() or (None,)
    if version is not None and version > len(MIGRATIONS):
        raise StorageError(
            f"{name} was written by a newer talu (schema {version}, this one knows "
            f"{len(MIGRATIONS)}): update talu",
            "STORAGE_DAMAGED",
        )
    return int(version or 0)


def migrate(db: Connection, name: str) -> None:
    """Apply the migrations that are new to a database, in one transaction, once for all processes.

    Raises:
        StorageError: the database cannot hold all characters, or its schema cannot be used.
    """
    db.execute("SELECT pg_advisory_xact_lock(%s, 1)", (LOCKS,))
    version = schema_version(db, name)
    (encoding,) = db.execute("SHOW server_encoding").fetchone() or ("",)
    if encoding != "UTF8":
        raise StorageError(
            f"{name} has the encoding {encoding}, which cannot store every text: create a database "
            "with the encoding UTF8"
        )
    if version == 0:
        (there,) = db.execute("SELECT to_regnamespace('talu') IS NOT NULL").fetchone() or (False,)
        if not there:  # its owner can have made it for a user who may not
            db.execute("CREATE SCHEMA talu")
        db.execute("CREATE TABLE talu.schema_version (version integer NOT NULL)")
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        migration(db)
        db.execute("INSERT INTO talu.schema_version VALUES (%s)", (number,))
