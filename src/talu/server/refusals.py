"""Sends errors in the form of the protocol that a path belongs to."""

from typing import Any

from pydantic import BaseModel
from starlette.types import Scope, Send

from talu.server.encoders import json_bytes
from talu.server.failures import Failure, anthropic_error, openai_error

__all__ = ["ANTHROPIC_ERRORS", "OPENAI_ERRORS", "Described", "error_body", "refuse"]

ANTHROPIC = "/v1/messages"


class OpenAIErrorDetail(BaseModel):
    """What is wrong: the field ``param``, and talu's stable ``code``."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorDetail


class AnthropicDetails(BaseModel):
    """Talu's stable code, and the field that is wrong."""

    error_code: str
    param: str | None


class AnthropicErrorDetail(BaseModel):
    """What is wrong."""

    type: str
    message: str
    details: AnthropicDetails


class AnthropicError(BaseModel):
    """An error in Anthropic's form."""

    type: str
    error: AnthropicErrorDetail


Described = dict[int | str, dict[str, Any]]  # responses of paths by their status
OPENAI_ERRORS: Described = {code: {"model": OpenAIError} for code in ("4XX", "5XX")}
ANTHROPIC_ERRORS: Described = {code: {"model": AnthropicError} for code in ("4XX", "5XX")}


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
