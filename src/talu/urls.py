"""Shows URLs without the secrets in them."""

import re

from talu.error_text import kind_of, shown

__all__ = ["SECRET", "Address", "shown_address", "without_secrets"]

SECRET = "***"


class Address(str):
    """A URL whose ``repr``, also inside other objects, has no secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        return shown_address(self)


def shown_address(url: object) -> str:
    """A URL for an error message, quoted and without secrets.

    A text without a scheme may be a key in a wrong place, and is not shown.
    """
    if not isinstance(url, str):
        return kind_of(url)
    if not re.match(r"[a-zA-Z][\w+.-]{0,20}://", url):
        return "a text without http:// or https:// at its start"
    return shown(without_secrets(url))


def without_secrets(url: str) -> str:
    """A URL, perhaps malformed; ``***`` replaces user, password, parameters, query, fragment."""
    address = re.split("[?#;]", url, maxsplit=1)[0]
    mark = url[len(address) : len(address) + 1]
    before, at, host = address.rpartition("@")
    if at:
        scheme = re.match(r"[\w+.-]+:/+", before)
        address = f"{scheme[0] if scheme else ''}{SECRET}@{host}"
    return address + (mark and mark + SECRET)
