"""Asks again for an answer that does not have its form (``validation_retries``)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from talu.chat.outcome import Outcome
from talu.config import GenerationConfig
from talu.exceptions import StructuredOutputError, ValidationError
from talu.types import Done, FinishReason, Request

__all__ = ["FormChecks", "without_form"]

NAME = "validation_retries"
ABOUT_FORMS = (NAME, "inject_schema_prompt", "schema_strategy")


class FormChecks:
    """The checks of the answers of one turn."""

    def __init__(self, retries: int) -> None:
        """Allow so many repetitions."""
        self._left = retries
        self._problems: list[str] = []

    @classmethod
    def of(cls, config: GenerationConfig, *, whole: bool) -> Self:
        """The checks that a configuration asks for.

        Raises:
            ValidationError: the answer is read while it is generated, so that it cannot be
                replaced.
        """
        retries = config.validation_retries
        if retries and not whole:
            raise ValidationError(
                f"{NAME} needs a whole answer: what a stream or on_token has given cannot be "
                "taken back; ask with stream=False and without on_token, or set it to 0",
                details={"param": NAME},
            )
        return cls(retries if config.response_format is not None else 0)

    def without_retries(self, request: Request) -> Request:
        """The request for a backend, which does not repeat."""
        if NAME not in request.config.given:
            return request
        config = GenerationConfig() | request.config
        del config.given[NAME]
        return replace(request, config=config)

    def repeated(self, request: Request, outcome: Outcome[Any]) -> Request | None:
        """The request that asks again; None if the answer has its form, or that is enough."""
        builder, form = outcome.builder, outcome.form
        done = builder.done
        if form is None or done is None or done.finish_reason is FinishReason.CANCELLED:
            return None
        try:
            if self._left or self._problems:
                form.read(builder.text, outcome.ending)
            problem = None
        except StructuredOutputError as error:
            problem = str(error)
        if problem is None or not self._left:
            builder.done = self._noted(done)
            return None
        self._left -= 1
        self._problems.append(problem)
        return _corrected(request, builder.text, problem)

    def _noted(self, done: Done) -> Done:
        if not self._problems:
            return done
        notes = (
            f"answer {number} was asked for again: {problem[:300]}"
            for number, problem in enumerate(self._problems, 1)
        )
        return replace(done, notes=(*done.notes, *notes))


def without_form(config: GenerationConfig) -> list[str]:
    """Notes on the settings that ask for something and have no form to do it with."""
    if config.response_format is not None:
        return []
    asked = (name for name in ABOUT_FORMS if config.given.get(name) not in (None, False, 0, "auto"))
    return [f"{name} did nothing: the answer had no response_format" for name in asked]


def _corrected(request: Request, text: str, problem: str) -> Request:
    """The request with the wrong answer, and what is wrong with it."""
    asked: tuple[Mapping[str, Any], ...] = (
        {"role": "assistant", "content": text or "(nothing)"},
        {
            "role": "user",
            "content": f"This is not what was asked for: {problem[:1000]}. Write the whole answer "
            "again, corrected, and nothing else.",
        },
    )
    return replace(request, messages=(*(request.messages or ()), *asked))
