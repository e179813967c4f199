"""Generation settings: their names, types, ranges and defaults, and how they are merged.

Settings of a call override those of its chat; ``sampling`` adds the defaults of model and library.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
    runtime_checkable,
)

from talu.checks import (
    MAX_IDS,
    between,
    check_bias,
    check_body,
    check_boolean,
    check_context,
    check_namespace,
    check_strings,
    check_token_ids,
    choice_check,
    number_check,
    whole_check,
    wrong_value,
)
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError
from talu.first_use import loaded

__all__ = [
    "GenerationConfig",
    "GenerationSettings",
    "TemplateSource",
    "merged",
    "source_of",
]

T = TypeVar("T")

MAX_SEED = 2**64 - 1
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1  # more than any context
MAX_TOP_K = 2**31 - 1  # more than any vocabulary
MAX_REPEATS = 10  # of an answer that does not have its form
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
    inject_schema_prompt: bool | None
    schema_strategy: Literal["auto", "typescript", "json_schema", "xml_schema"] | None
    allow_thinking: bool | None
    max_thinking_tokens: int | None
    validation_retries: int | None
    extra_body: dict[str, Any] | None


def _template(name: str, value: object) -> str | TemplateSource:
    if not isinstance(value, str | TemplateSource):
        raise wrong_value(name, value, "Jinja text or a PromptTemplate")
    return value


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
    ``details["param"]`` names the field. An unknown keyword raises ``TypeError``.

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
        inject_schema_prompt: explain the ``response_format`` to the model, in place of
            ``{{ schema }}`` in the messages of the system and the user, at the end of the system
            message, or before the user's last one. The history stays as it is. Unset it is True for
            local models; to remote ones only a form that their server does not take is explained.
        schema_strategy: how: as a TypeScript type, which is also ``"auto"``, as a JSON Schema, or
            as one in ``<schema>`` tags (``"auto"``).
        allow_thinking: True lets a model reason before its answer, and asks it to where its
            template or its server has a switch; False keeps it from that. Unset it is as the
            template has it.
        max_thinking_tokens: limit of the tokens of reasoning, after which the model has to answer;
            0 is none. None is no limit.
        validation_retries: how often a whole answer that does not have its ``response_format`` is
            asked for again, with the reason, 0 to 10 (0). The history has the last answer only.
            Without a ``response_format`` this and the settings of its explanation are noted.
        extra_body: additional fields of the requests to a remote model, as plain JSON values with
            at most 1,000,000 characters; it replaces that of a lower level as a whole. A local
            model refuses it.
        given: the set fields, by name.
    """

    __slots__ = ("given",)

    max_tokens = Setting(256, whole_check(1, MAX_TOKENS))
    temperature = Setting(
        0.7, number_check("a number of at least 0 and at most 1000", between(0, 1000))
    )
    top_k = Setting(50, whole_check(0, MAX_TOP_K))
    top_p = Setting(0.9, number_check("a number above 0 and at most 1", lambda x: 0 < x <= 1))
    min_p = Setting(0.0, number_check("a number from 0 to 1", between(0, 1)))
    repetition_penalty = Setting(
        1.0, number_check("a number from 0.001 to 1000", between(0.001, 1000))
    )
    presence_penalty = Setting(0.0, number_check("a number from -2 to 2", between(-2, 2)))
    frequency_penalty = Setting(0.0, number_check("a number from -2 to 2", between(-2, 2)))
    stop_sequences = Setting(None, check_strings)
    stop_token_ids = Setting(None, partial(check_token_ids, most=MAX_IDS))
    seed = Setting(None, whole_check(0, MAX_SEED))
    logprobs = Setting(False, check_boolean)
    top_logprobs = Setting(None, whole_check(0, MAX_TOP_LOGPROBS))
    logit_bias = Setting(None, check_bias)
    chat_template = Setting(None, _template)
    extra_context = Setting(None, check_context)
    allow_special_tokens = Setting(False, check_boolean)
    cache_namespace = Setting(None, check_namespace)
    response_format = Setting(None, _format)
    inject_schema_prompt = Setting(True, check_boolean)
    schema_strategy = Setting(
        "auto", choice_check("auto", "typescript", "json_schema", "xml_schema")
    )
    allow_thinking = Setting(False, check_boolean)
    max_thinking_tokens = Setting(None, whole_check(0, MAX_TOKENS))
    validation_retries = Setting(0, whole_check(0, MAX_REPEATS))
    extra_body = Setting(None, check_body)

    def __init__(self, **settings: Unpack[GenerationSettings]) -> None:
        self.given: dict[str, Any] = {}
        for name, value in settings.items():
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


def _unknown(name: str) -> str:
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
            raise wrong_value("config", config, "a GenerationConfig")
        result |= config
    for name, value in (settings or {}).items():
        if name not in FIELDS:
            raise ValidationError(_unknown(name), details={"param": name, "known": FIELDS})
        setattr(result, name, value)
    return result
