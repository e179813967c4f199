"""Derives from a chat template how a model writes tool calls.

The template is rendered with one call and two, with arguments of every type and without any, and
what stands around the given words is the description.
"""

import json
import re
from functools import lru_cache
from typing import NamedTuple

from talu.tool_formats.description import (
    HARMONY_REASONING,
    Id,
    Index,
    Part,
    Reasoning,
    Style,
    Tagged,
    ToolFormat,
    literal_of,
)
from talu.tool_formats.harmony import HARMONY, is_harmony
from talu.tool_formats.probes import (
    CONTENT,
    IDS,
    KEY,
    NAMES,
    OTHER,
    REASON,
    VALUE,
    Arguments,
    Probe,
)
from talu.tool_formats.renderings import Ends, common_start, cut
from talu.tool_formats.tags import Shown, tagged_of
from talu.tool_formats.unclear import Unclear

__all__ = ["Derived", "derive"]

FIRST, SECOND = NAMES
ONE, TWO = {KEY: VALUE}, {KEY: VALUE, OTHER: 5}
_LAST_TAG = re.compile(r"(?:<[^<>\s]+>|\[[^\[\]]+\])$")
_NUMBER = re.compile(r"\d+")
_NO_MARKER = re.compile(r"\s*(?:\[\s*)?(?:\{|$)")
_PYTHONIC = re.compile(rf"\({KEY}=(['\"]){VALUE}\1(?=\))")
_GEMMA = re.compile(rf"\{{{KEY}:(\S{{1,20}}?){VALUE}\1\}}")
USUAL = (Reasoning("<think>", "</think>"), Reasoning("[THINK]", "[/THINK]"))
SHOWN = 32  # characters of the end of a prompt by which it is recognised


class Derived(NamedTuple):
    """What a template says about answers.

    Attributes:
        format: how calls are written; None if the template does not say it.
        reasoning: the texts around reasoning; None if the template shows none.
        reason: why there is no format.
        begins_reasoning: how a prompt ends that begins reasoning without its tag.
    """

    format: ToolFormat | None
    reasoning: Reasoning | None = None
    reason: str = ""
    begins_reasoning: str = ""


class _Arguments(NamedTuple):
    """How arguments are written, with the texts before and after them."""

    style: Style
    before: str
    after: str
    written: str
    tagged: Tagged | None = None
    quote: str = ""


@lru_cache(maxsize=64)
def derive(source: str) -> Derived:
    """What the template says; each template is tried once.

    Raises:
        TemplateError: TEMPLATE_LIMIT_EXCEEDED if the template exceeded a limit.
    """
    if is_harmony(source):
        return Derived(HARMONY, HARMONY_REASONING)
    probe = Probe(source)
    plain = probe.answer(content=CONTENT)
    if plain is None or CONTENT not in plain:
        return Derived(None, reason=probe.problem or "the template does not show answers")
    question = probe.question() or ""
    found, reason = None, ""
    try:
        found = _format(probe, plain, question)
    except Unclear as error:
        reason = str(error)
    marker = literal_of(found.opening) if found is not None else FIRST
    reasoning, begins = _reasoning(probe, plain, question, marker)
    if reasoning is None:
        reasoning = next((each for each in USUAL if each.opening in source), None)
    if found is not None:
        text = _text(probe, plain, question, reasoning)
        opening = literal_of(found.opening)
        if opening.startswith(text[1] + "<"):  # the end of an empty text
            opening = opening.removeprefix(text[1])
        found = found._replace(opening=(opening, *found.opening[1:]), text=text)
    return Derived(found, reasoning, reason, begins)


def _format(probe: Probe, plain: str, question: str) -> ToolFormat:
    one = probe.answer((FIRST, ONE))
    if one is None or FIRST not in one:
        raise Unclear(probe.problem or "the template does not show calls")
    header, ends = common_start(plain, one), Ends(plain.partition(CONTENT)[2])
    if one.startswith(question):
        header = max(header, question, key=len)
    opening, rest = cut(ends.strip(one[len(header) :]), FIRST)
    if FIRST in rest:
        raise Unclear("the template shows the name of a call twice")
    if not opening.strip():
        raise Unclear("nothing stands before the name of a call")

    def shown(*calls: tuple[str, Arguments]) -> str | None:
        text = probe.answer(*calls)
        if text is None or not text.startswith(header + opening + FIRST):
            return None
        return ends.strip(text[len(header + opening + FIRST) :])

    arguments = _arguments(rest) or _tagged_arguments(rest, lambda given: shown((FIRST, given)))
    two = shown((FIRST, ONE), (SECOND, ONE))
    second = None if two is None or SECOND not in two else cut(two, SECOND)
    return _assembled(opening, arguments, second)


def _arguments(rest: str) -> _Arguments | None:
    """Arguments that are no tags, in what follows the name."""
    for place in (match.start() for match in re.finditer(r"\{", rest)):
        try:
            value, end = json.JSONDecoder().raw_decode(rest, place)
        except ValueError:
            continue
        if value == ONE:
            return _Arguments("json", rest[:place], rest[end:], rest[place:end])
    if match := _PYTHONIC.match(rest):
        return _Arguments("pythonic", "(", rest[match.end() :], match[0][1:])
    if match := _GEMMA.search(rest):
        before, after = rest[: match.start()], rest[match.end() :]
        return _Arguments("gemma", before, after, match[0], quote=match[1])
    return None


def _tagged_arguments(rest: str, shown: Shown) -> _Arguments:
    before, after, tagged = tagged_of(rest, shown)
    written = rest[len(before) : len(rest) - len(after)]
    return _Arguments("tagged", before, after, written, tagged)


def _assembled(opening: str, arguments: _Arguments, second: tuple[str, str] | None) -> ToolFormat:
    before, after = arguments.before, arguments.after
    following = None
    if second is not None and second[0].startswith(before + arguments.written):
        following = second[0][len(before + arguments.written) :]
        opening, following = _numbered(opening, following)
        size = second[1].find(arguments.written)
        before, _ = _numbered(before, second[1][: max(0, size)])
    return ToolFormat(
        style=arguments.style,
        opening=_parts(opening.lstrip()),
        after_name=_parts(before),
        closing=_parts(after.rstrip()),
        following=None if following is None else _parts(following),
        tagged=arguments.tagged,
        quote=arguments.quote,
        anywhere=_NO_MARKER.match(opening) is None,
    )


def _numbered(first: str, second: str) -> tuple[str, str]:
    """Two texts with a place for the number of the call, if they have one at the same place."""
    for match in _NUMBER.finditer(first):
        number, end = int(match[0]), first[match.end() :]
        if second.endswith(f"{number + 1}{end}"):
            start = second[: len(second) - len(f"{number + 1}{end}")]
            place = f"\0{number}\0"
            return first[: match.start()] + place + end, start + place + end
    return first, second


def _parts(text: str) -> tuple[Part, ...]:
    found: list[Part] = []
    for piece in re.split(f"(\0\\d+\0|{'|'.join(IDS)})", text):
        if piece in IDS:
            found.append(Id())
        elif piece.startswith("\0"):
            found.append(Index(int(piece.strip("\0"))))
        elif piece:
            found.append(piece)
    return tuple(found)


def _reasoning(
    probe: Probe, plain: str, question: str, marker: str
) -> tuple[Reasoning | None, str]:
    """The texts around reasoning, and how a prompt ends that begins it."""
    with_text = probe.answer(content=CONTENT, reasoning=REASON) or ""
    with_call = probe.answer((FIRST, ONE), reasoning=REASON) or ""
    shown = with_text if REASON in with_text else with_call
    if REASON not in shown:
        return None, ""
    before, after = cut(shown, REASON)
    closing = cut(after, CONTENT)[0]
    if REASON in with_call:
        called = cut(cut(with_call, REASON)[1], marker)[0]
        closing = common_start(closing, called) if shown is with_text else called
    closing = closing.strip()
    opening = before[len(common_start(before, plain)) :].strip()
    begins = question[-SHOWN:] if question.rstrip() == before.rstrip() else ""
    if not opening:
        last = _LAST_TAG.search(before.rstrip())
        tag = last[0] if last else ""
        opening = tag if tag and closing in (f"</{tag[1:]}", f"[/{tag[1:]}") else ""
    if not closing or not (opening or begins) or (opening and opening[0] not in "<["):
        return None, ""
    return Reasoning(opening, closing), begins


def _text(probe: Probe, plain: str, question: str, reasoning: Reasoning | None) -> tuple[str, str]:
    """The texts that the template writes around content."""
    before, after = cut(plain, CONTENT)
    called = cut(probe.answer((FIRST, ONE), content=CONTENT) or "", CONTENT)[1]
    closing = common_start(after, called).strip()
    opening = before[len(question) :].strip() if before.startswith(question) else ""
    if not question or (reasoning is not None and reasoning.closing in opening):
        opening = ""
    return opening, closing
