"""Exports all sessions to a file of JSON lines, and imports such a file, without loss.

The first line names the format. Then come items, each with the number of its predecessor, and
sessions, each with the number of its last item, so that shared histories stay shared. The last line
has the number of each; a file without it is truncated.
"""

import json
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, cast

from talu.error_text import reason, shown
from talu.exceptions import IOError, ValidationError
from talu.protocols import ChatRecord
from talu.storage.rows import Damage, Node, SessionRow, decode, encode, flaw_of, words_of
from talu.storage.sessions import Database
from talu.storage.tables import Tables

__all__ = ["export_sessions", "import_sessions"]

FORMAT = "talu-sessions"
VERSIONS = (1, 2)  # version 1 has no last line
HEADER = {"format": FORMAT, "version": VERSIONS[-1]}
MAX_LINE = 2**28  # bytes
CheckItem = Callable[[str, Mapping[str, Any]], object]
CheckConfig = Callable[[Mapping[str, Any]], object]


def export_sessions(database: Database, path: Path) -> int:
    """Write all sessions to a new file that only the user can read; return their number."""
    nodes: Sequence[Node] = []
    sessions: Sequence[SessionRow] = []
    if database.exists:
        with database.reading() as tables:
            nodes, sessions = tables.live_nodes(), tables.sessions()
    end = {"end": {"items": len(nodes), "sessions": len(sessions)}}
    lines = chain(_item_lines(database, nodes), _session_lines(database, nodes, sessions))
    try:
        with _new_file(path) as file, os.fdopen(file, "w", encoding="utf-8", newline="\n") as out:
            out.write(f"{json.dumps(HEADER)}\n")
            out.writelines(f"{line}\n" for line in lines)
            out.write(f"{json.dumps(end)}\n")
            out.flush()
            os.fsync(file)
    except OSError as error:
        wrong = f"cannot export to {path}: {reason(error)}"
        raise IOError(wrong, details={"path": str(path)}) from error
    return len(sessions)


def _item_lines(database: Database, nodes: Sequence[Node]) -> Iterator[str]:
    known: set[int | None] = {None}
    for node, parent, item in nodes:
        try:
            line = {"node": node, "parent": parent, "item": decode(item)}
        except Damage as error:
            raise database.damaged(f"item {node} cannot be read: {error}") from error
        if parent not in known:
            raise database.damaged(f"item {node}: the item before it is missing")
        known.add(node)
        yield encode("an item", line)


def _session_lines(
    database: Database, nodes: Sequence[Node], sessions: Sequence[SessionRow]
) -> Iterator[str]:
    known = {None, *(node for node, _, _ in nodes)}
    for row in sessions:
        record = database.record_of(row)
        if row.head not in known:
            raise database.damaged("its last item is missing", record["session_id"])
        yield encode("a session", {"session": record, "head": row.head})


@contextmanager
def _new_file(path: Path) -> Generator[int]:
    """A temporary file that is renamed to ``path`` when complete, and never overwrites a file."""
    if os.path.lexists(path):
        raise FileExistsError("this file already exists")
    part = path.with_name(f".talu-export-{secrets.token_hex(8)}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield file
        try:
            os.link(part, path)
        except PermissionError:  # the file system has no links
            if os.path.lexists(path):
                raise
            part.rename(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def import_sessions(
    database: Database, path: Path, check_item: CheckItem, check_config: CheckConfig
) -> int:
    """Import all sessions of an exported file, or none; return their number.

    Args:
        database: the destination.
        path: the file.
        check_item: validates an item as a chat does; raises ``ValidationError``.
        check_config: validates the settings of a session in the same way.

    Raises:
        IOError: the file cannot be read.
        ValidationError: a line is malformed, the file is truncated, or a session with the same id
            already exists.
    """
    try:
        with path.open("rb") as file, database.writing() as tables:
            reader = _Import(tables, check_item, check_config)
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                reader.take(f"{path}, line {number}", line)
            reader.finish(str(path))
    except OSError as error:
        wrong = f"cannot import {path}: {reason(error)}"
        raise IOError(wrong, details={"path": str(path)}) from error
    return reader.sessions


class _Import:
    """An import in progress, to which the lines of a file are added one by one."""

    def __init__(self, tables: Tables, check_item: CheckItem, check_config: CheckConfig) -> None:
        self._tables = tables
        self._check_item = check_item
        self._check_config = check_config
        self._version: int | None = None
        self._ended = False
        self._nodes: dict[int | None, int | None] = {None: None}
        self._leaves: set[int | None] = set()  # items that nothing refers to yet
        self.sessions = 0

    def take(self, where: str, line: bytes) -> None:
        """Check a line and add it."""
        if len(line) > MAX_LINE:
            _refuse(where, f"is longer than {MAX_LINE} bytes")
        if self._version is None:
            self._version = _version_of(where, line)
            return
        if self._ended:
            _refuse(where, "comes after the end of the export")
        value = _parsed(where, line)
        try:
            if "end" in value:
                self._end(where, value["end"])
            elif "session" in value:
                self._add_session(where, value["session"], value["head"])
            else:
                self._add_item(where, value["node"], value["parent"], value["item"])
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            _refuse(where, f"is not an item or a session ({reason})")

    def finish(self, path: str) -> None:
        """Check that the file was complete."""
        if self._version is None:
            _refuse(path, f"does not begin with the line {json.dumps(HEADER)}, but is empty")
        if self._leaves or (self._version > 1 and not self._ended):
            _refuse(path, "was cut short: its last lines are missing; export it again")

    def _add_item(self, where: str, node: object, parent: object, item: dict[str, Any]) -> None:
        if not isinstance(node, int) or node in self._nodes:
            _refuse(where, f"has an item whose number is not a new one: {shown(node)}")
        if parent is not None and not isinstance(parent, int):
            raise TypeError(f"parent is {shown(parent)}")
        self._check_item(f"{where}: the item", item)
        texts = [(encode("an item", item), words_of(item))]
        (self._nodes[node],) = self._tables.add_items(self._nodes[parent], texts)
        self._leaves.add(node)
        self._leaves.discard(parent)

    def _add_session(self, where: str, session: dict[str, Any], head: int | None) -> None:
        if flaw := flaw_of(session):
            _refuse(where, f"has a session that is malformed: {flaw}")
        try:
            self._check_config(session["config"])
        except ValidationError as error:
            _refuse(where, f"has a session that is malformed: {error}")
        times = session["created_at_ms"], session["updated_at_ms"]
        record = cast(ChatRecord, session)
        if self._tables.add_session(record, self._nodes[head], times) is None:
            _refuse(where, f"has session {record['session_id']!r}, which already exists")
        self._leaves.discard(head)
        self.sessions += 1

    def _end(self, where: str, counts: object) -> None:
        read = {"items": len(self._nodes) - 1, "sessions": self.sessions}
        if counts != read:
            _refuse(where, f"says that there are {shown(counts)}, but there are {read}")
        self._ended = True


def _version_of(where: str, line: bytes) -> int:
    with suppress(Damage):
        header = decode(line)
        if header.get("format") == FORMAT and header.get("version") in VERSIONS:
            return int(header["version"])
        if header.get("format") == FORMAT:
            _refuse(
                where, f"has version {shown(header.get('version'))}; this talu reads {VERSIONS}"
            )
    _refuse(where, f"does not begin with the line {json.dumps(HEADER)}, but {shown(line)}")


def _parsed(where: str, line: bytes) -> dict[str, Any]:
    try:
        return decode(line)
    except Damage as error:
        _refuse(where, f"is not an item or a session: {error}")


def _refuse(where: str, wrong: str) -> NoReturn:
    raise ValidationError(f"{where} {wrong}", details={"param": "path", "where": where})
