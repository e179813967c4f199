"""A hook that logs the start and the end of generations with the standard ``logging``.

Handlers and formatters are configured by the program.
"""

import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from talu.chat.answer import Answer
from talu.chat.observers import Generation, Hook
from talu.checks import check_boolean
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.hooks.ending import error_type, finish_reason
from talu.tools.calls import ToolRun

__all__ = ["LoggingHook"]

NUMBERS = itertools.count(1)


class LoggingHook(Hook):
    """Logs the start and the end of every generation, and its tool calls that talu carries out.

    A record is one line of ``name=value`` pairs; its attribute ``talu`` has the same pairs as a
    dictionary, for formatters that write JSON. ``generation`` is a number shared by the start and
    the end of a generation. The end has the finish reason, token counts, and the milliseconds
    since the start as ``duration_ms`` and ``first_token_ms``; a failure has the error's code or
    class.

    Args:
        logger: the logger to use; ``talu.generations`` if None.
        level: level of all records, except that failures are at least warnings.
        content: also log content: the prompt, the answer, the arguments and results of tool calls,
            and error messages, which may quote them.

    Raises:
        ValidationError: an argument is of the wrong type.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        content: bool = False,
    ) -> None:
        if logger is not None and not isinstance(logger, logging.Logger):
            wrong = "logger must be a Logger, such as logging.getLogger('my.app')"
            wrong += f", got {shown(logger)}"
            raise ValidationError(wrong, details={"param": "logger", "value": logger})
        if not isinstance(level, int) or isinstance(level, bool):
            wrong = f"level must be a number such as logging.INFO, got {shown(level)}"
            raise ValidationError(wrong, details={"param": "level", "value": level})
        self._logger = logger or logging.getLogger("talu.generations")
        self._level = level
        self._content = check_boolean("content", content)

    def for_generation(self, generation: Generation) -> Hook:
        """The hook that logs this generation."""
        return _Observer(self._logger, self._level, generation, content=self._content)


class _Observer(Hook):
    """Logs one generation."""

    def __init__(
        self, logger: logging.Logger, level: int, generation: Generation, *, content: bool
    ) -> None:
        self._logger = logger
        self._level = level
        self._content = content
        self._generation = generation
        self._known: dict[str, object] = {"generation": next(NUMBERS), "model": generation.model}
        self._first_token_ms: float | None = None

    def on_generation_start(self, chat: Any, input_text: str, *, config: object = None) -> None:
        pairs = {
            "operation": self._generation.operation,
            "stream": self._generation.stream,
            "session_id": chat.session_id if chat is not None else None,
        }
        if self._content:
            pairs["input"] = input_text
        self._log(self._level, "start", pairs)

    def on_first_token(self, chat: Any, time_ms: float) -> None:
        self._first_token_ms = round(time_ms, 3)

    def on_tool_run(self, chat: Any, run: ToolRun) -> None:
        pairs: dict[str, object] = {
            "tool": run.name,
            "call_id": run.call.id,
            "error": None if run.error is None else run.error.code,
            "duration_ms": round(run.duration_ms, 3),
        }
        if self._content:
            pairs |= {"arguments": run.call.arguments, "output": run.output}
        level = self._level if run.error is None else max(self._level, logging.WARNING)
        self._log(level, "tool", pairs)

    def on_generation_end(
        self,
        chat: Any,
        response: Answer[Any] | None,
        *,
        error: BaseException | None = None,
    ) -> None:
        failure = error if isinstance(error, Exception) else None
        pairs: dict[str, object] = {
            "finish_reason": str(finish_reason(response, error)),
            "error": error_type(failure) if failure is not None else None,
            "duration_ms": round((time.perf_counter() - self._generation.began_at) * 1000, 3),
            "first_token_ms": self._first_token_ms,
        }
        if response is not None:
            pairs |= _measures(response)
        if self._content:
            pairs["output"] = response.text if response is not None else None
            pairs["error_message"] = str(failure) if failure is not None else None
        self._log(
            max(self._level, logging.WARNING) if failure is not None else self._level, "end", pairs
        )

    def _log(self, level: int, event: str, pairs: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            every = {"event": event, **self._known, **pairs}
            known = {name: value for name, value in every.items() if value is not None}
            line = " ".join(f"{name}={_shown(value)}" for name, value in known.items())
            self._logger.log(level, "%s", line, extra={"talu": known})


def _measures(response: Answer[Any]) -> dict[str, object]:
    measures: dict[str, object] = {}
    if response.usage is not None:
        measures["prompt_tokens"] = response.usage.prompt_tokens
        measures["cached_tokens"] = response.usage.cached_tokens
        measures["completion_tokens"] = response.usage.completion_tokens
    speed = response.timings.tokens_per_second if response.timings is not None else None
    measures["tokens_per_second"] = None if speed is None else round(speed, 1)
    return measures


def _shown(value: object) -> str:
    """A value without characters that could end the line or control a terminal."""
    if not isinstance(value, str):
        return json.dumps(value)
    if value and all(char.isalnum() or char in "-_./:" for char in value):
        return value
    shown = (
        char if char.isprintable() and char not in '"\\' else json.dumps(char)[1:-1]
        for char in value
    )
    return f'"{"".join(shown)}"'
