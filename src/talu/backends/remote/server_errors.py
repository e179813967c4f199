"""Reads what servers say about failures: error objects, web pages, plain text.

The servers word their failures differently: OpenAI's error object, the same within an answer of
status 200, vLLM's object without the key ``error``, plain text, the web page of a proxy. This
module is pure.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "code_of",
    "error_in",
    "is_page",
    "is_transient",
    "meant_status",
    "message_of",
    "name_of",
]

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
MODEL = re.compile(r"model", re.IGNORECASE)
KINDS = {  # names of failures in error objects: the HTTP status that means the same
    "api_error": 500,
    "authentication_error": 401,
    "badrequesterror": 400,
    "billing_error": 402,
    "context_length_exceeded": 400,
    "deployment_not_found": 404,
    "deploymentnotfound": 404,
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "notfounderror": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "server_error": 500,
    "service_unavailable": 503,
    "timeout_error": 504,
    "unavailable_error": 503,
    **dict.fromkeys(FILTER_NAMES, 400),
}
CODES = {
    401: "AUTHENTICATION_FAILED",
    402: "OUT_OF_CREDITS",
    403: "AUTHENTICATION_FAILED",
    404: "MODEL_NOT_FOUND",
    429: "RATE_LIMITED",
}
TRANSIENT = (408, 409, 425, 429)  # beside all from 500
WORDS = ("error", "message", "detail", "title", "msg", "reason")  # keys of what a server says


def error_in(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error object in a part of an answer, in the form of any known server; None without."""
    if data.get("error") or data.get("object") == "error" or data.get("type") == "error":
        return data
    if "choices" not in data:
        says = isinstance(data.get("message"), str) or data.get("detail")
        return data if says else None
    for choice in data["choices"] if isinstance(data["choices"], list) else ():
        if isinstance(choice, Mapping) and choice.get("error"):
            return {"error": choice["error"]}
    return None


def _names(body: object) -> Iterator[object]:
    """The code and the type that an error object names."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    for each in (inner, body):
        if isinstance(each, Mapping):
            yield from (each.get(name) for name in ("code", "type"))


def name_of(body: Mapping[str, Any]) -> str:
    """The name of the failure in an error object; "" without one."""
    names = (name for name in _names(body) if isinstance(name, str) and not name.isdecimal())
    return next(names, "")


def meant_status(body: Mapping[str, Any]) -> int | None:
    """The HTTP status that means the same as an error object, if it says so."""
    found = (_status(name) for name in _names(body))
    return next((each for each in found if each is not None), None)


def _status(name: object) -> int | None:
    if isinstance(name, str):
        known = KINDS.get(name.lower())
        digits = len(name) == 3 and name.isascii() and name.isdecimal()
        name = known or (int(name) if digits else None)
    return name if isinstance(name, int) and 400 <= name < 600 else None


def code_of(status: int | None, body: str, *, in_answer: bool = False) -> str:
    """The code of the error for a status and the text of the answer.

    Args:
        status: of the answer, or what an error object means; None if that is unknown.
        body: the text of the answer.
        in_answer: it is an error object in an answer of status 200.
    """
    is_refused = status in (403, 404) and not in_answer
    if is_refused and (is_page(body) or (status == 404 and not MODEL.search(body))):
        return "ENDPOINT_BAD_ANSWER"
    if status in (None, 402, 429) and QUOTA.search(body):
        return "OUT_OF_CREDITS"
    if status in CODES:
        return CODES[status]
    if OVERFLOW.search(body) or status == 413:
        return "GENERATION_CONTEXT_OVERFLOW"
    if (status is None or status < 500) and _is_filtered(body):
        return "CONTENT_FILTERED"
    return "SERVER_ERROR" if status is None or is_transient(status) else "BAD_REQUEST"


def is_transient(status: int) -> bool:
    """Whether another attempt may succeed after this status."""
    return status in TRANSIENT or status >= 500


def _is_filtered(body: str) -> bool:
    """Whether the body of an error says that the content was refused."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if any(isinstance(name, str) and name.lower() in FILTER_NAMES for name in _names(found)):
        return True
    return FILTERED.search(message_of(body)) is not None


def message_of(body: str) -> str:
    """The message of an error, from JSON in any of the known shapes, HTML or plain text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = _title(body) if is_page(body) else body
    for _ in range(4):
        if not isinstance(found, Mapping):
            break
        found = next((found[key] for key in WORDS if found.get(key)), json.dumps(found))
    text = found if isinstance(found, str) else json.dumps(found)
    return " ".join(text.split())


def is_page(body: str) -> bool:
    """Whether a text is a web page."""
    start = body.lstrip()[:100].lower()
    return start.startswith(("<!doctype", "<html", "<?xml", "<head"))


def _title(page: str) -> str:
    title = re.search(r"<title[^>]{0,200}>([^<]{0,500})", page, re.IGNORECASE)
    return f"a web page ({html.unescape(title[1]).strip()})" if title else "a web page"
