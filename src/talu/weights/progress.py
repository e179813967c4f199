"""Shows the progress of preparing weights on a terminal and in the log."""

import logging
import os
import sys
from time import monotonic
from types import TracebackType
from typing import Self

__all__ = ["Progress"]

SILENT_S = 1.0  # shorter tasks are not shown
INTERVAL_S = 0.2
CLEAR = "\r\x1b[K"  # go to the start of the line and clear it

logger = logging.getLogger("talu.progress")


def size_text(count: int) -> str:
    """A number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


class Progress:
    """Progress of a task in bytes, for use in a ``with`` block.

    A task of more than a second is shown on stderr if that is a terminal, unless the environment
    variable ``TALU_PROGRESS`` is 0. In any case the logger ``talu.progress`` gets the same text at
    level INFO; ``done`` and ``total`` in bytes are attributes of each record.
    """

    def __init__(self, what: str, total: int) -> None:
        """Start the task ``what`` of ``total`` bytes."""
        self._what = what
        self._total = total
        self._done = 0
        self._next = monotonic() + SILENT_S
        self._shown = False

    def add(self, count: int) -> None:
        """Add ``count`` bytes to those done."""
        self._done += count
        now = monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self._show()

    def _show(self) -> None:
        share = 100 * self._done // max(self._total, 1)
        text = f"{self._what}: {share} % of {size_text(self._total)}"
        logger.info(text, extra={"done": self._done, "total": self._total})
        self._write(f"{CLEAR}talu: {text}")
        self._shown = True

    def _write(self, text: str) -> None:
        stream = sys.stderr
        try:
            if stream is not None and stream.isatty() and os.environ.get("TALU_PROGRESS") != "0":
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):  # the terminal or the stream was closed
            logger.debug("progress could not be shown", exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            self._write(CLEAR)
