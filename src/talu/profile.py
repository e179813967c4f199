"""Profiles, which are stores of chats: files in the user's home folder, or databases of servers.

This module checks arguments and locates the database; ``storage`` reads and writes it.
"""

import os
import re
import uuid
from pathlib import Path

from talu.chat.serialization import config_from_dict, item_from_dict
from talu.error_text import shown
from talu.exceptions import DependencyError, StorageError, ValidationError
from talu.first_use import loaded
from talu.protocols import SessionRecord
from talu.storage.sessions import Database
from talu.storage.sqlite3.database import SQLiteDatabase
from talu.storage.transfer import export_sessions, import_sessions
from talu.storage.words import Query, parse_query
from talu.types import Handle, check_marker
from talu.urls import without_secrets

__all__ = ["Profile", "list_sessions", "new_session_id"]

NAME = re.compile(r"\w[\w.-]{0,59}")
SERVER = re.compile("postgres(ql)?://")
CURSOR = re.compile("[0-9]{1,20}")
MAX_LIMIT = 10_000
MAX_SEARCH = 1000  # characters
MAX_WORDS = 32
MAX_PATH = 4096  # bytes, the limit of Linux


def new_session_id() -> str:
    """A new session id: a random UUID as text."""
    return str(uuid.uuid4())


class Profile(Handle):
    """A store of chats: ``Client(model, profile=Profile("work"))`` stores every chat in it.

    Nothing is written before the first chat has an item, a title, a marker or metadata. Several
    clients and processes may use one profile at once.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``, at most 60, for a database in the user's
            home folder; or ``postgresql://user:password@host:port/database`` for the schema
            ``talu`` of a PostgreSQL database, which requires ``pip install "talu[postgres]"``.
            Without a name the environment variable ``TALU_PROFILE``, else "default".

    Attributes:
        name: the profile's name; that of a server is its URL without user and password.
        path: its folder, ``~/.talu/db/<name>``; the database in it is ``talu.db``. Only the user
            can read them. None for a server.

    Raises:
        ValidationError: the name is not usable as the name of a folder, or the URL is malformed.
        DependencyError: the client library of PostgreSQL is not installed.
        StorageError: the user has no home folder.
    """

    _instead = "open it again by its name or URL, Profile(name), in any process"

    def __init__(self, name: str | None = None) -> None:
        source = "name" if name is not None else "TALU_PROFILE"
        name = name if name is not None else os.environ.get("TALU_PROFILE") or "default"
        self.path: Path | None = None
        if isinstance(name, str) and SERVER.match(name):
            self._database = _on_server(name)
            self.name = self._database.name
            return
        if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
            if isinstance(name, str) and ("@" in name or "://" in name):
                name = without_secrets(name)
            raise ValidationError(
                "the name of a profile is 1 to 60 letters, digits, '_', '-' and '.', without '..' "
                "and with no '.' or '-' at its start, or a URL that begins with postgresql://; "
                f"{source} is {shown(name)}",
                details={"param": "name", "value": name},
            )
        self.name = name
        root = _home() / ".talu"
        self.path = root / "db" / name
        self._database = SQLiteDatabase(self.path / "talu.db", root)

    @property
    def database(self) -> Database:
        """The store that chats use."""
        return self._database

    def sessions(
        self,
        *,
        search: str | None = None,
        marker: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> list[SessionRecord]:
        """The stored sessions, most recently changed first.

        The first page gives a warning that names damaged sessions which it may leave out.

        Args:
            search: at most 1,000 characters and 32 words. One user or assistant message, or the
                title, must contain them all. Each must match the start of a word, or occur
                anywhere in scripts without spaces. Case, accents and punctuation are ignored,
                except in a word that consists of punctuation, which is matched literally. Each
                record then has a ``search_snippet`` of the last such message, else of the title,
                with the matches in brackets. Blank text does not search.
            marker: only sessions with this marker; "" means those without one, None means all.
            limit: maximum number of sessions, 1 to 10,000.
            cursor: ``cursor`` of the last record of the previous page.

        Raises:
            ValidationError: an argument is of the wrong type or out of range, or the marker is
                unknown.
            StorageError: the database cannot be read.
        """
        if marker is not None:
            check_marker(marker)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
            wrong = f"limit must be a whole number from 1 to {MAX_LIMIT}, got {shown(limit)}"
            raise ValidationError(wrong, details={"param": "limit", "value": limit})
        if cursor is not None and not (isinstance(cursor, str) and CURSOR.fullmatch(cursor)):
            wrong = f"cursor must be the 'cursor' of a listed session, got {shown(cursor)}"
            raise ValidationError(wrong, details={"param": "cursor", "value": cursor})
        before = None if cursor is None else min(int(cursor), 2**63 - 1)
        query = _query(search)
        return self._database.sessions(search=query, marker=marker, limit=limit, before=before)

    def delete(self, session_id: str) -> bool:
        """Delete a session permanently, and erase all items that no fork shares from the disk.

        The session disappears at once. Its items are removed in small steps, so that other
        processes can write in between; if this process is killed, the next one that uses the
        profile continues. A chat that still uses the session gets a ``StorageError`` at its next
        turn.

        Returns:
            Whether the text is erased from the disk. False while another process reads the
            database, or when the disk is full; the logger ``talu.storage`` says why, and later
            writes finish it. A PostgreSQL server only erases text by a ``VACUUM``, so False.

        Raises:
            ValidationError: the session does not exist.
            StorageError: the database cannot be written.
        """
        if not isinstance(session_id, str) or not session_id.isprintable():
            wrong = f"session_id must be printable text, got {shown(session_id)}"
            raise ValidationError(wrong, details={"param": "session_id", "value": session_id})
        return self._database.delete(session_id)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Export all sessions to a new file of JSON lines; returns their number.

        The file appears under its name when it is complete, and only the user can read it.

        Raises:
            ValidationError: the path is invalid.
            IOError: the file already exists or cannot be written.
            StorageError: the database cannot be read.
        """
        return export_sessions(self._database, _path(path))

    def import_(self, path: str | os.PathLike[str]) -> int:
        """Import all sessions of an exported file, or none; returns their number.

        Raises:
            IOError: the file cannot be read.
            ValidationError: the path is invalid, the file is truncated, a line is malformed or
                invalid as part of a chat, or one of the sessions already exists.
            StorageError: the database cannot be written.
        """
        return import_sessions(self._database, _path(path), item_from_dict, config_from_dict)

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"


def _on_server(url: str) -> Database:
    try:
        database: Database = loaded("talu.storage.postgresql.database", "PostgresDatabase")(url)
    except ImportError as missing:
        if (missing.name or "").startswith("talu"):
            raise
        raise DependencyError(
            "profiles on a PostgreSQL server need psycopg, which is not installed: "
            "pip install 'talu[postgres]'"
        ) from missing
    return database


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise StorageError("the user has no home folder: set the variable HOME") from error


def _query(search: str | None) -> Query | None:
    """The parsed search; None when it is absent or blank."""
    if search is None:
        return None
    if not isinstance(search, str) or len(search) > MAX_SEARCH:
        got = f"{len(search)}" if isinstance(search, str) else shown(search)
        wrong = f"search must be text of at most {MAX_SEARCH} characters, got {got}"
        raise ValidationError(wrong, details={"param": "search"})
    if (count := len(search.split())) > MAX_WORDS:
        wrong = f"search must be at most {MAX_WORDS} words, got {count}"
        raise ValidationError(wrong, details={"param": "search"})
    query = parse_query(search)
    return query if query.words or query.literals else None


def _path(path: str | os.PathLike[str]) -> Path:
    wrong = f"path must be text or a path that the file system can hold, got {shown(path)}"
    try:
        text = os.fspath(path)
        if text == "":
            wrong = "path must be the name of a file, got ''"
        elif isinstance(text, str) and len(encoded := os.fsencode(text)) > MAX_PATH:
            wrong = f"path must be at most {MAX_PATH:,} bytes long, got {len(encoded):,}"
        elif isinstance(text, str) and b"\0" not in encoded:
            return Path(text)
    except (TypeError, UnicodeEncodeError):
        pass
    raise ValidationError(wrong, details={"param": "path", "value": path})


def list_sessions(
    *, profile: str | None = None, search: str | None = None, limit: int = 50
) -> list[SessionRecord]:
    """The sessions of the profile with this name; see ``Profile.sessions``."""
    return Profile(profile).sessions(search=search, limit=limit)
