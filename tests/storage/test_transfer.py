"""Exports and imports are lossless and atomic, and reject data that a chat cannot open."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from talu.chat import MessageItem
from talu.exceptions import IOError, StorageError, ValidationError
from talu.storage import transfer


def ids(sessions) -> list[str]:
    return [session["session_id"] for session in sessions]


@pytest.fixture
def exported(filled, tmp_path) -> list[str]:
    """The lines of an export: a header, seven items, three sessions, the end."""
    filled.export(tmp_path / "all.jsonl")
    return (tmp_path / "all.jsonl").read_text().splitlines()


@pytest.fixture
def import_lines(profile_of, tmp_path):
    """Imports lines into an empty profile."""

    def read(lines: list[str]) -> int:
        (tmp_path / "read.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return profile_of("other").import_(tmp_path / "read.jsonl")

    return read


def test_an_export_can_be_imported_into_another_profile_without_loss(
    profile_of, filled, client_of, tmp_path
) -> None:
    fork = client_of(filled).chat(session_id="a").fork()
    fork.append(MessageItem.create("user", "half \ud800 a pair\x00"))
    fork.title = "Both halves"
    assert filled.export(tmp_path / "all.jsonl") == 4
    other = profile_of("other")
    assert other.import_(tmp_path / "all.jsonl") == 4
    without_cursor = [{k: v for k, v in s.items() if k != "cursor"} for s in filled.sessions()]
    assert [
        {k: v for k, v in s.items() if k != "cursor"} for s in other.sessions()
    ] == without_cursor
    for session in filled.sessions():
        there, here = (p.database.load(session["session_id"]) for p in (other, filled))
        assert there.items == here.items
    assert ids(other.sessions(search="fox")) == ids(filled.sessions(search="fox"))
    assert ids(other.sessions(search="halves")) == ids(filled.sessions(search="halves"))
    other.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
    assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600


def test_an_export_overwrites_nothing(filled, tmp_path) -> None:
    (tmp_path / "all.jsonl").write_text("precious")
    with pytest.raises(IOError, match=r"cannot export to .* already exists"):
        filled.export(tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_text() == "precious"


def test_a_profile_without_sessions_is_exported_as_such(profile_of, tmp_path) -> None:
    assert profile_of("empty").export(tmp_path / "none.jsonl") == 0
    assert profile_of("other").import_(tmp_path / "none.jsonl") == 0


def test_an_export_works_where_the_file_system_has_no_links(
    profile_of, filled, tmp_path, monkeypatch
) -> None:
    def link(*_) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert filled.export(tmp_path / "all.jsonl") == 3
    assert profile_of("other").import_(tmp_path / "all.jsonl") == 3
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["all.jsonl"]


def test_an_export_that_fails_leaves_no_file(filled, tmp_path, monkeypatch) -> None:
    def full(_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        IOError, match=r"cannot export to .*all\.jsonl: no space is left on the disk"
    ):
        filled.export(tmp_path / "all.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [".talu"]


KILLED = """
import os, signal
from talu import Profile
from talu.storage import transfer

encode, left = transfer.encode, 5

def counted(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)

transfer.encode = counted
Profile("work").export("all.jsonl")
"""


def test_an_export_that_is_killed_leaves_only_a_part_that_is_not_imported(
    profile_of, filled, tmp_path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "all.jsonl").exists()
    (part,) = tmp_path.glob(".talu-export-*.part")
    with pytest.raises(ValidationError, match=r"is empty|was cut short"):
        profile_of("other").import_(part)


@pytest.mark.parametrize("kept", range(1, 11))
def test_an_export_that_was_cut_short_is_not_imported(
    profile_of, exported, import_lines, kept: int
) -> None:
    with pytest.raises(ValidationError, match="was cut short: its last lines are missing"):
        import_lines(exported[:kept])
    assert profile_of("other").sessions() == []


def test_an_export_that_was_cut_within_its_last_line_is_not_imported(
    exported, import_lines
) -> None:
    with pytest.raises(ValidationError, match=r"line 12 is not an item or a session: .* not JSON"):
        import_lines([*exported[:-1], exported[-1][:-1]])


def test_an_export_without_an_end_line_is_read_when_it_is_of_the_first_version(
    profile_of, exported, import_lines
) -> None:
    header = exported[0].replace('"version": 2', '"version": 1')
    assert import_lines([header, *exported[1:-1]]) == 3
    assert ids(profile_of("other").sessions()) == ["c", "b", "a"]


def test_an_export_of_the_first_version_without_the_session_of_an_item_is_refused(
    exported, import_lines
) -> None:
    header = exported[0].replace('"version": 2', '"version": 1')
    with pytest.raises(ValidationError, match="was cut short"):
        import_lines([header, *exported[1:-2]])


def item(**changes: object) -> str:
    """A line with a valid item, to which the changes are applied."""
    content = [{"type": "input_text", "text": "Hi"}]
    record = {"type": "message", "role": "user", "id": "i", "content": content}
    return json.dumps({"node": 99, "parent": None, "item": record | changes})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: [], "does not begin with the line"),
        (lambda lines: lines[1:], "does not begin with the line"),
        (
            lambda lines: [lines[0].replace("2", "3"), *lines[1:]],
            r"has version 3; this talu reads \(1, 2\)",
        ),
        (lambda lines: [*lines[:2], "{", *lines[2:]], r"line 3 is not an item .* not JSON"),
        (lambda lines: [*lines[:2], "\udcff", *lines[2:]], r"line 3 is not .* not UTF-8"),
        (lambda lines: [*lines[:2], "", *lines[2:]], r"line 3 is not an item or a session"),
        (lambda lines: [*lines[:2], "[]", *lines[2:]], r"line 3 .* is not an object: \[\]"),
        (lambda lines: [*lines[:2], "[" * 100_000, *lines[2:]], "line 3 .* nested too deeply"),
        (lambda lines: [*lines[:2], "1" * 5000, *lines[2:]], "line 3 .* is not JSON"),
        (lambda lines: [*lines[:2], '{"node": NaN}', *lines[2:]], "line 3 .* is not JSON"),
        (lambda lines: [lines[0], *lines[2:]], r"line 2 is not an item or a session \(KeyError: 1"),
        (lambda lines: [*lines[:2], *lines[1:]], r"line 3 has an item whose number is not a new"),
        (lambda lines: [*lines[:-1], '{"session": 3}'], r"line 12 is not an item or a session"),
        (
            lambda lines: [*lines[:-1], lines[-2], lines[-1]],
            "line 12 has session 'c', which already exists",
        ),
        (lambda lines: [*lines, lines[-1]], "line 13 comes after the end of the export"),
        (lambda lines: [*lines[:-2], lines[-1]], "line 11 says that there are .* but there are"),
        (lambda lines: [*lines[:-1], item(role="nobody")], "line 12: the item is not a record"),
        (lambda lines: [*lines[:-1], item(content=5)], "line 12: the item is not a record"),
        (lambda lines: [*lines[:-1], item(content=[{}])], "line 12: the item is not a record"),
        (lambda lines: [*lines[:-1], item(status="odd")], "line 12: the item is not a record"),
        (lambda lines: [*lines[:-1], item(type="thing")], "line 12: the item is not a record"),
    ],
)
def test_the_error_for_a_malformed_file_names_the_line_and_nothing_is_imported(
    items_left, profile_of, exported, tmp_path, change, match
) -> None:
    text = "".join(f"{line}\n" for line in change(exported))
    (tmp_path / "bad.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValidationError, match=match) as caught:
        profile_of("other").import_(tmp_path / "bad.jsonl")
    assert len(str(caught.value)) < 800
    assert profile_of("other").sessions() == []
    assert items_left(profile_of("other")) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", None),
        ("config", {"temperature": "hot"}),
        ("config", {"unheard_of": 1}),
        ("config", {"logit_bias": {"1" * 5000: 1}}),
        ("metadata", []),
        ("marker", "starred"),
        ("title", 5),
        ("title", True),
        ("session_id", 5),
        ("session_id", ""),
        ("session_id", "a\nb"),
        ("session_id", "a" * 201),
        ("created_at_ms", "now"),
        ("updated_at_ms", 1.5),
        ("updated_at_ms", 10**30),
    ],
)
def test_a_session_that_a_chat_could_not_open_is_not_imported(
    profile_of, exported, import_lines, name, value
) -> None:
    line = json.loads(exported[-2])
    line["session"][name] = value
    with pytest.raises(ValidationError, match=r"line 11 has a session that is malformed: "):
        import_lines([*exported[:-2], json.dumps(line), exported[-1]])
    assert profile_of("other").sessions() == []


def test_a_line_of_a_gigabyte_is_refused_before_it_is_read(
    exported, import_lines, monkeypatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_LINE", 300)
    with pytest.raises(ValidationError, match="line 3 is longer than 300 bytes"):
        import_lines(exported)


def test_an_existing_session_is_not_imported_again(filled, tmp_path) -> None:
    filled.export(tmp_path / "all.jsonl")
    before = filled.sessions()
    with pytest.raises(ValidationError, match="session 'a', which already exists"):
        filled.import_(tmp_path / "all.jsonl")
    assert filled.sessions() == before


def test_the_error_for_a_missing_file_names_it(profile_of, tmp_path: Path) -> None:
    with pytest.raises(IOError, match=r"cannot import .*none\.jsonl"):
        profile_of("work").import_(tmp_path / "none.jsonl")


def test_a_damaged_history_is_not_exported(filled, tmp_path) -> None:
    with filled.database.file.writing() as db:
        db.execute("UPDATE nodes SET item = '{' WHERE node = 1")
    with pytest.raises(StorageError, match="item 1 cannot be read") as caught:
        filled.export(tmp_path / "all.jsonl")
    assert caught.value.code == "STORAGE_DAMAGED"
    assert not (tmp_path / "all.jsonl").exists()
