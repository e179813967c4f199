"""Secrets of a client never reach the database or an export."""

from pathlib import Path

import pytest

from talu import Client, ModelSpec, Profile, TaluError
from talu.config import GenerationConfig
from talu.router import OpenAICompatibleBackend

CANARY = "CANARY-77aa"
BACKEND = OpenAICompatibleBackend(
    base_url=f"http://user:{CANARY}@localhost:1/v1?key={CANARY}",
    api_key=CANARY,
    org_id=CANARY,
    extra_params={"user": CANARY},
    headers={"Authorization": CANARY},
)


def test_the_secrets_of_a_backend_are_not_stored(home: Path) -> None:
    profile = Profile("work")
    with Client(ModelSpec("openai::gpt-4o", BACKEND), profile=profile) as client:
        chat = client.chat(session_id="s", system="S", config=GenerationConfig(seed=1))
        chat.append("user", "Hi")
        with pytest.raises(TaluError):
            chat.send("Nobody answers at this address.")
        chat.title = "t"
        chat.fork().append("user", "more")
    profile.export(home / "all.jsonl")
    stored = b"".join(path.read_bytes() for path in [*profile.path.iterdir(), home / "all.jsonl"])
    assert b"gpt-4o" in stored
    assert CANARY.encode() not in stored
