"""Converts sessions and items to the JSON text in the database and back."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, cast

from talu.error_text import shown
from talu.exceptions import StorageError, ValidationError
from talu.protocols import ChatRecord, StoredRecord
from talu.types import MARKERS

__all__ = [
    "Damage",
    "Node",
    "SessionRow",
    "damage_error",
    "decode",
    "encode",
    "flaw_of",
    "record_of",
    "record_text",
    "words_of",
]

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
    """A stored value was not written by talu; the message says what is wrong."""


class Node(NamedTuple):
    """An item in the tree of items, as it is stored.

    Attributes:
        node: its number, which is greater than that of its parent.
        parent: the item before it; None for the first one of a history.
        item: its JSON text.
    """

    node: int
    parent: int | None
    item: bytes


class SessionRow(NamedTuple):
    """A session as it is stored; in a damaged database a value may be of any type.

    Attributes:
        change: the number of its last change.
        record: the JSON text of the fields without a column.
        head: its last item.
    """

    change: int
    session_id: bytes
    marker: bytes
    created_at_ms: int
    updated_at_ms: int
    record: bytes
    head: int | None


def damage_error(database: object, wrong: object, session_id: str | None = None) -> StorageError:
    """The error for a damaged database, or for a damaged session in it."""
    where = f"session {shown(session_id)} cannot be read: " if session_id is not None else ""
    details = {"session_id": session_id} if session_id is not None else {}
    return StorageError(f"{database} is damaged: {where}{wrong}", "STORAGE_DAMAGED", details)


def encode(what: str, value: Mapping[str, Any]) -> str:
    """JSON text that a database can store; ``what`` names the value in error messages."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        wrong = f"{what} cannot be stored, because it is not plain JSON: {error}"
        raise ValidationError(wrong, details={"param": what}) from error
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, allow_nan=False)
    return text


def decode(text: object) -> dict[str, Any]:
    """The object in a JSON text encoded as UTF-8; ``Damage`` for anything else."""
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
    """The fields of a session without a separate column, as JSON text."""
    return encode("the session", {k: record.get(k) for k in FORM if k not in IN_COLUMNS})


def flaw_of(record: Mapping[str, Any]) -> str | None:
    """A description of the first missing or mistyped field of a session; None when it is valid."""
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


def record_of(row: SessionRow) -> StoredRecord:
    """The session of a row; ``Damage`` if it is invalid."""
    if not isinstance(row.change, int):
        raise Damage(f"its change is {shown(row.change)}")
    stored = decode(row.record)
    texts = (str(row.session_id, errors="replace"), str(row.marker, errors="replace"))
    columns = (*texts, row.created_at_ms, row.updated_at_ms)
    record = stored | dict(zip(IN_COLUMNS, columns, strict=True))
    if flaw := flaw_of(record):
        raise Damage(flaw)
    return cast(StoredRecord, {name: record[name] for name in FORM})


def words_of(item: Mapping[str, Any]) -> str:
    """The searchable text of an item: that of user and assistant messages; "" for other items.

    Raises:
        Damage: it is not an item.
    """
    if item.get("type") != "message" or item.get("role") not in SPOKEN or item.get("hidden"):
        return ""
    try:
        return "".join(part["text"] for part in item["content"])
    except (KeyError, TypeError) as error:
        raise Damage(f"its content is not that of a message ({error})") from error
