"""Generation settings: their names, types, ranges and defaults, and how they are merged.

Settings of a call override those of its chat; ``sampling`` adds the defaults of model and library.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from functools import partial
from numbers import Integral, Real
from typing import (
    Any,
    Generic,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
    runtime_checkable,
)

from talu.error_text import NOT_YET, kind_of, nearest, shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.json_values import json_copy
from talu.unicode import is_unicode

__all__ = [
    "GenerationConfig",
    "GenerationSettings",
    "TemplateSource",
    "check_boolean",
    "check_token_id",
    "check_token_ids",
    "merged",
    "source_of",
]

T = TypeVar("T")

MAX_SEED = 2**64 - 1
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1  # more than any context
MAX_TOKEN_ID = 2**31 - 1
MAX_TOP_K = 2**31 - 1  # more than any vocabulary
MAX_IDS = 10_000  # in stop_token_ids and logit_bias; sampling checks each id at every token
MAX_PROMPT_IDS = 2**22  # more than any context
MAX_STOPS = 64
MAX_REPEATS = 10  # of an answer that does not have its form
MAX_STOP_LENGTH = 1000
MAX_BIAS = 1e6
MAX_NAMESPACE = 256  # characters
MAX_BODY = 1_000_000  # characters of extra_body as JSON
OF_CALLS = "an argument of ask, stream and the calls of a chat"
ELSEWHERE = {  # names that are not settings: the right place for the value
    "approve": OF_CALLS,
    "completion_opts": "an argument of raw_complete",
    "max_rounds": OF_CALLS,
    "messages": "an argument of client.chat",
    "model": "an argument of client.ask, stream, raw_complete and chat",
    "on_token": "an argument of a chat's calls",
    "parallel_tool_calls": OF_CALLS,
    "stop": "called 'stop_sequences' here",
    "stream": "an argument of a chat's calls; client.stream streams without a chat",
    "system": "an argument of client.chat",
    "tool_choice": OF_CALLS,
    "tools": OF_CALLS,
    "tools_json": "given as definitions in tools= here",
}


@runtime_checkable
class TemplateSource(Protocol):
    """A chat template as an object, such as ``talu.template.PromptTemplate``."""

    @property
    def source(self) -> str:
        """The template's Jinja text."""


def source_of(template: str | TemplateSource | None) -> str | None:
    """The Jinja text of a template, or None."""
    return template if template is None or isinstance(template, str) else template.source


class GenerationSettings(TypedDict, total=False):
    """The keywords of ``GenerationConfig``, for typing calls that pass them on."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    stop_sequences: list[str] | None
    stop_token_ids: list[int] | None
    seed: int | None
    logprobs: bool | None
    top_logprobs: int | None
    logit_bias: dict[int, float] | None
    chat_template: str | TemplateSource | None
    extra_context: dict[str, object] | None
    allow_special_tokens: bool | None
    cache_namespace: str | None
    response_format: Any
    max_thinking_tokens: int | None
    validation_retries: int | None
    extra_body: dict[str, Any] | None


def _wrong(name: str, value: object, expected: str) -> ValidationError:
    message = f"{name} must be {expected}, got {shown(value)}"
    return ValidationError(message, details={"param": name, "value": value, "expected": expected})


def _whole(low: int, high: int | None = None) -> Callable[[str, object], int]:
    expected = f"a whole number of at least {low}" + (f" and at most {high}" if high else "")

    def check(name: str, value: object) -> int:
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise _wrong(name, value, expected)
        number = int(value)
        if number < low or (high is not None and number > high):
            raise _wrong(name, value, expected)
        return number

    return check


def _number(expected: str, fits: Callable[[float], bool]) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise _wrong(name, value, expected)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not fits(number):
            raise _wrong(name, value, expected)
        return number

    return check


def _fits(low: float, high: float) -> Callable[[float], bool]:
    return lambda x: low <= x <= high


def check_boolean(name: str, value: object) -> bool:
    """The value; ``ValidationError`` if it is not True or False."""
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _strings(name: str, value: object) -> list[str]:
    expected = f"a list of at most {MAX_STOPS} texts of 1 to {MAX_STOP_LENGTH} characters"
    if isinstance(value, str):
        raise _wrong(name, value, f"{expected} (write [{shown(value)}] for a single one)")
    if not isinstance(value, list | tuple) or len(value) > MAX_STOPS:
        raise _wrong(name, value, expected)
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_LENGTH for text in value):
        raise _wrong(name, value, expected)
    return list(value)


def _namespace(name: str, value: object) -> str:
    expected = f"a text of 1 to {MAX_NAMESPACE} characters, or None for the shared cache"
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAMESPACE:
        raise _wrong(name, value, expected)
    if not is_unicode(value):
        raise _wrong(name, value, f"{expected}, without lone surrogates")
    return value


def _too_many(name: str, count: int, expected: str) -> ValidationError:
    message = f"{name} must be {expected}, got {count:,}"
    return ValidationError(message, details={"param": name, "count": count, "expected": expected})


def check_token_ids(
    name: str, value: object, *, ordered: bool = False, most: int = MAX_PROMPT_IDS
) -> list[int]:
    """The ids as a list; ``ValidationError`` if it is not a list of token ids.

    Args:
        name: name of the argument for error messages.
        value: a sequence or an array with one dimension, or a set.
        ordered: the order matters, so a set is an error.
        most: maximum number of ids.
    """
    expected = "a list of token ids, whole numbers of at least 0"
    is_array = isinstance(value, _Array) and value.ndim == 1
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    is_set = isinstance(value, Set) and not ordered
    if not isinstance(value, Collection) or not (is_array or is_list or is_set):
        raise _wrong(name, value, expected)
    if len(value) > most:
        raise _too_many(name, len(value), f"a list of at most {most:,} token ids")
    tokens = value.tolist() if isinstance(value, _Array) else value
    return [check_token_id(name, token, expected) for token in tokens]


@runtime_checkable
class _Array(Protocol):
    """An array of NumPy or another package."""

    ndim: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[object]: ...
    def __contains__(self, entry: object, /) -> bool: ...
    def tolist(self) -> list[object]: ...


def check_token_id(
    name: str, token: object, expected: str = "a token id, a whole number of at least 0"
) -> int:
    """The id as an ``int``; ``ValidationError`` if it is not a token id."""
    if not isinstance(token, Integral) or isinstance(token, bool):
        raise _wrong(name, token, expected)
    if not 0 <= int(token) <= MAX_TOKEN_ID:
        raise _wrong(name, token, expected)
    return int(token)


def _bias(name: str, value: object) -> dict[int, float]:
    expected = "a dictionary from token ids to numbers between -1,000,000 and 1,000,000"
    if not isinstance(value, Mapping):
        raise _wrong(name, value, expected)
    if len(value) > MAX_IDS:
        few = "to allow only a few tokens, give each a large bias instead of banning all others"
        raise _too_many(name, len(value), f"a dictionary of at most {MAX_IDS:,} token ids ({few})")
    number = _number(expected, _fits(-MAX_BIAS, MAX_BIAS))
    return {check_token_id(name, token, expected): number(name, b) for token, b in value.items()}


def _template(name: str, value: object) -> str | TemplateSource:
    if not isinstance(value, str | TemplateSource):
        raise _wrong(name, value, "Jinja text or a PromptTemplate")
    return value


def _context(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(name, value, "a dictionary from variable names to values")
    return dict(value)


def _body(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        expected = "a dictionary from names of fields to plain JSON values"
        wrong = f"{name} must be {expected}, got {kind_of(value)}"  # it may be a key
        raise ValidationError(wrong, details={"param": name, "expected": expected})
    copied: dict[str, Any] = json_copy(name, dict(value), max_length=MAX_BODY)
    return copied


def _format(name: str, value: object) -> Any:
    return loaded("talu.structured.formats", "format_of")(value)


class Setting(Generic[T]):
    """A field of ``GenerationConfig``, checked when set; None or unset reads as the default."""

    def __init__(self, default: T, check: Callable[[str, object], T]) -> None:
        self.default = default
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, config: None, owner: type) -> Self: ...

    @overload
    def __get__(self, config: "GenerationConfig", owner: type) -> T: ...

    def __get__(self, config: "GenerationConfig | None", owner: type) -> Self | T:
        if config is None:
            return self
        value: T | None = config.given.get(self.name)
        return self.default if value is None else value

    def __set__(self, config: "GenerationConfig", value: T | None) -> None:
        config.given[self.name] = None if value is None else self.check(self.name, value)


class GenerationConfig:
    """Settings of a generation; unset fields are taken from the chat, the model or the library.

    An unset field reads as the library default, but a value in the model's own
    ``generation_config.json`` overrides that default. Setting a field to None discards the value of
    a lower level, so that the model's or the library's default applies.

    A value is checked when set: a wrong type or range raises a ``ValidationError`` whose
    ``details["param"]`` names the field. An unknown keyword raises ``TypeError``; so does one of a
    later version, unless it is None.

    Attributes:
        max_tokens: limit of generated tokens, 1 to 2**31 - 1 (256).
        temperature: 0 always takes the most likely token, at most 1000 (0.7).
        top_k: keep the k most likely tokens; 0 is off (50).
        top_p: keep the smallest set of tokens with this probability, 0 < top_p <= 1; 1 is off
            (0.9).
        min_p: drop tokens less likely than this share of the most likely one; 0 is off (0.0).
        repetition_penalty: above 1 discourages tokens that occur in the context, even in greedy
            decoding; 0.001 to 1000 (1.0).
        presence_penalty: subtracted from the score of each token that occurs in the answer; -2
            to 2 (0.0).
        frequency_penalty: subtracted for each occurrence of the token in the answer; -2 to 2
            (0.0).
        stop_sequences: texts that end the answer and are not part of it; they may span tokens. At
            most 64, of 1 to 1000 characters.
        stop_token_ids: replaces the model's end tokens; with an empty list no token ends the
            answer. At most 10,000.
        seed: 0 to 2**64 - 1; the same seed and request give the same tokens. None draws one, which
            the answer's ``seed`` reports.
        logprobs: report log-probabilities of the model's own distribution, before any of the above.
        top_logprobs: alternatives to report for each token, 0 to 20; implies ``logprobs`` unless
            that is set to False.
        logit_bias: added to the score of each token id, -1,000,000 to 1,000,000; -100 or less bans
            the token. At most 10,000 ids.
        chat_template: Jinja text or ``PromptTemplate`` instead of the chat's or the model's.
        extra_context: variables for the chat template.
        allow_special_tokens: parse special tokens written in messages, such as ``<|im_end|>``, as
            tokens; otherwise they are plain text (False). Raw completions always parse them.
        cache_namespace: the request shares computed prompts only with requests of the same
            namespace, such as the name of a tenant: 1 to 256 characters. None is the namespace of
            all requests that name none. With vLLM it is the ``cache_salt``.
        response_format: the form of the answer: a pydantic model, a dataclass, a ``TypedDict`` or
            another type of such parts, a JSON Schema as a dictionary, ``Regex``, ``Choice`` or
            ``Grammar``. It is kept as a ``talu.structured.formats.ResponseFormat``. The answer's
            ``parsed`` is the value, and its ``schema_report`` says what was enforced.
        max_thinking_tokens: limit of the tokens of reasoning, after which the model has to answer;
            0 is none. None is no limit.
        validation_retries: how often a whole answer that does not have its ``response_format`` is
            asked for again, with the reason, 0 to 10 (0). The history has the last answer only.
        extra_body: additional fields of the requests to a remote model, as plain JSON values with
            at most 1,000,000 characters; it replaces that of a lower level as a whole. A local
            model refuses it.
        given: the set fields, by name.
    """

    __slots__ = ("given",)

    max_tokens = Setting(256, _whole(1, MAX_TOKENS))
    temperature = Setting(0.7, _number("a number of at least 0 and at most 1000", _fits(0, 1000)))
    top_k = Setting(50, _whole(0, MAX_TOP_K))
    top_p = Setting(0.9, _number("a number above 0 and at most 1", lambda x: 0 < x <= 1))
    min_p = Setting(0.0, _number("a number from 0 to 1", _fits(0, 1)))
    repetition_penalty = Setting(1.0, _number("a number from 0.001 to 1000", _fits(0.001, 1000)))
    presence_penalty = Setting(0.0, _number("a number from -2 to 2", _fits(-2, 2)))
    frequency_penalty = Setting(0.0, _number("a number from -2 to 2", _fits(-2, 2)))
    stop_sequences = Setting(None, _strings)
    stop_token_ids = Setting(None, partial(check_token_ids, most=MAX_IDS))
    seed = Setting(None, _whole(0, MAX_SEED))
    logprobs = Setting(False, check_boolean)
    top_logprobs = Setting(None, _whole(0, MAX_TOP_LOGPROBS))
    logit_bias = Setting(None, _bias)
    chat_template = Setting(None, _template)
    extra_context = Setting(None, _context)
    allow_special_tokens = Setting(False, check_boolean)
    cache_namespace = Setting(None, _namespace)
    response_format = Setting(None, _format)
    max_thinking_tokens = Setting(None, _whole(0, MAX_TOKENS))
    validation_retries = Setting(0, _whole(0, MAX_REPEATS))
    extra_body = Setting(None, _body)

    def __init__(self, **settings: Unpack[GenerationSettings]) -> None:
        self.given: dict[str, Any] = {}
        for name, value in _effective(settings).items():
            if name not in FIELDS:
                raise TypeError(_unknown(name))
            setattr(self, name, value)

    def override(self, **settings: Unpack[GenerationSettings]) -> "GenerationConfig":
        """A copy with these fields set."""
        return self | GenerationConfig(**settings)

    def without_none(self) -> "GenerationConfig":
        """A copy with only the fields that are set to a value."""
        copy = GenerationConfig()
        copy.given = {name: value for name, value in self.given.items() if value is not None}
        return copy

    def to_dict(self, *, only_given: bool = False) -> dict[str, Any]:
        """All fields, or only those that are set, as plain values; a type as its JSON Schema."""
        values = dict(self.given) if only_given else {n: getattr(self, n) for n in FIELDS}
        if "chat_template" in values:
            values["chat_template"] = source_of(self.chat_template)
        if values.get("response_format") is not None:
            values["response_format"] = self.response_format.to_dict()
        return values

    def __or__(self, other: object) -> "GenerationConfig":
        """A new object in which the fields that are set in ``other`` take precedence."""
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        both = GenerationConfig()
        for name, value in (self.given | other.given).items():
            setattr(both, name, value)
        return both

    def __copy__(self) -> "GenerationConfig":
        return self | GenerationConfig()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        return self.given == other.given

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"GenerationConfig({given})"


FIELDS = tuple(name for name, field in vars(GenerationConfig).items() if isinstance(field, Setting))


def _effective(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings without fields of later versions that are None, and so have no effect."""
    return {n: value for n, value in settings.items() if value is not None or n not in NOT_YET}


def _unknown(name: str) -> str:
    if name in NOT_YET:
        return f"{name!r} needs {NOT_YET[name]}, which this version of talu does not have yet"
    if name in ELSEWHERE:
        return f"{name!r} is not a generation parameter: it is {ELSEWHERE[name]}"
    hint = nearest(name, FIELDS) or f"; known are {', '.join(FIELDS)}"
    return f"unknown generation parameter {shown(name)}{hint}"


def merged(
    *configs: GenerationConfig | None, settings: Mapping[str, object] | None = None
) -> GenerationConfig:
    """One config merged from several; later ones take precedence, and the keywords over all.

    Raises:
        ValidationError: a keyword is unknown, or a value is invalid.
    """
    result = GenerationConfig()
    for config in configs:
        if config is None:
            continue
        if not isinstance(config, GenerationConfig):
            raise _wrong("config", config, "a GenerationConfig")
        result |= config
    for name, value in _effective(settings or {}).items():
        if name not in FIELDS:
            raise ValidationError(_unknown(name), details={"param": name, "known": FIELDS})
        setattr(result, name, value)
    return result
