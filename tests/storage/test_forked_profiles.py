"""A profile whose process is forked: parent and child both read and write it, and lose nothing."""

import subprocess
import sys

import pytest

HEAD = """
import gc, os, signal, sys, threading
from pathlib import Path
from talu import Client, ModelSpec, Profile, StorageError
from talu.backends.scripted import ScriptedModel
from talu.storage.sqlite3 import file

def new_client():
    return Client(ModelSpec("m", ScriptedModel(*"abcdef")), profile=Profile("p"))

def stored():
    return [s["session_id"] for s in Profile("p").sessions()]

def status_of_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        work()
        sys.exit(3)  # through every finalizer
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

client = new_client()
client.chat(session_id="before").send("q")
"""


@pytest.fixture
def run(home):
    """Runs a script, in which a connection that nothing closes is an error, and gives its lines."""

    def run(script: str) -> list[str]:
        warnings = ["-W", "ignore::DeprecationWarning", "-W", "error::ResourceWarning"]
        command = [sys.executable, *warnings, "-c", HEAD + script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout.splitlines()

    return run


def test_parent_and_child_write_the_same_profile(run) -> None:
    script = """
def work():
    client.chat(session_id="child").send("q")

print(status_of_child(work))
client.chat(session_id="parent").send("q")
print(*sorted(stored()))
"""
    assert run(script) == ["3", "before child parent"]


@pytest.mark.parametrize(
    "work",
    ["pass", "stream.cancel()", "list(pieces)", "chat.close()", "chat.send('mine')", "del pieces"],
)
def test_an_answer_that_the_parent_reads_is_stored_by_the_parent_alone(run, work: str) -> None:
    script = f"""
spec = ModelSpec("m", ScriptedModel("one two three", "of the child"))
client = Client(spec, profile=Profile("p"))
chat = client.chat(session_id="s")
stream = chat("q")
pieces = iter(stream)
next(pieces)

def work():
    global pieces
    try:
        {work}
    except Exception as error:
        assert error.code in ("STATE_BUSY", "STATE_FORKED"), error

print(status_of_child(work))
print(*pieces, sep="")
print(*((item.status.name, item.text) for item in client.chat(session_id="s").items))
"""
    answer = "('COMPLETED', 'q') ('COMPLETED', 'one two three')"
    assert run(script) == ["3", " two three", answer]


def test_a_child_that_does_not_use_the_profile_ends_normally(run) -> None:
    assert run("print(status_of_child(lambda: None), *stored())") == ["3 before"]


def test_what_a_child_stores_after_the_parent_closed_the_profile_is_kept(run) -> None:
    script = """
stored_one, closed = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    client.chat(session_id="one").send("q")
    os.write(stored_one[1], b".")
    os.read(closed[0], 1)
    client.chat(session_id="two").send("q")
    sys.exit()
os.read(stored_one[0], 1)
del client
gc.collect()
os.write(closed[1], b".")
os.waitpid(child, 0)
print(*sorted(stored()))
"""
    assert run(script) == ["before one two"]


def test_a_database_that_was_removed_before_the_child_used_it_is_an_error(run) -> None:
    script = """
def work():
    try:
        client.chat(system="S")
    except StorageError as error:
        print("removed or replaced" in str(error), flush=True)

path = client.profile.database.file.path
path.rename(path.with_name("other.db"))
print(status_of_child(work))
"""
    assert run(script) == ["True", "3"]


LONG = """
file.FORK_SECONDS = 0.1
entered, leave = threading.Event(), threading.Event()

def hold():
    with client.profile.database.file.writing():
        entered.set()
        leave.wait(30)

def told(use):
    try:
        use()
    except StorageError as error:
        print(error, flush=True)

thread = threading.Thread(target=hold)
thread.start()
entered.wait(30)
"""


def test_after_a_fork_amid_a_long_transaction_only_the_parent_can_use_the_profile(run) -> None:
    script = """
def work():
    told(client.chat)
    told(stored)
    print(status_of_child(lambda: told(client.chat)), flush=True)

print(status_of_child(work))
leave.set()
thread.join()
print(*stored(), status_of_child(stored))
"""
    *told, grandchild, child, parent = run(LONG + script)
    assert len(told) == 3
    assert all("was in use when this process was forked, and stays with" in line for line in told)
    assert (grandchild, child, parent) == ("3", "3", "before 3")


def test_a_signal_handler_that_forks_amid_a_transaction_leaves_it_to_the_parent(run) -> None:
    script = """
def work():
    told(stored)
    os._exit(0)

def fork(signum, frame):
    print(status_of_child(work))

signal.signal(signal.SIGUSR1, fork)
leave.set()
thread.join()
with client.profile.database.file.writing() as db:
    db.execute("DELETE FROM sessions")
    os.kill(os.getpid(), signal.SIGUSR1)
print(stored())
"""
    told, *others = run(LONG + script)
    assert "stays with the parent" in told
    assert others == ["0", "[]"]


def test_a_fork_waits_for_a_transaction_of_another_thread(run) -> None:
    script = """
entered, order = threading.Event(), []

def write():
    with client.profile.database.file.writing() as db:
        entered.set()
        for number in range(20_000):
            db.execute("SELECT ?", (number,)).fetchone()
        order.append("written")

thread = threading.Thread(target=write)
thread.start()
entered.wait(30)
child = os.fork()
if child == 0:
    os._exit(0)
order.append("forked")
os.waitpid(child, 0)
thread.join()
print(*order)
"""
    assert run(script) == ["written forked"]


def test_threads_that_fork_at_the_same_time_all_continue(run) -> None:
    script = """
clients = [new_client() for _ in range(4)]

def fork(number):
    for _ in range(5):
        clients[number].chat(system="S")
        statuses.append(status_of_child(stored))

statuses = []
threads = [threading.Thread(target=fork, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(set(statuses), len(statuses), len(client.profile.sessions(limit=100)))
"""
    assert run(script) == ["{0} 20 21"]
