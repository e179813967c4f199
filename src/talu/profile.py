"""Profiles: named places in the user's home where chats are kept.

Knows where a profile's database is and what it is called. How it is written is ``storage``.
"""

import os
import re
import uuid
from pathlib import Path

from talu.exceptions import ValidationError
from talu.protocols import SessionRecord
from talu.storage.sessions import Database
from talu.storage.transfer import export_sessions, import_sessions
from talu.types import Handle, check_marker

__all__ = ["Profile", "list_sessions", "new_session_id"]

NAME = re.compile(r"\w[\w.-]{0,59}")
MAX_LIMIT = 10_000


def new_session_id() -> str:
    """A fresh identifier of a session: a random UUID as text."""
    return str(uuid.uuid4())


class Profile(Handle):
    """A named store of chats: ``Client(model, profile=Profile("work"))`` keeps every chat in it.

    Nothing is written before the first chat has an item. Several clients and processes may use
    one profile at once.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``, at most 60; without one the environment
            variable ``TALU_PROFILE``, else "default".

    Attributes:
        name: the profile's name.
        path: its folder, ``~/.talu/db/<name>``; the database in it is ``talu.db``. Only the user
            can read them.

    Raises:
        ValidationError: the name would not do as the name of a folder.
    """

    _instead = "open it again by its name, Profile(profile.name), in any process"

    def __init__(self, name: str | None = None) -> None:
        source = "name" if name is not None else "TALU_PROFILE"
        name = name if name is not None else os.environ.get("TALU_PROFILE") or "default"
        if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
            raise ValidationError(
                "the name of a profile is 1 to 60 letters, digits, '_', '-' and '.', without '..' "
                f"and with no '.' or '-' at its start; {source} is {name!r}",
                details={"param": "name", "value": name},
            )
        self.name = name
        self.path = Path.home() / ".talu" / "db" / name
        self._database = Database(self.path / "talu.db")

    @property
    def database(self) -> Database:
        """The store itself, as chats use it."""
        return self._database

    def sessions(
        self,
        *,
        search: str | None = None,
        marker: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> list[SessionRecord]:
        """The stored sessions, the one that was changed last first.

        Args:
            search: words that one message of user or model must all have, each at least as the
                beginning of a word; case and accents do not matter. The records then have a
                ``search_snippet`` of the last such message, with the words in brackets.
            marker: only sessions with this marker; "" is those without one, None is all.
            limit: how many at most, 1 to 10,000.
            cursor: ``cursor`` of the last record of the page before.

        Raises:
            ValidationError: an argument is of a wrong type or range, or there is no such marker.
            StorageError: the database cannot be read.
        """
        if search is not None and not isinstance(search, str):
            wrong = f"search must be text, got {search!r}"
            raise ValidationError(wrong, details={"param": "search", "value": search})
        if marker is not None:
            check_marker(marker)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
            wrong = f"limit must be a whole number from 1 to {MAX_LIMIT}, got {limit!r}"
            raise ValidationError(wrong, details={"param": "limit", "value": limit})
        if cursor is not None and not (isinstance(cursor, str) and re.fullmatch("[0-9]+", cursor)):
            wrong = f"cursor must be the 'cursor' of a listed session, got {cursor!r}"
            raise ValidationError(wrong, details={"param": "cursor", "value": cursor})
        before = None if cursor is None else min(int(cursor), 2**63 - 1)
        return self._database.sessions(search=search, marker=marker, limit=limit, before=before)

    def delete(self, session_id: str) -> None:
        """Delete a session for good, and what no fork of it shares; its text leaves the disk.

        A chat that is still at work on it gets ``StorageError`` at its next turn.

        Raises:
            ValidationError: there is no such session.
            StorageError: the database cannot be written.
        """
        if not isinstance(session_id, str):
            wrong = f"session_id must be text, got {session_id!r}"
            raise ValidationError(wrong, details={"param": "session_id", "value": session_id})
        self._database.delete(session_id)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all sessions to a new file, one JSON object a line; gives their number.

        Raises:
            ValidationError: that is no path.
            IOError: the file is there already or cannot be written.
            StorageError: the database cannot be read.
        """
        return export_sessions(self._database, _path(path))

    def import_(self, path: str | os.PathLike[str]) -> int:
        """Add all sessions of an exported file, or none; gives their number.

        Raises:
            IOError: the file cannot be read.
            ValidationError: that is no path, a line is malformed, or one of the sessions is there
                already.
            StorageError: the database cannot be written.
        """
        return import_sessions(self._database, _path(path))

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"


def _path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        wrong = f"path must be text or a path, got {path!r}"
        raise ValidationError(wrong, details={"param": "path", "value": path})
    return Path(path)


def list_sessions(
    *, profile: str | None = None, search: str | None = None, limit: int = 50
) -> list[SessionRecord]:
    """The sessions of a profile, named as for ``Profile``; see ``Profile.sessions``."""
    return Profile(profile).sessions(search=search, limit=limit)
