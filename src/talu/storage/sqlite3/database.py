"""The store of chats in a single SQLite file."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from talu.storage.sessions import Database
from talu.storage.sqlite3.file import File
from talu.storage.sqlite3.removal import advance_removals, finish_removals
from talu.storage.sqlite3.tables import SQLiteTables

__all__ = ["SQLiteDatabase"]


class SQLiteDatabase(Database):
    """The sessions of one file.

    Args:
        path: the file, which may not exist yet.
        root: the topmost folder of the path that belongs to talu; the file's folder if None.

    Attributes:
        file: the file and its connection.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        super().__init__(str(path))
        self.file = File(path, root)

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        return self.file.exists

    @contextmanager
    def reading(self) -> Generator[SQLiteTables]:
        """A read transaction; see ``Database.reading``."""
        with self.file.reading() as db:
            yield SQLiteTables(db)

    @contextmanager
    def writing(self) -> Generator[SQLiteTables]:
        """A write transaction; see ``Database.writing``."""
        with self.file.writing() as db:
            yield SQLiteTables(db)

    def finish_removals(self) -> bool:
        """Finish all pending removals; see ``Database.finish_removals``."""
        return finish_removals(self.file)

    def advance_removals(self, seconds: float = 0.0) -> None:
        """Continue pending removals; see ``Database.advance_removals``."""
        advance_removals(self.file, seconds)
