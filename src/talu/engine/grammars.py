"""Compiles response formats to grammars over the tokens of a model, with llguidance.

A grammar never allows what its schema forbids, as far as its keywords can be generated: what it
cannot hold is left out of it and checked in the complete answer. Compiling is limited by the fuel
of llguidance, and runs without the GIL. Only the table of the tokens is built with the GIL.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import gbnf_to_lark

from talu.exceptions import StructuredOutputError, TokenizerError
from talu.forks import ForkSafeLock
from talu.structured.formats import ResponseFormat
from talu.structured.keywords import (
    ANNOTATIONS,
    ASSERTIONS,
    GENERATED,
    META_SCHEMAS,
    declares_draft,
    draft_of,
    effective,
    pointer,
)
from talu.structured.matching import is_followed, spells
from talu.structured.references import reachable
from talu.structured.report import SchemaReport
from talu.structured.string_formats import CHECKED_FORMATS, GENERATED_FORMATS, PATTERNS
from talu.tokenizer.tokenizer import Tokenizer

__all__ = ["Compiled", "Grammars", "LLMatcher"]

KEPT = 256  # compiled formats and schemas of one model
MAX_DIVISOR = 10_000  # of multipleOf; the automaton has as many states
MAX_COUNT = 100_000  # of repetitions; a context holds no more
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
ENFORCER = "talu"
LONGEST = 64  # bytes of a token that is looked for
MAX_ITEMS = 20_000  # places in a grammar where an answer may be at the same time
TRIED = 64  # forced tokens after which a grammar is tried

LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
MAX_EXACT = 2**53
COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")

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
            raise _refused(form.kind, problem)
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
            raise _refused("calls", str(error.details["problem"])) from error
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
                raise _refused("calls", problem)
            return Compiled(matcher, report, grammars[0])

        return self._kept_or(key, compile).begin()

    def takes_pattern(self, pattern: str) -> bool:
        """Whether a grammar can follow a regular expression."""
        return not self._problem(self._matcher(_only(LLMatcher.grammar_from_regex(pattern))))

    def _of_schema(self, schema: Schema) -> Compiled:
        """The grammar of a schema without what it cannot hold."""
        generated = _Generated(schema, self.takes_pattern)
        for lenient in (False, True):
            grammar = generated.grammar(lenient=lenient)
            matcher = self._matcher(grammar)
            problem = self._problem(matcher)
            if problem and "not disjoint" in problem and generated.drop("patternProperties"):
                grammar = generated.grammar(lenient=lenient)
                matcher = self._matcher(grammar)
                problem = self._problem(matcher)
            if not problem:
                generated.learn(matcher.get_grammar_warnings())
                return Compiled(matcher, generated.report(), grammar)
        raise _refused("json", problem)

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


class _Generated:
    """The part of a schema that a grammar holds, and what becomes of each keyword."""

    def __init__(self, schema: Schema, takes_pattern: Callable[[str], bool]) -> None:
        self._schema: Schema = json.loads(json.dumps(schema))
        self._takes_pattern = takes_pattern
        self._enforced: dict[str, str] = {}  # keywords by pointer
        self._nodes: dict[str, str] = {}  # the schemas of these keywords
        self._checked: list[str] = []
        self._ignored: list[str] = []
        draft = draft_of(self._schema)
        for path, node in reachable(self._schema).items():
            in_effect = effective(node, draft)
            if declares_draft(node):  # llguidance knows each draft by one name
                node["$schema"] = META_SCHEMAS[draft]
            for key in list(node):
                if key in in_effect:
                    self._sort(path, node, key)
                elif key not in ANNOTATIONS:
                    self._ignored.append(pointer(path, key))
                    del node[key]
        left = reachable(self._schema)  # without those below a keyword that is only checked
        self._check(place for place, node in self._nodes.items() if node not in left)

    def _sort(self, path: str, node: Schema, key: str) -> None:
        place = pointer(path, key)
        if key in COUNTS and isinstance(node[key], float):  # such as 2.0
            node[key] = int(node[key])
        if key == "format" and node[key] not in GENERATED_FORMATS:
            (self._checked if node[key] in CHECKED_FORMATS else self._ignored).append(place)
            del node[key]
        elif key not in GENERATED or not self._holds(node, key):
            self._checked.append(place)
            del node[key]
        else:
            if key == "format" and node[key] in PATTERNS:  # llguidance allows days that no year has
                _add_pattern(node, PATTERNS[node[key]])
                del node[key]
            self._enforced[place] = key
            self._nodes[place] = path

    def _holds(self, node: Schema, key: str) -> bool:
        value = node[key]
        match key:
            case "pattern":
                return self._takes_pattern(value)
            case "patternProperties":
                return all(map(self._takes_pattern, value))
            case "minItems" | "minLength" | "minProperties" if value > MAX_COUNT:
                raise _refused("json", f"{key} is {value:,}, and no answer is that long")
            case "maxItems" | "maxLength" | "maxProperties":
                return bool(value <= MAX_COUNT)
            case "const" | "enum":
                return _is_exact(value)
            case "multipleOf":
                return value <= MAX_DIVISOR and spells(_number(key, value), json.dumps(value))
            case "minimum" | "maximum":
                return _is_exact(value) and spells(_number(key, value), json.dumps(value))
            case "exclusiveMinimum" | "exclusiveMaximum":
                return self._excludes(node, key)
        return True

    def _excludes(self, node: Schema, key: str) -> bool:
        """Whether a grammar holds an exclusive limit, perhaps with an inclusive one beside it.

        llguidance lets the limit pass if the other one has the same whole part. Then a number very
        near to it is the limit.
        """
        limit = node[key]
        if isinstance(limit, bool) or not _is_exact(limit):
            return False
        held = {name: node[name] for name in LIMITS if name in node and _is_exact(node[name])}
        schema = {"type": "number", **held}
        texts = _spellings(limit)
        if not any(spells(schema, text) for text in texts):
            return is_followed(schema)
        name = key.replace("exclusiveM", "m")
        sign, stricter = (1, max) if name == "minimum" else (-1, min)
        near = _near(limit, sign)
        node[name] = schema[name] = stricter(near, held.get(name, near))
        return is_followed(schema) and not any(spells(schema, text) for text in texts)

    def grammar(self, *, lenient: bool) -> dict[str, Any]:
        """The grammar in the form of llguidance."""
        options: Any = {**STYLE, "coerce_one_of": True, "lenient": lenient}
        return _only(
            LLMatcher.grammar_from_json_schema(json.dumps(self._schema), overrides=options)
        )

    def drop(self, key: str) -> bool:
        """Check a keyword instead of generating it; False if there is none."""
        found = [node.pop(key, None) for node in reachable(self._schema).values()]
        self._check(place for place, keyword in self._enforced.items() if keyword == key)
        return any(each is not None for each in found)

    def learn(self, warnings: Sequence[str]) -> None:
        """Note the keywords that llguidance left out."""
        for warning in warnings:
            words = {*re.findall(r"[$\w]+", warning.replace("min/max", "minProperties max"))}
            keys = {"oneOf"} if "oneOf" in words else words & ASSERTIONS
            concerned = keys or ASSERTIONS
            self._check(place for place, key in self._enforced.items() if key in concerned)

    def _check(self, places: Iterable[str]) -> None:
        """Move enforced keywords to those that are checked."""
        for place in list(places):
            if self._enforced.pop(place, None) is not None:
                self._checked.append(place)

    def report(self) -> SchemaReport:
        """What became of each keyword."""
        return SchemaReport(
            tuple(self._enforced), tuple(self._checked), tuple(self._ignored), ENFORCER
        )


def _number(key: str, value: float) -> Schema:
    return {"type": "number", key: value}


def _is_exact(value: object) -> bool:
    """Whether llguidance, whose numbers have 64 bits, reads all numbers in a value exactly."""
    if isinstance(value, list):
        return all(map(_is_exact, value))
    if isinstance(value, dict):
        return all(map(_is_exact, value.values()))
    return not isinstance(value, int | float) or abs(value) <= MAX_EXACT


def _near(number: float, sign: int) -> float:
    """A number a little above or below another."""
    exact = Decimal(repr(number))
    places = max(0, -int(exact.as_tuple().exponent)) + 6
    return float(exact + sign * Decimal(1).scaleb(-places))


def _spellings(number: float) -> list[str]:
    """Texts of a number in JSON."""
    text = json.dumps(number)
    if number == 0:
        return ["0", "-0", "0.0", "-0.0"]
    if number == int(number):
        return [str(int(number)), f"{int(number)}.0"]
    return [text, f"{text}0"] if "e" not in text else [text]


def _after_forced(matcher: LLMatcher) -> LLMatcher:
    """A matcher after the tokens that begin every answer; some limits show only there."""
    tried = matcher.deep_copy()
    for token in tried.compute_ff_tokens()[:TRIED]:
        if tried.is_error() or tried.is_stopped() or not tried.consume_token(token):
            break
    if not tried.is_error() and not tried.is_stopped():
        tried.compute_bitmask()
    return tried


def _add_pattern(node: Schema, pattern: str) -> None:
    """Demand that strings of a schema match a pattern as a whole."""
    added = {"pattern": f"^(?:{pattern})$"}
    if "pattern" in node:
        node["allOf"] = [*node.get("allOf", ()), added]
    else:
        node |= added


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
        raise _refused("gbnf", str(error)) from error


def _refused(kind: str, problem: str) -> StructuredOutputError:
    what = {"json": "JSON Schema", "regex": "regular expression", "choice": "choice"}
    param = "tools" if kind == "calls" else "response_format"
    subject = (
        "parameters of a tool" if param == "tools" else f"{what.get(kind, 'grammar')} of {param}"
    )
    problem = " ".join(problem.replace("<non-verbose/>", "").split())
    return StructuredOutputError(
        f"the {subject} cannot be followed: {problem[:500] or 'nothing fits'}",
        details={"param": param, "problem": problem[:500]},
    )
