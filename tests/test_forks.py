import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.forked import in_child

from talu import forks
from talu.exceptions import StateError
from talu.forks import ForkSafeLock, check_process, import_whole


@contextmanager
def held_by_another_thread(lock: ForkSafeLock) -> Iterator[None]:
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.lock:
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(30)
    yield
    done.set()
    thread.join(30)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_lock_that_another_thread_holds_is_free_in_a_forked_child(reentrant: bool) -> None:
    lock = ForkSafeLock(reentrant=reentrant)

    def enter() -> None:
        with lock.lock:
            pass

    with held_by_another_thread(lock):
        assert [in_child(enter) for _ in range(5)] == [0] * 5
        assert not lock.lock.acquire(blocking=False)  # the parent's is still held
    enter()


def test_a_block_that_forks_ends_in_both_processes() -> None:
    lock = ForkSafeLock()
    with lock.lock:
        child = os.fork()
    if child == 0:
        os._exit(0 if lock.lock.acquire(blocking=False) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.lock.acquire(blocking=False)


def test_a_fork_waits_until_an_import_in_another_thread_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    importing, forked = threading.Event(), threading.Event()
    order: list[str] = []

    def slow(name: str) -> None:
        importing.set()
        forked.wait(0.2)  # never set: the fork cannot happen before the end
        order.append(f"{name} imported")

    monkeypatch.setattr(forks, "import_module", slow)
    thread = threading.Thread(target=import_whole, args=("numpy",))
    thread.start()
    assert importing.wait(30)
    status = in_child(lambda: import_whole("numpy"))
    forked.set()
    assert order == ["numpy imported"]
    assert status == 0
    thread.join(30)


def test_an_object_that_another_process_opened_is_refused() -> None:
    check_process(os.getpid(), "the model was opened", "open it again")
    with pytest.raises(StateError, match="opened before this process was forked: open") as e:
        check_process(os.getpid() + 1, "the model was opened", "open it again")
    assert e.value.code == "STATE_FORKED"


def run_script(script: str) -> list[str]:
    """The lines that a script prints, which forks while its threads are at work."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


HEAD = """
import os, signal, sys, threading
import talu

def status_of_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        work()
        sys.exit(3)  # through every finalizer
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def told(use):
    try:
        use()
    except talu.StateError as error:
        print(error.code, "make a new client" in str(error), flush=True)
"""


def test_a_fork_does_not_wait_for_an_import_that_waits_for_the_lock_of_logging() -> None:
    script = """
from talu import forks
import logging

def slow(name):
    importing.set()
    never.wait(0.2)  # until the fork waits for the end of the import
    logging.getLogger("of an imported module")

importing, never = threading.Event(), threading.Event()
forks.import_module = slow
importer = threading.Thread(target=forks.import_whole, args=("any",), daemon=True)
importer.start()
importing.wait(30)
print(status_of_child(lambda: None))
"""
    assert run_script(script) == ["3"]


def test_a_child_that_is_forked_while_a_model_is_opened_can_open_it() -> None:
    script = """
def ask():
    print(client.ask("Hi", max_tokens=1).usage.completion_tokens, flush=True)

def load(*arguments):
    if os.getpid() == parent:
        reached.set()
        go.wait(30)
    return real(*arguments)

parent = os.getpid()
for number in range(4):
    reached, go = threading.Event(), threading.Event()
    client = talu.Client("talu/pocket")
    opening = threading.Thread(target=client.router.backend)
    opening.start()
    if number:  # the first child is forked during the imports
        reached.wait(30)
    print(status_of_child(ask if number % 2 else client.close))
    if not number:
        from talu.engine import registry
        real, registry.load_model = registry.load_model, load
    go.set()
    opening.join()
    client.close()
"""
    assert run_script(script) == ["3", "1", "3"] * 2


def test_an_inherited_client_raises_in_a_forked_child_which_ends_normally() -> None:
    script = """
client = talu.Client("talu/pocket")
chat = client.chat()
chat("Hi", max_tokens=1, stream=False)
done = threading.Event()

def ask():
    while not done.is_set():
        client.ask("Hi", max_tokens=4)
        client.embed("Hi")

threads = [threading.Thread(target=ask) for _ in range(2)]
for thread in threads:
    thread.start()

def use():
    told(lambda: client.ask("Hi"))
    told(lambda: chat("Hi"))
    told(lambda: client.embed("Hi"))
    client.close()
    with talu.Client("talu/pocket") as own:
        print(own.ask("Hi", max_tokens=1).usage.completion_tokens, flush=True)

print([status_of_child(lambda: None) for _ in range(4)], status_of_child(use))
done.set()
for thread in threads:
    thread.join()
"""
    lines = run_script(script)
    assert lines == ["STATE_FORKED True"] * 3 + ["1", "[3, 3, 3, 3] 3"]
