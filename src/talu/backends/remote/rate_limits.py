"""Reads from the headers of an answer how long its server takes no further request.

OpenAI and others send ``x-ratelimit-remaining-requests`` and ``x-ratelimit-reset-requests``, a
duration such as ``6m0s``, and the same for tokens. Anthropic sends
``anthropic-ratelimit-requests-remaining`` and ``-reset``, a time. This module is pure.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime

__all__ = ["paused_for"]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d))+")
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
MAX_PAUSE_S = 86_400.0
KINDS = ("requests", "tokens", "input-tokens", "output-tokens")


def paused_for(headers: Mapping[str, str], now: float) -> float:
    """The seconds for which nothing is left of a limit; 0 when something is left of all.

    Args:
        headers: of an answer, with lower-case names.
        now: seconds since 1970.
    """
    return max(_pauses(headers, now), default=0.0)


def _pauses(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for kind in KINDS:
        for left, reset in (
            (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
            (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
        ):
            if headers.get(left, "").strip() == "0":
                yield _seconds(headers.get(reset, "").strip(), now)


def _seconds(text: str, now: float) -> float:
    """The seconds until a limit is reset; 0 for a text that does not say it."""
    if DURATION.fullmatch(text):
        seconds = sum(float(count) * UNITS[unit] for count, unit in PART.findall(text))
    else:
        try:
            seconds = float(text)
        except ValueError:
            seconds = _until(text, now)
    return min(max(seconds, 0.0), MAX_PAUSE_S) if math.isfinite(seconds) else 0.0


def _until(text: str, now: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() - now
    except (OverflowError, ValueError):
        return 0.0
