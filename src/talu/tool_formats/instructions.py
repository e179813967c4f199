"""Finds how calls are written in what a template tells the model about its tools.

Some templates describe calls in words and with an example, such as
``<tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call>``, and do not
show the calls of earlier turns. Only an example in JSON with one clear border is taken.
"""

import re

from talu.tool_formats.description import Part, ToolFormat

__all__ = ["instructed"]

# What stands in an example for a value: <function-name>, "NAME", $NAME, [name], {"key": "value"}.
_VALUE = (
    r'(?:<[^<>"\n]{1,60}>|"[^"\n]{1,60}"|\$\{?\w{1,60}\}?|\[[^\[\]"\n]{1,60}\]'
    r"|\{\{[^{}\n]{1,60}\}\}|\{[^{}\n]{0,80}\})"
)
_CALL = re.compile(
    rf'\{{\s*"name"\s*:\s*{_VALUE}(?P<between>\s*,\s*"(?:arguments|parameters)"\s*:\s*){_VALUE}\s*\}}'
)
_NAME = re.compile(rf'(?P<start>\{{\s*"name"\s*:\s*){_VALUE}')
_TAG = re.compile(r"(?P<tag><(?P<name>[^<>\s/]{1,40})>)(?P<space>\s{0,4})$")
_LIST = re.compile(r"(?P<opening>(?:<[^<>\s]{1,40}>|\[[A-Z_]{1,40}\]|\w{1,40})\s?\[\s{0,4})$")
_END_OF_LIST = re.compile(r"(?:\s*,\s*(?:\.\.\.|…|\{[^{}\n]*\}))*(?P<closing>\s{0,4}\])")
LONGEST_START = 100  # characters before an example that are looked at
_SPECIAL = re.compile(r"<\|[^<>\s]{1,40}\|>")


def instructed(text: str) -> ToolFormat | None:
    """The format of an example of a call; None if there is none, or several say different things.

    Args:
        text: what the template tells the model, without the tools themselves.
    """
    found = {form for match in _CALL.finditer(text) if (form := _of_example(text, match))}
    return found.pop() if len(found) == 1 else None


def _of_example(text: str, call: "re.Match[str]") -> ToolFormat | None:
    before = text[max(0, call.start() - LONGEST_START) : call.start()]
    after = text[call.end() :]
    start = _NAME.match(call[0])
    assert start is not None  # the example begins like this
    opening, between = start["start"] + '"', '"' + call["between"]
    if listed := _LIST.search(before):
        ended = _END_OF_LIST.match(after)
        if ended is None:
            return None
        return _form(listed["opening"] + opening, between, "}" + ended["closing"], "}, " + opening)
    tag = _TAG.search(before)
    if tag is None:
        return None
    beginning = tag["tag"] + tag["space"] + opening
    closing = re.match(rf"\s{{0,4}}</{re.escape(tag['name'])}>", after)
    if closing is not None:
        end = "}" + closing[0]
        return _form(beginning, between, end, f"{end}\n{beginning}")
    if _SPECIAL.fullmatch(tag["tag"]):  # a token, which needs no end
        return _form(beginning, between, "}", None)
    return None


def _form(opening: str, between: str, closing: str, following: str | None) -> ToolFormat:
    more: tuple[Part, ...] | None = None if following is None else (following,)
    return ToolFormat(opening=(opening,), after_name=(between,), closing=(closing,), following=more)
