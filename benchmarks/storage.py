"""What a profile costs: turns stored in a second, and the time until a long session is back.

A scripted model answers, so that nothing but the chat and the store is measured.
"""

import argparse
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable

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


def show(what: str, measure: Callable[[], float], rounds: int) -> None:
    """Run once to warm up, then some rounds; print minimum, median and maximum."""
    measure()
    found = sorted(measure() for _ in range(rounds))
    print(f"{what:44} {found[0]:10.1f} {statistics.median(found):10.1f} {found[-1]:10.1f}")


def main() -> None:
    """Measure everything in a home of its own, on the disk that the working folder is on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--items", type=int, default=10_000)
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load", end=" ")
    print(f"{os.getloadavg()[0]:.1f}, SQLite {sqlite3.sqlite_version}")
    print(f"{'':44} {'minimum':>10} {'median':>10} {'maximum':>10}")
    with tempfile.TemporaryDirectory(dir=".") as home:
        os.environ["HOME"] = os.path.realpath(home)
        profile = Profile("bench")
        show("turns/s, not stored", lambda: talk(None, given.turns), given.rounds)
        show("turns/s, stored", lambda: talk(profile, given.turns), given.rounds)
        talk(profile, 5000)
        fill(profile, given.items)
        name = f"ms to restore {given.items:,} items"
        show(name, lambda: restore(profile, given.items), given.rounds)
        show("ms to search all of it", lambda: search(profile), given.rounds)


if __name__ == "__main__":
    main()
