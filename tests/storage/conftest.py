"""A profile to work on, and clients that answer from a script."""

from collections.abc import Callable
from typing import Any

import pytest

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel


@pytest.fixture
def profile(profile_of: Callable[[str], Profile]) -> Profile:
    """A profile that has no database yet."""
    return profile_of("work")


@pytest.fixture
def client_of() -> Callable[..., Client]:
    """Makes a client of a profile, whose model gives these answers."""

    def make(profile: Profile, *answers: Any) -> Client:
        return Client(ModelSpec("m", ScriptedModel(*answers)), profile=profile)

    return make


@pytest.fixture
def filled(profile: Profile, client_of: Callable[..., Client]) -> Profile:
    """A profile with the sessions a, b and c, in this order."""
    client = client_of(profile, "The fox jumps over the lazy dog.", "Über den Wolken", "1 2 3")
    client.chat(session_id="a").send("Tell me about a quick brown fox")
    client.chat(session_id="b", marker="pinned").send("Ein Lied, bitte")
    client.chat(session_id="c", system="You like foxes.").send("Count to three")
    return profile
