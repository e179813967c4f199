"""What the encoders of all protocols share: settings by their names there, and a body's extras.

This module is pure.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from talu.backends.remote.options import RemoteBackend
from talu.backends.remote.providers import OURS, TEMPLATE, TOOLS, Provider
from talu.config import FIELDS, GenerationConfig, source_of
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.thinking import template_variables
from talu.types import Request
from talu.unicode import check_unicode

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.formats import ResponseFormat

__all__ = [
    "Body",
    "Target",
    "honoured",
    "reasoning_notes",
    "set_values",
    "wanted_logprobs",
    "with_extras",
]

FIXED = (
    "model",
    "stream",
    "messages",
    "prompt",
    "input",
)  # fields of a body that the request decides
SAME = (  # names of one field at different servers
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"},
    {"repetition_penalty", "repeat_penalty"},
    {"seed", "random_seed"},
    {"stop", "stop_sequences"},
    {"response_format", "structured_outputs", "json_schema", "grammar", "regex", "ebnf"},
)
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
        default_max_tokens: the limit of tokens that was sent although it was not set, if any.
    """

    path: str
    values: dict[str, Any]
    notes: tuple[str, ...] = field(default=())
    default_max_tokens: int | None = None


def honoured(target: Target, *, raw: bool) -> frozenset[str]:
    """The settings that a request may have: all when others are left out with a note."""
    if target.options.on_unsupported == "warn":
        return frozenset({*FIELDS, *TOOLS})
    return frozenset(target.provider.settings(raw=raw)) | {"extra_body"}


def set_values(
    target: Target, request: Request, *, raw: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that are set, under the provider's names, and a note for each left out."""
    known = target.provider.settings(raw=raw)
    values: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in request.settings.items():
        if name in ("extra_body", *OURS) or (name in TOOLS and name in known):
            continue
        if name == "response_format":
            fields, note = _form(target, value, raw=raw)
            values |= fields
            notes += note
            continue
        if name not in known:
            notes.append(f"{target.provider.name} has no {name}: it was left out")
            continue
        if name in TEMPLATE:  # one field for both
            values[known["extra_context"]] = template_variables(request.config)
            continue
        values[known[name]] = plain = _plain(name, value)
        for text in plain if isinstance(plain, list | tuple) else (plain,):
            if isinstance(text, str):
                check_unicode(name, text)
    _check_stops(target, request.config)
    return values, tuple(notes)


def _form(
    target: Target, form: "ResponseFormat", *, raw: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields that ask for the form of the answer, and notes.

    Raises:
        ValidationError: the server has no such form.
        StructuredOutputError: the schema is not valid.
    """
    name, provider = target.provider.name, target.provider
    form.check()
    encode = loaded("talu.backends.remote.response_formats", "form_fields")
    fields: dict[str, Any] | None = encode(form, provider.forms, raw=raw)
    if fields is None:
        where = "raw completions" if raw else "chats"
        what = {"json": "JSON Schemas", "choice": "choices", "regex": "regular expressions"}
        missing = f"{name} takes no {what.get(form.kind, f'{form.kind} grammars')} in {where}"
        if target.options.on_unsupported == "warn":
            what_then = "only checked" if form.is_checkable else "not checked: only a model can"
            return {}, (f"{missing}: response_format was left out, and {what_then}",)
        raise ValidationError(
            f"{missing}, so that response_format cannot be enforced; with "
            "Client(..., on_unsupported='warn') or RemoteBackend(on_unsupported='warn') the answer "
            "is only checked, and with validation_retries asked for again",
            "UNSUPPORTED",
            {"param": "response_format", "provider": name},
        )
    if provider.enforces_strict:
        problem = loaded("talu.backends.remote.strict", "strict_problem")(form.schema)
        if problem is not None:
            unenforced = f"{name} enforces no such schema ({problem}): it was sent as a wish"
            return fields, (f"{unenforced}, and the answer is checked",)
    return fields, ()


def reasoning_notes(request: Request, target: Target) -> tuple[str, ...]:
    """A note if the history has reasoning of other providers' models, which is not sent.

    The provider's own is sent back where it wants that, and left out without a note elsewhere.
    """
    for message in request.messages or ():
        data = message.get("provider_data") or {}
        reasons = bool(message.get("reasoning_content") or data.get("reasoning"))
        if reasons and data.get("provider") != target.provider.name:
            return ("the reasoning of other models in the history was not sent",)
    return ()


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


def with_extras(
    body: Mapping[str, Any],
    target: Target,
    *,
    extra_body: object = None,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """The body with the fields that the user adds.

    The fields of one call take precedence over those of the backend, and so do its settings.

    Args:
        body: the body without them.
        target: the model, whose options have the fields for all requests (``extra_params``).
        extra_body: the fields of this request.
        given: the fields that other arguments of the call have set.

    Raises:
        ValidationError: they are not plain JSON, or they replace what the call decides.
    """
    params = _fields("extra_params", target.options.extra_params)
    extra = _fields("extra_body", extra_body)
    _check_size(params | extra)
    set_twice = [name for name in extra if not _names_of(name).isdisjoint(given)]
    if set_twice:
        wrong = (
            f"extra_body has {shown(set_twice[0])}, which another argument of the call sets as "
            "well: leave one of them out"
        )
        raise ValidationError(wrong, details={"param": "extra_body", "field": set_twice[0]})
    params = {
        name: value
        for name, value in params.items()
        if _names_of(name).isdisjoint({*given, *extra})
    }
    added = params | extra
    replaced = {each for name in added for each in _names_of(name)}
    return {name: value for name, value in body.items() if name not in replaced} | added


def _names_of(field: str) -> set[str]:
    """All names of a field, which differ between servers."""
    return next((names for names in SAME if field in names), {field})


def _fields(name: str, fields: object) -> dict[str, Any]:
    """The fields that an argument adds, checked."""
    if fields is None:
        return {}
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
    for names in SAME:
        if len(twice := sorted(names & fields.keys())) > 1:
            wrong = f"{name} has {' and '.join(twice)}, which mean the same: give one of them"
            raise ValidationError(wrong, details={"param": name})
    return dict(fields)


def _check_size(fields: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(fields, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        wrong = f"extra_params and extra_body must be plain JSON: {error}"
        raise ValidationError(wrong, details={"param": "extra_body"}) from None
    check_unicode("extra_body", text)
    if len(text) > MAX_EXTRA:
        wrong = f"extra_params and extra_body have at most {MAX_EXTRA:,} characters as JSON"
        raise ValidationError(wrong, details={"param": "extra_body"})
