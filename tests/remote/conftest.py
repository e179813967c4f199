"""Servers for the tests of remote models, and an environment full of secrets."""

import asyncio
import importlib.util
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.remote.llama import LlamaCpp
from tests.remote.server import Reply, Server

from talu.router import ModelSpec, OpenAICompatibleBackend

CANARY = "canary-7d41f0"  # stands in every value of the environment that may be secret
READ = re.compile(r"""["']((?:OPENAI|ANTHROPIC|AZURE|AWS|GOOGLE|CLOUD_ML)_[A-Z0-9_]+)["']""")
SDKS = ("openai", "anthropic")
KEPT = {"OPENAI_LOG", "ANTHROPIC_LOG"}  # the values are levels

Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with these replies; it ends with the test."""
    with ExitStack() as servers:

        def start(*replies: Reply, **options: Any) -> Server:
            return servers.enter_context(Server(*replies, **options))

        yield start


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="session")
def sdk_variables() -> list[str]:
    """The environment variables that the sources of the installed SDKs name."""
    names: set[str] = set()
    for sdk in SDKS:
        spec = importlib.util.find_spec(sdk)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in folder.rglob("*.py"):
            if "types" not in path.relative_to(folder).parts:
                names |= set(READ.findall(path.read_text()))
    assert {"OPENAI_ORG_ID", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_PROFILE"} <= names
    return sorted(names - KEPT)


@pytest.fixture
def canaries(
    sdk_variables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Every variable and file that the SDKs read holds a secret; by the variable's name."""
    secrets = {name: f"{CANARY}-{name.lower()}" for name in sdk_variables}
    for name in secrets:
        if name.endswith("_CUSTOM_HEADERS"):
            secrets[name] = f"x-canary: {secrets[name]}\nauthorization: Bearer {secrets[name]}"
        elif name.endswith("_BASE_URL"):
            secrets[name] = f"http://{CANARY}.invalid/v1"
    config = tmp_path / "anthropic"
    (config / "configs").mkdir(parents=True)
    profile = {"authentication": {"type": "user_oauth"}, "base_url": f"http://{CANARY}.invalid"}
    (config / "configs" / f"{CANARY}.json").write_text(json.dumps(profile))
    (config / "active_config").write_text(CANARY)
    secrets |= {"ANTHROPIC_CONFIG_DIR": str(config), "ANTHROPIC_PROFILE": CANARY}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    return secrets


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.fixture
def proxies(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A proxy that the environment names for everything; it answers nothing."""
    proxy = serve(always=lambda _: Reply(status=502))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return proxy


@pytest.fixture
def replicas() -> Iterator[list[LlamaCpp]]:
    """Three llama.cpp servers that a test may kill."""
    with ExitStack() as servers:
        yield [servers.enter_context(LlamaCpp()) for _ in range(3)]


class Remote:
    """Clients of a face, closed at the end of the test."""

    def __init__(self, faces: Any) -> None:
        self.faces = faces
        self.run, self.read, self.read_some = faces.run, faces.read, faces.read_some
        self._clients: list[Any] = []

    def client(self, server: Server | LlamaCpp, **options: Any) -> Any:
        """A client of the model "m" at the server, with these options of its backend."""
        backend = OpenAICompatibleBackend(**{"base_url": server.base_url, **options})
        return self.client_of(ModelSpec("m", backend))

    def client_of(self, *models: Any, **arguments: Any) -> Any:
        """A client of these models."""
        client = self.faces.face.client_class(list(models), **arguments)
        self._clients.append(client)
        return client

    def stream(self, client: Any, question: str = "hi", **settings: Any) -> Any:
        """A streamed answer of a new chat, before its first piece is read."""
        return self.run(client.chat()(question, **settings))

    def embed(self, client: Any, texts: list[str], **options: Any) -> Any:
        """The embeddings of texts."""
        if self.faces.name == "sync":
            return client.embed_batch(texts, **options)
        return self.run(client.aembed_batch(texts, **options))

    def spin(self) -> None:
        """Let the event loop do what waits for its turn."""
        if self.faces.name == "async":
            self.run(asyncio.sleep(0))

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            closed = client.close()
            if closed is not None:
                self.run(closed)


@pytest.fixture
def awaiting(awaited: Any) -> Iterator[Remote]:
    """Clients of the async face alone."""
    made = Remote(awaited)
    yield made
    made.close()


@pytest.fixture
def remote(faces: Any) -> Iterator[Remote]:
    """Clients of the sync face, then of the async one."""
    made = Remote(faces)
    yield made
    made.close()
