"""Profiles: names, places, permissions and listings."""

import stat
import subprocess
import sys

import pytest

import talu
from talu import Client, ModelSpec, Profile, list_sessions
from talu.backends.scripted import ScriptedModel
from talu.exceptions import StorageError, ValidationError
from talu.profile import new_session_id


def client_of(profile: Profile, *scripts) -> Client:
    return Client(ModelSpec("m", ScriptedModel(*scripts)), profile=profile)


@pytest.fixture
def profile(profile_of) -> Profile:
    return profile_of("work")


@pytest.fixture
def filled(profile) -> Profile:
    """Sessions a, b and c, in this order."""
    client = client_of(profile, "The fox jumps over the lazy dog.", "Über den Wolken", "1 2 3")
    client.chat(session_id="a").send("Tell me about a quick brown fox")
    client.chat(session_id="b", marker="pinned").send("Ein Lied, bitte")
    client.chat(session_id="c", system="You like foxes.").send("Count to three")
    return profile


def ids(sessions) -> list[str]:
    return [session["session_id"] for session in sessions]


def test_the_name_is_the_argument_then_the_environment_then_default(home, monkeypatch) -> None:
    assert Profile().name == "default"
    monkeypatch.setenv("TALU_PROFILE", "home")
    assert Profile().name == "home"
    assert Profile("work").name == "work"
    assert Profile("work").path == home / ".talu" / "db" / "work"
    assert repr(Profile("work")) == "Profile('work')"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "../x",
        "a..b",
        ".a",
        "-a",
        "a" * 61,
        "a\n",
        "a b",
        3,
        "\ud800",
        "a" * 5000,
    ],
)
def test_a_name_that_cannot_name_a_folder_is_refused(home, name) -> None:
    with pytest.raises(ValidationError, match="the name of a profile is") as caught:
        Profile(name)
    assert len(str(caught.value)) < 300


def test_a_wrong_name_in_the_environment_is_named_as_such(home, monkeypatch) -> None:
    monkeypatch.setenv("TALU_PROFILE", "../x")
    with pytest.raises(ValidationError, match=r"TALU_PROFILE is '\.\./x'"):
        Profile()


def test_reading_a_profile_that_does_not_exist_creates_nothing(home, tmp_path) -> None:
    profile = Profile("typo")
    assert profile.sessions() == profile.sessions(search="x") == list_sessions(profile="typo") == []
    assert len(client_of(profile).chat(session_id="s").items) == 0
    with pytest.raises(ValidationError, match="has no session 's'"):
        profile.delete("s")
    assert list(home.iterdir()) == []


def test_only_the_user_can_read_what_is_stored(filled) -> None:
    assert stat.S_IMODE(filled.path.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in filled.path.iterdir()}
    assert files.keys() >= {"talu.db", "talu.db-wal"}
    assert set(files.values()) == {0o600}


def test_profiles_do_not_see_each_other(profile_of, filled) -> None:
    other = profile_of("home")
    assert other.sessions() == []
    assert len(client_of(other).chat(session_id="a").items) == 0


def test_sessions_are_listed_with_the_last_changed_first(filled) -> None:
    assert ids(filled.sessions()) == ["c", "b", "a"]
    client_of(filled).chat(session_id="a").append("user", "more")
    assert ids(filled.sessions()) == ["a", "c", "b"]


def test_the_sessions_of_a_profile_are_listed_by_its_name(filled) -> None:
    assert ids(talu.list_sessions(profile="work", limit=2)) == ["c", "b"]


def test_a_cursor_continues_after_a_page(filled) -> None:
    first = filled.sessions(limit=2)
    assert ids(filled.sessions(limit=2, cursor=first[-1]["cursor"])) == ["a"]
    assert ids(filled.sessions(search="e", limit=5, cursor=first[0]["cursor"])) == ["b"]


def test_a_marker_filters(filled) -> None:
    assert ids(filled.sessions(marker="pinned")) == ["b"]
    assert ids(filled.sessions(marker="")) == ["c", "a"]
    assert filled.sessions(marker="archived") == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"limit": 0}, "limit must be"),
        ({"limit": "5"}, "limit must be"),
        ({"cursor": "next"}, "cursor must be"),
        ({"cursor": 5}, "cursor must be"),
        ({"cursor": "9" * 5000}, "cursor must be"),
        ({"cursor": "²"}, "cursor must be"),
    ],
)
def test_a_wrong_argument_of_a_listing_is_refused(filled, arguments, match) -> None:
    with pytest.raises(ValidationError, match=match):
        filled.sessions(**arguments)


def test_session_ids_are_random_uuids() -> None:
    assert len({new_session_id() for _ in range(100)}) == 100
    assert new_session_id()[14] == "4"


def test_a_folder_that_cannot_be_made_is_a_storage_error(home) -> None:
    (home / ".talu").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write .*talu\.db"):
        client_of(Profile()).chat(system="S")


def test_a_home_that_the_file_system_cannot_hold_is_a_storage_error(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/" + "a" * 300)
    profile = Profile("work")
    for use in (profile.sessions, lambda: profile.delete("s"), lambda: profile.export("/x/y")):
        with pytest.raises(StorageError, match=r"cannot read .*File name too long"):
            use()


def test_a_missing_home_folder_is_an_error(monkeypatch) -> None:
    def home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("talu.profile.Path.home", home)
    with pytest.raises(StorageError, match="no home folder: set the variable HOME"):
        Profile("work")


FORBIDDEN = """
import os, sys
from talu import Client, ModelSpec, Profile, StorageError
from talu.backends.scripted import ScriptedModel

os.chmod(sys.argv[1], 0)
if os.geteuid() == 0:  # to whom nothing is forbidden
    os.seteuid(65534)
profile = Profile("work")
client = Client(ModelSpec("m", ScriptedModel("a")), profile=profile)
for use in (profile.sessions, lambda: profile.delete("a"), lambda: client.chat(session_id="a")):
    try:
        use()
    except StorageError as error:
        print(error.code, "Permission denied" in str(error))
"""


def test_a_folder_without_permissions_is_a_storage_error(filled, home) -> None:
    command = [sys.executable, "-c", FORBIDDEN, str(home / ".talu")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stderr == ""
    assert shown.stdout == "STORAGE_ERROR True\n" * 3
