"""Reads the descriptions of a function and its parameters from its docstring. It is pure."""

import inspect
import re
from collections.abc import Iterator

__all__ = ["described"]

SECTION = re.compile(r"(?P<name>[A-Z][A-Za-z ]*):\s*")
PARAMETERS = ("Args", "Arguments", "Parameters", "Params")
ENTRY = re.compile(r"(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
FIELD = re.compile(r":(?P<kind>\w+)(?:\s+(?P<words>[^:]*))?:\s*(?P<text>.*)")  # reStructuredText


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The description of a function, and those of its parameters.

    Args:
        docstring: in Google's style, whose section ``Args:`` has the parameters, or with fields
            such as ``:param name: text``. All before the first section or field is the description.
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    start = next((i for i, line in enumerate(lines) if _ends_description(line)), len(lines))
    found: dict[str, list[str]] = {}
    for name, text in (*_of_sections(lines[start:]), *_of_fields(lines[start:])):
        found.setdefault(name, []).append(text)
    parameters = {name: " ".join(filter(None, texts)) for name, texts in found.items()}
    return "\n".join(lines[:start]).strip(), {n: text for n, text in parameters.items() if text}


def _ends_description(line: str) -> bool:
    return bool(SECTION.fullmatch(line) or FIELD.fullmatch(line))


def _of_sections(lines: list[str]) -> Iterator[tuple[str, str]]:
    inside, indent, name = False, "", ""
    for line in lines:
        if line and not line[0].isspace():
            section = SECTION.fullmatch(line)
            inside, indent, name = bool(section and section["name"] in PARAMETERS), "", ""
        elif inside:
            entry = ENTRY.fullmatch(line)
            if entry and (not indent or entry["indent"] == indent):
                indent, name = entry["indent"], entry["name"]
                yield name, entry["text"].strip()
            elif name:
                yield name, line.strip()


def _of_fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    name = ""
    for line in lines:
        if field := FIELD.fullmatch(line):
            words = (field["words"] or "").split()
            name = words[-1] if field["kind"] in ("param", "parameter", "arg") and words else ""
            if name:
                yield name, field["text"].strip()
        elif name and line[:1].isspace():
            yield name, line.strip()
        else:
            name = ""
