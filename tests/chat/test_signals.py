"""A request from a signal handler during another request succeeds or raises ``StateError``."""

import subprocess
import sys

import pytest

PROGRAM = """
import faulthandler, signal, sys
from talu import Chat, Client, Profile, StateError
from talu.backends.scripted import ScriptedModel
from talu.hooks import MetricsHook
from talu.router import ModelSpec

faulthandler.dump_traceback_later(60, exit=True)
metrics = MetricsHook()
model = {model}
client = Client(model, hooks=[metrics], profile={profile})
chat, other = client.chat(session_id={session}), client.chat()
asks, refused, inside, ended = 0, 0, False, False

def ask(number, frame):
    global asks, refused, inside
    if inside or ended:
        return
    inside = True
    try:
        for question in (lambda: client.ask("Hi", **few), lambda: other.send("Hi", **few),
                         lambda: chat.send("Hi", **few), lambda: chat.append("user", "Note"),
                         metrics.snapshot):
            try:
                question()
                asks += 1
            except StateError as error:
                assert error.code == "STATE_BUSY", error.code
                refused += 1
    finally:
        inside = False

few = {{"max_tokens": 1}}
client.ask("Hi", **few)  # opens the model: Python cannot import one module twice at once
signal.signal(signal.SIGALRM, ask)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
answers = 0
while asks < {wanted} or not refused:
    try:
        answers += bool(chat.send("Hi", max_tokens=3))
        metrics.snapshot()
        if len(chat) > 40:
            chat.clear()
    except StateError as error:
        assert error.code == "STATE_BUSY", error.code
signal.setitimer(signal.ITIMER_REAL, 0)
ended = True
assert chat.send("Hi", max_tokens=1) is not None
assert answers and not any(m.running for m in metrics.snapshot().values())
print("done", asks, refused)
"""


@pytest.mark.parametrize(
    ("model", "profile", "wanted"),
    [
        ('ModelSpec("m", ScriptedModel(*["one two three"] * 100_000))', "None", 300),
        ('ModelSpec("m", ScriptedModel(*["one two three"] * 100_000))', 'Profile("p")', 100),
        ('"talu/pocket"', "None", 50),
    ],
    ids=["scripted", "stored", "local"],
)
def test_a_request_from_a_signal_handler_succeeds_or_raises_state_error(
    model, profile, wanted, tmp_path
) -> None:
    session = "'s'" if "Profile" in profile else "None"
    program = PROGRAM.format(model=model, profile=profile, wanted=wanted, session=session)
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.startswith("done")
