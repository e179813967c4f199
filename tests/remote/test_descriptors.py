"""Remote models in a process that has no file descriptor left."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from tests.remote.replies import chat
from tests.remote.server import Server

Serve = Callable[..., Server]
PROGRAM = """
import resource
from contextlib import suppress
from talu import Client, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import TaluError

def client(url):
    return Client(ModelSpec("m", OpenAICompatibleBackend(url, max_retries=0)))

used = client({url!r})
if {opened}:
    used.ask("hi")
    client({url!r}).ask("hi")
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
held = []
with suppress(OSError):
    while True:
        held.append(open("/dev/null"))
errors = []
for each in (used, client({url!r}), client("https://localhost:1/v1")):
    try:
        each.ask("hi")
    except TaluError as error:
        errors.append((error.code, "ulimit -n" in str(error)))
del held
print(errors)
"""
OURS, SERVER = ("RESOURCE_EXHAUSTED", True), ("ENDPOINT_UNREACHABLE", True)


def errors(server: Server, *, opened: bool) -> str:
    """The errors of a program, in which a model was opened and asked before."""
    program = PROGRAM.format(url=server.base_url, opened=opened)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_model_that_is_opened_without_a_free_file_descriptor_says_so(serve: Serve) -> None:
    server = serve(always=lambda _: chat("Hi"))
    assert errors(server, opened=False) == str([OURS] * 3)


def test_a_connection_that_cannot_be_opened_for_that_reason_says_so(serve: Serve) -> None:
    closing = [("connection", "close")]
    server = serve(always=lambda _: replace(chat("Hi"), headers=(*chat("Hi").headers, *closing)))
    assert errors(server, opened=True) == str([SERVER, OURS, OURS])
