"""Sessions and items as the JSON text that the database holds of them. Pure.

Of an item it knows only where the text is that a search finds.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.protocols import ChatRecord, StoredRecord
from talu.types import MARKERS

__all__ = ["Damage", "decode", "encode", "flaw_of", "record_of_row", "record_text", "words_of"]

IN_COLUMNS = ("session_id", "marker", "created_at_ms", "updated_at_ms")
SPOKEN = ("user", "assistant")
MAX_ID_LENGTH = 200
MAX_NUMBER = 2**63 - 1
FORM: dict[str, tuple[type, ...]] = {
    "session_id": (str,),
    "parent_session_id": (str, type(None)),
    "title": (str, type(None)),
    "model": (str, type(None)),
    "system_prompt": (str, type(None)),
    "config": (dict,),
    "chat_template": (str, type(None)),
    "marker": (str,),
    "metadata": (dict,),
    "created_at_ms": (int,),
    "updated_at_ms": (int,),
}


class Damage(ValueError):
    """What is stored is not what talu has written; the message says what is wrong."""


def encode(what: str, value: Mapping[str, Any]) -> str:
    """JSON text that SQLite can hold; ``what`` names the value when it has no such form."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        wrong = f"{what} cannot be stored, because it is not plain JSON: {error}"
        raise ValidationError(wrong, details={"param": what}) from error
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, allow_nan=False)
    return text


def decode(text: object) -> dict[str, Any]:
    """The object of a JSON text, given as UTF-8; ``Damage`` when it is anything else."""
    if not isinstance(text, bytes):
        raise Damage("there is no JSON text")
    try:
        value = JSON.decode(text.decode())
    except UnicodeDecodeError as error:
        raise Damage(f"the text is not UTF-8: {error.reason}") from error
    except ValueError as error:
        raise Damage(f"the text is not JSON: {error}") from error
    except RecursionError as error:
        raise Damage("the JSON text is nested too deeply") from error
    if not isinstance(value, dict):
        raise Damage(f"the JSON text is not an object: {shown(value)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def record_text(record: ChatRecord) -> str:
    """The part of a session that has no column of its own."""
    return encode("the session", {k: record.get(k) for k in FORM if k not in IN_COLUMNS})


def flaw_of(record: Mapping[str, Any]) -> str | None:
    """What is missing or of a wrong type in a session, in words; None when nothing is."""
    for name, kinds in FORM.items():
        if name not in record:
            return f"{name} is missing"
        value = record[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"{name} is {shown(value)}"
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            return f"{name} is {shown(value)}"
    session_id = record["session_id"]
    if not (session_id.isprintable() and 0 < len(session_id) <= MAX_ID_LENGTH):
        return f"session_id is {shown(session_id)}"
    return None if record["marker"] in MARKERS else f"marker is {shown(record['marker'])}"


def record_of_row(
    session_id: bytes, marker: bytes, created_at_ms: int, updated_at_ms: int, text: bytes
) -> StoredRecord:
    """The session of a row, ``IN_COLUMNS`` and the JSON text; ``Damage`` when it is not one."""
    stored = decode(text)
    texts = (str(session_id, errors="replace"), str(marker, errors="replace"))
    columns = (*texts, created_at_ms, updated_at_ms)
    record = stored | dict(zip(IN_COLUMNS, columns, strict=True))
    if flaw := flaw_of(record):
        raise Damage(flaw)
    return cast(StoredRecord, {name: record[name] for name in FORM})


def words_of(item: Mapping[str, Any]) -> str:
    """What a search finds of an item: what user and model said; "" for anything else.

    Raises:
        Damage: it is not an item.
    """
    if item.get("type") != "message" or item.get("role") not in SPOKEN or item.get("hidden"):
        return ""
    try:
        return "".join(part["text"] for part in item["content"])
    except (KeyError, TypeError) as error:
        raise Damage(f"its content is not that of a message ({error})") from error
