"""Reads the texts of an embedding call in batches, which bounds the memory that they take."""

import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from collections.abc import Set as AnySet

from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.types import is_iterable

__all__ = ["Progress", "abatches", "batches", "check_texts", "reporter", "single"]

TEXTS = 512  # in a batch; enough to fill several steps of the engine
CHARACTERS = 1 << 22

Progress = bool | Callable[[int, int | None], object]


def single(text: object) -> list[str]:
    """The text as a batch.

    Raises:
        ValidationError: it is not a text.
    """
    if not isinstance(text, str):
        wrong = f"text must be a str, got {type(text).__name__}; embed_batch takes several"
        raise ValidationError(wrong, details={"param": "text"})
    return [text]


def check_texts(texts: object, name: str = "texts") -> None:
    """Refuse a value that is not an ordered collection of texts, without iterating over it.

    ``name`` is the argument in messages.

    Raises:
        ValidationError: it is not one; the message says what to do.
    """
    wrong = None
    single = "embed takes a single one" if name == "texts" else "put a single one in a list"
    if isinstance(texts, str | bytes | bytearray):
        wrong = single
    elif isinstance(texts, Mapping):
        wrong = "give its values or its keys"
    elif isinstance(texts, AnySet):
        wrong = "a set has no order: give a list"
    elif hasattr(texts, "columns"):
        wrong = "give one column of the table"
    elif not isinstance(texts, AsyncIterable) and not is_iterable(texts):
        wrong = single
    if wrong is not None:
        raise ValidationError(
            f"{name} must be a list or another iterable of texts, got "
            f"{type(texts).__name__}; {wrong}",
            details={"param": name},
        )
    if isinstance(texts, Sequence):  # others are checked as they are read
        for number, text in enumerate(texts):
            _check_text(number, text, name)


def batches(texts: Iterable[str], name: str = "texts") -> Generator[list[str]]:
    """The texts in order, some at a time; ``name`` is the argument in messages.

    Raises:
        ValidationError: one is not a text.
    """
    gathered = _Batch(name)
    for text in texts:
        if full := gathered.add(text):
            yield full
    if gathered.texts:
        yield gathered.texts


async def abatches(
    texts: Iterable[str] | AsyncIterable[str], name: str = "texts"
) -> AsyncGenerator[list[str]]:
    """Like ``batches``, also of an asynchronous iterable."""
    if isinstance(texts, AsyncIterable):
        gathered = _Batch(name)
        async for text in texts:
            if full := gathered.add(text):
                yield full
        if gathered.texts:
            yield gathered.texts
    else:
        for batch in batches(texts, name):
            yield batch


def reporter(progress: object, texts: object) -> Callable[[int], object]:
    """The function to call with the number of finished texts.

    Raises:
        ValidationError: ``progress`` is neither a function nor True or False.
    """
    total = len(texts) if isinstance(texts, Sized) else None
    if progress is False or progress is None:
        return lambda done: None
    if progress is True:
        return lambda done: _show(done, total)
    if callable(progress):
        return lambda done: progress(done, total)
    raise ValidationError(
        f"progress must be True, False or a function of two numbers, got {shown(progress)}",
        details={"param": "progress"},
    )


class _Batch:
    """Collects texts for a batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.texts: list[str] = []
        self._characters = 0
        self._number = 0

    def add(self, text: object) -> list[str] | None:
        """Add a text; returns the batch once it is full."""
        self.texts.append(_check_text(self._number, text, self._name))
        self._number += 1
        self._characters += len(self.texts[-1])
        if len(self.texts) < TEXTS and self._characters < CHARACTERS:
            return None
        full, self.texts, self._characters = self.texts, [], 0
        return full


def _check_text(number: int, text: object, name: str) -> str:
    if not isinstance(text, str):
        wrong = f"text {number} must be a str, got {type(text).__name__}"
        raise ValidationError(wrong, details={"param": name, "index": number})
    return text


def _show(done: int, total: int | None) -> None:
    """Overwrite the progress line on stderr, and end it after the last text."""
    of = f" of {total:,}" if total is not None else ""
    end = "\n" if done == total else ""
    sys.stderr.write(f"\rembedded {done:,}{of} texts{end}")
    sys.stderr.flush()
