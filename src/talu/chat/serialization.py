"""Converts items and settings to plain dictionaries for JSON and back, without loss."""

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
from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["config_from_dict", "item_from_dict", "item_to_dict"]

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
