"""Reads from the headers of an answer how long its server takes no further request.

Each limit has a remaining number and a reset. OpenAI and others name a kind
(``x-ratelimit-remaining-tokens``), Anthropic puts it in the middle
(``anthropic-ratelimit-tokens-remaining``), others have none (``x-ratelimit-remaining``,
``ratelimit-remaining``), and the newer drafts of the IETF have one header for all limits
(``ratelimit: "default";r=0;t=30`` or ``limit=10, remaining=0, reset=30``). A reset is a duration
(``6m0s``, ``30``), a Unix time in seconds or milliseconds, or a date. This module is pure.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["paused_for"]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d)){1,5}")
PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
NUMBER = re.compile(r"[0-9]{1,14}(?:\.[0-9]{1,9})?")
NOTHING = re.compile(r"0{1,9}(?:\.0{1,9})?")
FIELD = re.compile(r"(?:^|[;,\s])(r|t|remaining|reset)=([0-9.]{1,24})(?=$|[;,\s])")
NAME = re.compile(r'"[^"]*"')
MAX_PAUSE_S = 86_400.0
MAX_VALUE = 64  # characters
MAX_FIELDS = 1_000  # characters of the header for all limits
UNIX_S = 1e9  # a number from here on is a time in seconds since 1970
UNIX_MS = 1e11  # and from here on in milliseconds
KINDS = ("-requests", "-tokens", "-input-tokens", "-output-tokens", "")
PERIODS = ("", "-minute", "-hour", "-day")


def paused_for(headers: Mapping[str, str], now: float) -> float:
    """The seconds for which nothing is left of a limit; 0 when something is left of all.

    A value that is not understood counts as absent. At most a day.

    Args:
        headers: of an answer, with lower-case names.
        now: seconds since 1970.
    """
    resets = (reset for left, reset in _limits(headers) if NOTHING.fullmatch(left))
    return max((_seconds(reset, now) for reset in resets), default=0.0)


def _limits(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is left of each limit, and its reset, as texts."""
    for kind in KINDS:
        names = [(f"anthropic-ratelimit{kind}-remaining", f"anthropic-ratelimit{kind}-reset")]
        for start in ("x-ratelimit", "ratelimit"):
            for period in PERIODS:
                ending = f"{kind}{period}"
                names.append((f"{start}-remaining{ending}", f"{start}-reset{ending}"))
        for left, reset in names:
            if left in headers:
                yield headers[left].strip()[:MAX_VALUE], headers.get(reset, "").strip()
    yield from _combined(headers.get("ratelimit", ""))


def _combined(text: str) -> Iterator[tuple[str, str]]:
    """The limits of the header that has all of them."""
    if len(text) > MAX_FIELDS:
        return
    if "remaining=" in text:
        fields = dict(FIELD.findall(text))
        yield fields.get("remaining", ""), fields.get("reset", "")
        return
    for limit in NAME.sub("", text).split(","):
        fields = dict(FIELD.findall(limit))
        yield fields.get("r", ""), fields.get("t", "")


def _seconds(text: str, now: float) -> float:
    """The seconds until a limit is reset; 0 for a text that does not say it."""
    if len(text) > MAX_VALUE:
        return 0.0
    if DURATION.fullmatch(text):
        seconds = sum(float(count) * UNITS[unit] for count, unit in PART.findall(text))
    elif NUMBER.fullmatch(text):
        number = float(text)
        seconds = number
        if number >= UNIX_S:
            seconds = number / (1000 if number >= UNIX_MS else 1) - now
    else:
        seconds = _until(text, now)
    return min(max(seconds, 0.0), MAX_PAUSE_S)


def _until(text: str, now: float) -> float:
    """The seconds until a date in the format of ISO 8601 or of HTTP; 0 for another text."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = parse(text)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (OverflowError, TypeError, ValueError):
            continue
    return 0.0
