"""Turns everything that can go wrong at an endpoint into one typed error.

The servers word their failures differently: OpenAI's error object, the same within an answer of
status 200, vLLM's object without the key ``error``, plain text, HTML of a proxy. The SDKs raise
their own errors, those of the HTTP library, and those of the JSON reader.
"""

import html
import json
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.urls import SECRET, without_secrets
from talu.error_text import shown
from talu.exceptions import EndpointError, TaluError

__all__ = ["Failures"]

MAX_MESSAGE = 2_000  # characters of a server's message
MAX_RETRY_AFTER_S = 86_400.0
OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|prompt|input)|(prompt|input) is too long"
    r"|too many (input )?tokens|exceeds the (model's )?(maximum|available)",
    re.IGNORECASE,
)
QUOTA = re.compile(r"insufficient_quota|insufficient credits|billing|exceeded your current quota")
FILTERED = re.compile(r"content[ _]?(filter|policy|management)|safety", re.IGNORECASE)
MODEL = re.compile(r"model", re.IGNORECASE)
KINDS = {  # names of failures in error objects: the HTTP status that means the same
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "server_error": 500,
    "service_unavailable": 503,
    "timeout_error": 504,
    "unavailable_error": 503,
}
CODES = {
    401: "AUTHENTICATION_FAILED",
    402: "OUT_OF_CREDITS",
    403: "AUTHENTICATION_FAILED",
    404: "MODEL_NOT_FOUND",
    429: "RATE_LIMITED",
}
TRANSIENT = {408, 409, 425, 429}  # beside all from 500


@dataclass(frozen=True, slots=True)
class Failures:
    """Words the failures of requests to one endpoint for one model."""

    endpoint: Endpoint
    model: str

    def of(self, error: Exception, *, doing: str = "the request") -> EndpointError:
        """The typed error for anything that the SDK, the HTTP library or a reader raised."""
        if isinstance(error, EndpointError):
            return error
        if isinstance(error, TaluError):
            raise error
        status, response = getattr(error, "status_code", None), getattr(error, "response", None)
        if isinstance(status, int) and status >= 300 and isinstance(response, httpx2.Response):
            return self.of_status(status, response.headers, _text_of(response))
        body = getattr(error, "body", None)  # of an error in an event
        if isinstance(body, Mapping):
            return self.of_object(body)
        if isinstance(body, str) and body:
            return self.of_object({"error": body})
        causes = list(_chain(error))
        for cause in causes:
            if (known := self._of_cause(cause, doing)) is not None:
                return known
        for cause in causes:
            if isinstance(cause, httpx2.TransportError):
                return self.unreachable(cause)
        return self._error(f"{doing} failed: {type(error).__name__}: {error}", "SERVER_ERROR")

    def _of_cause(self, cause: BaseException, doing: str) -> EndpointError | None:
        match cause:
            case EndpointError():
                return cause
            case ssl.SSLError():
                why = getattr(cause, "verify_message", "") or cause.reason or str(cause)
                return self._error(
                    f"no secure connection: {why}; the certificate must be signed by an authority "
                    "of this system, or of the file that SSL_CERT_FILE names",
                    "ENDPOINT_TLS",
                )
            case socket.gaierror():
                host = self.endpoint.origin[1]
                wrong = f"the name {shown(host)} is unknown ({cause.strerror}): check base_url"
                return self._error(wrong, "ENDPOINT_UNREACHABLE", transient=True)
            case httpx2.ConnectTimeout():
                wrong = "no connection in time; see connect_timeout_ms"
                return self._error(wrong, "ENDPOINT_TIMEOUT", transient=True)
            case httpx2.TimeoutException():
                return self._error(f"{doing} took too long", "ENDPOINT_TIMEOUT", transient=True)
            case ConnectionRefusedError():
                wrong = "the connection was refused: is the server running, and the port right?"
                return self._error(wrong, "ENDPOINT_UNREACHABLE", transient=True)
            case RecursionError():
                return self._error("the server sent JSON that is too deep", "ENDPOINT_BAD_ANSWER")
            case json.JSONDecodeError() | UnicodeDecodeError():
                wrong = f"the server sent something that is not JSON: {cause}"
                return self._error(wrong, "ENDPOINT_BAD_ANSWER")
        return None

    def unreachable(self, error: BaseException) -> EndpointError:
        """The error for a connection that could not be made, or that was cut."""
        wrong = f"the connection failed: {str(error) or type(error).__name__}"
        return self._error(wrong, "ENDPOINT_UNREACHABLE", transient=True)

    def broken(self, reason: str, *, timed_out: bool = False) -> EndpointError:
        """The error for an answer that ended before its last event."""
        code = "ENDPOINT_TIMEOUT" if timed_out else "STREAM_BROKEN"
        return self._error(f"the answer broke off: {reason}", code, transient=True)

    def timeout(self, what: str, seconds: float, option: str) -> EndpointError:
        """The error for a wait that took too long."""
        wrong = f"{what} did not come within {seconds:g} seconds ({option})"
        return self._error(wrong, "ENDPOINT_TIMEOUT", transient=True)

    def bad_answer(self, wrong: str, **about: Any) -> EndpointError:
        """The error for an answer that is not the protocol's."""
        return self._error(wrong, "ENDPOINT_BAD_ANSWER", **about)

    def of_object(self, body: Mapping[str, Any]) -> EndpointError:
        """The error for an error object in an answer or an event of status 200."""
        inner = body.get("error", body)
        if not isinstance(inner, Mapping):
            inner = {"message": str(inner)}
        code, kind = inner.get("code"), inner.get("type")
        status = int(code) if isinstance(code, int) and 300 <= code < 600 else None
        for name in (code, kind):
            if status is None and isinstance(name, str):
                status = KINDS.get(name.lower()) or (int(name) if name.isdigit() else None)
        return self.of_status(status or 500, {}, json.dumps(body, default=str))

    def of_status(self, status: int, headers: Mapping[str, str], body: str) -> EndpointError:
        """The error for an HTTP status and the text of the answer."""
        message = self._safe(_message(body))
        about: dict[str, Any] = {
            "status": status,
            "request_id": _request_id(headers),
            "retry_after": retry_after(headers, time.time()),
        }
        if 300 <= status < 400:
            location = without_secrets(headers.get("location", ""))
            wrong = (
                f"the server redirects to {shown(location)}: redirects are not followed, so that "
                "no key reaches another host; give the final address as base_url"
            )
            return self._error(wrong, "ENDPOINT_REDIRECT", **about)
        code = self._code(status, body)
        transient = (status in TRANSIENT or status >= 500) and code != "OUT_OF_CREDITS"
        wish = headers.get("x-should-retry", "").strip().lower()
        if wish in ("true", "false"):
            transient = wish == "true"
        wrong = f"the server answered with status {status}: {message}" if message else (
            f"the server answered with status {status}"
        )  # fmt: skip
        return self._error(wrong + self._advice(code), code, transient=transient, **about)

    def _code(self, status: int, body: str) -> str:
        if status == 404 and (_is_page(body) or not MODEL.search(body)):
            return "ENDPOINT_BAD_ANSWER"
        if status in (402, 429) and QUOTA.search(body):
            return "OUT_OF_CREDITS"
        if status in CODES:
            return CODES[status]
        if status >= 500:
            return "GENERATION_CONTEXT_OVERFLOW" if OVERFLOW.search(body) else "SERVER_ERROR"
        if OVERFLOW.search(body) or status == 413:
            return "GENERATION_CONTEXT_OVERFLOW"
        if FILTERED.search(body):
            return "CONTENT_FILTERED"
        return "BAD_REQUEST" if status not in TRANSIENT else "SERVER_ERROR"

    def _advice(self, code: str) -> str:
        provider = self.endpoint.provider
        match code:
            case "AUTHENTICATION_FAILED" if self.endpoint.key is None:
                known = f" or the variable {provider.key_variable}" if provider.key_variable else ""
                return f"; no key was sent: give api_key={known}"
            case "AUTHENTICATION_FAILED":
                return "; check the key, and whether it may use this model"
            case "MODEL_NOT_FOUND":
                return "; talu.router.get_model_ids(base_url) lists the server's models"
            case "ENDPOINT_BAD_ANSWER":
                return "; the path of base_url may be wrong: most servers want /v1 at its end"
            case "GENERATION_CONTEXT_OVERFLOW":
                return "; shorten the conversation, or ask for fewer tokens (max_tokens)"
        return ""

    def _error(
        self,
        wrong: str,
        code: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        transient: bool = False,
    ) -> EndpointError:
        return EndpointError(
            self._safe(f"model {shown(self.model)} at {self.endpoint.url}: {wrong}"),
            code,
            {"model": self.model, "endpoint": self.endpoint.url},
            status=status,
            request_id=request_id,
            retry_after=retry_after,
            transient=transient,
        )

    def _safe(self, text: str) -> str:
        """The text without the key, which some servers repeat."""
        key = self.endpoint.key
        return text.replace(str(key), SECRET) if key and len(key) > 3 else text


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds to wait that the server asks for, at most a day; None when it does not.

    Args:
        headers: of the answer: ``retry-after-ms``, or ``retry-after`` as seconds or a date.
        now: seconds since 1970.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MAX_RETRY_AFTER_S)
    try:
        seconds = parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _request_id(headers: Mapping[str, str]) -> str | None:
    for name in ("x-request-id", "request-id", "x-generation-id"):
        if value := headers.get(name):
            return str(value)[:200]
    return None


def _text_of(response: httpx2.Response) -> str:
    try:
        return response.text
    except httpx2.HTTPError:
        return ""
    except RuntimeError:  # the body was not read
        return ""


def _message(body: str) -> str:
    """The message of an error, from JSON in any of the known shapes, HTML or plain text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = _page_title(body) if _is_page(body) else body
    for _ in range(4):
        if not isinstance(found, Mapping):
            break
        found = next(
            (found[key] for key in ("error", "message", "detail", "title") if found.get(key)), ""
        )
    text = found if isinstance(found, str) else json.dumps(found, default=str)
    return " ".join(text.split())[:MAX_MESSAGE]


def _is_page(body: str) -> bool:
    start = body.lstrip()[:100].lower()
    return start.startswith(("<!doctype", "<html", "<?xml", "<head"))


def _page_title(page: str) -> str:
    title = re.search(r"<title[^>]{0,200}>([^<]{0,500})", page, re.IGNORECASE)
    return f"a web page ({html.unescape(title[1]).strip()})" if title else "a web page"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the innermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found and len(found) < 20:
        found.append(error)
        if isinstance(error, BaseExceptionGroup):
            found += error.exceptions[:4]
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return reversed(found)
