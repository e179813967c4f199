"""Profiles on a server, as far as they need none; ``tests_system`` has the others."""

import subprocess
import sys

import pytest

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.exceptions import StorageError, ValidationError

SECRET = "s3cret-77aa"
URL = f"postgresql://ada:{SECRET}@127.0.0.1:1/chats"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_the_name_of_a_profile_on_a_server_is_its_url_without_the_password(scheme: str) -> None:
    profile = Profile(URL.replace("postgresql", scheme))
    assert profile.name == f"{scheme}://***@127.0.0.1:1/chats"
    assert repr(profile) == f"Profile({profile.name!r})"
    assert profile.path is None


def test_the_environment_may_name_a_server(home, monkeypatch) -> None:
    monkeypatch.setenv("TALU_PROFILE", URL)
    assert Profile().name == "postgresql://***@127.0.0.1:1/chats"


def test_a_profile_on_a_server_needs_no_home_folder(monkeypatch) -> None:
    def home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("talu.profile.Path.home", home)
    assert Profile(URL).path is None


@pytest.mark.parametrize(
    ("url", "match"),
    [
        (f"postgresql://ada:%{SECRET}@host/chats", "the URL of a profile is postgresql://"),
        (f"postgresql://ada:{SECRET}@host:port/chats?unknown=1", "the URL of a profile is"),
        (f"postgresql://ada:{SECRET}@host/\ud800", "the URL of a profile is"),
        (f"postgresql://ada:{SECRET}@host/\0", "the URL of a profile is"),
        (f"mysql://ada:{SECRET}@host/chats", "or a URL that begins with postgresql://"),
        (f"POSTGRESQL:/ada:{SECRET}@host", "the name of a profile is"),
    ],
)
def test_the_error_for_a_wrong_url_does_not_show_its_password(home, url: str, match: str) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        Profile(url)
    error = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    assert caught.value.details["param"] == "name"


def test_a_server_that_cannot_be_reached_is_named_without_its_password() -> None:
    profile = Profile(URL)
    client = Client(ModelSpec("m", ScriptedModel("answer")), profile=profile)
    for use in (profile.sessions, lambda: profile.delete("s"), lambda: client.chat(session_id="s")):
        with pytest.raises(StorageError, match=r"cannot connect to .*/chats: .*refused") as caught:
            use()
        assert caught.value.code == "STORAGE_ERROR"
        assert SECRET not in f"{caught.value} {vars(caught.value)}"


WITHOUT_PSYCOPG = """
import sys
from talu import DependencyError, Profile

sys.modules["psycopg"] = None
try:
    Profile("postgresql://host/chats")
except DependencyError as error:
    print(error.code, error)
"""


def test_without_its_client_library_the_error_has_the_command_that_installs_it() -> None:
    shown = subprocess.run([sys.executable, "-c", WITHOUT_PSYCOPG], capture_output=True, text=True)
    assert shown.stdout == (
        "MISSING_DEPENDENCY profiles on a PostgreSQL server need psycopg, which is not installed: "
        "pip install 'talu[postgres]'\n"
    )
