"""What a profile costs: turns stored in a second, and the time until a long session is back.

A scripted model answers, so that nothing but the chat and the store is measured.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable

from command import Report, in_turn, options, spread

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel

ANSWER = "The quick brown fox jumps over the lazy dog. " * 10


def talk(profile: Profile | None, turns: int) -> float:
    """Turns in a second, in chats of ten turns."""
    model = ScriptedModel(*[[ANSWER]] * turns)
    client = Client(ModelSpec("scripted", model), profile=profile)
    client.chat(system="The database is made before the clock starts.")
    began = time.perf_counter()
    for _ in range(turns // 10):
        chat = client.chat()
        for number in range(10):
            chat.send(f"Question {number}: what does the fox do?")
    return turns / (time.perf_counter() - began)


def fill(profile: Profile, items: int) -> None:
    """Store a session of this many items."""
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": f"{i}: {ANSWER}"} for i in range(items)
    ]
    Client(ModelSpec("scripted", ScriptedModel()), profile=profile).chat(
        session_id="long", messages=messages
    )


def restore(profile: Profile, items: int) -> float:
    """Milliseconds until the session is a chat again."""
    client = Client(ModelSpec("scripted", ScriptedModel()), profile=profile)
    began = time.perf_counter()
    assert len(client.chat(session_id="long").items) == items
    return 1000 * (time.perf_counter() - began)


def search(profile: Profile) -> float:
    """Milliseconds until all items that have a common word are searched."""
    began = time.perf_counter()
    assert len(profile.sessions(search="lazy dog", limit=50)) == 50
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Measure everything in a home of its own, on the disk that the working folder is on."""
    parser = options(__doc__, rounds=5, threads=None)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--items", type=int, default=10_000)
    given = parser.parse_args()
    title = "a profile: median (minimum to maximum)"
    report = Report(given, title, sqlite=sqlite3.sqlite_version)
    results: dict[str, list[float]] = {}

    def show(what: str, measure: Callable[[], float]) -> None:
        (results[what],) = in_turn([lambda _: measure()], given.rounds)
        report.line(f"{what:44} {spread(results[what])}")

    with tempfile.TemporaryDirectory(dir=".") as home:
        os.environ["HOME"] = os.path.realpath(home)
        profile = Profile("bench")
        show("turns/s, not stored", lambda: talk(None, given.turns))
        show("turns/s, stored", lambda: talk(profile, given.turns))
        talk(profile, 5000)
        fill(profile, given.items)
        show(f"ms to restore {given.items:,} items", lambda: restore(profile, given.items))
        show("ms to search all of it", lambda: search(profile))
    report.end(results)


if __name__ == "__main__":
    main()
