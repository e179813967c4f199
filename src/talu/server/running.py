"""Runs the application: listens, and ends the running answers when it is told to stop."""

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from time import perf_counter
from typing import Any

import uvicorn
from fastapi import FastAPI

from talu.error_text import reason
from talu.exceptions import IOError
from talu.router.policies import Policy
from talu.router.spec import ModelInput
from talu.server.app import create_app
from talu.server.options import ServerOptions, address_of
from talu.server.service import Service

__all__ = ["Server", "listening", "serve"]

AFTER_STOP = 5  # seconds in which the connections of ended answers are closed
BACKLOG = 2_048


def listening(options: ServerOptions) -> socket.socket:
    """A socket that listens where the options say.

    Raises:
        IOError: the address is in use, or is not one of this machine.
    """
    address = address_of(options.host)
    family = socket.AF_INET6 if address is not None and address.version == 6 else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((options.host, options.port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        where = f"{options.host}:{options.port}"
        raise IOError(f"the server cannot listen on {where}: {reason(error)}") from error
    return found


class Waiting:
    """Closes connections that wait too long: for the rest of a request, or for their reader."""

    def __init__(self, patience: float) -> None:
        """Prepare it; ``patience`` is in seconds."""
        self._patience = patience
        self._since: dict[Any, tuple[object, float]] = {}  # the last request of each connection

    def look(self, connections: Collection[Any], now: float) -> None:
        """Look at uvicorn's connections, ten times in a second."""
        known, self._since = self._since, {}
        for connection in list(connections):
            request = connection.cycle
            idle = request is None or request.response_complete
            if not idle and not connection.transport.is_closing():
                continue
            last, since = known.get(connection, (None, now))
            since = since if last is request else now
            self._since[connection] = request, since
            if now - since > self._patience:
                connection.transport.abort()


class Server(uvicorn.Server):
    """Uvicorn with an end of running answers.

    When it is told to stop, it takes no new connections. Answers that have not ended after
    ``shutdown_timeout`` are stopped: a stream gets an event that says so.
    """

    def __init__(
        self,
        app: FastAPI,
        options: ServerOptions,
        on_start: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare it; ``on_start`` is called when it accepts connections."""
        service: Service = app.state.service
        self._stop = service.stop.signal
        self._patience = options.shutdown_timeout
        self._on_start = on_start
        self._waiting = Waiting(options.body_timeout)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=int(options.shutdown_timeout) + AFTER_STOP,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections, ten times in a second; whether the server has to stop."""
        self._waiting.look(self.server_state.connections, perf_counter())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the running answers end, and stop them when their time is up."""
        timer = asyncio.get_running_loop().call_later(self._patience, self._stop)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def serve(
    models: Sequence[ModelInput],
    options: ServerOptions,
    on_start: Callable[[str], object],
    *,
    policy: Policy | None = None,
) -> None:
    """Serve the models until the process gets SIGINT or SIGTERM.

    Args:
        models: the models.
        options: of the server.
        on_start: called with the address of the server when it accepts connections.
        policy: chooses among the models.

    Raises:
        IOError: the address cannot be used.
        ValidationError: something is not a model.
    """
    app = create_app(models, options, policy=policy)
    with listening(options) as bound:
        host, port = bound.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        Server(app, options, lambda: on_start(address)).run([bound])
