"""Sends errors in the form of the protocol that a path belongs to."""

from typing import Any

from starlette.types import Scope, Send

from talu.server.encoders import json_bytes
from talu.server.failures import Failure, anthropic_error, openai_error

__all__ = ["error_body", "refuse"]

ANTHROPIC = "/v1/messages"


def error_body(failure: Failure, path: str) -> dict[str, Any]:
    """The body of an error for a request to this path."""
    known = path == ANTHROPIC or path.startswith(f"{ANTHROPIC}/")
    return anthropic_error(failure) if known else openai_error(failure)


async def refuse(failure: Failure, scope: Scope, send: Send) -> None:
    """Send an error in place of an answer."""
    body = json_bytes(error_body(failure, scope["path"]))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **failure.headers,
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    start = {"type": "http.response.start", "status": failure.status, "headers": encoded}
    await send(start)
    await send({"type": "http.response.body", "body": body})
