"""Checks the arguments of embedding calls, collects their results, and converts their errors."""

import importlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from talu.checks import check_boolean
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import GenerationError, StateError, TaluError, ValidationError
from talu.protocols import Embedded
from talu.types import DEFAULT_POOLING, POOLINGS, EmbeddingOptions, Embeddings, Pooling

if TYPE_CHECKING:  # creating a client does not import numpy
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
else:
    Array = Any

__all__ = ["Array", "Call", "Collected", "aafter", "after", "checked_options", "failures"]


def checked_options(
    pooling: Pooling | None,
    normalize: bool,
    truncate: bool,
    prompt: str | None,
    prompt_name: str | None,
    *,
    as_numpy: bool,
    timeout: float | None,
) -> EmbeddingOptions:
    """The options of a call.

    Raises:
        ValidationError: an argument has the wrong type or an unknown name.
    """
    deadline = Deadline.after(timeout)
    _check_pooling(pooling)
    for name, switch in (("normalize", normalize), ("truncate", truncate), ("as_numpy", as_numpy)):
        check_boolean(name, switch)
    _check_prompts(prompt, prompt_name)
    return EmbeddingOptions(
        pooling="last" if pooling is DEFAULT_POOLING else pooling,
        pooling_given=pooling is not DEFAULT_POOLING,
        normalize=normalize,
        truncate=truncate,
        prompt=prompt,
        prompt_name=prompt_name,
        deadline=deadline,
    )


class Call(NamedTuple):
    """The checked arguments of a call."""

    model: str
    options: EmbeddingOptions


class Collected:
    """The parts of a result."""

    def __init__(self, report: Callable[[int], object], *, as_numpy: bool) -> None:
        self._report = report
        self._arrays: list[Any] | None = [] if as_numpy else None
        self._lists = Embeddings()
        self._done = 0

    def add(self, part: Embedded) -> None:
        """Add the vectors of a batch."""
        if self._arrays is None:
            self._lists.extend(part.vectors.tolist())
            self._lists.truncated.extend(part.cut)
            self._lists.notes = tuple(dict.fromkeys((*self._lists.notes, *part.notes)))
        else:
            self._arrays.append(part.vectors)
        self._done += len(part.vectors)
        self._report(self._done)

    def result(self, dimension: Callable[[], int]) -> Embeddings | Array:
        """All vectors; an empty array needs the dimension."""
        if self._arrays is None:
            return self._lists
        numpy = importlib.import_module("numpy")
        arrays = self._arrays or [numpy.empty((0, dimension()), numpy.float32)]
        result: Array = numpy.concatenate(arrays)
        return result


def after(first: list[str], others: Generator[list[str]]) -> Generator[list[str]]:
    """The first batch, and the others after it."""
    yield first
    yield from others


async def aafter(first: list[str], others: AsyncGenerator[list[str]]) -> AsyncGenerator[list[str]]:
    """Like ``after``, of an asynchronous generator."""
    yield first
    async for batch in others:
        yield batch


def _check_pooling(pooling: object) -> None:
    if pooling is not None and not (isinstance(pooling, str) and pooling in POOLINGS):
        raise ValidationError(
            f"Invalid pooling strategy {shown(pooling)}; choose one of "
            f"{', '.join(map(repr, POOLINGS))}, or None for the model's own",
            details={"param": "pooling"},
        )


def _check_prompts(prompt: object, prompt_name: object) -> None:
    for name, value in (("prompt", prompt), ("prompt_name", prompt_name)):
        if value is not None and not isinstance(value, str):
            wrong = f"{name} must be a text or None, got {shown(value)}"
            raise ValidationError(wrong, details={"param": name})
    if prompt is not None and prompt_name is not None:
        wrong = "give prompt or prompt_name, not both"
        raise ValidationError(wrong, details={"param": "prompt_name"})


@contextmanager
def failures(model: str) -> Generator[None]:
    """Convert errors of a missing or unusable model to ``GenerationError``."""
    try:
        yield
    except (GenerationError, StateError, ValidationError):
        raise
    except TaluError as error:
        message = f"model {model!r} cannot embed: {error}"
        raise GenerationError(message, error.code, error.details) from error
