"""Fixtures for every part: the same test on the sync and on the async face."""

import asyncio
import gc
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.remote.llama import LlamaCpp

from talu.backends.scripted import ScriptedModel, Step
from talu.client import AsyncClient, Client
from talu.profile import Profile
from talu.router import ModelSpec


class SyncFace:
    """The blocking classes, driven as they are."""

    name = "sync"
    client_class: Any = Client

    def run(self, value: Any) -> Any:
        """What a call gave."""
        return value

    def read(self, stream: Any) -> list[Any]:
        """All pieces of a stream."""
        return list(stream)

    def read_some(self, stream: Any, count: int) -> list[Any]:
        """The first pieces of a stream; the loop is left early."""
        pieces = []
        for piece in stream:
            pieces.append(piece)
            if len(pieces) == count:
                break
        return pieces

    def end(self) -> None:
        """Nothing is left to do."""


class AsyncFace(SyncFace):
    """The awaited classes, on an event loop of their own."""

    name = "async"
    client_class = AsyncClient

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, value: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await value

        return self._runner.run(wait())

    def read(self, stream: Any) -> list[Any]:
        async def read() -> list[Any]:
            return [piece async for piece in stream]

        return self._runner.run(read())

    def read_some(self, stream: Any, count: int) -> list[Any]:
        async def read() -> list[Any]:
            pieces = []
            async for piece in stream:
                pieces.append(piece)
                if len(pieces) == count:
                    break
            await asyncio.sleep(0)  # a loop that is left closes its stream at the next turn
            await asyncio.sleep(0)
            return pieces

        return self._runner.run(read())

    def end(self) -> None:
        self._runner.close()


class Faces:
    """One face with makers of clients and chats on scripted models."""

    def __init__(self, face: SyncFace) -> None:
        self.face = face
        self.name = face.name
        self.run, self.read, self.read_some = face.run, face.read, face.read_some

    def client(self, *scripts: str | list[Step], **arguments: Any) -> Any:
        """A client of a model named "scripted" that answers with these scripts."""
        return self.client_of(ScriptedModel(*scripts), **arguments)

    def client_of(self, *models: ScriptedModel, **arguments: Any) -> Any:
        """A client of these models, each under its own name."""
        specs = [ModelSpec(model.model, model) for model in models]
        return self.face.client_class(specs, **arguments)

    def chat(self, *scripts: str | list[Step], **arguments: Any) -> Any:
        """A chat on a model that answers with these scripts."""
        return self.client(*scripts).chat(**arguments)


def pytest_collection_finish() -> None:
    """Keep the collected tests out of the garbage collections that tests ask for.

    There are hundreds of thousands of objects, and reading them takes half a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, here and in child processes, though a background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def faces(request: pytest.FixtureRequest) -> Iterator[Faces]:
    """The sync face, then the async one."""
    face = request.param()
    yield Faces(face)
    face.end()


@pytest.fixture
def awaited() -> Iterator[Faces]:
    """The async face alone."""
    face = AsyncFace()
    yield Faces(face)
    face.end()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the user, and no profile named in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TALU_PROFILE", raising=False)
    return tmp_path


@pytest.fixture
def profile_of(home: Path) -> Callable[[str], Profile]:
    """Opens the profile of a name; ``tests_system`` has the same tests with those of a server."""
    return Profile


@pytest.fixture
def items_left() -> Callable[[Profile], int]:
    """Counts the items in the database of a profile, also those that no session has."""

    def count(profile: Profile) -> int:
        with profile.database.file.reading() as db:
            return db.execute("SELECT count(*) FROM nodes").fetchone()[0]

    return count


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaCpp]:
    """A llama.cpp server for all tests that leave it as it is."""
    with LlamaCpp() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that nobody trusts, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert, both = (folder / name for name in ("key.pem", "cert.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both
