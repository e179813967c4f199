"""Shows how far the preparation of weights has come: on a terminal, and in the log for programs."""

import logging
import os
import sys
from time import monotonic
from types import TracebackType
from typing import Self

__all__ = ["Progress"]

SILENT_S = 1.0  # what is done by then is not shown
INTERVAL_S = 0.2
CLEAR = "\r\x1b[K"  # back to the beginning of the line, and empty it

logger = logging.getLogger("talu.progress")


class Progress:
    """How many of the bytes of one work are done; use it in a ``with`` block.

    A work of more than a second gets a line on stderr where that is a terminal, unless the variable
    ``TALU_PROGRESS`` is 0. Wherever that is, the logger ``talu.progress`` gets the same text at the
    level INFO, with ``done`` and ``total`` in bytes as attributes of each record.
    """

    def __init__(self, what: str, total: int) -> None:
        """Begin the work ``what`` of ``total`` bytes."""
        self._what = what
        self._total = total
        self._done = 0
        self._next = monotonic() + SILENT_S
        self._shown = False

    def add(self, count: int) -> None:
        """So many more bytes are done."""
        self._done += count
        now = monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self._show()

    def _show(self) -> None:
        share = 100 * self._done // max(self._total, 1)
        text = f"{self._what}: {share} % of {self._total / 1e9:.1f} GB"
        logger.info(text, extra={"done": self._done, "total": self._total})
        self._write(f"{CLEAR}talu: {text}")
        self._shown = True

    def _write(self, text: str) -> None:
        stream = sys.stderr
        try:
            if stream is not None and stream.isatty() and os.environ.get("TALU_PROGRESS") != "0":
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or the stream closed
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
