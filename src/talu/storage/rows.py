"""What the database holds of sessions and items, as JSON text. Pure.

Knows of an item's form only what a search needs: where the words of a conversation are.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from talu.exceptions import ValidationError
from talu.protocols import ChatRecord, StoredRecord
from talu.types import MARKERS

__all__ = ["encode", "flaw_of", "session_of_row", "session_text", "words_of"]

IN_COLUMNS = ("session_id", "marker", "created_at_ms", "updated_at_ms")
OF_LISTING = ("search_snippet", "cursor")
SPOKEN = ("user", "assistant")
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


def session_text(record: ChatRecord) -> str:
    """The part of a session that has no column of its own."""
    apart = (*IN_COLUMNS, *OF_LISTING)
    return encode("the session", {k: v for k, v in record.items() if k not in apart})


def flaw_of(record: Mapping[str, Any]) -> str | None:
    """What is missing or of a wrong type in a session, in words; None when nothing is."""
    for name, kinds in FORM.items():
        if name not in record:
            return f"{name} is missing"
        if not isinstance(record[name], kinds):
            return f"{name} is {record[name]!r}"
    return None if record["marker"] in MARKERS else f"marker is {record['marker']!r}"


def session_of_row(
    session_id: str, marker: str, created_at_ms: int, updated_at_ms: int, text: str
) -> StoredRecord:
    """The session of a row, ``IN_COLUMNS`` and the JSON text; ``ValueError`` if it is damaged."""
    columns = (session_id, marker, created_at_ms, updated_at_ms)
    record = dict(zip(IN_COLUMNS, columns, strict=True)) | json.loads(text)
    if flaw := flaw_of(record):
        raise ValueError(flaw)
    return cast(StoredRecord, record)


def words_of(item: Mapping[str, Any]) -> str:
    """What a search finds of an item: what user and model said; "" for anything else."""
    if item.get("type") != "message" or item.get("role") not in SPOKEN or item.get("hidden"):
        return ""
    text = "".join(part["text"] for part in item["content"])
    return text.encode(errors="replace").decode()
