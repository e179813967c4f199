"""The options of a model behind an endpoint, as values that keep their secrets out of sight."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from talu.error_text import shown
from talu.exceptions import StateError
from talu.urls import SECRET, Address, without_secrets

__all__ = ["AnthropicBackend", "OnUnsupported", "OpenAICompatibleBackend", "RemoteBackend"]

OnUnsupported = Literal["error", "warn"]
DEPTH = 20  # of nested values that are hidden


class Secret(str):
    """A text that ``repr`` hides, also inside other objects; ``str`` is the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(SECRET)


@dataclass(frozen=True, slots=True, repr=False)
class RemoteBackend:
    """The options that all models behind an endpoint share.

    ``repr`` hides values that can hold a secret (the key, the organisation, the values of
    ``extra_params`` and ``headers``, and user, password and query of ``base_url``); a backend with
    any of them cannot be pickled. The texts among them are also hidden when the result of
    ``dataclasses.asdict`` is printed, except in ``base_url``; as JSON they are written out.

    Attributes:
        base_url: the address, with ``http://`` or ``https://``; None is that of the provider: the
            variable ``<PROVIDER>_BASE_URL``, else the one in the documentation's table.
        api_key: None reads the provider's variable, whose key goes to the provider's own address
            only; ``""`` sends none.
        org_id: sent as ``OpenAI-Organization``.
        timeout_ms: the longest wait for the first token, and for each next piece; None is 60,000,
            and 600,000 for the first token of servers that may have to load the model.
        max_retries: how often to try again before the first token; 0 is never, at most 100. None
            is 2, or 0 when a policy can ask another model instead.
        extra_params: fields added to the body of each request.
        headers: headers added to each request.
        connect_timeout_ms: the longest wait for a connection, with its proxy and TLS; None is
            5,000.
        first_token_timeout_ms: the longest wait for the first token; None is ``timeout_ms``.
        total_timeout_ms: the limit of a whole answer, with all attempts; None is none. A call's own
            ``timeout=`` holds as well.
        on_unsupported: what to do with a setting that the server does not honour: ``"error"``
            raises, ``"warn"`` leaves it out and says so in the answer's ``notes``.
        allow_insecure: let keys, also those in ``headers``, travel over plain ``http`` to another
            machine.
    """

    base_url: str | None = None
    api_key: str | None = None
    org_id: str | None = None
    timeout_ms: int | None = None
    max_retries: int | None = None
    extra_params: Mapping[str, object] | None = field(default=None, hash=False)
    headers: Mapping[str, str] | None = field(default=None, hash=False)
    connect_timeout_ms: int | None = field(default=None, kw_only=True)
    first_token_timeout_ms: int | None = field(default=None, kw_only=True)
    total_timeout_ms: int | None = field(default=None, kw_only=True)
    on_unsupported: OnUnsupported = field(default="error", kw_only=True)
    allow_insecure: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Hide the texts that can be secret, wherever they are shown."""
        for each in fields(self):  # all, because a key may be given in a wrong place
            value = getattr(self, each.name)
            is_url = each.name == "base_url" and isinstance(value, str)
            object.__setattr__(self, each.name, Address(value) if is_url else _hidden(value))

    @property
    def shown_url(self) -> str | None:
        """``base_url`` without user, password and query."""
        if self.base_url is None:
            return None
        url = self.base_url  # without a scheme it may be a key in a wrong place
        return without_secrets(url) if isinstance(url, str) and "://" in url else SECRET

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the options that differ from their defaults."""
        return tuple(each.name for each in fields(self) if self._is_set(each.name))

    def __repr__(self) -> str:
        given = [each for each in fields(self) if not each.kw_only or self._is_set(each.name)]
        shown_fields = (f"{each.name}={self._shown(each.name)}" for each in given)
        return f"{type(self).__name__}({', '.join(shown_fields)})"

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).__dataclass_fields__[name].default)

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if value is None:
            return "None"
        if name == "base_url":
            return shown(str(self.shown_url))
        if name == "on_unsupported" and value in ("error", "warn"):
            return shown(str(value))
        if name in ("api_key", "org_id"):
            return SECRET
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{shown(key)}: {SECRET}" for key in value) + "}"
        return str(value) if isinstance(value, int) and abs(value) < 10**18 else SECRET

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        secrets = (self.api_key, self.org_id, self.extra_params, self.headers)
        if any(secrets) or self.shown_url != self.base_url:
            raise StateError(
                "a backend with a key, an organisation, a password, headers or extra_params is not "
                "pickled, so that no secret is written: give them to the other process by its "
                "environment",
                "STATE_NOT_COPYABLE",
            )
        return _restored, (
            type(self),
            {each.name: getattr(self, each.name) for each in fields(self)},
        )


class OpenAICompatibleBackend(RemoteBackend):
    """The model runs behind an endpoint with OpenAI's protocol; see ``RemoteBackend``."""

    __slots__ = ()


class AnthropicBackend(RemoteBackend):
    """The model runs behind an endpoint with Anthropic's protocol; see ``RemoteBackend``."""

    __slots__ = ()


def _restored(kind: type[RemoteBackend], values: Mapping[str, Any]) -> RemoteBackend:
    return kind(**values)


def _hidden(value: object, depth: int = DEPTH) -> object:
    """The value with its texts hidden, also those in dictionaries and lists."""
    match value:
        case str():
            return Secret(value)
        case Mapping() if depth:
            return {key: _hidden(entry, depth - 1) for key, entry in value.items()}
        case list() if depth:
            return [_hidden(entry, depth - 1) for entry in value]
        case tuple() if depth:
            return tuple(_hidden(entry, depth - 1) for entry in value)
        case _:
            return value
