"""Tool calls as the templates of real models write them: what is written is read back."""

import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.tool_formats_table import CASES, TOOLS, Answer, joined, read, table, written

from talu.tool_formats.derive import derive
from talu.tool_formats.description import Style, literal_of
from talu.tool_formats.reader import Reader
from talu.tool_formats.styles.choice import arguments_reader

TEMPLATES = Path(sys.prefix) / "share" / "templates"
SOURCES = {path.stem: path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tool-formats.md"
FORMS = {
    name: form
    for name, source in SOURCES.items()
    if (form := derive(source).format) is not None and not form.code
}
SHOWING = list(FORMS)
PAIRS = [
    (name, case)
    for name in SHOWING
    for case in CASES
    if written(SOURCES[name], CASES[case]) is not None
]
LOST = {  # what the template writes cannot be read by anyone, or not as JSON
    ("MiniMax-M3", "nested arguments"): "arrays and objects are tags within tags",
    ("NVIDIA-Nemotron-Nano-v2", "text before"): "the calls are a message of their own",
}


def test_nearly_all_templates_that_show_calls_say_how_they_are_written() -> None:
    assert len(SOURCES) == 70
    assert len(SHOWING) == 55


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_calls_are_read_as_the_template_wrote_them(name: str, case: str) -> None:
    answer = written(SOURCES[name], CASES[case])
    assert answer is not None
    right = read(SOURCES[name], answer) == Answer(CASES[case].text, list(CASES[case].calls))
    assert right != ((name, case) in LOST)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_single_characters_make_the_same_answer(name: str, case: str) -> None:
    answer = written(SOURCES[name], CASES[case])
    assert answer is not None
    assert read(SOURCES[name], answer, answer) == read(SOURCES[name], answer)


@pytest.mark.parametrize("name", SHOWING)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_pieces_of_an_answer_do_not_matter(name: str, data: st.DataObject) -> None:
    source = SOURCES[name]
    case = data.draw(st.sampled_from([case for each, case in PAIRS if each == name]))
    answer = "<think>why</think>" + (written(source, CASES[case]) or "") + " And <that> is it."
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)), max_size=12)))
    ends = [*cuts, len(answer)]
    pieces = [answer[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    assert read(source, answer, pieces) == read(source, answer)


@pytest.mark.parametrize("name", SHOWING)
def test_calls_are_text_where_no_tools_were_offered(name: str) -> None:
    answer = written(SOURCES[name], CASES["one call"])
    assert answer is not None
    reader = Reader(None, {})
    assert joined([*reader.push(answer), *reader.finish()]).text == answer.strip()


@pytest.mark.parametrize("name", SHOWING)
def test_text_after_calls_is_text(name: str) -> None:
    form = derive(SOURCES[name]).format
    answer = written(SOURCES[name], CASES["one call"])
    assert answer is not None
    assert form is not None
    found = read(SOURCES[name], f"{answer}\n\nDone.")
    assert found == Answer("Done.", list(CASES["one call"].calls))


@pytest.mark.parametrize("name", SHOWING)
def test_a_call_that_was_cut_has_no_end_until_it_has_all_arguments(name: str) -> None:
    answer = written(SOURCES[name], CASES["one call"])
    assert answer is not None
    whole = list(CASES["one call"].calls)
    for end in range(len(answer)):
        reader = Reader(derive(SOURCES[name]).format, TOOLS)
        found = joined([*reader.push(answer[:end]), *reader.finish(cut=True)])
        assert found.calls in ([], whole)


@pytest.mark.parametrize(("cut", "ends"), [(False, True), (True, False)])
def test_the_end_of_an_answer_ends_a_call_without_a_closing_unless_it_was_cut(
    cut: bool, ends: bool
) -> None:
    reader = Reader(FORMS["Qwen3-Coder"]._replace(closing=(), following=None), TOOLS)
    answer = "<tool_call>\n<function=now>\n<parameter=place>\nParis\n</parameter>\n"
    kinds = [part.kind for part in [*reader.push(answer), *reader.finish(cut=cut)]]
    assert ("end" in kinds) is ends
    assert bool(reader.notes) is not ends


def test_what_follows_a_call_and_is_none_is_text() -> None:
    form = FORMS["deepseek-ai-DeepSeek-V3.1"]
    before, between, after = map(literal_of, (form.opening, form.after_name, form.following or ()))
    rest = "x" * 300 + " is the answer"
    answer = f"{before}now{between}{{}}{after}{rest}"
    found = read(SOURCES["deepseek-ai-DeepSeek-V3.1"], answer)
    assert found == Answer(rest, [("now", {})])


def test_a_name_is_given_as_soon_as_it_is_complete_and_arguments_as_they_arrive() -> None:
    source = SOURCES["Qwen-Qwen3-0.6B"]
    reader = Reader(derive(source).format, TOOLS)
    assert reader.push('<tool_call>\n{"name": "weather", "argum') == []
    assert reader.push('ents": {"pla') == [("name", "weather"), ("arguments", '{"pla')]
    assert reader.push('ce": "Par') == [("arguments", 'ce": "Par')]


def test_the_page_has_the_table_that_the_tool_prints() -> None:
    assert "\n".join(table(TEMPLATES)) in PAGE.read_text()


def test_every_style_has_a_template_that_writes_it_and_a_reader() -> None:
    assert {FORMS[name].style for name in FORMS} == set(get_args(Style))
    for form in FORMS.values():
        assert arguments_reader(form, None).read("", 0).at == 0
