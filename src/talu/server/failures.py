"""Turns every error into what a client is told: an HTTP status, a message and a stable code.

This module is pure. What is wrong with the server itself, its files and its models, is written to
the log, and the client is told only that it is so.
"""

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from talu.exceptions import (
    EmptyPromptError,
    EndpointError,
    StateError,
    StructuredOutputError,
    TaluError,
    TemplateError,
    TokenizerError,
    ValidationError,
)

__all__ = ["Failure", "anthropic_error", "failure_of", "invalid", "naming", "openai_error"]

CALLERS = (  # errors that the request has caused
    ValidationError,
    EmptyPromptError,
    StructuredOutputError,
    TemplateError,
    TokenizerError,
)
STATUSES = {  # code: status
    "GENERATION_CONTEXT_OVERFLOW": 400,
    "GENERATION_TIMEOUT": 504,
    "GENERATION_UNSUPPORTED": 400,
    "BAD_REQUEST": 400,
    "CONTENT_FILTERED": 400,
    "RATE_LIMITED": 429,
    "MODELS_COOLING": 503,
    "ENDPOINT_TIMEOUT": 504,
    "RESOURCE_EXHAUSTED": 503,
}
OPENAI_TYPES = {  # status: type; others are those of their hundred
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
ANTHROPIC_TYPES = OPENAI_TYPES | {
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


class Failure(Exception):
    """Why a request is not answered.

    Attributes:
        status: the HTTP status.
        code: the stable upper-case name of the failure.
        param: the field of the body that is wrong, such as ``messages[0].content``.
        retry_after: seconds after which the same request may succeed; None if that is unknown.
        hidden: what the log says and the client is not told.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        hidden: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.hidden = hidden

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer: both SDKs read them before they repeat a request."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if self.status == 504:  # the same request would take as long again
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def invalid(field: str | None, text: str) -> Failure:
    """The failure of a body whose field is not valid."""
    return Failure(400, "INVALID_ARGUMENT", text, param=field)


def failure_of(error: Exception, names: Mapping[str, str] | None = None) -> Failure:
    """What a client is told of an error.

    Args:
        error: any error.
        names: the fields of the body that settings of talu come from, where the names differ.
    """
    if isinstance(error, Failure):
        return error
    if not isinstance(error, TaluError):
        text = "the server failed; its log says more"
        return Failure(500, "INTERNAL_ERROR", text, hidden=type(error).__name__)
    if isinstance(error, CALLERS):
        field, text = _field(error), str(error)
        named = (names or {}).get(field or "", field)
        if field is not None and named is not None and text.startswith(f"{field} "):
            text = named + text.removeprefix(field)
        return Failure(400, error.code, text, param=named)
    if isinstance(error, EndpointError):
        status = STATUSES.get(error.code, 502)
        return Failure(status, error.code, str(error), retry_after=error.retry_after)
    if error.code in STATUSES:
        return Failure(STATUSES[error.code], error.code, str(error))
    if isinstance(error, StateError) and error.code == "STATE_CLOSED":
        return Failure(503, error.code, "the server is stopping", retry_after=1)
    text = "the model cannot be used; the server's log says why"
    return Failure(500, error.code, text, hidden=str(error))


@contextmanager
def naming(names: Mapping[str, str]) -> Generator[None]:
    """Raise errors as ``Failure``, with these names of fields; see ``failure_of``."""
    try:
        yield
    except Exception as error:
        raise failure_of(error, names) from error


def _field(error: TaluError) -> str | None:
    """The setting or message that is wrong."""
    where = error.details.get("where") or error.details.get("param")
    if not isinstance(where, str):
        return None
    return re.sub(r"\['(\w+)'\]", r".\1", where)


def openai_error(failure: Failure) -> dict[str, Any]:
    """The body of an error in OpenAI's form."""
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": str(failure),
            "type": OPENAI_TYPES.get(failure.status, kind),
            "param": failure.param,
            "code": failure.code,
        }
    }


def anthropic_error(failure: Failure) -> dict[str, Any]:
    """The body of an error in Anthropic's form, with the code and the field in addition."""
    kind = "api_error" if failure.status >= 500 else "invalid_request_error"
    error = {
        "type": ANTHROPIC_TYPES.get(failure.status, kind),
        "message": str(failure),
        "details": {"error_code": failure.code, "param": failure.param},
    }
    return {"type": "error", "error": error}
