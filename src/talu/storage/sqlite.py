"""The file: made private, opened in WAL mode, brought to the newest form, and its failures named.

Knows SQLite and nothing of sessions. One connection serves all threads of the process, one
transaction at a time; other processes have their own, and wait for each other.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from talu.exceptions import StorageError
from talu.storage.migrations import MIGRATIONS

__all__ = ["File"]

BUSY_SECONDS = 10.0
APPLICATION_ID = int.from_bytes(b"talu")
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
HINTS = {
    "SQLITE_FULL": "free some space",
    "SQLITE_BUSY": f"another process has held it for {BUSY_SECONDS:.0f} s",
    "SQLITE_READONLY": "check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "check the permissions of the file and its folder",
}


class File:
    """A database file and this process's connection to it, opened when it is first needed.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._carried: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] = ()
        self._latest = object()  # transaction

    @property
    def exists(self) -> bool:
        """Whether there is a file to read."""
        return self.path.exists()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A transaction that sees one state of the database."""
        with self._transaction("read", "BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A transaction that is stored whole when the block ends, and not at all if it raises."""
        with self._transaction("write", "BEGIN IMMEDIATE") as db:
            yield db

    def erase_traces(self) -> None:
        """Overwrite what was deleted: in the index of words, and in the log beside the file."""
        with self.writing() as db:
            db.execute("INSERT INTO words (words) VALUES ('optimize')")
        with self._lock, self._failures("write"):
            busy, *_ = self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageError(
                f"what was deleted from {self.path} is no longer shown, but still in {self.path}"
                "-wal, because another process is reading: delete again when it has ended"
            )

    @contextmanager
    def _transaction(self, doing: str, begin: str) -> Generator[sqlite3.Connection]:
        with self._lock, self._failures(doing):
            db = self._open()
            if db.in_transaction:  # an interrupt came between its block and its end
                db.execute("ROLLBACK")
            mine = self._latest = object()
            db.execute(begin)
            try:
                yield db
                db.execute("COMMIT")
            finally:  # of an interrupted one perhaps while another one goes on
                if db.in_transaction and mine is self._latest:
                    db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        """The connection of this process; SQLite's must not be carried across a fork."""
        if self._connection is not None and self._identity[0] == os.getpid():
            if self._identify() != self._identity:
                raise StorageError(
                    f"{self.path} was removed or replaced while it was in use: make the client anew"
                )
            return self._connection
        self._create()
        db = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._carried = self._connection  # closing it here would disturb the process it is of
        self._connection, self._identity = db, self._identify()
        weakref.finalize(self, _close, db, os.getpid())
        return db

    def _identify(self) -> tuple[int, ...]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        return os.getpid(), status.st_dev, status.st_ino

    def _create(self) -> None:
        """Folders and file for the user alone; SQLite gives its other files the same mode."""
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        for path, mode in ((folder, 0o700), (self.path, 0o600)):
            if path.stat().st_mode & 0o077:
                path.chmod(mode)

    def _prepare(self, db: sqlite3.Connection) -> None:
        with _one_state(db):
            self._check_form(db)
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:  # another process switches: SQLite does not wait
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        with _one_state(db):
            form = self._check_form(db)
        if form < len(MIGRATIONS):
            self._migrate(db)

    def _check_form(self, db: sqlite3.Connection) -> int:
        """How many migrations the database has seen; a foreign or newer one is refused.

        To be called in a transaction: another process may be making the database just now.
        """
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if owner != APPLICATION_ID and (owner or version or tables):
            wrong = f"{self.path} is a database of another program: move it away"
            raise StorageError(wrong, "STORAGE_DAMAGED")
        if version > len(MIGRATIONS):
            raise StorageError(
                f"{self.path} was written by a newer talu (form {version}, this one knows "
                f"{len(MIGRATIONS)}): update talu",
                "STORAGE_DAMAGED",
            )
        return int(version)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            for migration in MIGRATIONS[self._check_form(db) :]:
                migration(db)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    @contextmanager
    def _failures(self, doing: str) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorname", "")
            if kind.startswith(DAMAGED):
                wrong = f"{self.path} is damaged ({error}): restore it from a copy, or move it away"
                raise StorageError(wrong, "STORAGE_DAMAGED") from error
            hint = next((f"; {text}" for name, text in HINTS.items() if kind.startswith(name)), "")
            raise StorageError(f"cannot {doing} {self.path}: {error}{hint}") from error
        except OSError as error:
            raise StorageError(f"cannot {doing} {self.path}: {error}") from error


@contextmanager
def _one_state(db: sqlite3.Connection) -> Generator[None]:
    """All that is read in the block is of one state of the database."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _close(db: sqlite3.Connection, owner: int) -> None:
    if os.getpid() == owner:
        db.close()
