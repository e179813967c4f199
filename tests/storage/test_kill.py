"""A process that is killed at any moment loses at most the reply in flight."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from talu import Profile

KILLS = 200
REPLY = "one two three four"
SCRIPT = '''
"""Forks processes that talk in one session and report each step on a line."""
import os
import sys

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel


def tell(text):
    os.write(1, f"{text}\\n".encode())


def talk(session, start):
    model = ScriptedModel(*[sys.argv[1]] * 100)
    client = Client(ModelSpec("m", model), profile=Profile("killed"))
    chat = client.chat(session_id=session)
    for number in range(start, start + 90):
        if number % 5 == 3:
            chat.append("user", str(number))
            tell(f"note {number}")
        elif number % 5 == 4 and len(chat):
            chat.regenerate(str(number), on_token=lambda _: tell(f"asked {number}"))
            tell(f"again {number}")
        else:
            chat.send(str(number), on_token=lambda _: tell(f"asked {number}"))
            tell(f"answered {number}")


for line in sys.stdin:
    session, start = line.split()
    child = os.fork()
    if child == 0:
        talk(session, int(start))
    tell(child)
    os.waitpid(child, 0)
    tell("gone")
'''


def outcomes(history: list[str], number: int) -> list[list[str]]:
    """The possible stored histories after this step, given the history before it."""
    question = [*history, str(number)]
    whole = [*question, REPLY]
    if number % 5 == 3:
        return [question]
    if number % 5 == 4 and history:
        last = max(i for i, text in enumerate(history) if text != REPLY)
        whole = [*history[:last], str(number), REPLY]
    return [question, whole]


@pytest.fixture
def forker(home) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, REPLY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        yield process
        process.stdin.close()


def kill_one(forker: subprocess.Popen[str], session: str, start: int, chance: random.Random):
    """Let a process talk, kill it, and return all the lines that it wrote."""
    forker.stdin.write(f"{session} {start}\n")
    told, child, wanted = [], None, chance.randint(0, 20)
    while (line := forker.stdout.readline().strip()) != "gone":
        if line.isdecimal():
            child = int(line)
        else:
            told.append(line.split())
        if child and len(told) >= wanted:
            for _ in range(chance.randrange(20_000)):  # somewhere between two lines
                pass
            os.kill(child, signal.SIGKILL)
            wanted = sys.maxsize
    return told


def stored(profile: Profile, session: str) -> list[str]:
    found = profile.database.load(session)
    return ["".join(p["text"] for p in item["content"]) for item in (found.items if found else [])]


def test_a_process_that_is_killed_loses_at_most_the_reply_in_flight(forker) -> None:
    chance = random.Random(7)
    unanswered, profile = 0, Profile("killed")
    for kill in range(KILLS):
        session = f"s{kill // 20}"
        history, number = stored(profile, session), 100 * kill
        for told, text in kill_one(forker, session, number, chance):
            number = int(text)
            question, *whole = outcomes(history, number)
            if told == "asked":
                in_flight = True
            else:
                history, number, in_flight = (whole or [question])[0], number + 1, False
        if kill % 5 == 0:  # no process has it open, so the next one finds the state after the kill
            profile = Profile("killed")
        found, allowed = stored(profile, session), outcomes(history, number)
        if not (number > 100 * kill and in_flight):
            allowed.append(history)
        assert found in allowed, f"kill {kill}, step {number}"
        unanswered += found == allowed[0] and len(allowed) > 1
    assert unanswered > 0  # some kills happened between question and answer
    with profile.database.file.writing() as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        leaves = "SELECT node FROM nodes WHERE node NOT IN (SELECT parent FROM nodes WHERE parent)"
        assert db.execute(f"{leaves} EXCEPT SELECT head FROM sessions").fetchall() == []
