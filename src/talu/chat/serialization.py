"""Converts items and settings to plain dictionaries for JSON and back, without loss.

It also checks the form of a whole chat that was converted.
"""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any

from talu.chat.items import (
    ContentPart,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    Item,
    ItemStatus,
    MessageItem,
    MessageRole,
    OutputText,
    ReasoningItem,
    ReasoningText,
)
from talu.config import GenerationConfig, merged
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError

__all__ = [
    "FORMAT_VERSION",
    "check_chat_dict",
    "config_from_dict",
    "item_from_dict",
    "item_to_dict",
]

FORMAT_VERSION = 1
FORM = {  # keys of a stored chat, all optional
    "version": int,
    "model": str,
    "config": dict,
    "chat_template": str,
    "session_id": str,
    "parent_session_id": str,
    "marker": str,
    "metadata": dict,
    "title": str,
    "items": list,
    "messages": list,
}
NULLABLE = ("model", "chat_template", "session_id", "parent_session_id", "title")
ITEMS = {
    kind.type.value: kind
    for kind in (MessageItem, FunctionCallItem, FunctionCallOutputItem, ReasoningItem)
}
PARTS = {kind.type.value: kind for kind in (InputText, OutputText, ReasoningText)}
OPTIONAL = ("name", "provider_data")  # not written when they are None
ENUMS: dict[str, type[StrEnum]] = {"status": ItemStatus, "role": MessageRole}
PLAIN: dict[str, tuple[type, ...]] = {
    "generation": (dict, type(None)),
    "call_id": (str,),
    "arguments": (str,),
    "output": (str,),
}


def item_to_dict(item: Item) -> dict[str, Any]:
    """All fields of an item, with enumerations as lower-case names and parts as dictionaries."""
    record: dict[str, Any] = {"type": item.type.value}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, StrEnum):
            value = value.value
        elif field.name == "content":
            value = [part.to_dict() for part in value]
        if field.name not in OPTIONAL or value is not None:
            record[field.name] = value
    return record


def item_from_dict(where: str, record: Mapping[str, Any]) -> Item:
    """The item of a record; ``where`` is the record's position for error messages.

    Raises:
        ValidationError: a field is missing, unknown or of the wrong type.
    """
    try:
        values = dict(record)
        kind = ITEMS[values.pop("type")]
        _check_kinds(kind, values)
        for name, enum in ENUMS.items():
            if name in values:
                values[name] = enum[values[name].upper()]
        if values.get("generation"):
            config = values["generation"].get("config", {})
            values["generation"] = values["generation"] | {"config": _with_token_ids(config)}
        if "content" in values:
            values["content"] = tuple(_part(part) for part in values["content"])
        item: Item = kind(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValidationError(
            f"{where} is not a record of a conversation item ({reason}): {shown(record)}",
            details={"param": "items", "where": where},
        ) from error
    return item


def _check_kinds(kind: type[Item], values: Mapping[str, Any]) -> None:
    named: tuple[type, ...] = (str,) if kind is FunctionCallItem else (str, type(None))
    for name, kinds in (*PLAIN.items(), ("name", named)):
        if name in values and not isinstance(values[name], kinds):
            raise TypeError(
                f"{name} must be of type {kinds[0].__name__}, got {shown(values[name])}"
            )


def _part(part: Mapping[str, Any]) -> ContentPart:
    return PARTS[part["type"]](part["text"])


def config_from_dict(record: Mapping[str, Any]) -> GenerationConfig:
    """The settings of a dictionary read from JSON.

    Raises:
        ValidationError: a setting is unknown, of the wrong type or out of range.
    """
    try:
        return merged(settings=_with_token_ids(record))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ValidationError):
            raise
        wrong = f"the settings cannot be read ({type(error).__name__}): {shown(record)}"
        raise ValidationError(wrong, details={"param": "config"}) from error


def _with_token_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """Restore token ids that are keys, which JSON turns into strings."""
    bias = config.get("logit_bias")
    if not isinstance(bias, Mapping):
        return dict(config)
    ids = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in bias.items()}
    return {**config, "logit_bias": ids}


def check_chat_dict(data: object) -> None:
    """Check the keys and types of a chat's dictionary, without those of its items.

    Raises:
        ValidationError: a key is unknown or missing, has the wrong type, or the version is newer.
    """
    if not isinstance(data, Mapping):
        wrong = f"a stored chat is a dictionary, got {shown(data)}"
        raise ValidationError(wrong, details={"param": "data"})
    version = data.get("version", FORMAT_VERSION)
    if not isinstance(version, int) or version != FORMAT_VERSION:
        known = f"this talu reads {FORMAT_VERSION}"
        wrong = f"the chat was stored in version {shown(version)}; {known}"
        raise ValidationError(wrong, details={"param": "version"})
    for name in data:
        if name not in FORM:
            wrong = f"{shown(name)} is not a key of a stored chat{nearest(str(name), FORM)}"
            raise ValidationError(wrong, details={"param": "data", "where": name})
    for name, kind in FORM.items():
        if name not in data or (data[name] is None and name in NULLABLE):
            continue
        value = data[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            wrong = f"{name} of a stored chat must be of type {kind.__name__}, got {shown(value)}"
            raise ValidationError(wrong, details={"param": name, "value": value})
    if "items" not in data and "messages" not in data:
        wrong = "a stored chat needs items or messages: [] for a chat without a history"
        raise ValidationError(wrong, details={"param": "items"})
