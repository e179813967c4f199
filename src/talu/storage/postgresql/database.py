"""The store of chats in a PostgreSQL database."""

from collections.abc import Generator
from contextlib import contextmanager

from talu.storage.postgresql.removal import advance_removals, finish_removals
from talu.storage.postgresql.server import server_of
from talu.storage.postgresql.tables import PostgresTables
from talu.storage.sessions import Database

__all__ = ["PostgresDatabase"]


class PostgresDatabase(Database):
    """The sessions of one database, in its schema ``talu``.

    Args:
        url: ``postgresql://user:password@host:port/database``.

    Attributes:
        server: the server and the connections of this process.

    Raises:
        ValidationError: the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        self.server = server_of(url)
        super().__init__(self.server.name)

    @property
    def exists(self) -> bool:
        """Whether the database has the tables of talu."""
        return self.server.exists

    @contextmanager
    def reading(self) -> Generator[PostgresTables]:
        """A read transaction; see ``Database.reading``."""
        with self.server.reading() as db:
            yield PostgresTables(db, locking=False)

    @contextmanager
    def writing(self) -> Generator[PostgresTables]:
        """A write transaction; see ``Database.writing``."""
        with self.server.writing() as db:
            yield PostgresTables(db, locking=True)

    def finish_removals(self) -> bool:
        """Finish all pending removals; see ``Database.finish_removals``."""
        return finish_removals(self.server)

    def advance_removals(self, seconds: float = 0.0) -> None:
        """Continue pending removals; see ``Database.advance_removals``."""
        advance_removals(self.server, seconds)
