"""Damaged or hostile databases cause a typed error that says where, and nothing hangs."""

import random
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from talu import Client, Profile, TaluError
from talu.exceptions import StorageError


def change(profile: Profile, *statements: str) -> None:
    """Change a database with its constraints disabled."""
    db = sqlite3.connect(profile.path / "talu.db", isolation_level=None)
    db.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        db.execute(statement)
    db.close()


def set_record(text: str) -> str:
    return f"UPDATE sessions SET record = {text} WHERE session_id = 'a'"


def set_item(text: str) -> str:
    return f"UPDATE nodes SET item = {text} WHERE node = 2"


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE nodes SET parent = 2 WHERE node = 1", "item 0: the item before it is missing"),
        ("UPDATE nodes SET parent = node WHERE node = 2", "item 0: the item before it is missing"),
        ("DELETE FROM nodes WHERE node = 1", "item 0: the item before it is missing"),
        ("DELETE FROM nodes WHERE node = 2", "its last item is missing"),
        ("UPDATE sessions SET head = 999 WHERE session_id = 'a'", "its last item is missing"),
        ("UPDATE sessions SET head = 'x' WHERE session_id = 'a'", "its last item is missing"),
        ("UPDATE nodes SET parent = 'x' WHERE node = 2", "item 0: the item before it is missing"),
        (set_item("'{'"), "item 1: the text is not JSON"),
        (set_item("'[]'"), r"item 1: the JSON text is not an object: \[\]"),
        (set_item("5"), "item 1: the JSON text is not an object: 5"),
        (set_item("CAST(x'fffe' AS TEXT)"), "item 1: the text is not UTF-8"),
        (set_item("'" + "[" * 100_000 + "'"), "item 1: the JSON text is nested too deeply"),
        (set_item('\'{"a": ' + "1" * 5000 + "}'"), "item 1: the text is not JSON"),
        (set_item("'{\"a\": NaN}'"), "item 1: the text is not JSON: NaN"),
        (set_item("'{}'"), "item 1 is not a record of a conversation item"),
        (set_record("'null'"), "the JSON text is not an object: None"),
        (set_record("x'ff'"), "the text is not UTF-8"),
        (set_record("'{}'"), "parent_session_id is missing"),
        (set_record("json_set(record, '$.config', '1')"), "config is '1'"),
        (set_record("json_set(record, '$.config', json('{\"seed\": -1}'))"), "seed"),
        ("UPDATE sessions SET marker = 'odd' WHERE session_id = 'a'", "marker is 'odd'"),
        ("UPDATE sessions SET created_at_ms = 'x' WHERE session_id = 'a'", "created_at_ms is 'x'"),
        ("UPDATE sessions SET change = 'x' WHERE session_id = 'a'", "its change is 'x'"),
    ],
)
def test_the_error_for_a_damaged_session_says_where_and_other_sessions_still_open(
    filled, client_of, statement: str, match: str
) -> None:
    change(filled, statement)
    with pytest.raises(StorageError, match=match) as caught:
        client_of(filled).chat(session_id="a")
    assert "session 'a'" in str(caught.value)
    assert caught.value.code == "STORAGE_DAMAGED"
    assert caught.value.details == {"session_id": "a"}
    assert len(str(caught.value)) < 600
    assert len(client_of(filled).chat(session_id="c").items) == 3


def uses(profile: Profile, client: Client, folder: Path) -> list[Callable[[], object]]:
    """Everything that reads or changes a session."""
    return [
        profile.sessions,
        lambda: profile.sessions(search="fox"),
        lambda: client.chat(session_id="a").send("Hi"),
        lambda: profile.export(folder / f"{uuid.uuid4()}.jsonl"),
        lambda: profile.delete("a"),
    ]


def code_of(use: Callable[[], object]) -> str | None:
    """The code of the error of talu, None without an error; any other error is raised."""
    try:
        use()
    except TaluError as error:
        return error.code if len(str(error)) < 1000 else "LONG"
    return None


@pytest.mark.parametrize(
    "statement",
    ["UPDATE nodes SET parent = node + 1", "UPDATE nodes SET parent = 6 WHERE node = 5"],
)
def test_a_cycle_of_items_does_not_hang(filled, client_of, tmp_path, statement: str) -> None:
    change(filled, "UPDATE sessions SET head = 5 WHERE session_id = 'a'", statement)
    for use in uses(filled, client_of(filled), tmp_path):
        assert code_of(use) in (None, "STORAGE_DAMAGED")


@pytest.mark.parametrize("last", ["NULL", "'x'", str(2**63 - 1)])
def test_a_change_counter_that_is_not_a_number_is_damage(filled, client_of, last: str) -> None:
    change(filled, f"UPDATE changes SET last = {last}" if last != "NULL" else "DELETE FROM changes")
    with pytest.raises(StorageError, match="the number of the last change") as caught:
        client_of(filled).chat(session_id="new", system="S")
    assert caught.value.code == "STORAGE_DAMAGED"


def test_a_record_that_names_another_session_does_not_replace_its_columns(filled) -> None:
    change(filled, set_record("json_set(record, '$.session_id', 'b', '$.cursor', 'x')"))
    assert [session["session_id"] for session in filled.sessions()] == ["c", "b", "a"]


@pytest.mark.filterwarnings("ignore:.* has damaged sessions:UserWarning")
def test_mutated_databases_give_typed_errors_only(filled, client_of, tmp_path: Path) -> None:
    chance = random.Random(11)
    filled.delete("b")
    del filled
    good = Path(tmp_path / ".talu/db/work/talu.db").read_bytes()
    for number in range(100):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 5, 50])):
            bad[chance.randrange(100, len(bad))] = chance.choice([0, 255, chance.randrange(256)])
        folder = tmp_path / ".talu/db/bad"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "talu.db").write_bytes(bad)
        profile = Profile("bad")
        for use in uses(profile, client_of(profile, "ok"), tmp_path):
            assert code_of(use) in (None, "STORAGE_DAMAGED", "INVALID_ARGUMENT"), number


def test_a_listing_and_an_export_name_the_session_that_is_damaged(filled, tmp_path) -> None:
    change(filled, set_record("'{}'"))
    for use in (filled.sessions, lambda: filled.export(tmp_path / "all.jsonl")):
        with pytest.raises(StorageError, match=r"session 'a' cannot be read: .* missing") as caught:
            use()
        assert caught.value.code == "STORAGE_DAMAGED"


@pytest.mark.parametrize("value", ["x'00ff'", "'x'", str(2**63 - 1)])
def test_a_listing_names_a_session_that_its_order_does_not_reach(filled, value: str) -> None:
    change(filled, f"UPDATE sessions SET change = {value} WHERE session_id = 'a'")
    with pytest.warns(UserWarning, match="has damaged sessions .*: 'a'; restore") as warned:
        sessions = filled.sessions(limit=1)
    assert [warning.filename for warning in warned] == [__file__]
    assert [session["session_id"] for session in sessions] == ["c"]
    assert len(filled.sessions(cursor=sessions[0]["cursor"])) == 1  # warned on the first page


@pytest.mark.parametrize("value", ["x'00ff'", "'x'"])
def test_a_search_names_a_session_whose_last_item_is_not_a_number(filled, value: str) -> None:
    change(filled, f"UPDATE sessions SET head = {value} WHERE session_id = 'a'")
    with pytest.warns(UserWarning, match="has damaged sessions .*: 'a'; restore"):
        assert filled.sessions(search="brown") == []


def test_a_listing_names_at_most_ten_damaged_sessions(filled, client_of) -> None:
    for number in range(12):
        client_of(filled).chat(session_id=f"s{number}", system="S")
    change(filled, "UPDATE sessions SET change = 'x' || session_id WHERE session_id != 'a'")
    with pytest.warns(UserWarning, match="and others; restore") as warned:
        assert [session["session_id"] for session in filled.sessions()] == ["a"]
    assert str(warned[0].message).count("'") == 20
