"""Grammars of calls: they allow what templates write, and nothing that does not fit."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tools.tool_formats_table import CASES, TOOLS, joined, written

from talu.engine.engine import Engine
from talu.engine.grammars import Grammars, LLMatcher
from talu.engine.registry import acquire
from talu.tool_formats.derive import derive
from talu.tool_formats.description import ToolFormat
from talu.tool_formats.grammar import calls_rule, marked_start
from talu.tool_formats.markers import marker_of
from talu.tool_formats.reader import Reader
from talu.tool_formats.rules import Rules
from talu.tool_formats.schemas import parameters_of
from talu.types import LocalBackend

TEMPLATES = Path(sys.prefix) / "share" / "templates"
SOURCES = {path.stem: path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))}
FORMS: dict[str, ToolFormat] = {
    name: form
    for name, source in SOURCES.items()
    if (form := derive(source).format) is not None and not form.code
}
OTHER = {  # values that these templates write in another way than the grammar, which has JSON
    "ByteDance-Seed-OSS": "lists and objects as Python writes them",
    "CohereForAI-c4ai-command-r-plus-tool_use": "arguments in several lines",
    "LFM2.5-8B-A1B": "lists and objects as Python writes them",
    "MiniMax-M3": "lists and objects as tags",
    "Reka-Edge": "characters as escapes",
    "google-gemma-4-31B-it": "null as None",
    "google-gemma-4-31B-it-interleaved": "null as None",
    "openbmb-MiniCPM5-1B": "lists and objects as Python writes them",
}
PARAMETERS = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["celsius", "it's", 'a "b"']},
        "place": {"type": "string", "minLength": 2, "maxLength": 6},
        "code": {"type": "string", "pattern": "^[A-C]{2,3}$"},
        "count": {"type": "integer", "minimum": 1, "maximum": 40},
        "flag": {"type": "boolean"},
        "either": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]},
        "parts": {
            "type": "array",
            "items": {"$ref": "#/$defs/part"},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["unit", "count"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    lease = acquire("talu/pocket", LocalBackend(), offline=True)
    yield lease.engine
    lease.release()


def tags_of(engine: Engine) -> dict[str, int]:
    tokens = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    return {each: number for each in tokens if (number := engine.tokenizer.token_id(each))}


def matcher(engine: Engine, form: ToolFormat, tools: dict[str, Any], **how: bool) -> LLMatcher:
    grammars: Grammars = engine.grammars
    rules = Rules(
        tags_of(engine), lambda schema: grammars.embedded(schema)[0], grammars.takes_pattern
    )
    calls = calls_rule(rules, form, tools, many=how.get("many", True))
    start = marked_start(rules, form, calls, seen=how.get("seen", False))
    return grammars.of_calls(rules.text(start))


def drawn(engine: Engine, found: LLMatcher, chance: random.Random) -> str:
    """The text of random tokens that a grammar allows, up to an end of it."""
    tokenizer = engine.tokenizer
    spelled = {number: tag for tag, number in tags_of(engine).items()}
    ids: list[int] = []
    while not (found.is_accepting() and chance.random() < 0.3) and len(ids) < 2000:
        mask = found.compute_bitmask()
        allowed = [n for n in range(tokenizer.vocabulary_size) if mask[n // 8] >> n % 8 & 1]
        allowed = [n for n in allowed if n not in engine.end_token_ids]
        if not allowed:
            break
        ids.append(chance.choice(allowed))
        assert found.consume_token(ids[-1])
    assert found.is_accepting()
    decoder = tokenizer.decoder(continues=True, skip_special_tokens=False)
    return "".join(spelled.get(n) or decoder.push(n) for n in ids) + decoder.flush()


def allows(engine: Engine, found: LLMatcher, text: str) -> bool:
    ids = engine.tokenizer.encode(text, special_tokens=False)
    return found.try_consume_tokens(ids) == len(ids) and found.is_accepting()


@pytest.mark.parametrize("name", FORMS)
def test_the_grammar_allows_what_the_template_writes(engine: Engine, name: str) -> None:
    for title, case in CASES.items():
        answer = written(SOURCES[name], case)
        if answer is None or case.text or (name in OTHER and case.calls[0][1]):
            continue
        found = matcher(engine, FORMS[name], TOOLS)
        answer = answer.strip()
        if not answer.startswith(marker_of(FORMS[name])):
            answer = answer.removeprefix(FORMS[name].text[1])
        assert allows(engine, found, answer), title


@pytest.mark.parametrize("name", FORMS)
def test_one_call_is_all_that_a_grammar_of_one_allows(engine: Engine, name: str) -> None:
    answer = written(SOURCES[name], CASES["several calls"])
    if answer is not None:
        found = matcher(engine, FORMS[name], TOOLS, many=False)
        assert not allows(engine, found, answer.strip())


@pytest.mark.parametrize("name", FORMS)
def test_random_tokens_that_the_grammar_allows_are_calls_that_fit(
    engine: Engine, name: str
) -> None:
    """The masks allow some token at each step, and whatever is drawn is read and fits."""
    chance = random.Random(name)
    for _ in range(3):
        found = matcher(engine, FORMS[name], {"convert": PARAMETERS, "now": parameters_of({})})
        text = drawn(engine, found, chance)
        reader = Reader(FORMS[name], {"convert": PARAMETERS, "now": parameters_of({})})
        answer = joined([*reader.push(text), *reader.finish()])
        assert answer.calls, text
        assert (answer.text, reader.notes) == ("", ())
        for tool, arguments in answer.calls:
            schema = {"convert": PARAMETERS, "now": parameters_of({})}[tool]
            jsonschema.validate(arguments, schema)


@pytest.mark.parametrize("name", FORMS)
def test_text_may_stand_before_the_marker_where_it_is_looked_for(engine: Engine, name: str) -> None:
    answer = written(SOURCES[name], CASES["no arguments"])
    assert answer is not None
    found = matcher(engine, FORMS[name], TOOLS, seen=True)
    text = answer.strip() if answer.lstrip().startswith("<tool_call>") else f"x {answer.strip()}"
    assert allows(engine, found, text)


def test_a_schema_that_names_arguments_forbids_others() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    assert parameters_of({"parameters": schema})["additionalProperties"] is False
    assert json.dumps(parameters_of({"parameters": {"type": "object"}})) == '{"type": "object"}'
