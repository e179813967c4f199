"""Asks a backend for what not every backend can do."""

from typing import cast

from talu.config import GenerationConfig
from talu.error_text import shown
from talu.exceptions import GenerationError, ValidationError
from talu.protocols import Backend, Counter, Embedder, Renderer, Vocabulary

__all__ = ["check_settings", "counter", "embedder", "renderer", "vocabulary"]


def check_settings(backend: Backend, config: GenerationConfig) -> None:
    """Refuse settings that the backend would ignore.

    Raises:
        ValidationError: some are set; the message names all of them.
    """
    ignored = [
        name
        for name, value in config.given.items()
        if value is not None and name not in backend.settings
    ]
    if ignored:
        raise ValidationError(
            f"model {shown(backend.model)} has no {' and no '.join(ignored)}: leave "
            f"{'it' if len(ignored) == 1 else 'them'} out, or use another model",
            details={"param": ignored[0], "settings": ignored, "model": backend.model},
        )


def embedder(backend: Backend) -> Embedder:
    """The backend, if it embeds texts.

    Raises:
        GenerationError: it does not (code ``GENERATION_UNSUPPORTED``).
    """
    if not _has(backend, "embed"):
        raise GenerationError(
            f"model {shown(backend.model)} has no embeddings: use one that has",
            "GENERATION_UNSUPPORTED",
            {"model": backend.model},
        )
    return cast("Embedder", backend)


def renderer(backend: Backend) -> Renderer:
    """The backend, if it can show the prompt of a request.

    Raises:
        ValidationError: it cannot.
    """
    if not _has(backend, "render"):
        raise _unknown(backend, "how it renders a conversation: its prompt cannot be shown")
    return cast("Renderer", backend)


def counter(backend: Backend) -> Counter:
    """The backend, if it counts the tokens of prompts.

    Raises:
        ValidationError: it does not.
    """
    if not _has(backend, "count"):
        raise _unknown(backend, "how it divides text into tokens: they cannot be counted")
    return cast("Counter", backend)


def vocabulary(backend: Backend) -> Vocabulary:
    """The backend, if its tokens are known.

    Raises:
        ValidationError: they are not.
    """
    if not _has(backend, "tokenize", "detokenize"):
        raise _unknown(backend, "what its tokens are: text cannot be tokenized for it")
    return cast("Vocabulary", backend)


def _has(backend: Backend, *methods: str) -> bool:
    return all(callable(getattr(backend, name, None)) for name in methods)


def _unknown(backend: Backend, what: str) -> ValidationError:
    wrong = f"model {shown(backend.model)} does not say {what}"
    return ValidationError(wrong, details={"param": "model", "value": backend.model})
