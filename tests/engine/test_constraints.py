"""Masks decide which tokens may follow, and change nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from talu.engine.constraints import Constraint, Thinking
from talu.engine.drafts import StepTimes
from talu.engine.engine import Engine
from talu.engine.masking import with_forced
from talu.engine.scheduler import Limits
from talu.engine.ticket import Ticket
from talu.exceptions import GenerationError, StructuredOutputError
from talu.sampling import SamplingParams
from talu.structured.formats import format_of
from talu.structured.values import Choice, Grammar, Regex
from talu.types import FinishReason

NewEngine = Callable[..., Engine]
PROMPT = list(range(40, 60))
FREE = SamplingParams(max_tokens=40, temperature=1.0, top_k=0, top_p=1.0, seed=5)
OBJECT = {
    "type": "object",
    "properties": {
        "the_first_property": {"type": "boolean"},
        "the_second_property": {"enum": ["some text", "some other text"]},
        "number": {"type": "integer", "minimum": 10, "maximum": 99},
    },
    "required": ["the_first_property", "the_second_property", "number"],
    "additionalProperties": False,
}
FORMS: dict[str, Any] = {
    "object": OBJECT,
    "array": {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 4},
    "text": {"type": "string", "minLength": 2, "maxLength": 5},
    "regex": Regex("[a-f]{4,8}(xyz)?"),
    "choice": Choice(["yes", "no", "yes, but"]),
    "lark": Grammar('start: "a" /[bc]{2,3}/ "d"'),
    "gbnf": Grammar('root ::= "a" [bc] [bc]? "d"'),
}


def submit(engine: Engine, form: Any, params: SamplingParams = FREE, **thinking: Any) -> Ticket:
    matcher = None if form is None else engine.grammars.compiled(format_of(form)).begin()
    tags = Thinking(**thinking) if thinking else None
    params = replace(params, max_tokens=120, stop_token_ids=engine.end_token_ids)
    return engine.submit(PROMPT, params, constraint=Constraint(engine.masks, matcher, tags))


def outcome(ticket: Ticket) -> tuple[str, tuple[int, ...], FinishReason]:
    pieces = list(ticket)
    assert ticket.result is not None
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return "".join(piece.text for piece in pieces), tokens, ticket.result.finish_reason


@pytest.mark.parametrize("form", FORMS)
def test_a_random_model_writes_nothing_but_the_form(new_engine: NewEngine, form: str) -> None:
    engine = new_engine(kind="native")
    for seed in range(10):
        text, _, reason = outcome(submit(engine, FORMS[form], replace(FREE, seed=seed)))
        assert reason is FinishReason.STOP
        format_of(FORMS[form]).read(text, "stop")


def test_a_row_without_a_mask_is_not_changed_by_rows_with_one(new_engine: NewEngine) -> None:
    engine = new_engine(kind="native")
    alone = [outcome(submit(engine, form)) for form in FORMS.values()]
    free = outcome(engine.submit(PROMPT, FREE))
    tickets = [submit(engine, form) for form in FORMS.values()]
    beside = engine.submit(PROMPT, FREE)
    assert [outcome(ticket) for ticket in tickets] == alone
    assert outcome(beside) == free


def test_forced_tokens_take_no_step_of_their_own_and_are_the_same(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def counting(chunks: Any, room: Any) -> Any:
        steps.append(len(chunks))
        return with_forced(chunks, room)

    monkeypatch.setattr("talu.engine.worker.with_forced", counting)
    text, tokens, _ = answer = outcome(submit(new_engine(kind="native"), OBJECT))
    assert len(steps) < len(tokens) / 3
    assert json.loads(text)["number"] >= 10

    monkeypatch.setattr("talu.engine.worker.with_forced", lambda chunks, room: chunks)
    assert outcome(submit(new_engine(kind="native"), OBJECT)) == answer


@pytest.mark.parametrize("form", FORMS)
def test_drafts_of_the_text_and_masks_give_the_tokens_of_plain_decoding(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    plain = outcome(submit(new_engine(kind="native"), FORMS[form]))
    monkeypatch.setattr(StepTimes, "estimate", lambda times, rows: 1.0)
    engine = new_engine(kind="native", speculative=True)
    assert outcome(submit(engine, FORMS[form])) == plain


def test_a_draft_that_the_grammar_forbids_is_cut(new_engine: NewEngine) -> None:
    engine = new_engine()
    matcher = engine.grammars.compiled(format_of(Regex("ab?c"))).begin()
    constraint = Constraint(engine.masks, matcher)
    a, b, c = (engine.tokenizer.encode(letter)[0] for letter in "abc")
    assert constraint.allowed([a, b, c, c]) == (a, b, c)
    assert constraint.allowed([b]) == ()
    assert constraint.allowed([*engine.end_token_ids, a]) == ()


def test_masks_of_a_draft_leave_the_grammar_where_it_was(new_engine: NewEngine) -> None:
    engine = new_engine()
    matcher = engine.grammars.compiled(format_of(Regex("ab?c"))).begin()
    constraint = Constraint(engine.masks, matcher)
    a, b = (engine.tokenizer.encode(letter)[0] for letter in "ab")
    before = [mask.tolist() for mask in constraint.masks() if mask is not None]
    assert len(constraint.masks([a, b])) == 3
    assert [mask.tolist() for mask in constraint.masks() if mask is not None] == before


def test_an_evicted_answer_goes_on_with_its_grammar(new_engine: NewEngine) -> None:
    alone = outcome(submit(new_engine(kind="native"), OBJECT))
    engine = new_engine(kind="native", blocks=10, limits=Limits())
    tickets = [submit(engine, OBJECT, replace(FREE, seed=seed)) for seed in (5, 6, 7)]
    assert outcome(tickets[0]) == alone
    assert all(outcome(ticket)[2] is FinishReason.STOP for ticket in tickets[1:])


def test_a_grammar_that_fails_ends_only_its_own_answer(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(kind="native")
    good = outcome(submit(engine, OBJECT))
    broken, beside = submit(engine, FORMS["regex"]), submit(engine, OBJECT)
    masks = Constraint.masks

    def failing(self: Constraint, draft: Any = ()) -> Any:
        if self is wrong:
            raise GenerationError("too complex")
        return masks(self, draft)

    matcher = engine.grammars.compiled(format_of(Regex("a+"))).begin()
    wrong = Constraint(engine.masks, matcher)
    monkeypatch.setattr(Constraint, "masks", failing)
    failed = engine.submit(PROMPT, FREE, constraint=wrong)
    with pytest.raises(GenerationError, match="too complex"):
        list(failed)
    assert outcome(beside) == good
    assert outcome(broken)[2] is FinishReason.STOP


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_reasoning_is_ended_by_its_budget_and_then_comes_the_form(
    new_engine: NewEngine, budget: int
) -> None:
    engine = new_engine(kind="native")
    closing = engine.tokenizer.encode("Z")[0]
    ticket = submit(engine, Choice(["yes", "no"]), opening=None, closing=closing, budget=budget)
    text, tokens, reason = outcome(ticket)
    place = tokens.index(closing)
    assert place <= budget
    assert text.split("Z")[-1] in ("yes", "no")
    assert reason is FinishReason.STOP


def test_reasoning_cannot_end_the_answer_before_its_form(new_engine: NewEngine) -> None:
    engine = new_engine(kind="native")
    (end,) = engine.end_token_ids
    closing = engine.tokenizer.encode("Z")[0]
    wants_to_end = replace(FREE, logit_bias={end: 80.0})
    ticket = submit(engine, Choice(["yes"]), wants_to_end, opening=None, closing=closing, budget=9)
    text, _, reason = outcome(ticket)
    assert text.endswith("Zyes")
    assert reason is FinishReason.STOP


def test_a_form_begins_at_once_unless_the_reasoning_is_opened(new_engine: NewEngine) -> None:
    engine = new_engine(kind="native")
    opening, closing = (engine.tokenizer.encode(letter)[0] for letter in "YZ")
    tags = {"opening": opening, "closing": closing, "budget": 3}
    unlikely = replace(FREE, logit_bias={opening: -80.0})
    assert outcome(submit(engine, Choice(["no"]), unlikely, **tags))[0] == "no"
    likely = replace(FREE, logit_bias={opening: 80.0})
    text = outcome(submit(engine, Choice(["no"]), likely, **tags))[0]
    assert text.startswith("Y")
    assert text.endswith("Zno")


REPORTS: list[tuple[dict[str, Any], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    ({"type": "integer", "minimum": 1}, ("#/type", "#/minimum"), (), ()),
    ({"type": "string", "minLenght": 3}, ("#/type",), (), ("#/minLenght",)),
    ({"type": "array", "uniqueItems": True}, ("#/type",), ("#/uniqueItems",), ()),
    ({"not": {"const": 1}}, (), ("#/not", "#/not/const"), ()),
    ({"type": "string", "format": "regex"}, ("#/type",), ("#/format",), ()),
    ({"type": "string", "format": "colour"}, ("#/type",), (), ("#/format",)),
    ({"type": "string", "pattern": "(?=a)."}, ("#/type",), ("#/pattern",), ()),
    (
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        ("#/oneOf/0/type", "#/oneOf/1/type"),
        ("#/oneOf",),
        (),
    ),
    (
        {"oneOf": [{"const": 1}, {"const": "a"}]},
        ("#/oneOf", "#/oneOf/0/const", "#/oneOf/1/const"),
        (),
        (),
    ),
    ({"type": "integer", "multipleOf": 10**9}, ("#/type",), ("#/multipleOf",), ()),
    (
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}, "unused": {"not": {}}}},
        ("#/$ref", "#/$defs/a~1b/type"),
        (),
        (),
    ),
    (
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "not": {"type": "null"}}}},
        ("#/$ref",),
        ("#/$defs/a/not", "#/$defs/a/not/type"),
        (),
    ),
]


@pytest.mark.parametrize(
    ("schema", "enforced", "checked", "ignored"), REPORTS, ids=range(len(REPORTS))
)
def test_the_report_names_what_is_enforced_and_what_is_checked(
    new_engine: NewEngine, schema: Any, enforced: Any, checked: Any, ignored: Any
) -> None:
    report = new_engine().grammars.compiled(format_of(schema)).report
    assert {*report.enforced} == {*enforced}
    assert {*report.checked} == {*checked}
    assert {*report.ignored} == {*ignored}


UNUSABLE: dict[str, Any] = {
    "nothing": {"allOf": [False]},
    "an empty enum": {"type": "string", "enum": [1]},
    "a range": {"type": "integer", "minimum": 3, "maximum": 1},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 1},
    "an endless array": {"type": "array", "minItems": 10**9},
    "a product of alternatives": {
        "allOf": [
            {"anyOf": [{"properties": {f"{letter}{i}": {"type": "null"}}} for letter in "ab"]}
            for i in range(16)
        ]
    },
    "doubling": {
        "$ref": "#/$defs/30",
        "$defs": {
            "0": {"anyOf": [{"minimum": 1}, {"maximum": 5}]},
            **{
                str(i): {"allOf": [{"$ref": f"#/$defs/{i - 1}"}, {"$ref": f"#/$defs/{i - 1}"}]}
                for i in range(1, 31)
            },
        },
    },
    "a regular expression": Regex("("),
    "look-around": Regex("(?=a)b"),
    "a lark grammar": Grammar("start: missing"),
    "a gbnf grammar": Grammar("root ::= ("),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_form_that_cannot_be_followed_is_a_typed_error(new_engine: NewEngine, name: str) -> None:
    grammars = new_engine().grammars
    with pytest.raises(StructuredOutputError, match="response_format"):
        grammars.compiled(format_of(UNUSABLE[name]))


def test_a_format_is_compiled_once(new_engine: NewEngine) -> None:
    grammars = new_engine().grammars
    first = grammars.compiled(format_of(OBJECT))
    assert grammars.compiled(format_of(dict(OBJECT))) is first
