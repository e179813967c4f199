"""Chooses tools of a server, and gives them the names under which the model knows them."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from talu.error_text import nearest, shown
from talu.exceptions import TaluError, ToolServerError, ValidationError
from talu.tools import Tool

__all__ = ["Selection", "chosen_tools"]

MAX_SHOWN = 20  # names in a message
REPLACED = re.compile(r"[./]")  # allowed by MCP, and refused by the servers of models

MakeRun = Callable[[str], Callable[[dict[str, Any]], Any]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tools of a server are used, and how.

    Attributes:
        include: the server's names of the tools; None for all.
        exclude: the server's names of those that are left out.
        prefix: before each name.
        needs_approval: True, False, or the server's names of the tools whose calls need one.
        timeout: maximum seconds of a call; None is no limit.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    prefix: str = ""
    needs_approval: bool | tuple[str, ...] = False
    timeout: float | None = None


def chosen_tools(
    server: str, listed: Sequence[Any], selection: Selection, run: MakeRun
) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools that are used, in the server's order, and a note on each that cannot be used.

    Args:
        server: its name in messages.
        listed: its tools, as objects of the SDK.
        selection: which of them, and how.
        run: makes the function that calls the tool of this name.

    Raises:
        ToolServerError: a tool that ``selection`` names cannot be used, or two tools have one name
            (code ``TOOL_SERVER_BAD_ANSWER``).
        ValidationError: ``selection`` names a tool that the server does not have.
    """
    names = [tool.name for tool in listed]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _unusable(server, twice, "is listed twice")
    _check_names(server, names, selection)
    tools: dict[str, Tool] = {}
    origin: dict[str, str] = {}
    notes: list[str] = []
    for found in listed:
        if not _is_used(found.name, selection):
            continue
        try:
            tool = _tool(found, selection, run)
        except TaluError as error:
            if found.name in (selection.include or ()):
                raise _unusable(server, found.name, f"cannot be used: {error}") from error
            what = f"the tool {shown(found.name)} of the MCP server {server}"
            notes.append(f"{what} cannot be used, and was left out: {error}")
            continue
        if tool.name in tools:
            others = f"has the name {tool.name!r} here, and so has {shown(origin[tool.name])}"
            raise _unusable(server, found.name, others)
        tools[tool.name], origin[tool.name] = tool, found.name
    return tuple(tools.values()), tuple(notes)


def _is_used(name: str, selection: Selection) -> bool:
    included = selection.include is None or name in selection.include
    return included and name not in selection.exclude


def _tool(found: Any, selection: Selection, run: MakeRun) -> Tool:
    approval = selection.needs_approval
    return Tool(
        selection.prefix + REPLACED.sub("_", found.name),
        found.description or found.title or "",
        found.input_schema,
        run(found.name),
        is_async=True,
        timeout=selection.timeout,
        needs_approval=approval if isinstance(approval, bool) else found.name in approval,
    )


def _check_names(server: str, names: Collection[str], selection: Selection) -> None:
    """Refuse names of tools that do not exist: a misspelled one would change what is allowed."""
    approval = selection.needs_approval
    given = {
        "include": selection.include or (),
        "exclude": selection.exclude,
        "needs_approval": () if isinstance(approval, bool) else approval,
    }
    for param, wanted in given.items():
        for name in wanted:
            if name not in names:
                known = ", ".join(map(shown, sorted(names)[:MAX_SHOWN])) or "none"
                more = ", …" if len(names) > MAX_SHOWN else ""
                raise ValidationError(
                    f"{param} names the tool {shown(name)}, which the MCP server {server} does not "
                    f"have{nearest(name, names)}; its tools are: {known}{more}",
                    details={"param": param, "server": server},
                )


def _unusable(server: str, name: str, wrong: str) -> ToolServerError:
    return ToolServerError(
        f"the tool {shown(name)} of the MCP server {server} {wrong}; exclude=[{shown(name)}] "
        "leaves it out",
        "TOOL_SERVER_BAD_ANSWER",
        server=server,
        tool=name if len(name) <= 100 else shown(name),
    )
