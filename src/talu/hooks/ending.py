"""The finish reason and the error type that all hooks report for a generation."""

from typing import Any

from talu.chat.answer import Answer
from talu.exceptions import TaluError
from talu.types import FinishReason

__all__ = ["error_type", "finish_reason"]


def finish_reason(response: Answer[Any] | None, error: BaseException | None) -> FinishReason:
    """The finish reason; an interrupt of the caller before the model starts counts as cancelled."""
    if response is not None and response.finish_reason is not None:
        return response.finish_reason
    return FinishReason.ERROR if isinstance(error, Exception) else FinishReason.CANCELLED


def error_type(error: BaseException) -> str:
    """The code of a talu error, or the class name of any other error."""
    return error.code if isinstance(error, TaluError) else type(error).__qualname__
