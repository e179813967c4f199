"""A real server on a free port, with talu/pocket and scripted models, and the official SDKs."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import pytest
from fastapi import FastAPI

from talu import ModelSpec, ScriptedModel
from talu.backends.scripted import Step
from talu.server import ServerOptions, create_app
from talu.server.running import Server, listening

PATIENCE = 30.0  # seconds


class Running:
    """A server in a thread.

    Attributes:
        url: its address.
        app: its application.
    """

    def __init__(self, app: FastAPI, options: ServerOptions) -> None:
        self.app = app
        self._bound = listening(options)
        host, port = self._bound.getsockname()[:2]
        self.host, self.port = host, port
        self.url = f"http://{host}:{port}"
        self._started = threading.Event()
        self._server = Server(app, options, self._started.set)
        self._thread = threading.Thread(target=self._server.run, args=([self._bound],))

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(PATIENCE)

    def wait_without_connections(self) -> None:
        """Wait until the server has closed all connections."""
        end = monotonic() + PATIENCE
        while self._server.server_state.connections:
            assert monotonic() < end, "a connection is open"

    def stop(self) -> None:
        """Begin to stop, as at SIGTERM."""
        self._server.should_exit = True

    def join(self) -> None:
        self.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._bound.close()


@contextmanager
def serving(*models: Any, policy: Any = None, **options: Any) -> Iterator[Running]:
    """A running server of these models."""
    options = {"port": 0, "shutdown_timeout": 1.0, **options}
    chosen = ServerOptions(**options)
    server = Running(create_app(models, chosen, policy=policy), chosen)
    server.start()
    try:
        yield server
    finally:
        server.join()


@pytest.fixture(scope="session")
def pocket() -> Iterator[Running]:
    """A server of talu/pocket, for tests that change nothing."""
    with serving("talu/pocket") as server:
        yield server


class Stage:
    """A backend that is the scripted model of the current test."""

    def __init__(self) -> None:
        self.current = ScriptedModel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)


@pytest.fixture(scope="session")
def stage() -> Iterator[tuple[Stage, Running]]:
    """A server whose model each test replaces; to stop one takes a fifth of a second."""
    found = Stage()
    with serving(ModelSpec("script", found)) as server:
        yield found, server


@pytest.fixture
def scripted(stage: tuple[Stage, Running]) -> Iterator[Any]:
    """Serve the model ``script`` with these scripts; returns the model and the server.

    With options, and for ``own=True``, the test has a server of its own.
    """
    with ExitStack() as stack:

        def start(
            *scripts: str | Iterable[Step], own: bool = False, **options: Any
        ) -> tuple[ScriptedModel, Running]:
            model = ScriptedModel(*scripts)
            if own or options:
                return model, stack.enter_context(serving(ModelSpec("script", model), **options))
            stage[0].current = model
            return model, stage[1]

        yield start
