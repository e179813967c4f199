"""Turns everything that can go wrong at an endpoint into one typed error.

The SDKs raise their own errors and those of the HTTP library; ``server_errors`` reads what the
servers say.
"""

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

from talu.backends.remote.answers import Malformed
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.events import Part
from talu.backends.remote.proxies import shown_proxy
from talu.backends.remote.rate_limits import paused_for
from talu.backends.remote.server_errors import (
    code_of,
    error_in,
    is_page,
    is_transient,
    meant_status,
    message_of,
    name_of,
)
from talu.descriptors import NO_DESCRIPTOR, lacks_descriptors
from talu.error_text import shown
from talu.exceptions import EndpointError, TaluError
from talu.urls import SECRET, without_secrets

__all__ = ["Failures"]

MAX_MESSAGE = 2_000  # characters of a server's message
MAX_NAME = 50  # characters of the name of a failure
MAX_ID = 200  # characters of a request's identifier
MAX_RETRY_AFTER_S = 86_400.0
SHOWN = 100_000  # bytes of an answer that is not of the protocol
HTTPS_WANTED = re.compile(r"http request\b.{0,40}\bhttps (server|port)", re.IGNORECASE)
CONTROLS = re.compile(  # of terminals, of writing directions, and halves of characters
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
TOO_MANY_REQUESTS = 429  # a status
REDIRECTS = (301, 302, 303, 307, 308)
UNANSWERED = ("ENDPOINT_UNREACHABLE", "ENDPOINT_TLS", "ENDPOINT_TIMEOUT", "STREAM_BROKEN")
ALSO_OF_PROXIES = (403, 502, 503, 504)  # a status that a proxy may answer with
FINAL = ("CONTENT_FILTERED", "GENERATION_CONTEXT_OVERFLOW", "OUT_OF_CREDITS")
NOT_TLS = {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"}
NOT_YET, EXPIRED = 9, 10  # OpenSSL's numbers of what is wrong with a certificate
OTHER_HOST = (62, 64)
REFUSED_BETWEEN = "a proxy or firewall before the server may have refused the request"
TLS_ALERT = re.compile(r"\\x15\\x03")  # the answer to plain HTTP at a port of https
HTTP_FAULTS = (  # beginnings of the HTTP library's messages, and what they mean
    ("Server disconnected", "the server closed it without an answer"),
    ("illegal status line", "what answers does not speak HTTP"),
    ("illegal header line", "the answer has a malformed header"),
    ("Receive buffer too long", "the headers of the answer are too long"),
    ("peer closed connection", "the connection was cut"),
    ("peer unexpectedly closed", "the connection was cut"),
    ("illegal chunk header", "the answer has a malformed chunk"),
    ("Received server _SWITCH_UPGRADE", "the server changes to another protocol (status 101)"),
    ("malformed chunk", "the answer has a malformed chunk"),
)


@dataclass(frozen=True, slots=True)
class Failures:
    """Words the failures of requests to one endpoint for one model.

    Attributes:
        model: None for a request that is not about one model.
        proxy: through which the endpoint is reached, if any.
    """

    endpoint: Endpoint
    model: str | None
    proxy: httpx2.Proxy | None = None

    def of(self, error: Exception, *, doing: str = "the request") -> EndpointError:
        """The typed error for anything that the SDK, the HTTP library or a reader raised."""
        if isinstance(error, EndpointError):
            return _detached(error)
        if isinstance(error, TaluError):
            raise error
        status, response = getattr(error, "status_code", None), getattr(error, "response", None)
        if isinstance(status, int) and status >= 300 and isinstance(response, httpx2.Response):
            return self.of_status(status, response.headers, _text_of(response))
        causes = list(_chain(error))
        if any(isinstance(cause, httpx2.ConnectTimeout) for cause in causes):
            wrong = "no connection in time; see connect_timeout_ms"
            return self._not_connected(wrong, "ENDPOINT_TIMEOUT")
        for cause in causes:
            if (known := self._of_cause(cause, doing)) is not None:
                return known
        if any(map(lacks_descriptors, causes)):
            return self._not_connected(NO_DESCRIPTOR)
        for cause in causes:
            if isinstance(cause, httpx2.TransportError):
                return self.unreachable(cause)
        return self._error(f"{doing} failed: {type(error).__name__}: {error}", "SERVER_ERROR")

    def of_reading(self, error: Exception) -> EndpointError:
        """The typed error for what the HTTP library raised after the headers of an answer."""
        cut = httpx2.NetworkError | httpx2.ProtocolError | OSError
        found = next((each for each in _chain(error) if isinstance(each, cut)), None)
        if found is None or isinstance(error, TaluError):
            return self.of(error, doing="the answer")
        return self.broken(_http_fault(found) or "the connection was cut")

    def _of_cause(self, cause: BaseException, doing: str) -> EndpointError | None:
        match cause:
            case EndpointError():
                return _detached(cause)
            case ssl.SSLError():
                return self._error(_tls_fault(cause, self.endpoint.origin[1]), "ENDPOINT_TLS")
            case socket.gaierror():
                host, where = self.endpoint.origin[1], "base_url"
                if self.proxy is not None:
                    host, where = self.proxy.url.host, "the variable that names the proxy"
                wrong = f"the name {shown(host)} is unknown ({cause.strerror}): check {where}"
                return self._not_connected(wrong)
            case httpx2.ProxyError():
                return self._refused_by_proxy(str(cause)[:3])
            case httpx2.TimeoutException():
                return self._error(f"{doing} took too long", "ENDPOINT_TIMEOUT", transient=True)
            case ConnectionRefusedError():
                what = "server" if self.proxy is None else "proxy"
                wrong = f"the connection was refused: is the {what} running, and the port right?"
                return self._not_connected(wrong)
        return None

    def _refused_by_proxy(self, status: str) -> EndpointError:
        """The error for a proxy that makes no connection to the server."""
        proxy = "the proxy" if self.proxy is None else f"the proxy {shown_proxy(self.proxy)}"
        number = int(status) if status.isdecimal() else None
        wrong = f"{proxy} made no connection to the server (status {status})"
        if number == 407:
            wrong += ": it wants another user or password, as in http://user:password@host:port"
        elif number == 403:
            wrong += ": it does not allow this host; add hosts that need no proxy to NO_PROXY"
        error = self._not_connected(wrong)
        error.transient = number is None or is_transient(number)
        return error

    def unreachable(self, error: BaseException) -> EndpointError:
        """The error for a connection that could not be made, or was cut before an answer."""
        text = str(error)
        wrong = f"the connection failed: {_http_fault(error) or text or type(error).__name__}"
        cut = isinstance(error, httpx2.ReadError) or text.startswith("Server disconnected")
        if (cut or TLS_ALERT.search(text)) and self.endpoint.origin[0] == "http":
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

    def foreign(self, body: bytes) -> EndpointError:
        """The error for an answer of status 200 that is not JSON and no stream of events."""
        text = self.safe(body[:SHOWN].decode(errors="replace")).strip()
        if not text:
            what = "nothing"
        elif is_page(text):
            what = message_of(text)
        else:
            what = f"text that is not of its protocol: {shown(text)}"
        wrong = f"the server answered with {what}; {self.path_advice}"
        return self._error(wrong, "ENDPOINT_BAD_ANSWER", status=200)

    def read(self, part: Part) -> object:
        """The JSON of an answer that is not streamed, or the error that it is."""
        try:
            value: object = part.value()
        except Malformed as malformed:
            if part.data.lstrip()[:1] not in (b"{", b"["):
                return self.foreign(part.data)
            return self.bad_answer(f"the server sent {malformed}")
        return (self.in_answer(value) if isinstance(value, Mapping) else None) or value

    def in_answer(self, data: Mapping[str, Any]) -> EndpointError | None:
        """The error for an error object in an answer of status 200; None without one."""
        found = error_in(data)
        return None if found is None else self.of_object(found)

    def of_object(self, body: Mapping[str, Any]) -> EndpointError:
        """The error for an error object in an answer of status 200."""
        try:
            text = json.dumps(body)
        except (ValueError, RecursionError):
            text = ""
        status, name = meant_status(body), self.safe(name_of(body))[:MAX_NAME]
        said = f"status {status}" if status and not name else "an error"
        said += f" ({name})" if name else ""
        message = self.safe(message_of(text))[:MAX_MESSAGE]
        code = code_of(status, text, in_answer=True)
        wrong = f"the server reported {said}" + (f": {message}" if message else "")
        transient = code not in FINAL and (status is None or is_transient(status))
        return self._error(wrong + self._advice(code), code, transient=transient, status=200)

    def of_status(self, status: int, headers: Mapping[str, str], body: str) -> EndpointError:
        """The error for a status and the text of the answer."""
        message = self.safe(message_of(body))[:MAX_MESSAGE]
        request_id = _request_id(headers)
        about: dict[str, Any] = {
            "status": status,
            "request_id": request_id and self.safe(request_id)[:MAX_ID],
            "retry_after": _asked_wait(status, headers, time.time()),
        }
        if status == 407 and self.proxy is not None:
            return self._refused_by_proxy("407")
        if status in REDIRECTS:
            location = without_secrets(self.safe(headers.get("location", "")))
            wrong = (
                f"the server redirects to {shown(location)}: redirects are not followed, so that "
                "no key reaches another host; give the final address as base_url"
            )
            return self._error(wrong, "ENDPOINT_REDIRECT", **about)
        code = code_of(status, body) if status >= 400 else "ENDPOINT_BAD_ANSWER"
        transient = is_transient(status)
        wish = headers.get("x-should-retry", "").strip().lower()
        if wish in ("true", "false"):
            transient = wish == "true"
        wrong = f"the server answered with status {status}"
        wrong += f": {message}" if message else ""
        if HTTPS_WANTED.search(message) and self.endpoint.origin[0] == "http":
            advice = "; write https:// in base_url"
        elif code == "ENDPOINT_BAD_ANSWER" and status == 403:
            advice = f"; {REFUSED_BETWEEN}"
        else:
            advice = self._advice(code)
        transient = transient and code not in FINAL
        return self._error(wrong + advice, code, transient=transient, **about)

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
        is_plain = self.endpoint.origin[0] == "http"
        may_be_its = code in UNANSWERED or (is_plain and status in ALSO_OF_PROXIES)
        if self.proxy is not None and may_be_its:
            proxy = shown_proxy(self.proxy)
            wrong += "" if proxy in wrong else f"; the request went through the proxy {proxy}"
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


def _asked_wait(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """The seconds to wait that the server asks for, or those until its limits are reset."""
    asked = retry_after(headers, now)
    if asked is not None or status != TOO_MANY_REQUESTS:
        return asked
    return paused_for(headers, now) or None


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


def _http_fault(error: BaseException) -> str:
    """What an error of the HTTP library means; "" for one whose message says it."""
    text = str(error)
    is_answer = isinstance(error, httpx2.RemoteProtocolError)
    foreign = "the answer does not follow HTTP" if is_answer else ""
    return next((means for start, means in HTTP_FAULTS if text.startswith(start)), foreign)


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
    """The error without other errors and frames, which hold the headers and what was read."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


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
