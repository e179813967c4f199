"""Every error that talu raises on purpose: one tree, each class with a stable code.

A message says what was wrong, where, and what to do next. ``code`` is for programs,
``details`` carries the values that the message speaks of.
"""

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "DependencyError",
    "EmptyPromptError",
    "GenerationError",
    "IOError",
    "ModelError",
    "ModelNotFoundError",
    "ResourceError",
    "StateError",
    "StorageError",
    "TaluError",
    "TemplateError",
    "TemplateNotFoundError",
    "TemplateSyntaxError",
    "TemplateUndefinedError",
    "TokenizerError",
    "ValidationError",
]


class TaluError(Exception):
    """Base of all errors raised by talu.

    Attributes:
        code: stable upper-case name of the failure, for programs.
        details: the values that the message speaks of; empty when there are none.
    """

    default_code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.details: dict[str, object] = dict(details or {})

    def __str__(self) -> str:
        return str(self.args[0])


class ValidationError(TaluError, ValueError):
    """An argument has a wrong type, name or range; ``details["param"]`` names it."""

    default_code = "INVALID_ARGUMENT"


class StateError(TaluError, RuntimeError):
    """The object cannot do this now: it is closed, detached or busy."""

    default_code = "STATE_ERROR"


class GenerationError(TaluError, RuntimeError):
    """A generation could not be started or finished."""

    default_code = "GENERATION_FAILED"


class EmptyPromptError(GenerationError, ValueError):
    """A generation was asked for with no token to start from."""

    default_code = "GENERATION_EMPTY_PROMPT"


class ModelError(TaluError, RuntimeError):
    """A model is there but cannot be used: damaged, incomplete or of an unknown kind."""

    default_code = "MODEL_ERROR"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model is found under the given reference."""

    default_code = "MODEL_NOT_FOUND"


class TokenizerError(TaluError, RuntimeError):
    """The tokenizer is missing, damaged, or refuses its input."""

    default_code = "TOKENIZER_ERROR"


class TemplateError(TaluError, RuntimeError):
    """A chat template failed while it was rendered."""

    default_code = "TEMPLATE_RENDER_FAILED"


class TemplateSyntaxError(TemplateError, SyntaxError):
    """A chat template is not valid Jinja."""

    default_code = "TEMPLATE_SYNTAX_ERROR"


class TemplateUndefinedError(TemplateError, NameError):
    """A chat template uses a variable that it was not given."""

    default_code = "TEMPLATE_UNDEFINED_VAR"


class TemplateNotFoundError(TemplateError, FileNotFoundError):
    """A template's file is not there."""

    default_code = "TEMPLATE_NOT_FOUND"


class IOError(TaluError, OSError):
    """A file or a connection failed."""

    default_code = "IO_ERROR"


class StorageError(TaluError, RuntimeError):
    """A profile's database cannot be read or written; the message names the file.

    ``code`` is ``STORAGE_CONFLICT`` when a session was changed or deleted by another chat or
    process, ``STORAGE_DAMAGED`` when the file is not, or no longer, a database that this version
    can read, ``STORAGE_ERROR`` otherwise: a full disk, a lock, missing permissions.
    """

    default_code = "STORAGE_ERROR"


class DependencyError(TaluError, ImportError):
    """A feature needs a package that is not installed; the message has the command."""

    default_code = "MISSING_DEPENDENCY"


class ResourceError(TaluError, MemoryError):
    """Memory, or another bounded resource, does not suffice for what was asked."""

    default_code = "RESOURCE_EXHAUSTED"
