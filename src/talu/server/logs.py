"""Writes the log of a server: a line for each request, without prompts, keys and query strings."""

import logging
import traceback
import uuid
from time import perf_counter
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talu.server.failures import Failure
from talu.server.refusals import refuse

__all__ = ["Journal", "log_failure"]

LOGGER = logging.getLogger("talu.server")
MAX_PATH = 200  # characters


def log_failure(failure: Failure, error: BaseException | None = None) -> None:
    """Write what is wrong with the server: errors of requests may quote prompts, and are not."""
    if failure.hidden is None:
        return
    LOGGER.error("%s: %s", failure.code, failure.hidden)
    if failure.code == "INTERNAL_ERROR" and error is not None:  # its message may quote a prompt
        LOGGER.error("%s", "".join(traceback.format_tb(error.__traceback__)))


class Journal:
    """The outermost layer: gives each request an id, writes its line, and survives every error."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id = perf_counter(), uuid.uuid4().hex
        status = 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), (b"request-id", request_id.encode())]
                own.append((b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except Exception as error:  # noqa: BLE001 - the server goes on
            failure = Failure(500, "INTERNAL_ERROR", "the server failed; its log says more")
            failure.hidden = type(error).__name__
            log_failure(failure, error)
            if not status:
                await refuse(failure, scope, with_id)
        finally:
            path = quote(scope["path"][:MAX_PATH])
            took = perf_counter() - began
            shown = status or "no answer"
            LOGGER.info("%s %s %s %.3f s %s", scope["method"], path, shown, took, request_id)
