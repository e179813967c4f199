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
MAX_ID = 200  # characters of a request's identifier
MAX_RETRY_AFTER_S = 86_400.0
OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|prompt|input)|(prompt|input) is too long"
    r"|too many (input )?tokens|exceeds the (model's )?(maximum|available)"
    r"|is too large to process",
    re.IGNORECASE,
)
QUOTA = re.compile(r"insufficient_quota|insufficient credits|billing|exceeded your current quota")
FILTERED = re.compile(  # in a message; names of fields have underscores
    r"content (filter|management polic|polic)|content-filter|usage polic|responsible ai polic"
    r"|safety (system|filter|polic|reasons?|settings?)\b|(flagged|blocked) (by|for|as|because)",
    re.IGNORECASE,
)
FILTER_NAMES = {
    "content_filter",
    "content_filtered",
    "content_management_policy",
    "content_policy_violation",
    "moderation_blocked",
    "responsibleaipolicyviolation",
}
HTTPS_WANTED = re.compile(r"http request\b.{0,40}\bhttps (server|port)", re.IGNORECASE)
CONTROLS = re.compile(  # of terminals, of writing directions, and halves of characters
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
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
FINAL = ("CONTENT_FILTERED", "GENERATION_CONTEXT_OVERFLOW", "OUT_OF_CREDITS")
NOT_TLS = {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"}
NOT_YET, EXPIRED = 9, 10  # OpenSSL's numbers of what is wrong with a certificate
OTHER_HOST = (62, 64)


@dataclass(frozen=True, slots=True)
class Failures:
    """Words the failures of requests to one endpoint for one model.

    Attributes:
        model: None for a request that is not about one model.
    """

    endpoint: Endpoint
    model: str | None

    def of(self, error: Exception, *, doing: str = "the request") -> EndpointError:
        """The typed error for anything that the SDK, the HTTP library or a reader raised."""
        if isinstance(error, EndpointError):
            return _detached(error)
        if isinstance(error, TaluError):
            raise error
        status, response = getattr(error, "status_code", None), getattr(error, "response", None)
        if isinstance(status, int) and status >= 300 and isinstance(response, httpx2.Response):
            return self.of_status(status, response.headers, _text_of(response))
        body = getattr(error, "body", None)  # of an error in an event
        if isinstance(body, Mapping):
            return self.of_object(body)
        if isinstance(body, str | bool | int | float | list) and body:
            return self.of_object({"error": body})
        causes = list(_chain(error))
        for cause in causes:
            if (known := self._of_cause(cause, doing)) is not None:
                return known
        for cause in causes:
            if isinstance(cause, httpx2.TransportError):
                return self.unreachable(cause, first=doing == "the request")
        return self._error(f"{doing} failed: {type(error).__name__}: {error}", "SERVER_ERROR")

    def _of_cause(self, cause: BaseException, doing: str) -> EndpointError | None:
        match cause:
            case EndpointError():
                return _detached(cause)
            case ssl.SSLError():
                return self._error(_tls_fault(cause, self.endpoint.origin[1]), "ENDPOINT_TLS")
            case socket.gaierror():
                host = self.endpoint.origin[1]
                wrong = f"the name {shown(host)} is unknown ({cause.strerror}): check base_url"
                return self._not_connected(wrong)
            case httpx2.ConnectTimeout():
                wrong = "no connection in time; see connect_timeout_ms"
                return self._not_connected(wrong, "ENDPOINT_TIMEOUT")
            case httpx2.TimeoutException():
                return self._error(f"{doing} took too long", "ENDPOINT_TIMEOUT", transient=True)
            case ConnectionRefusedError():
                wrong = "the connection was refused: is the server running, and the port right?"
                return self._not_connected(wrong)
            case RecursionError():
                return self._error("the server sent JSON that is too deep", "ENDPOINT_BAD_ANSWER")
            case json.JSONDecodeError() | UnicodeDecodeError():
                wrong = f"the server sent something that is not JSON: {cause}"
                return self._error(wrong, "ENDPOINT_BAD_ANSWER")
        return None

    def unreachable(self, error: BaseException, *, first: bool = False) -> EndpointError:
        """The error for a connection that could not be made, or was cut, perhaps at first."""
        wrong = f"the connection failed: {str(error) or type(error).__name__}"
        cut = isinstance(error, httpx2.ReadError | httpx2.RemoteProtocolError)
        if first and cut and self.endpoint.origin[0] == "http":
            wrong += "; if the server speaks https, write https:// in base_url"
        if isinstance(error, httpx2.ConnectError):
            return self._not_connected(wrong)
        return self._error(wrong, "ENDPOINT_UNREACHABLE", transient=True)

    def _not_connected(self, wrong: str, code: str = "ENDPOINT_UNREACHABLE") -> EndpointError:
        """The error for a server that nothing was sent to; ``details`` says so to a router."""
        error = self._error(wrong, code, transient=True)
        error.details["connected"] = False
        return error

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
        found = (_status_in(inner.get(name)) for name in ("code", "type"))
        status = next((each for each in found if each is not None), None)
        try:
            text = json.dumps(body, default=str)
        except (ValueError, RecursionError):
            text = ""
        said = "reported an error" if status is None else f"reported status {status}"
        return self.of_status(status or 500, {}, text, said)

    def of_status(
        self, status: int, headers: Mapping[str, str], body: str, said: str = ""
    ) -> EndpointError:
        """The error for a status and the text of the answer; ``said`` is what the server did."""
        message = self.safe(_message(body))[:MAX_MESSAGE]
        request_id = _request_id(headers)
        about: dict[str, Any] = {
            "status": status,
            "request_id": request_id and self.safe(request_id)[:MAX_ID],
            "retry_after": retry_after(headers, time.time()),
        }
        if 300 <= status < 400:
            location = without_secrets(self.safe(headers.get("location", "")))
            wrong = (
                f"the server redirects to {shown(location)}: redirects are not followed, so that "
                "no key reaches another host; give the final address as base_url"
            )
            return self._error(wrong, "ENDPOINT_REDIRECT", **about)
        code = self._code(status, body)
        transient = status in TRANSIENT or status >= 500
        wish = headers.get("x-should-retry", "").strip().lower()
        if wish in ("true", "false"):
            transient = wish == "true"
        wrong = f"the server {said or f'answered with status {status}'}"
        wrong += f": {message}" if message else ""
        advice = self._advice(code)
        if HTTPS_WANTED.search(message) and self.endpoint.origin[0] == "http":
            advice = "; write https:// in base_url"
        transient = transient and code not in FINAL
        return self._error(wrong + advice, code, transient=transient, **about)

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
        if _is_filtered(body):
            return "CONTENT_FILTERED"
        return "BAD_REQUEST" if status not in TRANSIENT else "SERVER_ERROR"

    def _advice(self, code: str) -> str:
        provider = self.endpoint.provider
        match code:
            case "AUTHENTICATION_FAILED" if self.endpoint.key is None:
                known = f", or set {provider.key_variable}" if provider.key_variable else ""
                return f"; no key was sent: give the argument api_key{known}"
            case "AUTHENTICATION_FAILED":
                return "; check the key, and whether it may use this model"
            case "MODEL_NOT_FOUND":
                return "; talu.router.get_model_ids(base_url) lists the server's models"
            case "ENDPOINT_BAD_ANSWER":
                return f"; {self.path_advice}"
            case "GENERATION_CONTEXT_OVERFLOW":
                return "; shorten the conversation, or ask for fewer tokens (max_tokens)"
        return ""

    @property
    def path_advice(self) -> str:
        """What to try when the server does not know the path of a request."""
        if self.endpoint.provider.protocol == "anthropic":
            return "the path of base_url may be wrong: /v1/messages is added to it"
        return "the path of base_url may be wrong: most servers want /v1 at its end"

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
        about = "the list of models" if self.model is None else f"model {shown(self.model)}"
        of = {} if self.model is None else {"model": self.model}
        return EndpointError(
            self.safe(f"{about} at {self.endpoint.url}: {wrong}"),
            code,
            {**of, "endpoint": self.endpoint.url},
            status=status,
            request_id=request_id,
            retry_after=retry_after,
            transient=transient,
        )

    def safe(self, text: str) -> str:
        """The text without secrets, which some servers repeat, and without control characters."""
        for secret in self.endpoint.secrets:
            text = text.replace(secret, SECRET)
        return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


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
            return str(value)
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
    return " ".join(text.split())


def _status_in(name: object) -> int | None:
    """The HTTP status of an error that a code or type in an error object means, if any."""
    if isinstance(name, str):
        known = KINDS.get(name.lower())
        digits = len(name) == 3 and name.isascii() and name.isdecimal()
        name = known or (int(name) if digits else None)
    return name if isinstance(name, int) and 400 <= name < 600 else None


def _is_filtered(body: str) -> bool:
    """Whether the body of an error says that the content was refused."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    inner = found.get("error", found) if isinstance(found, Mapping) else None
    names = [inner.get(name) for name in ("code", "type")] if isinstance(inner, Mapping) else []
    if any(isinstance(name, str) and name.lower() in FILTER_NAMES for name in names):
        return True
    return FILTERED.search(_message(body)) is not None


def _tls_fault(error: ssl.SSLError, host: str) -> str:
    """Why there is no secure connection, and what to do."""
    why = getattr(error, "verify_message", "") or error.reason or str(error)
    wrong, code = f"no secure connection: {why}", getattr(error, "verify_code", None)
    if error.reason in NOT_TLS:
        return f"{wrong}; this port does not speak https: write http:// in base_url, or its port"
    if code in OTHER_HOST:
        return f"{wrong}; the certificate is not for {shown(host)}: use a name that it has"
    if code in (NOT_YET, EXPIRED):
        return f"{wrong}; renew the server's certificate, or set this machine's clock"
    if code is not None:
        return (
            f"{wrong}; the certificate must be signed by an authority of this system, or of the "
            "file that SSL_CERT_FILE names"
        )
    return wrong


def _detached(error: EndpointError) -> EndpointError:
    """The error without the HTTP library's errors, whose frames hold the headers sent."""
    error.__cause__ = error.__context__ = None
    return error


def _is_page(body: str) -> bool:
    start = body.lstrip()[:100].lower()
    return start.startswith(("<!doctype", "<html", "<?xml", "<head"))


def _page_title(page: str) -> str:
    title = re.search(r"<title[^>]{0,200}>([^<]{0,500})", page, re.IGNORECASE)
    return f"a web page ({html.unescape(title[1]).strip()})" if title else "a web page"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the innermost first."""
    found: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in found and len(found) < 20:
        found.append(inner)
        if isinstance(inner, BaseExceptionGroup):
            found += inner.exceptions[:4]
        inner = inner.__cause__ or inner.__context__
    return reversed(found)
