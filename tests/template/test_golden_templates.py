import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from talu.exceptions import TemplateError
from talu.template.render import render

GOLDEN = Path(__file__).parent / "golden"
CONVERSATIONS = json.loads((GOLDEN / "conversations.json").read_text(encoding="utf-8"))
TEMPLATES = sorted(path.name for path in GOLDEN.glob("*.template.json"))
# Tool calls that transformers passes in a form that the template drops or fails on.
MADE_READABLE = {
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B.template.json", "called"),
    ("meetkai-functionary-medium-v3.2.template.json", "called"),
    ("meetkai-functionary-medium-v3.2.template.json", "called_twice"),
}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return content


def rendered(source: str, case: str) -> str:
    now = datetime.fromisoformat(CONVERSATIONS["now"])
    return render(source, now=now, tokens=CONVERSATIONS["tokens"], **CONVERSATIONS["cases"][case])


@pytest.mark.parametrize("case", CONVERSATIONS["cases"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_real_template_renders_as_in_transformers(name: str, case: str) -> None:
    template = load(name)
    expected = template["expected"][case]
    if (name, case) in MADE_READABLE:
        assert '{"place": ' not in expected.get("text", "")
        assert '{"place": ' in rendered(template["source"], case)
    elif "text" in expected:
        assert rendered(template["source"], case) == expected["text"]
    else:
        with pytest.raises(TemplateError):
            rendered(template["source"], case)


def test_many_templates_are_compared() -> None:
    assert len(TEMPLATES) >= 35


@pytest.mark.parametrize("name", TEMPLATES)
def test_json_arguments_of_a_tool_call_render_like_an_object(name: str) -> None:
    source, tokens = load(name)["source"], CONVERSATIONS["tokens"]
    texts = []
    for encode in (lambda arguments: arguments, json.dumps):
        case = json.loads(json.dumps(CONVERSATIONS["cases"]["called"]))
        for call in case["messages"][1]["tool_calls"]:
            call["function"]["arguments"] = encode(call["function"]["arguments"])
        try:
            texts.append(render(source, now=datetime(2026, 1, 1), tokens=tokens, **case))
        except TemplateError as error:
            texts.append(str(error))
    assert texts[0].replace("Zürich", "Z\\u00fcrich") == texts[1].replace("Zürich", "Z\\u00fcrich")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_form_of_a_text_does_not_change_the_rendered_conversation(name: str) -> None:
    source = load(name)["source"]
    as_text = [{"role": "user", "content": "Hello"}]
    as_parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    form = {"now": datetime(2026, 1, 1), "tokens": CONVERSATIONS["tokens"]}
    assert render(source, as_parts, **form) == render(source, as_text, **form)
