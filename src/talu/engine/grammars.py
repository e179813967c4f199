"""Compiles response formats to grammars over the tokens of a model, with llguidance.

A grammar never allows what its schema forbids, as far as its keywords can be generated: what it
cannot hold is left out of it and checked in the complete answer. Compiling is limited by the fuel
of llguidance, and runs without the GIL. Only the table of the tokens is built with the GIL.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import gbnf_to_lark

from talu.engine.held_keywords import ENFORCER, HeldKeywords, refused
from talu.exceptions import StructuredOutputError, TokenizerError
from talu.forks import ForkSafeLock
from talu.structured.formats import ResponseFormat
from talu.structured.report import SchemaReport
from talu.tokenizer.tokenizer import Tokenizer

__all__ = ["Compiled", "Grammars", "LLMatcher"]

KEPT = 256  # compiled formats and schemas of one model
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
LONGEST = 64  # bytes of a token that is looked for
MAX_ITEMS = 20_000  # places in a grammar where an answer may be at the same time
TRIED = 64  # forced tokens after which a grammar is tried


Schema = dict[str, Any]


class Compiled(NamedTuple):
    """A compiled format: the matcher of an answer that has not begun, report and grammar."""

    matcher: LLMatcher
    report: SchemaReport
    grammar: dict[str, Any]

    def begin(self) -> LLMatcher:
        """A matcher for one answer."""
        return self.matcher.deep_copy()


class _Texts:
    """The tokenizer as llguidance wants it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        tokens = tokenizer.token_bytes()[:size]
        self.tokens = tokens + [b""] * (size - len(tokens))
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted(i for i in tokenizer.unwritten_ids | {*ends} if i < size)

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens whose bytes are exactly those of the text, which a grammar forces."""
        data = text if isinstance(text, bytes) else text.encode()
        try:
            ids = self._tokenizer.encode_literally(data.decode())
        except (UnicodeDecodeError, TokenizerError):
            return self._longest(data)
        return ids if b"".join(self.tokens[i] for i in ids) == data else self._longest(data)

    def _longest(self, data: bytes) -> list[int]:
        """The longest token at each place; up to a byte that no token has."""
        found: list[int] = []
        place = 0
        while place < len(data):
            sizes = range(min(LONGEST, len(data) - place), 0, -1)
            pieces = (data[place : place + size] for size in sizes)
            token = next((self._ids[piece] for piece in pieces if piece in self._ids), None)
            if token is None:
                return found
            found.append(token)
            place += len(self.tokens[token])
        return found

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        hidden = set(self.special_token_ids)
        written = ((text, i) for i, text in enumerate(self.tokens) if i not in hidden)
        return {text: i for text, i in written if 0 < len(text) <= LONGEST}


class Grammars:
    """The grammars of one model, for any number of threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, ends: frozenset[int]) -> None:
        """Build the table of the tokens, which takes a second for 150,000 of them.

        Raises:
            StructuredOutputError: the model has no token that ends an answer.
        """
        if not ends:
            raise StructuredOutputError(
                "the model names no token that ends an answer, so that no form can end"
            )
        texts = _Texts(tokenizer, vocabulary_size, sorted(ends))
        self._table = LLTokenizer(
            TokenizerWrapper(texts), n_vocab=vocabulary_size, eos_token=sorted(ends)
        )
        self._limits = LLParserLimits(verbose_errors=False, max_items_in_row=MAX_ITEMS)
        self._gate = ForkSafeLock()
        self._kept: OrderedDict[tuple[str, str], Compiled] = OrderedDict()

    def compiled(self, form: ResponseFormat) -> Compiled:
        """The compiled format, from an earlier call if there was one.

        Raises:
            StructuredOutputError: the format is wrong, nothing satisfies it, or it is too complex.
        """
        return self._kept_or((form.kind, form.source), lambda: self._compile(form))

    def _kept_or(self, key: tuple[str, str], make: Callable[[], Compiled]) -> Compiled:
        with self._gate.lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self._kept[key] = found
                return found
        found = make()
        with self._gate.lock:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _compile(self, form: ResponseFormat) -> Compiled:
        form.check()
        match form.kind:
            case "json":
                return self._of_schema(form.schema or {})
            case "choice":
                options = " | ".join(json.dumps(option) for option in form.options)
                grammar = {"lark_grammar": f"start: OPTION\nOPTION: {options}"}
            case "regex":
                grammar = _only(LLMatcher.grammar_from_regex(form.source))
            case _:
                grammar = {"lark_grammar": _lark(form)}
        matcher = self._matcher(grammar)
        problem = self._problem(matcher)
        if problem:
            raise refused(form.kind, problem)
        return Compiled(matcher, SchemaReport(("#",), enforced_by=ENFORCER), grammar)

    def embedded(self, schema: Schema) -> tuple[str, SchemaReport]:
        """A schema as grammars of calls contain it, without what they cannot hold, and the report.

        Raises:
            StructuredOutputError: nothing satisfies it, or it is too complex.
        """
        key = "embedded", json.dumps(schema)
        try:
            found = self._kept_or(key, lambda: self._of_schema(schema))
        except StructuredOutputError as error:
            raise refused("calls", str(error.details["problem"])) from error
        return json.dumps(found.grammar["json_schema"]), found.report

    def of_calls(self, lark: str, form: ResponseFormat | None = None) -> LLMatcher:
        """A matcher for an answer that contains calls.

        Args:
            lark: the grammar, in which ``@form`` is the form of the text.
            form: that form.

        Raises:
            StructuredOutputError: the grammar is too complex.
        """
        key = "calls", lark if form is None else f"{form.kind}\0{form.source}\0{lark}"

        def compile() -> Compiled:
            grammars: list[dict[str, Any]] = [{"lark_grammar": lark}]
            report = SchemaReport(enforced_by=ENFORCER)
            if form is not None:
                found = self.compiled(form)
                grammars.append({**found.grammar, "name": "form"})
                report = found.report
            matcher = self._matcher(*grammars)
            problem = self._problem(matcher)
            if problem:
                raise refused("calls", problem)
            return Compiled(matcher, report, grammars[0])

        return self._kept_or(key, compile).begin()

    def takes_pattern(self, pattern: str) -> bool:
        """Whether a grammar can follow a regular expression."""
        return not self._problem(self._matcher(_only(LLMatcher.grammar_from_regex(pattern))))

    def _of_schema(self, schema: Schema) -> Compiled:
        """The grammar of a schema without what it cannot hold."""
        held = HeldKeywords(schema, self.takes_pattern)
        for lenient in (False, True):
            grammar = _of_json(held.schema, lenient=lenient)
            matcher = self._matcher(grammar)
            problem = self._problem(matcher)
            if problem and "not disjoint" in problem and held.drop("patternProperties"):
                grammar = _of_json(held.schema, lenient=lenient)
                matcher = self._matcher(grammar)
                problem = self._problem(matcher)
            if not problem:
                held.learn(matcher.get_grammar_warnings())
                return Compiled(matcher, held.report(), grammar)
        raise refused("json", problem)

    def _matcher(self, *grammars: dict[str, Any]) -> LLMatcher:
        text = json.dumps({"grammars": grammars})
        return LLMatcher(self._table, text, log_level=0, limits=self._limits)

    def _problem(self, matcher: LLMatcher) -> str:
        """What is wrong with a grammar, also if only its first mask shows it."""
        if not matcher.is_error():
            matcher.compute_bitmask()
        tried = matcher if matcher.is_error() else _after_forced(matcher)
        if tried.is_error():
            return str(tried.get_error()) or "it cannot be compiled"
        if matcher.is_stopped() and not matcher.is_accepting():
            return "Unsatisfiable: nothing fits"
        return ""


def _after_forced(matcher: LLMatcher) -> LLMatcher:
    """A matcher after the tokens that begin every answer; some limits show only there."""
    tried = matcher.deep_copy()
    for token in tried.compute_ff_tokens()[:TRIED]:
        if tried.is_error() or tried.is_stopped() or not tried.consume_token(token):
            break
    if not tried.is_error() and not tried.is_stopped():
        tried.compute_bitmask()
    return tried


def _of_json(schema: Schema, *, lenient: bool) -> dict[str, Any]:
    """The grammar of a schema in the form of llguidance."""
    options: Any = {**STYLE, "coerce_one_of": True, "lenient": lenient}
    return _only(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options))


def _only(grammar: str) -> dict[str, Any]:
    """The grammar in a list of one."""
    (found,) = json.loads(grammar)["grammars"]
    return {key: value for key, value in found.items() if value is not None and key != "name"}


def _lark(form: ResponseFormat) -> str:
    if form.kind == "lark":
        return form.source
    try:
        return str(gbnf_to_lark(form.source))
    except Exception as error:  # of a package: whatever its parser raises
        raise refused("gbnf", str(error)) from error
