"""Shows how talu reads and writes the tool calls of chat templates.

    python tools/tool_formats_table.py FOLDER

FOLDER has templates, one a file. For each one the table says what was derived from it, and how many
answers that the template wrote were read back: with nested arguments, quotes and Unicode, without
arguments, with several calls, and with a text before the call.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from talu.tool_formats.derive import derive
from talu.tool_formats.description import Id, Part, literal_of
from talu.tool_formats.markers import marker_of
from talu.tool_formats.probes import CONTENT, Probe
from talu.tool_formats.reader import Read, Reader
from talu.tool_formats.renderings import Ends, common_start, cut

TOOL = {
    "type": "object",
    "properties": {
        "place": {"type": "string"},
        "days": {"type": "integer"},
        "share": {"type": "number"},
        "exact": {"type": "boolean"},
        "items": {"type": "array"},
        "options": {"type": "object"},
    },
}
TOOLS = {"weather": TOOL, "now": TOOL}
FLAT = {"place": "Paris", "days": -5, "share": 2.5, "exact": True}
HARD = 'She said "hi" \\ <b>&amp;</b>\n\tété 漢字 😀 {[('
NESTED = {
    "place": HARD,
    "items": [1, 'a"b', [None, {"key": "value"}]],
    "options": {"deep": {"list": ["}", "]", "{"]}, "quote": "it's"},
}
TEXT = "Let me look."
IDS = ("Zq7idaaaa", "Zq7idbbbb", "Zq7idcccc")

Calls = Sequence[tuple[str, dict[str, Any]]]


class Case(NamedTuple):
    """An answer: a text, and calls after it."""

    text: str
    calls: Calls


CASES = {
    "one call": Case("", [("weather", FLAT)]),
    "nested arguments": Case("", [("weather", NESTED)]),
    "no arguments": Case("", [("now", {})]),
    "several calls": Case("", [("weather", FLAT), ("now", {}), ("weather", {"place": HARD})]),
    "text before": Case(TEXT, [("weather", FLAT)]),
}


class Answer(NamedTuple):
    """What was read of an answer."""

    text: str
    calls: Calls
    reasoning: str = ""


def written(source: str, case: Case) -> str | None:
    """What a model would write for an answer; None if the template does not show all of it."""
    probe = Probe(source)
    plain = probe.answer(content=CONTENT) or ""
    shown = probe.answer(*case.calls, content=case.text, ids=IDS)
    names = [name for name, _ in case.calls]
    if shown is None or any(shown.count(name) < names.count(name) for name in names):
        return None
    question = probe.question() or ""
    start = question if shown.startswith(question) else common_start(plain, shown)
    if case.text:
        if not 0 <= shown.find(case.text) < shown.find(names[0]):
            return None
        start = shown[: shown.find(case.text)]
    answer = shown[len(start) :]
    answer = Ends(cut(plain, CONTENT)[1]).strip(answer, answer.rfind(names[-1]))
    reasoning = derive(source).reasoning
    closing = reasoning.closing if reasoning is not None else ""
    if closing and closing in cut(answer, names[0])[0]:  # the prompt has begun reasoning
        answer = cut(answer, closing)[1]
    return answer


def read(source: str, answer: str, pieces: Iterable[str] | None = None) -> Answer:
    """What the reader of a template's format finds in an answer that arrives in pieces."""
    found = derive(source)
    reader = Reader(found.format, TOOLS, reasoning=found.reasoning)
    parts: list[Read] = []
    for piece in [answer] if pieces is None else pieces:
        parts += reader.push(piece)
    parts += reader.finish()
    return joined(parts)


def joined(parts: Iterable[Read]) -> Answer:
    """The answer that pieces make."""
    text, reasoning = "", ""
    open_calls: list[list[str]] = []
    ended: list[tuple[str, Any]] = []
    for kind, piece in parts:
        match kind:
            case "text":
                text += piece
            case "reasoning":
                reasoning += piece
            case "name":
                open_calls.append([piece, ""])
            case "arguments":
                open_calls[-1][1] += piece
            case "end":
                name, arguments = open_calls[-1]
                ended.append((name, json.loads(arguments)))
    return Answer(text.strip(), ended, reasoning)


def table(folder: Path) -> Iterator[str]:
    """The lines of the table."""
    yield "| template | arguments | marker of a call | several calls | reasoning | read back |"
    yield "|---|---|---|---|---|--:|"
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        found = derive(source)
        form = found.format
        name = path.stem
        thinks = code(found.reasoning.opening or found.reasoning.closing) if found.reasoning else ""
        if form is None:
            reason = found.reason.removeprefix("the chat template ").partition(":")[0]
            yield f"| {name} | - | {reason} | | {thinks} | |"
            continue
        if form.code:
            yield f"| {name} | {form.code} | in code | | {thinks} | |"
            continue
        shown = {title: written(source, case) for title, case in CASES.items()}
        good = sum(
            answer is not None and read_back(source, CASES[title], answer)
            for title, answer in shown.items()
        )
        count = sum(answer is not None for answer in shown.values())
        several = "one after the other" if form.following is not None else "one only"
        if form.following is not None and marker_of(form) not in literal_of(form.following):
            several = "in one section"
        if has_id((*form.opening, *form.after_name, *form.closing)):
            several += ", with ids"
        yield (
            f"| {name} | {form.style} | {code(marker_of(form))} | {several} | {thinks} | "
            f"{good} of {count} |"
        )


def read_back(source: str, case: Case, answer: str) -> bool:
    """Whether what was read is what was written."""
    try:
        return read(source, answer) == Answer(case.text, list(case.calls))
    except ValueError:
        return False


def has_id(parts: Sequence[Part]) -> bool:
    """Whether the model writes an id."""
    return any(isinstance(part, Id) for part in parts)


def code(text: str) -> str:
    """A text as code in a cell."""
    return f"`` {text.replace('|', chr(92) + '|').replace(chr(10), '⏎')} ``"


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
