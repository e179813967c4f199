"""Embeddings and capabilities of a router's models, for the clients' thin methods.

Checks what can be checked before a model is opened, and turns failures into the errors that are
promised for embeddings.
"""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from talu.exceptions import GenerationError, StateError, TaluError, ValidationError
from talu.router.router import Router
from talu.router.spec import ModelSpec
from talu.types import POOLINGS, Capabilities, Pooling

__all__ = ["aembed", "capabilities", "embed", "embedding_dim"]


def embed(
    router: Router,
    texts: Sequence[str],
    model: str | None,
    pooling: str | None,
    *,
    normalize: bool,
    truncate: bool,
) -> list[list[float]]:
    """See ``Client.embed_batch``."""
    way = _checked(texts, pooling)
    name = router.name_of(model)
    with _failures(name):
        backend = router.backend(name)
        return backend.embed(texts, way, normalize=normalize, truncate=truncate)


async def aembed(
    router: Router,
    texts: Sequence[str],
    model: str | None,
    pooling: str | None,
    *,
    normalize: bool,
    truncate: bool,
) -> list[list[float]]:
    """Like ``embed``, awaited."""
    way = _checked(texts, pooling)
    name = router.name_of(model)
    with _failures(name):
        backend = await asyncio.to_thread(router.backend, name)
        return await backend.aembed(texts, way, normalize=normalize, truncate=truncate)


def embedding_dim(router: Router, model: str | None) -> int:
    """See ``Client.embedding_dim``."""
    name = router.name_of(model)
    with _failures(name):
        return router.backend(name).embedding_dim


def capabilities(router: Router, model: str | ModelSpec | None) -> Capabilities:
    """See ``Client.capabilities``."""
    if model is None or (isinstance(model, str) and model in router.models):
        return router.backend(model).capabilities
    if not isinstance(model, str | ModelSpec):
        wrong = f"model must be a reference or a ModelSpec, got {model!r}"
        raise ValidationError(wrong, details={"param": "model", "value": model})
    with Router([model]) as other:  # opened for the question; shared if somebody has it open
        return other.backend().capabilities


def _checked(texts: Sequence[str], pooling: str | None) -> Pooling | None:
    if pooling is not None and pooling not in POOLINGS:
        raise ValidationError(
            f"Invalid pooling strategy {pooling!r}; choose one of "
            f"{', '.join(map(repr, POOLINGS))}, or None for the model's own",
            details={"param": "pooling", "value": pooling},
        )
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ValidationError(
            f"texts must be a list of texts, got {type(texts).__name__}; embed takes a single one",
            details={"param": "texts"},
        )
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            wrong = f"text {number} must be a str, got {type(text).__name__}"
            raise ValidationError(wrong, details={"param": "texts", "index": number})
    return pooling


@contextmanager
def _failures(model: str) -> Generator[None]:
    """Promise ``GenerationError`` for a model that is missing or cannot be used."""
    try:
        yield
    except (GenerationError, StateError, ValidationError):
        raise
    except TaluError as error:
        message = f"model {model!r} cannot embed: {error}"
        raise GenerationError(message, error.code, error.details) from error
