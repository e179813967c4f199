"""Shared parts of error messages: invalid values, similar names."""

import errno
import re
from collections.abc import Collection, Iterable
from importlib import import_module
from itertools import islice

__all__ = [
    "NO_THREAD",
    "bounded",
    "kind_of",
    "nearest",
    "reason",
    "shortened",
    "shown",
    "size_text",
    "without_keys",
]

NO_THREAD = (
    "the system cannot start another thread: raise the limit of threads (ulimit -u, or pids.max of "
    "the container) or of memory (ulimit -v, or the memory of the container)"
)
LENGTH = 100  # of a value in a message
DEPTH = 4  # of nested values in a message
KEPT = 5_000  # characters of a message, or of a value in the details of an error
FULL = {
    errno.ENOSPC: "no space is left on the disk; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
}
KEY = re.compile(  # the keys of the common providers, and of the hubs
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|xai|hf|ghp|gho|fw|tgp|csk|pplx|nvapi)[-_]"
    r"(?=[\w-]*\d)[\w-]{12,}|AIza[\w-]{20,}|AKIA[A-Z0-9]{12,})"
)
NOT_CUT = 1_000  # characters of a text that are searched for a key
BUILT_IN = {kind.__repr__ for kind in (list, tuple, set, frozenset, dict)}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the known name most similar to ``name``, if any."""
    difflib = import_module("difflib")  # few programs need it
    close = difflib.get_close_matches(name[:LENGTH], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """The ``repr`` of a value for an error message, about 100 characters at most; never raises.

    What looks like a key of a provider is hidden: it may have been given in a wrong place.
    """
    text = without_keys(_repr(value, DEPTH))
    return text if len(text) <= LENGTH else text[:LENGTH] + "…"


def size_text(size: float) -> str:
    """A number of bytes, such as ``1.53 GB``, with three digits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            break
        size /= 1000
    digits = 0 if unit == "bytes" or size >= 100 else 1 if size >= 10 else 2
    return f"{size:,.{digits}f} {unit}"


def without_keys(text: str) -> str:
    """The text without what looks like a key of a provider."""
    return KEY.sub("***", text)


def kind_of(value: object) -> str:
    """A value for an error message, without a content that may be secret."""
    if value is None or isinstance(value, int | float) or (isinstance(value, str) and not value):
        return shown(value)
    name = "str" if isinstance(value, str) else type(value).__name__
    return f"a value of type {name}"


def reason(error: OSError) -> str:
    """Why a file or stream could not be used, without its path and the number of the error."""
    return FULL.get(error.errno or 0) or error.strerror or str(error)


def bounded(value: object) -> object:
    """The value if it is plain, small and no key, else its text as in a message; for details."""
    if not _is_small(value):
        return shown(value)
    if KEY.search(repr(value)) is None:
        return value
    return without_keys(value) if isinstance(value, str) else shown(value)


def shortened(message: str) -> str:
    """The message, without its middle if it is very long."""
    return message if len(message) <= KEPT else f"{message[: KEPT // 2]} … {message[-KEPT // 2 :]}"


def _is_small(value: object) -> bool:
    """Whether a value consists of plain Python values with ``KEPT`` characters in total or less."""
    left = KEPT
    rest = [(value, DEPTH)]
    while rest and left >= 0:
        value, depth = rest.pop()
        match value:
            case None | bool() | float():
                left -= 1
            case int() if value.bit_length() <= 3 * LENGTH:
                left -= LENGTH
            case str() | bytes():
                left -= len(value)
            case list() | tuple() | set() | frozenset() | dict() if depth and len(value) <= left:
                left -= len(value)
                rest += [(entry, depth - 1) for entry in value]
                if isinstance(value, dict):
                    rest += [(entry, depth - 1) for entry in value.values()]
            case _:
                return False
    return left >= 0


def _repr(value: object, depth: int) -> str:
    """Like ``repr``, without the cost of long texts, large numbers and large collections."""
    match value:
        case str() | bytes():
            start = value[:NOT_CUT]
            return repr((without_keys(start) if isinstance(start, str) else start)[:LENGTH])
        case int() if value.bit_length() > 3 * LENGTH:
            return f"a whole number of {value.bit_length()} bits"
        case list() | tuple() | set() | frozenset() | dict() if type(value).__repr__ in BUILT_IN:
            return _collection(value, depth)
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - runs code of arbitrary classes
        return f"an object of type {type(value).__name__}"


def _collection(value: Collection[object], depth: int) -> str:
    if not depth:
        return "…"
    entries = [_repr(entry, depth - 1) for entry in islice(value, LENGTH)]
    if isinstance(value, dict):
        values = [_repr(entry, depth - 1) for entry in islice(value.values(), LENGTH)]
        entries = [f"{key}: {entry}" for key, entry in zip(entries, values, strict=True)]
    text = ", ".join(entries)
    if isinstance(value, list):
        return f"[{text}]"
    if isinstance(value, tuple):
        return f"({text},)" if len(value) == 1 else f"({text})"
    named = f"{{{text}}}" if value or isinstance(value, dict) else ""
    return f"{type(value).__name__}({named})" if not named or type(value) is frozenset else named
