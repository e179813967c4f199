"""The finish reason and the error type of a generation, for all hooks. Pure."""

from typing import Any

from talu.chat.answer import Answer
from talu.exceptions import TaluError
from talu.types import FinishReason

__all__ = ["error_type", "finish_reason"]


def finish_reason(response: Answer[Any] | None, error: BaseException | None) -> FinishReason:
    """Why it ended; a caller that is interrupted before the model starts has cancelled it."""
    if response is not None and response.finish_reason is not None:
        return response.finish_reason
    return FinishReason.ERROR if isinstance(error, Exception) else FinishReason.CANCELLED


def error_type(error: BaseException) -> str:
    """The code of an error of talu, the name of the class of any other."""
    return error.code if isinstance(error, TaluError) else type(error).__qualname__
