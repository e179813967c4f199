"""All sessions as a text file, one JSON object a line, and back, without loss.

The first line names the format; then come items, each with the number of the one before it, and
sessions, each with the number of its last item. So histories that are shared stay shared.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from talu.exceptions import IOError, ValidationError
from talu.storage.rows import encode, flaw_of, session_text, words_of
from talu.storage.sessions import Database, add_items, add_session

__all__ = ["export_sessions", "import_sessions"]

HEADER = {"format": "talu-sessions", "version": 1}


def export_sessions(database: Database, path: Path) -> int:
    """Write everything to a new file that only the user can read; gives the number of sessions."""
    lines = [json.dumps(HEADER)]
    nodes: list[tuple[int, int | None, str]] = []
    sessions: list[tuple[Any, ...]] = []
    if database.file.exists:
        with database.file.reading() as db:
            nodes = db.execute("SELECT node, parent, item FROM nodes ORDER BY node").fetchall()
            sessions = db.execute(
                "SELECT head, session_id, marker, created_at_ms, updated_at_ms, record"
                " FROM sessions ORDER BY change"
            ).fetchall()
    for node, parent, item in nodes:
        line = {"node": node, "parent": parent, "item": json.loads(item)}
        lines.append(encode("an item", line))
    for head, *columns in sessions:
        lines.append(encode("a session", {"session": database.session_of(*columns), "head": head}))
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise IOError(f"cannot export to {path}: {error}", details={"path": str(path)}) from error
    return len(sessions)


def import_sessions(database: Database, path: Path) -> int:
    """Add everything of an exported file, or nothing; gives the number of sessions.

    Raises:
        IOError: the file cannot be read.
        ValidationError: a line is malformed, or a session of that id is there already.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IOError(f"cannot import {path}: {error}", details={"path": str(path)}) from error
    lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line]
    if not lines or _parsed(*lines[0]) != HEADER:
        first = lines[0][1][:80] if lines else ""
        _refuse(str(path), f"does not begin with the line {json.dumps(HEADER)}, but {first!r}")
    return _add(database, ((where, _parsed(where, line)) for where, line in lines[1:]))


def _add(database: Database, lines: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    nodes: dict[int | None, int | None] = {None: None}
    sessions = 0
    with database.file.writing() as db:
        for where, line in lines:
            try:
                if "session" in line:
                    session, head = line["session"], nodes[line["head"]]
                    if flaw := flaw_of(session):
                        _refuse(where, f"has a session that is malformed: {flaw}")
                    session_id = session["session_id"]
                    times = session["created_at_ms"], session["updated_at_ms"]
                    known = "SELECT 1 FROM sessions WHERE session_id = ?"
                    if db.execute(known, (session_id,)).fetchone():
                        _refuse(where, f"has session {session_id!r}, which is there already")
                    text = session_text(session)
                    add_session(db, session_id, head, session["marker"], text, times)
                    sessions += 1
                else:
                    item = line["item"]
                    texts = [(encode("an item", item), words_of(item))]
                    (nodes[line["node"]],) = add_items(db, nodes[line["parent"]], texts)
            except (KeyError, TypeError, AttributeError, OverflowError) as error:
                _refuse(where, f"is not an item or a session ({type(error).__name__}: {error})")
    return sessions


def _parsed(where: str, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"is not JSON: {error}")
    if not isinstance(value, dict):
        _refuse(where, f"is not a JSON object: {line[:80]!r}")
    return value


def _refuse(where: str, wrong: str) -> NoReturn:
    raise ValidationError(f"{where} {wrong}", details={"param": "path", "where": where})
