"""The SQLite file of a profile: creation, migration, transactions and error translation.

One connection serves all threads of the process, one transaction at a time; other processes have
separate connections, and SQLite's locks make them wait for each other. Before a fork every
connection is closed, because a child that inherits one also inherits SQLite's record of the locks
on the file, which the child does not hold: another process would then delete the WAL that the child
writes to.
"""

import os
import sqlite3
import stat
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from talu.error_text import reason
from talu.exceptions import StorageError
from talu.forks import ForkSafeLock
from talu.storage.rows import Damage, damage_error
from talu.storage.sqlite3.migrations import MIGRATIONS

__all__ = ["File"]

BUSY_SECONDS = 10.0
FORK_SECONDS = 10.0
APPLICATION_ID = int.from_bytes(b"talu")
HINTS = {
    "SQLITE_FULL": "free some space",
    "SQLITE_BUSY": f"another process has held it for {BUSY_SECONDS:.0f} s",
    "SQLITE_READONLY": "check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "check the permissions of the file and its folder",
}
# The statements are constants, so if one fails with these errors, the file is damaged.
DAMAGED = (
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_ERROR",
    "SQLITE_CONSTRAINT",
    "SQLITE_MISMATCH",
    "SQLITE_FORMAT",
)


class File:
    """A database file and this process's connection to it, opened on first use.

    Args:
        path: path of the file.
        root: the topmost folder of the path that belongs to talu; the file's folder if None.

    Attributes:
        path: path of the file.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path = path
        self._root = root or path.parent
        self._gate = ForkSafeLock(reentrant=True)
        self._connection: sqlite3.Connection | None = None
        self._closing: weakref.finalize[[], File] | None = None
        self._identity: tuple[int, ...] = ()
        self._current: object | None = None  # identifies the current transaction
        with FORKING.lock:
            FILES.add(self)

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        with self._failures("read"):
            return self.path.exists()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A read transaction, which sees a single snapshot of the database."""
        with self._transaction("read", "BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A write transaction, committed when the block ends and rolled back if it raises."""
        with self._transaction("write", "BEGIN IMMEDIATE") as db:
            yield db

    def empty_log(self) -> bool:
        """Checkpoint the WAL into the database and truncate it.

        Returns:
            False if another connection is reading or writing.
        """
        with self._gate.lock, self._failures("write"):
            db = self._open()
            db.execute("PRAGMA busy_timeout = 0")
            try:
                busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        return not busy

    def prepare_for_fork(self, seconds: float) -> bool:
        """Acquire the lock and close the connection; the next transaction opens a new one.

        Returns:
            False if a transaction did not end in time; the lock is not held then.
        """
        if not self._gate.lock.acquire(timeout=max(0, seconds)):
            return False
        if self._current is not None:  # this thread's: a signal handler forks
            self._gate.lock.release()
            return False
        if self._closing is not None:
            self._closing()
        self._connection = self._closing = None
        return True

    def end_wait(self) -> None:
        """Release the lock."""
        self._gate.lock.release()

    def leave_to_parent(self) -> None:
        """Give up the connection of a transaction that did not end before the fork."""
        LEFT[self._identity] = self._connection
        if self._closing is not None:
            self._closing.detach()
        self._connection = self._closing = self._current = None

    @contextmanager
    def _transaction(self, doing: str, begin: str) -> Generator[sqlite3.Connection]:
        with self._gate.lock, self._failures(doing):
            db = self._open()
            if db.in_transaction:  # an interrupt left the previous transaction open
                db.execute("ROLLBACK")
            mine = self._current = object()
            try:
                db.execute(begin)
                yield db
                db.execute("COMMIT")
            finally:  # an interrupted one may get here after another has started
                if mine is self._current:
                    self._current = None
                    if db.in_transaction:
                        db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        """The connection of this process."""
        if self._identity and self._identify() != self._identity:
            raise StorageError(
                f"{self.path} was removed or replaced while it was in use: create the client again"
            )
        if self._connection is not None:
            return self._connection
        self._create()
        before, self._identity = self._identity, self._identify()
        if self._identity in LEFT:
            raise StorageError(
                f"{self.path} was in use when this process was forked, and stays with the parent "
                "process: fork when no thread uses the profile, or spawn the process"
            )
        db = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(db)
        except BaseException:
            self._identity = before
            db.close()
            raise
        self._closing = weakref.finalize(self, db.close)
        self._connection = db
        return db

    def _identify(self) -> tuple[int, ...]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{self.path} is not a file: move it away")
        return status.st_dev, status.st_ino

    def _create(self) -> None:
        """Create folders and file for this user only; SQLite creates its other files likewise.

        An existing file is not opened: closing a descriptor of it would release all locks of the
        process on it, including those of another connection.
        """
        folder = self.path.parent
        missing = [level for level in (folder, *folder.parents) if not level.exists()]
        for level in reversed(missing):
            level.mkdir(mode=0o700, exist_ok=True)
        with CREATING.lock, suppress(FileExistsError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _restrict(self._root, 0o755)
        while folder != self._root and self._root in folder.parents:
            _restrict(folder, 0o700)
            folder = folder.parent
        _restrict(self.path.parent, 0o700)
        _restrict(self.path, 0o600)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        with _snapshot(db):
            self._check_schema(db)
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                # another process is switching, and SQLite does not wait
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        with _snapshot(db):
            version = self._check_schema(db)
        if version < len(MIGRATIONS):
            self._migrate(db)

    def _check_schema(self, db: sqlite3.Connection) -> int:
        """The number of applied migrations; a foreign or newer database is an error.

        Call it in a transaction, because another process may be creating the database.
        """
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        kinds = [kind for (kind,) in db.execute("SELECT type FROM sqlite_master")]
        if owner != APPLICATION_ID and (owner or version or kinds):
            wrong = f"{self.path} is a database of another program: move it away"
            raise StorageError(wrong, "STORAGE_DAMAGED")
        if version > len(MIGRATIONS):
            raise StorageError(
                f"{self.path} was written by a newer talu (schema {version}, this one knows "
                f"{len(MIGRATIONS)}): update talu",
                "STORAGE_DAMAGED",
            )
        if strange := {"view", "trigger"} & set(kinds):
            raise damage_error(self.path, f"it has a {strange.pop()}, which talu never makes")
        return int(version)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            for migration in MIGRATIONS[self._check_schema(db) :]:
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
            raise self._failure(doing, error) from error
        except Damage as error:
            raise damage_error(self.path, error) from error
        except UnicodeDecodeError as error:  # from an SQLite message that quotes the file
            raise damage_error(self.path, "it has names that are not UTF-8") from error
        except OSError as error:
            raise StorageError(f"cannot {doing} {self.path}: {reason(error)}") from error

    def _failure(self, doing: str, error: sqlite3.Error) -> StorageError:
        kind, text = getattr(error, "sqlite_errorname", ""), str(error)[:200]
        if "no such module" in text:
            return StorageError(
                f"cannot {doing} {self.path}: the SQLite of this Python has no FTS5"
            )
        if "Could not decode to UTF-8" in text:
            return damage_error(self.path, "it has a text that is not UTF-8")
        if kind.startswith(DAMAGED):
            return damage_error(self.path, f"{text}; restore it from a copy, or move it away")
        hint = next((f"; {hint}" for name, hint in HINTS.items() if kind.startswith(name)), "")
        return StorageError(f"cannot {doing} {self.path}: {text}{hint}")


def _restrict(path: Path, widest: int) -> None:
    """Remove the permissions of a folder or file that are not in ``widest``."""
    mode = path.stat().st_mode & 0o777
    if mode & ~widest:
        path.chmod(mode & widest)


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Generator[None]:
    """Let all reads in the block see the same snapshot of the database."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


FILES: "weakref.WeakSet[File]" = weakref.WeakSet()
CREATING = ForkSafeLock()
FORKING = ForkSafeLock(reentrant=True)
HELD: list[File] = []
LEFT: dict[tuple[int, ...], sqlite3.Connection | None] = {}  # inherited: closing affects the parent


def _before_fork() -> None:
    """Wait until no transaction runs, prevent new ones, and close the connections."""
    FORKING.lock.acquire()
    deadline = time.monotonic() + FORK_SECONDS
    HELD.extend(file for file in list(FILES) if file.prepare_for_fork(deadline - time.monotonic()))


def _after_fork_in_parent() -> None:
    while HELD:
        HELD.pop().end_wait()
    FORKING.lock.release()


def _after_fork_in_child() -> None:
    for file in set(FILES).difference(HELD):
        file.leave_to_parent()
    HELD.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
