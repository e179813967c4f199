"""The exceptions of talu: one class hierarchy, with a stable code for each class.

A message says what was wrong, where, and what to do next. ``code`` is for programs, and
``details`` has the values mentioned in the message. Very long messages and values are shortened.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from talu.error_text import bounded, shortened

__all__ = [
    "ConvertError",
    "DependencyError",
    "EmptyPromptError",
    "EndpointError",
    "GenerationError",
    "IOError",
    "IncompleteJSONError",
    "ModelError",
    "ModelNotFoundError",
    "ResourceError",
    "SchemaValidationError",
    "StateError",
    "StorageError",
    "StructuredOutputError",
    "TaluError",
    "TemplateError",
    "TemplateNotFoundError",
    "TemplateSyntaxError",
    "TemplateUndefinedError",
    "TokenizerError",
    "ToolExecutionError",
    "ToolServerError",
    "ValidationError",
]


class TaluError(Exception):
    """Base of all errors raised by talu.

    Attributes:
        code: stable upper-case name of the failure, for programs.
        details: the values mentioned in the message; empty when there are none. A value that is
            large, or of a type other than Python's plain ones, is replaced by a short text.
        attempts: the models that a router asked, or the requests if they were repeated, each as
            ``talu.types.Attempt``; empty without any of both.
    """

    default_code: ClassVar[str] = "INTERNAL_ERROR"
    attempts: tuple[Any, ...] = ()

    def __init__(
        self,
        message: str,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(shortened(message))
        self.code = code or self.default_code
        values = {} if details is None else details
        self.details: dict[str, object] = {name: bounded(value) for name, value in values.items()}

    def __str__(self) -> str:
        return str(self.args[0])


class ValidationError(TaluError, ValueError):
    """An argument is unknown, of the wrong type or out of range; ``details["param"]`` names it."""

    default_code = "INVALID_ARGUMENT"


class StateError(TaluError, RuntimeError):
    """The object is closed, detached or busy, so the call is not possible now."""

    default_code = "STATE_ERROR"


class GenerationError(TaluError, RuntimeError):
    """A generation could not be started or finished."""

    default_code = "GENERATION_FAILED"


class EmptyPromptError(GenerationError, ValueError):
    """A prompt has no tokens to start a generation from."""

    default_code = "GENERATION_EMPTY_PROMPT"


class EndpointError(GenerationError):
    """A request to a model behind an endpoint failed.

    The codes are: ``ENDPOINT_UNREACHABLE`` (no connection), ``ENDPOINT_TLS`` (its certificate is
    not accepted), ``ENDPOINT_TIMEOUT``, ``ENDPOINT_REDIRECT`` (redirects are not followed),
    ``ENDPOINT_BAD_ANSWER`` (HTML or anything else that is not the protocol),
    ``AUTHENTICATION_FAILED``, ``OUT_OF_CREDITS``, ``MODEL_NOT_FOUND``, ``BAD_REQUEST``,
    ``GENERATION_CONTEXT_OVERFLOW``, ``CONTENT_FILTERED``, ``RATE_LIMITED``, ``SERVER_ERROR``,
    ``STREAM_BROKEN`` (the answer ended before its last event) and ``MODELS_COOLING`` (a router has
    no model that can be asked soon enough).

    If a part of the answer had arrived, ``details["response"]`` is that partial answer. Without a
    connection to the server, ``details["connected"]`` is False.

    Attributes:
        status: the HTTP status; None without an answer.
        request_id: the server's identifier of the request; None when it sent none.
        retry_after: seconds after which the server wants to be asked again; None when it did not
            say.
        transient: whether another attempt, here or at another endpoint, may succeed.
    """

    default_code = "SERVER_ERROR"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        transient: bool = False,
    ) -> None:
        about = {"status": status, "request_id": request_id, "retry_after": retry_after}
        known = {name: value for name, value in about.items() if value is not None}
        super().__init__(message, code, {**(details or {}), **known})
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.transient = transient


class ToolServerError(TaluError, RuntimeError):
    """An MCP server cannot be used, or one of its tools failed.

    The codes are: ``TOOL_SERVER_NOT_STARTED`` (its command cannot be run),
    ``TOOL_SERVER_UNREACHABLE`` (no connection, or no TLS), ``TOOL_SERVER_REFUSED`` (it wants other
    credentials, or refuses what was asked), ``TOOL_SERVER_TIMEOUT``, ``TOOL_SERVER_ENDED`` (it
    ended, or the connection did), ``TOOL_SERVER_BAD_ANSWER`` (what it sent is not the protocol, is
    too large, or describes a tool that cannot be used) and ``TOOL_FAILED`` (a tool reported an
    error).

    Attributes:
        server: the program or the address of the server, without arguments, path and secrets.
        tool: the server's name of the tool; None if it is not about a single one.
    """

    default_code = "TOOL_SERVER_ERROR"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        *,
        server: str = "",
        tool: str | None = None,
    ) -> None:
        known = {"server": server} if tool is None else {"server": server, "tool": tool}
        super().__init__(message, code, {**(details or {}), **known})
        self.server = server
        self.tool = tool


class StructuredOutputError(TaluError, ValueError):
    """A ``response_format`` cannot be used, or an answer does not have this form.

    The format is not valid, exceeds a limit, no value satisfies it, or the model cannot follow it.
    """

    default_code = "STRUCTURED_OUTPUT_ERROR"


class IncompleteJSONError(StructuredOutputError):
    """An answer ended before its value did, mostly because ``max_tokens`` was reached.

    Attributes:
        partial_text: the answer.
        finish_reason: why it ended.
    """

    default_code = "INCOMPLETE_JSON"

    def __init__(self, partial_text: str, finish_reason: str | None) -> None:
        self.partial_text = partial_text
        self.finish_reason = finish_reason
        reason = "" if finish_reason is None else f" with the finish reason {str(finish_reason)!r}"
        cut = finish_reason in (None, "length")
        remedy = "; a larger max_tokens gives it more room" if cut else ""
        super().__init__(
            f"the answer ended{reason} before its value was complete, after {len(partial_text):,} "
            f"characters{remedy}",
            details={"partial_text": partial_text, "finish_reason": finish_reason},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.partial_text, self.finish_reason)


class SchemaValidationError(StructuredOutputError):
    """An answer does not have the form that was asked for.

    Attributes:
        raw_text: the answer.
        validation_error: what is wrong, and where.
        partial_data: the value of the answer, if it is JSON; None otherwise.
    """

    default_code = "SCHEMA_VALIDATION_FAILED"

    def __init__(self, raw_text: str, validation_error: str, partial_data: object = None) -> None:
        self.raw_text = raw_text
        self.validation_error = validation_error
        self.partial_data = partial_data
        super().__init__(
            f"the answer does not have the form of response_format: {validation_error}",
            details={"raw_text": raw_text, "validation_error": validation_error},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.raw_text, self.validation_error, self.partial_data)


class ToolExecutionError(TaluError, RuntimeError):
    """A tool call could not be carried out, or its result cannot be given to the model.

    The codes are: ``TOOL_UNKNOWN`` (no tool has this name), ``TOOL_NOT_BOUND`` (the call has no
    function here), ``TOOL_ARGUMENTS_INVALID`` (they are not JSON, or do not fit the tool's schema),
    ``TOOL_FAILED`` (the function raised; its exception is the cause), ``TOOL_TIMEOUT``,
    ``TOOL_RESULT_INVALID`` (it has no JSON form, or is too long), ``TOOL_REFUSED`` (the call was
    not approved) and ``TOOL_CANCELLED`` (the answer was stopped before the call had ended).
    """

    default_code = "TOOL_EXECUTION_ERROR"


class ModelError(TaluError, RuntimeError):
    """A model exists but cannot be used: it is damaged, incomplete or of an unknown kind."""

    default_code = "MODEL_ERROR"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model was found for the given reference."""

    default_code = "MODEL_NOT_FOUND"


class ConvertError(TaluError, RuntimeError):
    """A model cannot be converted; nothing has been left at the destination.

    The codes are: ``CONVERT_UNSUPPORTED_FORMAT`` (an unknown format, or one that cannot hold this
    model), ``CONVERT_ALREADY_QUANTIZED``, ``CONVERT_OUTPUT_EXISTS``, and ``CONVERT_FAILED`` for all
    else: no space, a folder that does not exist, a number that the format cannot hold.
    """

    default_code = "CONVERT_FAILED"


class TokenizerError(TaluError, RuntimeError):
    """The tokenizer is missing or damaged, or its input is invalid."""

    default_code = "TOKENIZER_ERROR"


class TemplateError(TaluError, RuntimeError):
    """Rendering a chat template failed."""

    default_code = "TEMPLATE_RENDER_FAILED"


class TemplateSyntaxError(TemplateError, SyntaxError):
    """A chat template is not valid Jinja."""

    default_code = "TEMPLATE_SYNTAX_ERROR"


class TemplateUndefinedError(TemplateError, NameError):
    """A chat template uses an undefined variable."""

    default_code = "TEMPLATE_UNDEFINED_VAR"


class TemplateNotFoundError(TemplateError, FileNotFoundError):
    """A template's file does not exist."""

    default_code = "TEMPLATE_NOT_FOUND"


class IOError(TaluError, OSError):
    """A file or a connection failed."""

    default_code = "IO_ERROR"


class StorageError(TaluError, RuntimeError):
    """A profile's database cannot be read or written; the message names the file or the server.

    ``code`` is ``STORAGE_CONFLICT`` when a session was changed or deleted by another chat or
    process, ``STORAGE_DAMAGED`` when it is not a database that this version can read,
    ``STORAGE_UNCERTAIN`` when the connection to a server was lost before it confirmed a change,
    and ``STORAGE_ERROR`` otherwise: a full disk, a lock, missing permissions, no connection.
    """

    default_code = "STORAGE_ERROR"


class DependencyError(TaluError, ImportError):
    """A feature needs a package that is not installed; the message says how to install it."""

    default_code = "MISSING_DEPENDENCY"


class ResourceError(TaluError, MemoryError):
    """Memory or another bounded resource is insufficient for the request."""

    default_code = "RESOURCE_EXHAUSTED"
