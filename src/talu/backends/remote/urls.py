"""Shows URLs without the secrets in them."""

import re

__all__ = ["SECRET", "without_secrets"]

SECRET = "***"


def without_secrets(url: str) -> str:
    """A URL, perhaps malformed; ``***`` replaces user, password, parameters, query, fragment."""
    address = re.split("[?#;]", url, maxsplit=1)[0]
    mark = url[len(address) : len(address) + 1]
    before, at, host = address.rpartition("@")
    if at:
        scheme = re.match(r"[\w+.-]+:/+", before)
        address = f"{scheme[0] if scheme else ''}{SECRET}@{host}"
    return address + (mark and mark + SECRET)
