"""Prepares the grammar of the calls that an answer may have, or must have."""

import json
from typing import Any

from talu.backends.local.prompt import Prompt
from talu.backends.local.tool_reports import tool_reports
from talu.engine.engine import Engine
from talu.engine.grammars import LLMatcher
from talu.engine.waiting import Waiting
from talu.exceptions import ValidationError
from talu.structured.formats import ResponseFormat
from talu.structured.report import SchemaReport
from talu.tool_formats.description import ToolFormat, literals
from talu.tool_formats.grammar import calls_rule, marked_start, plain_text
from talu.tool_formats.harmony import TOKENS, harmony_start
from talu.tool_formats.markers import marker_of
from talu.tool_formats.reader import CLOSINGS, THINK
from talu.tool_formats.rules import Rules
from talu.tool_formats.schemas import parameters_of
from talu.types import Request

__all__ = ["ToolRules"]


class ToolRules:
    """What ``tools``, ``tool_choice`` and ``parallel_tool_calls`` of a request demand.

    Attributes:
        choice: ``"auto"``, ``"none"`` or ``"required"``, also for the name of a tool.
    """

    def __init__(self, request: Request, form: ToolFormat, engine: Engine) -> None:
        """Read them.

        Raises:
            ValidationError: there is no tool of that name.
        """
        self._form = form
        self._engine = engine
        self._known: dict[str, SchemaReport] = {}  # by the schema as JSON
        self._many = request.parallel_tool_calls is not False
        self._offered = {tool.get("function", tool)["name"]: tool for tool in request.tools}
        self._tools = {name: parameters_of(tool) for name, tool in self._offered.items()}
        tokens = TOKENS if form.code == "harmony" else literals(form)
        self._tags = engine.tokenizer.tags_in(tokens)
        asked = request.tool_choice or "auto"
        self.choice = asked if asked in ("auto", "none") else "required"
        if asked not in ("auto", "none", "required"):
            if asked not in self._tools:
                known = ", ".join(map(repr, self._tools))
                raise ValidationError(
                    f"tool_choice={asked!r:.100} is the name of no tool: {known:.500}",
                    details={"param": "tool_choice", "value": asked},
                )
            self._tools = {asked: self._tools[asked]}

    def reports(self) -> dict[str, SchemaReport]:
        """What becomes of the keywords of the schema of each tool, by its name."""
        return tool_reports(self._form, self._offered, self._report)

    def _report(self, schema: dict[str, Any]) -> SchemaReport:
        known = self._known.get(json.dumps(schema))
        return known or self._engine.grammars.embedded(schema)[1]

    def _embedded(self, schema: dict[str, Any]) -> str:
        """A schema as grammars contain it; its report is kept, which nobody has to make again."""
        text, self._known[json.dumps(schema)] = self._engine.grammars.embedded(schema)
        return text

    def matcher(self, form: ResponseFormat | None) -> LLMatcher:
        """The grammar of the whole answer: calls, text in a form, or both, as it was chosen.

        Raises:
            StructuredOutputError: it cannot be followed.
        """
        grammars = self._engine.grammars
        if self._form.code == "harmony":
            return self._harmony(form)
        if self.choice == "none":
            if form is not None:
                return grammars.compiled(form).begin()
            rules = self._rules()
            return grammars.of_calls(rules.text(plain_text(rules, self._form)))
        rules, start = self._start(seen=False)
        if self.choice == "required":
            return grammars.of_calls(rules.text(start))
        assert form is not None  # without one, the text is free
        return grammars.of_calls(rules.text(f"{start} | @form"), form)

    def waiting(self, prompt: Prompt) -> Waiting:
        """What waits for a call in a text that is free.

        Raises:
            StructuredOutputError: the grammar of the calls cannot be followed.
        """
        tokenizer = self._engine.tokenizer
        rules, start = self._start(seen=True)
        text = rules.text(start)
        grammars = self._engine.grammars
        grammars.of_calls(text)  # now, and not in the middle of an answer
        tags = {**self._tags, **tokenizer.tags_in(prompt.reasoning or ())}
        opening, *closings = prompt.reasoning or (THINK.opening, *CLOSINGS)
        spelled = {number: tokenizer.mark_tags(tag, tags) for tag, number in tags.items()}
        return Waiting(
            tokenizer.mark_tags(marker_of(self._form), tags),
            lambda: grammars.of_calls(text),
            tokenizer.decoder(marks_tags=True, tags=tags),
            lambda token: spelled.get(token) or tokenizer.token_text(token),
            anywhere=self._form.anywhere,
            opening=tokenizer.mark_tags(opening, tags),
            closings=[tokenizer.mark_tags(each, tags) for each in closings],
            in_reasoning=prompt.in_reasoning,
        )

    def _harmony(self, form: ResponseFormat | None) -> LLMatcher:
        rules = self._rules()
        calls = text = None
        if self.choice != "none":
            calls = calls_rule(rules, self._form, self._tools, many=False)
        if self.choice != "required":
            text = "/(?s:.*)/" if form is None else "@form"
        lark = rules.text(harmony_start(rules, calls, text))
        return self._engine.grammars.of_calls(lark, None if text is None else form)

    def _start(self, *, seen: bool) -> tuple[Rules, str]:
        rules = self._rules()
        calls = calls_rule(rules, self._form, self._tools, many=self._many)
        return rules, marked_start(rules, self._form, calls, seen=seen)

    def _rules(self) -> Rules:
        return Rules(self._tags, self._embedded, self._engine.grammars.takes_pattern)
