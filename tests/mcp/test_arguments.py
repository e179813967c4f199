"""What describes a server is checked at once, and messages show no secrets of it."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.mcp.conftest import KEY, odd, tool_of

from talu.exceptions import DependencyError, StateError, ValidationError
from talu.mcp import MCP

NAMES = ["add", "files.read", "sell", "stock"]
LISTED = [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]


def shop(**options: Any) -> MCP:
    """A server with some tools."""
    return odd({"tools/list": {"tools": LISTED}}, **options)


@pytest.mark.parametrize(
    ("server", "options", "param", "wrong"),
    [
        (7, {}, "server", "must be a command"),
        (" ", {}, "server", "must be a command"),
        ("ftp://host/x", {}, "server", "https:// or http://"),
        ("a 'b", {}, "server", "is not a command"),
        ("a b | c", {}, "server", "is not run by a shell"),
        ("''", {}, "server", "the name of a program"),
        ("https://user:canary@host/mcp", {}, "server", "give them in headers="),
        ("https://ho st/mcp", {}, "server", "printable ASCII"),
        ("https:///mcp", {}, "base_url", "must be the address of a server"),
        ("https://host/mcp", {"env": {}}, "env", "behind an address has no env"),
        ("https://host/mcp", {"args": []}, "args", "behind an address has no args"),
        ("https://host/mcp", {"headers": {"a b": "c"}}, "headers", "letters, digits and hyphens"),
        ("https://host/mcp", {"headers": {"Mcp-Name": "c"}}, "headers", "the protocol sets"),
        ("http://host/mcp", {"headers": {"Authorization": "canary"}}, "base_url", "plain text"),
        ("a", {"headers": {}}, "headers", "started by a command has no headers"),
        ("a", {"allow_insecure": True}, "allow_insecure", "not for commands"),
        ("a", {"args": "b"}, "args", "a list"),
        ("a", {"args": ["b\0"]}, "args", "no NUL"),
        ("a", {"env": {"A=": "b"}}, "env", "wrong name"),
        ("a", {"env": {"A": 7}}, "env", "a text"),
        ("a", {"cwd": 7}, "cwd", "path of a folder"),
        ("a", {"include": "add"}, "include", "a list of at most"),
        ("a", {"exclude": [7]}, "exclude", "a list of at most"),
        ("a", {"needs_approval": "sell"}, "needs_approval", "True, False or a list"),
        ("a", {"prefix": "a b"}, "prefix", "at most 32 letters"),
        ("a", {"timeout": 0}, "timeout", "seconds above 0"),
        ("a", {"timeout": True}, "timeout", "seconds above 0"),
    ],
)
def test_a_wrong_argument_is_named(
    server: Any, options: dict[str, Any], param: str, wrong: str
) -> None:
    with pytest.raises(ValidationError, match=wrong) as caught:
        MCP(server, **options)
    assert caught.value.details["param"] == param
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (MCP("/opt/bin/serve --key canary"), "serve"),
        (MCP("npx -y @shop/server canary"), "npx server"),
        (MCP("python3", args=["-m", "shop.serve"]), "python3 shop.serve"),
        (MCP("serve", env={"KEY": "canary"}), "serve"),
        (
            MCP("https://host:8443/canary/mcp?k=canary", headers={"X-Key": "canary"}),
            "https://host:8443",
        ),
    ],
    ids=["program", "launcher", "module", "env", "address"],
)
def test_a_server_is_shown_without_what_may_be_secret(source: MCP, name: str) -> None:
    assert repr(source) == f"MCP('{name}')"
    assert "canary" not in repr(vars(source))


def test_what_a_program_says_is_shown_without_the_values_of_its_variables() -> None:
    code = "import os, sys; sys.exit('cannot use ' + os.environ['API_KEY'])"
    source = MCP(sys.executable, args=["-c", code], env={"API_KEY": KEY})
    with source, pytest.raises(Exception, match=r"cannot use \*\*\*") as caught:
        source.open()
    assert KEY not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"include": ["stock", "add"]}, ["add", "stock"]),
        ({"include": ["add", "sell"], "exclude": ["sell"]}, ["add"]),
        ({"include": ["files.read"], "prefix": "shop_"}, ["shop_files_read"]),
        ({"include": []}, []),
    ],
    ids=["include", "exclude", "prefix", "none"],
)
def test_tools_are_chosen_and_renamed(options: dict[str, Any], names: list[str]) -> None:
    with shop(**options) as source:
        assert [tool.name for tool in source.open()] == names


@pytest.mark.parametrize("param", ["include", "exclude", "needs_approval"])
def test_a_name_that_the_server_does_not_have_is_refused(param: str) -> None:
    with shop(**{param: ["sel"]}) as source:
        with pytest.raises(ValidationError, match=r"'sel'.*did you mean 'sell'") as caught:
            source.open()
        assert caught.value.details["param"] == param


def test_calls_of_all_or_of_single_tools_need_an_approval() -> None:
    wanted = {"include": ["add", "sell"]}
    for approval, needed in [(False, []), (True, ["add", "sell"]), (["sell"], ["sell"])]:
        with shop(needs_approval=approval, **wanted) as source:
            assert [tool.name for tool in source.open() if tool.needs_approval] == needed


def test_the_time_limit_is_that_of_each_tool() -> None:
    with shop(include=["add"], timeout=7) as source:
        assert tool_of(source, "add").timeout == 7


def test_a_program_gets_few_variables_and_the_given_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of this process")
    code = "import os, sys; sys.exit(' '.join(sorted(set(os.environ) - {'LC_CTYPE'})))"
    source = MCP(sys.executable, args=["-c", code], env={"SHOP": "1"})
    with source, pytest.raises(Exception, match="it said: ") as caught:
        source.open()
    got = set(str(caught.value).split("it said: ")[1].split())
    assert "SHOP" in got
    assert got <= {"HOME", "LOGNAME", "PATH", "SHELL", "SHOP", "TERM", "USER"}


def test_a_program_runs_in_its_folder(tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(os.getcwd())"
    source = MCP(sys.executable, args=["-c", code], cwd=tmp_path)
    with source, pytest.raises(Exception, match=str(tmp_path)):
        source.open()


def test_a_server_is_neither_copied_nor_pickled() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(StateError, match="make another one"):
            duplicate(MCP("serve"))


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("mcp", "talu.mcp."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.client.client", None)
    with pytest.raises(DependencyError, match=r"pip install 'talu\[mcp\]'"):
        MCP("serve").open()


def test_describing_a_server_loads_neither_the_sdk_nor_the_http_library() -> None:
    code = "import sys; from talu.mcp import MCP; MCP('serve'); "
    code += "print({'mcp', 'anyio', 'httpx2', 'pydantic'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
