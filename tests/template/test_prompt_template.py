from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from talu.config import TemplateSource
from talu.exceptions import (
    TemplateError,
    TemplateNotFoundError,
    TemplateSyntaxError,
    TemplateUndefinedError,
    ValidationError,
)
from talu.template import PromptTemplate

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def test_a_template_is_checked_when_it_is_made() -> None:
    with pytest.raises(TemplateSyntaxError, match="line 2"):
        PromptTemplate("Hello\n{% if %}")


def test_a_template_is_text() -> None:
    with pytest.raises(ValidationError, match="Jinja text"):
        PromptTemplate(7)


def test_a_template_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("Grüße {{ name }}", encoding="utf-8")
    template = PromptTemplate.from_file(path)
    assert template.render(name="Ada") == "Grüße Ada"
    assert template.source == "Grüße {{ name }}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateNotFoundError, match=r"chat\.jinja"):
        PromptTemplate.from_file(tmp_path / "chat.jinja")


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="cannot be read"):
        PromptTemplate.from_file(str(tmp_path / "chat.jinja"))


@pytest.mark.parametrize("path", [None, 5, b"chat.jinja"])
def test_a_path_of_a_wrong_type_is_refused(path) -> None:
    with pytest.raises(ValidationError, match="path must be text or a path, got"):
        PromptTemplate.from_file(path)


def test_a_path_with_a_null_character_is_an_error() -> None:
    with pytest.raises(TemplateError, match="cannot be read"):
        PromptTemplate.from_file("a\0b")


@pytest.mark.parametrize("messages", [None, "Hello", {"role": "user", "content": "Hello"}])
def test_anything_but_a_list_of_messages_is_refused(messages) -> None:
    with pytest.raises(ValidationError, match="not a list of messages") as caught:
        PromptTemplate("{{ messages }}").apply(messages)
    assert caught.value.details["param"] == "messages"


def test_an_undefined_variable_is_an_error_unless_lenient() -> None:
    with pytest.raises(TemplateUndefinedError, match="name"):
        PromptTemplate("Hello {{ name }}").render()
    assert PromptTemplate("Hello {{ name }}", strict=False).render() == "Hello "
    assert PromptTemplate("Hello {{ name }}").render(strict=False) == "Hello "


def test_a_value_that_json_cannot_express_is_refused() -> None:
    with pytest.raises(ValidationError, match="name is of type object"):
        PromptTemplate("{{ name }}").render(name=object())


def test_the_variables_of_a_template_are_listed() -> None:
    template = PromptTemplate("{% set x = 1 %}{{ name }}{{ x }}{{ namespace }}{{ last.name }}")
    assert template.input_variables == {"name", "last"}


def test_a_conversation_is_rendered() -> None:
    template = PromptTemplate(PLAIN + "{{ style }}{{ bos_token }}")
    text = template.apply(MESSAGES, style="!", bos_token="<s>")
    assert text == "[system]Be brief.[user]Hi!<s>"


def test_a_template_says_whether_it_shows_system_messages_and_tools() -> None:
    assert PromptTemplate(PLAIN).supports_system_role
    assert not PromptTemplate("{{ messages[-1].content }}").supports_system_role
    assert PromptTemplate(PLAIN + "{{ tools | tojson }}").supports_tools
    assert not PromptTemplate(PLAIN).supports_tools


def test_raw_joins_the_texts_of_the_messages_unchanged() -> None:
    parts = [{"type": "text", "text": " a\n"}, {"type": "text", "text": "b"}]
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    assert PromptTemplate.RAW.apply(messages) == "Be brief.\n\nHi\n\n a\n\nb"


def test_settings_accept_templates() -> None:
    assert PromptTemplate("a") == PromptTemplate("a") != PromptTemplate("a", strict=False)
    assert isinstance(PromptTemplate.RAW, TemplateSource)


def test_a_template_is_used_by_many_threads() -> None:
    template = PromptTemplate("{% for i in range(50) %}{{ n }}{% endfor %}")
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda number: template.render(n=number), range(200)))
    assert texts == [str(number) * 50 for number in range(200)]
