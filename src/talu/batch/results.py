"""Writes the results of a batch in the order of its rows, and finds out where to go on.

The file has a line for each row that is done, in order, so that its length is all that has to be
known to go on after a kill. A line without an end was being written, and is removed.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from talu.batch.rows import Row
from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["Results"]

BLOCK = 2**20  # bytes that are searched for the end of a line at a time


class Results:
    """The file of results, which one process at a time writes.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it; ``close`` it.

        Raises:
            ValidationError: another process is writing it.
            OSError: it cannot be written.
        """
        self.path = path
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            wrong = f"{path} is being written by another process"
            raise ValidationError(wrong, details={"param": "output"}) from error

    def skip_done(self, rows: Iterable[Row]) -> int:
        """Take the rows that have a result from the iterator, and return their number.

        Raises:
            ValidationError: the file has results of other rows, or other lines.
        """
        self._remove_torn_line()
        self._file.seek(0)
        done = 0
        waiting = iter(rows)
        for line in self._file:
            row = next(waiting, None)
            known = _id_of(line)
            if row is None or known != row.id:
                expected = "the input has no more rows" if row is None else f"not {shown(row.id)}"
                raise ValidationError(
                    f"{self.path} has results of another input: line {done + 1} is of "
                    f"{shown(known)}, and {expected}; choose another file, or remove it",
                    details={"param": "output", "line": done + 1},
                )
            done += 1
        return done

    def write(self, result: Mapping[str, Any]) -> None:
        """Append the result of the next row; it survives a kill of this process."""
        line = json.dumps(result, ensure_ascii=False, allow_nan=False)
        self._file.write(f"{line}\n".encode(errors="backslashreplace"))
        self._file.flush()

    def _remove_torn_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        place = end
        while place > 0:
            start = max(0, place - BLOCK)
            self._file.seek(start)
            newline = self._file.read(place - start).rfind(b"\n")
            if newline >= 0:
                place = start + newline + 1
                break
            place = start
        if place < end:
            self._file.truncate(place)

    def close(self) -> None:
        """Write everything to the disk, and let others write the file."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _id_of(line: bytes) -> object:
    """The id of the row that a result belongs to; None if this is no result."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value.get("custom_id", value.get("id")) if isinstance(value, dict) else None
