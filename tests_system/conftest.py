"""A PostgreSQL server, and fixtures with which tests of profiles run on it."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.cli.conftest import scripted, talu
from tests.conftest import faces, home
from tests.storage.conftest import client_of, filled
from tests_system.postgres import Server, running

from talu import Profile

__all__ = ["client_of", "faces", "filled", "home", "scripted", "talu"]

NUMBERS = count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server for all tests."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def made() -> set[str]:
    """The names of the databases that tests have used."""
    return set()


@pytest.fixture
def url_of(server: Server, made: set[str]) -> Iterator[Callable[[str], str]]:
    """The URL of the database of this name, which has no tables at the start of the test."""
    used: set[str] = set()
    number = f"test-{next(NUMBERS)}"  # no test shares connections with an earlier one

    def url(name: str) -> str:
        if name not in made:
            server.execute(f'CREATE DATABASE "{name}"')
            made.add(name)
        used.add(name)
        return server.url(name, application_name=number)

    yield url
    for name in used:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND application_name = '{number}'"
        )
        server.execute("DROP SCHEMA IF EXISTS talu CASCADE", name)


@pytest.fixture
def profile_of(home: Path, url_of: Callable[[str], str]) -> Callable[[str], Profile]:
    """Opens the profile in the database of this name."""
    return lambda name: Profile(url_of(name))


@pytest.fixture
def profile(profile_of: Callable[[str], Profile]) -> Profile:
    """A profile that has no tables yet."""
    return profile_of("work")


@pytest.fixture
def items_left() -> Callable[[Profile], int]:
    """Counts the items in the database of a profile, also those that no session has."""

    def count(profile: Profile) -> int:
        with profile.database.server.reading() as db:
            return db.execute("SELECT count(*) FROM talu.nodes").fetchone()[0]

    return count
