"""A PostgreSQL server of the tests, in a temporary folder, on a free port of loopback."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

PASSWORD = "s3cret@/word"
SPEED = "-c fsync=off -c full_page_writes=off -c shared_buffers=16MB"


def programs() -> Path:
    """The folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


class Server:
    """A running server, whose superuser is ``talu``.

    Attributes:
        log: the file of its messages.
    """

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder, self._user = folder, user
        self.log = folder / "log"
        self._connections: dict[str, psycopg.Connection] = {}  # of the superuser, by database
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run("initdb", f"--pwfile={folder / 'password'}", "--username=talu", *options)
        self.start()

    def url(self, database: str = "postgres", *, password: str = PASSWORD, **settings: str) -> str:
        """The URL of a database."""
        end = "&".join(f"{name}={value}" for name, value in settings.items())
        place = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql://talu:{quote(password, safe='')}@{place}{'?' if end else ''}{end}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        """Run a statement as the superuser; its rows."""
        if database not in self._connections:
            self._connections[database] = psycopg.connect(self.url(database), autocommit=True)
        done = self._connections[database].execute(statement)
        return done.fetchall() if done.description else []

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "start", "-w", "-l", str(self.log), "-o", f"{options} {SPEED}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, which ends all connections."""
        while self._connections:
            self._connections.popitem()[1].close()
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(
            command, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            shown = self.log.read_text() if self.log.exists() else ""
            raise RuntimeError(f"{program} failed with {done.returncode}: {shown[-2000:]}")


@contextmanager
def running() -> Iterator[Server]:
    """Start a server, as the user ``nobody`` if root runs the tests, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="talu-postgresql-"))
    user = None
    if os.geteuid() == 0:  # as which a server refuses to run
        user = "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    try:
        server = Server(folder, user)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder)
