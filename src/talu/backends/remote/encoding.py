"""What the encoders of all protocols share: settings by their names there, and a body's extras.

This module is pure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from talu.backends.remote.options import RemoteBackend
from talu.backends.remote.providers import Provider
from talu.config import FIELDS, GenerationConfig, source_of
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.types import Request

__all__ = ["Body", "Target", "extras", "honoured", "set_values", "wanted_logprobs"]

FIXED = (
    "model",
    "stream",
    "messages",
    "prompt",
    "input",
)  # fields of a body that the request decides
MAX_EXTRA = 1_000_000  # characters of a body's extra fields, as JSON


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request is encoded for.

    Attributes:
        name: the model's name at the provider.
    """

    name: str
    provider: Provider
    options: RemoteBackend


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded request.

    Attributes:
        path: relative to the endpoint's address.
        values: the JSON object to send.
        notes: sentences about what was not sent as it was asked.
    """

    path: str
    values: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


def honoured(target: Target, *, raw: bool) -> frozenset[str]:
    """The settings that a request may have: all when others are left out with a note."""
    if target.options.on_unsupported == "warn":
        return frozenset(FIELDS)
    return frozenset(target.provider.settings(raw=raw)) | {"extra_body"}


def set_values(
    target: Target, request: Request, *, raw: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that are set, under the provider's names, and a note for each left out."""
    known = target.provider.settings(raw=raw)
    values: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in request.settings.items():
        if name == "extra_body":
            continue
        if name not in known:
            notes.append(f"{target.provider.name} has no {name}: it was left out")
            continue
        values[known[name]] = _plain(name, value)
    _check_stops(target, request.config)
    return values, tuple(notes)


def wanted_logprobs(settings: Mapping[str, Any]) -> int | None:
    """The number of alternatives to report for each token; None for no log-probabilities."""
    top: int | None = settings.get("top_logprobs")
    wanted = settings.get("logprobs", top is not None)
    return (top or 0) if wanted else None


def _plain(name: str, value: Any) -> Any:
    match name:
        case "logit_bias":
            return {str(token): bias for token, bias in value.items()}
        case "chat_template":
            return source_of(value)
    return value


def _check_stops(target: Target, config: GenerationConfig) -> None:
    most, stops = target.provider.max_stops, config.stop_sequences or ()
    if most is not None and len(stops) > most:
        raise ValidationError(
            f"{target.provider.name} takes at most {most} stop_sequences, got {len(stops)}",
            details={"param": "stop_sequences"},
        )


def extras(target: Target, request: Request | None = None) -> dict[str, Any]:
    """The fields that the user adds to a body: those of the backend, then those of the call.

    Without a request they are those of the backend.

    Raises:
        ValidationError: they are not plain JSON, or they replace what the request decides.
    """
    both: dict[str, Any] = {}
    for name, fields in (
        ("extra_params", target.options.extra_params),
        ("extra_body", request.config.given.get("extra_body") if request else None),
    ):
        if fields is None:
            continue
        if not isinstance(fields, Mapping) or not all(isinstance(key, str) for key in fields):
            wrong = f"{name} must be a dictionary of JSON fields whose names are texts"
            raise ValidationError(wrong, details={"param": name})
        for fixed in FIXED:
            if fixed in fields:
                wrong = f"{name} must not replace {shown(fixed)}, which the request decides"
                raise ValidationError(wrong, details={"param": name})
        if fields.get("n", 1) != 1:
            wrong = f"{name} must not ask for several answers (n): ask several times"
            raise ValidationError(wrong, details={"param": name})
        both |= fields
    try:
        size = len(json.dumps(both, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        wrong = f"extra_params and extra_body must be plain JSON: {error}"
        raise ValidationError(wrong, details={"param": "extra_body"}) from None
    if size > MAX_EXTRA:
        wrong = f"extra_params and extra_body have at most {MAX_EXTRA:,} characters as JSON"
        raise ValidationError(wrong, details={"param": "extra_body"})
    return both
