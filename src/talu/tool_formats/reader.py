"""Splits a streamed answer into text, reasoning and tool calls.

It only cuts; the caller gives calls their ids and makes events.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from talu.first_use import loaded
from talu.tool_formats.description import Part, Reasoning, ToolFormat, literal_of
from talu.tool_formats.markers import marker_of
from talu.tool_formats.matching import MORE, NO, Tags, matched, starts

if TYPE_CHECKING:
    from talu.tool_formats.styles.style import ArgumentsReader

__all__ = ["CLOSINGS", "THINK", "Kind", "Read", "Reader", "marked"]

Kind = Literal["text", "reasoning", "name", "arguments", "end"]
THINK = Reasoning("<think>", "</think>")
CLOSINGS = (THINK.closing, "<|/think|>")  # of it; some models were trained with another one
LONGEST_NAME = 256  # characters


class Read(NamedTuple):
    """A piece of an answer.

    Attributes:
        kind: what it belongs to. A call is its name, pieces of the JSON text of its arguments, and
            an end without text.
        text: the piece.
    """

    kind: Kind
    text: str


class Reader:
    """Reads one answer as it arrives.

    - Reasoning begins only before the answer. Later its tags are text, as is a closing tag that
      closes nothing.
    - Text, reasoning and arguments are given as they arrive, the name of a call when it is
      complete. What begins as a call and is none is text.
    - White space before a tag and line breaks after one belong to nothing. Every other character is
      given, in order.
    - What is never closed ends with the answer, except a call: it is complete when its closing was
      read, or when its arguments are a whole JSON object.

    The result does not depend on how the answer is cut into pieces. Time is linear in its length.

    Attributes:
        notes: what in the answer could not be read as a call.
    """

    def __init__(
        self,
        form: ToolFormat | None = None,
        tools: Mapping[str, Any] | None = None,
        *,
        reasoning: Reasoning | None = None,
        in_reasoning: bool = False,
        mark_tags: Callable[[str], str] = str,
        mark: str = "",
    ) -> None:
        """Start an answer.

        Args:
            form: how the model writes calls; None if no tools were offered, so that calls are text.
            tools: the schemas of the arguments, by the name of the tool.
            reasoning: the texts around reasoning; None for ``<think>``.
            in_reasoning: the prompt has begun it.
            mark_tags: changes a literal to what stands in the pushed text, where tags that are
                tokens follow a mark.
            mark: the mark, which is no part of the text.
        """
        self.notes: tuple[str, ...] = ()
        thinking = reasoning or THINK
        self._form = None if form is None else marked(form, mark_tags)
        self._tools = tools or {}
        self._mark = mark
        self._think = mark_tags(thinking.opening)
        closings = CLOSINGS if thinking == THINK else (thinking.closing,)
        self._end_think = Tags(*map(mark_tags, closings))
        self._begin = "" if self._form is None else marker_of(self._form)
        skipped = () if self._form is None else self._form.text
        anywhere = [self._begin] if self._form is not None and self._form.anywhere else []
        self._skipped = {each for each in skipped if each}
        self._first = Tags(self._think, self._begin, *self._skipped)
        self._later = Tags(*anywhere, *self._skipped)
        self._step = self._reasoning if in_reasoning else self._text
        self._kind: Kind = "reasoning" if in_reasoning else "text"
        self._buffer = ""
        self._at = 0
        self._answered = False  # more than white space of the answer was given
        self._after_tag = in_reasoning
        self._space: list[str] = []  # dropped if a tag follows
        self._start = 0  # where the call begins that is not certain yet
        self._arguments: ArgumentsReader | None = None
        self._out: list[Read] = []
        self._joins = self._form is not None and _is_one_section(self._form, self._begin)
        self._closes_with_answer = self._form is not None and not self._form.closing

    @property
    def kind(self) -> Kind:
        """What the last piece belonged to."""
        return self._kind

    def push(self, text: str) -> list[Read]:
        """Take the next piece of the answer; return what is complete of it."""
        self._buffer = self._buffer[self._at :] + text
        self._start -= self._at
        self._at = 0
        while self._step():
            pass
        if self._step in (self._opening, self._name):
            self._at = self._start  # it may have to be text
        return self._given()

    def finish(self, *, cut: bool = False) -> list[Read]:
        """End the answer; return what was held back.

        Args:
            cut: the model did not end it itself, as with ``max_tokens`` or a stop sequence. It
                matters for calls that nothing closes but the end of the answer.
        """
        if self._step in (self._opening, self._name):
            self._not_a_call()
            while self._step():
                pass
        rest = self._buffer[self._at :]
        if self._step == self._in_arguments and self._arguments is not None:
            ending = self._arguments.finish()
            if ending and not cut and self._closes_with_answer:
                self._out += [Read("arguments", ending), Read("end", "")]
            else:
                self._note("the answer ended within a call: the call is not complete")
        elif self._step == self._after_arguments:
            self._out.append(Read("end", ""))
        else:
            self._take(rest)
            if self._space:
                self._out.append(Read(self._kind, "".join(self._space)))
        self._buffer, self._at, self._space = "", 0, []
        return self._given()

    # Each step reads on from ``_at``, and says whether to go on.

    def _text(self) -> bool:
        tags = self._later if self._answered else self._first
        match = tags.find(self._buffer, self._at)
        if match and not self._answered and self._buffer[self._at : match.start()].strip():
            self._take(self._buffer[self._at : match.start()])  # now it has
            self._at = match.start()
            return True
        if match is None:
            self._pass(tags)
            return False
        self._take(self._buffer[self._at : match.start()])
        self._start, self._at = match.start(), match.end()
        if match[0] == self._begin:
            self._step = self._opening
            return True
        self._drop_space()
        if match[0] == self._think:
            self._step, self._kind = self._reasoning, "reasoning"
        return True

    def _reasoning(self) -> bool:
        match = self._end_think.find(self._buffer, self._at)
        if match is None:
            self._pass(self._end_think)
            return False
        self._take(self._buffer[self._at : match.start()])
        self._at = match.end()
        self._drop_space()
        self._step, self._kind = self._text, "text"
        return True

    def _opening(self) -> bool:
        """What stands between the marker of a call and its name."""
        assert self._form is not None
        rest = (literal_of(self._form.opening)[len(self._begin) :], *self._form.opening[1:])
        at = self._start + len(self._begin)
        end = matched(rest, self._buffer, at, loose=True)
        if end == MORE:
            return False
        if end == NO:
            return self._not_a_call()
        self._at, self._step = end, self._name
        self._name_at = end - self._start
        return True

    def _name(self) -> bool:
        form = self._form
        assert form is not None
        at = self._start + self._name_at
        literal = literal_of(form.after_name)
        ends = [literal] if literal else _what_follows(form)
        match = Tags(*ends).find(self._buffer, at)
        if match is None:
            too_long = len(self._buffer) - at > LONGEST_NAME + max(map(len, ends))
            return too_long and self._not_a_call()
        name = self._buffer[at : match.start()].strip()
        end = matched(form.after_name, self._buffer, match.start())
        if end == MORE:
            return False
        if end == NO or not name or len(name) > LONGEST_NAME:
            return self._not_a_call()
        self._drop_space()
        self._answered = True
        self._kind = "name"
        self._out.append(Read("name", name))
        self._arguments = self._reader(form, name)
        self._at, self._step = end, self._in_arguments
        return True

    def _in_arguments(self) -> bool:
        assert self._arguments is not None
        step = self._arguments.read(self._buffer, self._at)
        moved, self._at = step.at > self._at, step.at
        text = step.json.replace(self._mark, "") if self._mark else step.json
        if text:
            self._kind = "arguments"
            self._out.append(Read("arguments", text))
        if step.ended:
            self._step = self._after_arguments
        return step.ended or (moved and self._at < len(self._buffer))

    def _after_arguments(self) -> bool:
        """The end of a call, or what leads to the next."""
        form = self._form
        assert form is not None
        text, at = self._buffer, self._at
        more = NO
        if self._joins and form.following is not None:
            more = matched(form.following, text, at)
        if more >= 0:
            self._out.append(Read("end", ""))
            self._start, self._name_at = more, 0
            self._at, self._step = more, self._name
            return True
        end = matched(form.closing, text, at)
        if MORE in (more, end):
            return False
        if end == NO:
            self._note("a call does not end as the template shows it")
        self._out.append(Read("end", ""))
        self._at = at if end == NO else end
        self._after_tag = True
        self._step, self._kind = self._text, "text"
        return True

    def _reader(self, form: ToolFormat, name: str) -> "ArgumentsReader":
        reader: ArgumentsReader
        reader = loaded("talu.tool_formats.styles.choice", "arguments_reader")(
            form, self._tools.get(name)
        )
        return reader

    def _not_a_call(self) -> bool:
        """Give what looked like a call as text; what it contains is not looked at again."""
        self._note("a part of the answer begins as a call and is none: it is text")
        self._after_tag = False
        self._step, self._kind = self._text, "text"
        self._at = self._start + max(1, len(self._begin))
        self._take(self._buffer[self._start : self._at])
        return True

    def _pass(self, tags: Tags) -> None:
        """Give all that cannot be the beginning of a tag."""
        end = len(self._buffer) - tags.held(self._buffer, self._at)
        text, self._at = self._buffer[self._at : end], end
        self._take(text)

    def _take(self, text: str) -> None:
        """Give text of the current region, except white space that a tag may follow."""
        if self._mark:
            text = text.replace(self._mark, "")
        if self._after_tag:
            text = text.lstrip("\r\n")
            self._after_tag = not text
        body = text.rstrip()
        if body:
            self._out.append(Read(self._kind, "".join([*self._space, body])))
            self._space = []
            self._answered = self._answered or self._kind == "text"
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def _drop_space(self) -> None:
        self._space = []
        self._after_tag = True

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes = (*self.notes, note)

    def _given(self) -> list[Read]:
        given, self._out = self._out, []
        return given


def marked(form: ToolFormat, mark_tags: Callable[[str], str]) -> ToolFormat:
    """A description in which literal texts stand as they do in a text with marks."""

    def parts(given: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(mark_tags(each) if isinstance(each, str) else each for each in given)

    tagged = form.tagged
    if tagged is not None:
        tagged = tagged._replace(
            opening=mark_tags(tagged.opening),
            values=tuple((kind, mark_tags(text)) for kind, text in tagged.values),
            closing=mark_tags(tagged.closing),
            separator=mark_tags(tagged.separator),
        )
    return form._replace(
        opening=parts(form.opening),
        after_name=parts(form.after_name),
        closing=parts(form.closing),
        following=None if form.following is None else parts(form.following),
        tagged=tagged,
        quote=mark_tags(form.quote),
        text=(mark_tags(form.text[0]), mark_tags(form.text[1])),
    )


def _what_follows(form: ToolFormat) -> list[str]:
    """What can stand after a name if no literal does."""
    if form.tagged is None:
        return ["{"]
    following = literal_of(form.following) if form.following is not None else ""
    return [form.tagged.opening, literal_of(form.closing), following]


def _is_one_section(form: ToolFormat, marker: str) -> bool:
    """Whether several calls share their opening and closing."""
    if form.following is None:
        return False
    closing, following = literal_of(form.closing), literal_of(form.following)
    if len(form.closing) > 1 or starts(following, 0, closing) < 0:
        return True
    return not following[len(closing) :].lstrip().startswith(marker)
