"""A PostgreSQL server: its connections, transactions and error translation.

Each process has connections of its own, made when they are needed and kept for later transactions.
A kept connection may be dead, because the server was restarted: then the statement that begins a
transaction fails, and the transaction begins again on another connection. A forked child neither
uses nor closes the connections of its parent.

The password is in no message, no attribute that is shown, and no cause of an error.
"""

import os
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Literal
from weakref import WeakSet, WeakValueDictionary

import psycopg
from psycopg.conninfo import conninfo_to_dict

from talu.exceptions import StorageError, ValidationError
from talu.forks import ForkSafeLock
from talu.storage.postgresql.migrations import MIGRATIONS, migrate, schema_version
from talu.storage.rows import Damage, damage_error
from talu.urls import SECRET, Address, without_secrets

__all__ = ["Connection", "Server", "server_of"]

MAX_CONNECTIONS = 4  # of a process; further transactions wait
SLOT_SECONDS = 10.0
SETTINGS = {  # of connections, unless the URL has others
    "application_name": "talu",
    "client_encoding": "UTF8",
    "connect_timeout": 10,  # seconds, for each address of the server
    "tcp_user_timeout": 20_000,  # milliseconds until a silent server counts as gone
}
LOCK_SECONDS = 10
READ_SECONDS = 600  # of a statement: an export reads everything
WRITE_SECONDS = 60
LIMITS = (
    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s';"
    f" SET LOCAL idle_in_transaction_session_timeout = '{WRITE_SECONDS}s';"
    " SET LOCAL statement_timeout"
)
READ = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {LIMITS} = '{READ_SECONDS}s'"
WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {LIMITS} = '{WRITE_SECONDS}s'"
HINTS = {  # beginnings of SQLSTATE
    "25006": "it is a server that only reads: use the primary one",
    "42501": "the user needs the right to create the schema talu, or to use its tables",
    "53100": "free some space on the server",
    "55P03": f"another client has locked it for {LOCK_SECONDS} s",
    "57014": "it took too long",
}
# The statements are constants, so if one fails with these errors, the database was changed.
DAMAGED = ("23", "42703", "42804", "42883", "42P01", "XX001", "XX002")
MAX_TEXT = 300  # characters of the server's message


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, which a forked child can drop without a warning.

    Attributes:
        inherited: this process is a child of the one that made it.
    """

    inherited = False

    def __del__(self, *arguments: Any) -> None:
        """Warn if it is still open, as psycopg does."""
        if not self.inherited:
            super().__del__(*arguments)


class Server:
    """A database of a server, and the connections of this process to it.

    Args:
        url: ``postgresql://user:password@host:port/database``.

    Attributes:
        name: the URL without user and password, for messages.

    Raises:
        ValidationError: the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        _settings(url)
        self.name = without_secrets(url)
        self._url = Address(url)
        self._ready = False
        self._begin_process()
        SERVERS.add(self)

    @property
    def exists(self) -> bool:
        """Whether the database has the tables of talu, which are brought up to date."""
        if not self._ready:
            with self._transaction("read") as db:
                version = schema_version(db, self.name)
            if version == 0:
                return False
            self._make_ready(version)
        return True

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A read transaction, which sees a single snapshot of the database."""
        if not self.exists:
            self._make_ready(0)
        with self._transaction("read") as db:
            yield db

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A write transaction, committed when the block ends and rolled back if it raises.

        Each statement sees what others have committed before it.
        """
        if not self.exists:
            self._make_ready(0)
        with self._transaction("write") as db:
            yield db

    def leave_to_parent(self) -> None:
        """Give up the connections in a forked child, without a word to the server."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection in self._all:
            with suppress(psycopg.Error):
                os.dup2(nowhere, connection.fileno())
            connection.inherited = True
        os.close(nowhere)
        self._closing.detach()
        self._begin_process()

    def _begin_process(self) -> None:
        self._gate = ForkSafeLock()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closing = weakref.finalize(self, _close, self._idle)

    def _make_ready(self, version: int) -> None:
        if version < len(MIGRATIONS):
            with self._transaction("write") as db:
                migrate(db, self.name)
        self._ready = True

    @contextmanager
    def _transaction(self, doing: Literal["read", "write"]) -> Generator[Connection]:
        with self._failures(doing), self._slot():
            db = self._begin(WRITE if doing == "write" else READ)
            try:
                yield db
                if doing == "write":
                    self._commit(db)
            finally:
                self._give_back(db)

    def _commit(self, db: Connection) -> None:
        try:
            db.execute("COMMIT")
        except psycopg.OperationalError as error:
            if not db.closed:
                raise
            raise StorageError(
                f"the connection to {self.name} was lost at the end of a transaction, so it is not "
                "known whether it was stored",
                "STORAGE_UNCERTAIN",
            ) from error

    @contextmanager
    def _slot(self) -> Generator[None]:
        slots = self._slots
        if not slots.acquire(timeout=SLOT_SECONDS):
            raise StorageError(
                f"the {MAX_CONNECTIONS} connections of this process to {self.name} have been in "
                f"use for {SLOT_SECONDS:.0f} s"
            )
        try:
            yield
        finally:
            slots.release()

    def _begin(self, statement: str) -> Connection:
        while True:
            with self._gate.lock:
                db = self._idle.pop() if self._idle else None
            kept = db is not None
            if db is None:
                db = self._connect()
            try:
                db.execute(statement)
            except BaseException as error:
                self._drop(db)
                if kept and isinstance(error, psycopg.OperationalError):
                    continue
                raise
            return db

    def _connect(self) -> Connection:
        settings = _settings(self._url)
        try:
            # Prepared statements do not work behind poolers that share connections.
            db = Connection.connect(**settings, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            text = _text(error).replace(str(settings.get("password") or SECRET), SECRET)
        else:
            with self._gate.lock:
                self._all.add(db)
            return db
        # Not in the handler: psycopg's error has the settings, with the password.
        raise StorageError(f"cannot connect to {self.name}: {text}")

    def _give_back(self, db: Connection) -> None:
        if db not in self._all:  # this is a child that was forked in the transaction
            return
        try:
            db.rollback()  # nothing after a COMMIT
        except psycopg.Error:
            self._drop(db)
            return
        except BaseException:
            self._drop(db)
            raise
        with self._gate.lock:
            self._idle.append(db)

    def _drop(self, db: Connection) -> None:
        with self._gate.lock:
            self._all.discard(db)
        db.close()

    @contextmanager
    def _failures(self, doing: str) -> Generator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._failure(doing, error) from error
        except Damage as error:
            raise damage_error(self.name, error) from error

    def _failure(self, doing: str, error: psycopg.Error) -> StorageError:
        text, state = _text(error), error.sqlstate or ""
        if state.startswith(DAMAGED):
            return damage_error(self.name, text)
        hint = next((f"; {hint}" for begin, hint in HINTS.items() if state.startswith(begin)), "")
        return StorageError(f"cannot {doing} {self.name}: {text}{hint}")


def server_of(url: str) -> Server:
    """The server of a URL, which all profiles of this process share."""
    with OPENING.lock:
        server = BY_URL.get(url)
        if server is None:
            server = BY_URL[url] = Server(url)
        return server


def _settings(url: str) -> dict[str, Any]:
    """The settings of connections, with the password."""
    if url.isprintable():
        # The message of the parser may quote the password.
        with suppress(psycopg.Error):
            return SETTINGS | conninfo_to_dict(url)
    raise ValidationError(
        f"{without_secrets(url)} is malformed: the URL of a profile is "
        "postgresql://user:password@host:port/database, in which %40 stands for @ and %2F for /",
        details={"param": "name"},
    )


def _text(error: psycopg.Error) -> str:
    """What the server or the client library says, on one line."""
    return " ".join((error.diag.message_primary or str(error)).split())[:MAX_TEXT]


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


BY_URL: WeakValueDictionary[str, Server] = WeakValueDictionary()
SERVERS: WeakSet[Server] = WeakSet()
OPENING = ForkSafeLock()


def _after_fork_in_child() -> None:
    for server in set(SERVERS):
        server.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
