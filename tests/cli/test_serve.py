"""``talu serve`` as a process."""

import importlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import talu as talu_package

Talu = Callable[..., Any]
KEY = "a-key-for-the-tests-of-serve"


def started(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """The server, and its address once it accepts connections."""
    command = [sys.executable, "-m", "talu", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert server.stderr is not None
    return server, server.stderr.readline().split()[3].rstrip(",")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_it_serves_until_a_signal_ends_it(number: signal.Signals, status: int) -> None:
    server, url = started("talu/pocket", "--log-level", "info")
    with urllib.request.urlopen(f"{url}/models", timeout=30) as answer:
        listed = json.load(answer)["data"]
    server.send_signal(number)
    _, errors = server.communicate(timeout=30)
    assert (server.returncode, [model["id"] for model in listed]) == (status, ["talu/pocket"])
    assert "GET /v1/models 200" in errors
    assert "Traceback" not in errors


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}-1\n\n{KEY}-2\n")
    server, url = started("--api-key-file", str(file), TALU_API_KEY=f"{KEY}-3")
    for number in (1, 2, 3):
        headers = {"Authorization": f"Bearer {KEY}-{number}"}
        request = urllib.request.Request(f"{url}/models", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
    server.terminate()
    _, errors = server.communicate(timeout=30)
    assert KEY not in errors


def test_models_have_names_and_a_policy_chooses_among_them() -> None:
    server, url = started("small=talu/pocket", "talu/pocket", "--policy", "fallback")
    body = {"model": "fallback", "messages": [{"role": "user", "content": "What is 2+2?"}]}
    headers = {"Content-Type": "application/json"}
    sent = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(sent, timeout=30) as answer:
        assert json.load(answer)["choices"][0]["talu"]["model"] == "small"
    with urllib.request.urlopen(f"{url}/models", timeout=30) as answer:
        names = [model["id"] for model in json.load(answer)["data"]]
    server.terminate()
    server.communicate(timeout=30)
    assert names == ["small", "talu/pocket", "fallback"]


def test_a_model_that_does_not_fit_into_the_memory_is_refused_at_the_start(talu: Talu) -> None:
    outcome = talu("serve", "--memory", "0.001")
    assert outcome.status == 2
    assert "takes 7." in outcome.err


def test_an_address_that_others_reach_needs_a_key(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TALU_API_KEY", raising=False)
    outcome = talu("serve", "--host", "0.0.0.0")
    assert outcome.status == 2
    assert "needs a key (TALU_API_KEY, or --api-key-file)" in outcome.err


def test_without_its_packages_the_command_says_what_to_install(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talu_package, "server", importlib.import_module("talu.server"))
    for name in [name for name in sys.modules if name.startswith("talu.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    outcome = talu("serve")
    assert outcome.status == 1
    assert 'pip install "talu[server]"' in outcome.err


def test_a_file_of_keys_that_is_too_large_is_refused(talu: Talu, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"x" * (2**20 + 1))
    outcome = talu("serve", "--api-key-file", str(file))
    assert (outcome.status, "more than 1,048,576 bytes" in outcome.err) == (2, True)
