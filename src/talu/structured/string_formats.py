"""Defines the formats of strings that talu knows: which texts a check accepts.

The same on every machine: what jsonschema checks depends on the packages that are installed.
"""

import ipaddress
import re
from typing import Final

from talu.first_use import loaded

__all__ = ["CHECKED_FORMATS", "GENERATED_FORMATS", "PATTERNS", "conforms"]

YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"  # as Python: from 0001 to 9999
LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
DATE = f"(?:{YEAR}-{DAY}|{LEAP_YEAR}-02-29)"
MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
FRACTION = "(?:\\.[0-9]+)?"
TIME = f"{MINUTE}:[0-5][0-9]{FRACTION}(?:Z|[+-]{MINUTE})"
LEAP_SECOND = re.compile(
    "(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):60(?:\\.[0-9]+)?(?:Z|(?P<sign>[+-])(?P<oh>[0-9]{2}):(?P<om>[0-9]{2}))"
)
WORD = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
LOCAL = rf"(?:{WORD}(?:\.{WORD})*|{QUOTED})"
DOMAIN = rf"{LABEL}(?:\.{LABEL})*"
EMAIL = f"{LOCAL}@{DOMAIN}"
PATTERNS: Final = {  # as an answer writes it: no leap seconds, no lower case, no quoted names
    "date": DATE,
    "date-time": f"{DATE}T{TIME}",
    "email": rf"{WORD}(?:\.{WORD})*@{DOMAIN}",
    "time": TIME,
}

GENERATED_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
)
CHECKED_FORMATS = GENERATED_FORMATS | {"regex"}


def conforms(name: str, text: str) -> bool:
    """Whether a text has a format.

    Args:
        name: ``"date"``, ``"date-time"``, ``"time"`` (RFC 3339), ``"duration"`` (its appendix A),
            ``"email"`` (RFC 5321), ``"hostname"`` (RFC 1123), ``"uri"`` (RFC 3986), or
            ``"regex"``, which is what Rust or Python reads as a regular expression.
        text: the text.
    """
    matches = loaded("talu.structured.matching", "matches")
    match name:
        case "date":
            found: bool = matches(DATE, text)
        case "email" if text.endswith("]"):
            local, _, address = text[:-1].rpartition("@[")
            found = matches(LOCAL, local) and _is_address(address)
        case "email":
            found = matches(EMAIL, text)
        case "regex":
            found = loaded("talu.structured.matching", "regex_problem")(text) is None
        case "time":
            found = matches(TIME, _without_leap_second(text.upper()))
        case "date-time":
            day, mark, time = text[:10], text[10:11], text[11:]
            found = mark in ("T", "t") and conforms("date", day) and conforms("time", time)
        case _:
            found = loaded("talu.structured.matching", "has_format")(name, text)
    return found


def _is_address(text: str) -> bool:
    """Whether this is an IP address as RFC 5321 writes it."""
    addresses = ipaddress.IPv6Address if text.startswith("IPv6:") else ipaddress.IPv4Address
    try:
        addresses(text.removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


def _without_leap_second(time: str) -> str:
    """The time with the second before, if it is the leap second of a day of UTC."""
    found = LEAP_SECOND.fullmatch(time)
    if found is None:
        return time
    minutes = 60 * int(found["h"]) + int(found["m"])
    if found["sign"]:
        offset = 60 * int(found["oh"]) + int(found["om"])
        minutes += offset if found["sign"] == "-" else -offset
    return f"{time[:6]}59{time[8:]}" if minutes % 1440 == 1439 else time
