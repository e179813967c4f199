"""Writes what transformers renders for real chat templates: the expectations of the tests.

    python tools/golden/make_templates.py TEMPLATES tests/template/golden

TEMPLATES is the folder models/templates of llama.cpp's sources. It needs transformers and jinja2,
no torch. Only templates whose licence lets them be passed on are kept; --all keeps every one, to
compare elsewhere.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = datetime(2026, 1, 2, 3, 4, 5)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LICENCES = {
    "Apache-2.0": """Apertus-8B-Instruct Bielik-11B-v3.0-Instruct ByteDance-Seed-OSS
        HuggingFaceTB-SmolLM3-3B MiniMax-M1 Mistral-Small-3.2-24B-Instruct-2506 Qwen-QwQ-32B
        Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B Qwen3-Coder Qwen3.5-4B google-gemma-4-31B-it
        ibm-granite-granite-3.3-2B-Instruct ibm-granite-granite-4.0 ibm-granite-granite-4.1
        mistralai-Ministral-3-14B-Reasoning-2512 mistralai-Mistral-Nemo-Instruct-2407
        openai-gpt-oss-120b openbmb-MiniCPM5-1B poolside-Laguna-XS.2
        unsloth-mistral-Devstral-Small-2507""",
    "MIT": """Apriel-1.6-15b-Thinker-fixed GLM-4.6 GLM-4.7-Flash GigaChat3-10B-A1.8B
        GigaChat3.1-10B-A1.8B MiMo-VL deepseek-ai-DeepSeek-R1-Distill-Llama-8B
        deepseek-ai-DeepSeek-R1-Distill-Qwen-32B deepseek-ai-DeepSeek-V3.1
        deepseek-ai-DeepSeek-V3.2 llama-cpp-deepseek-r1 llama-cpp-rwkv-world
        meetkai-functionary-medium-v3.1 meetkai-functionary-medium-v3.2
        microsoft-Phi-3.5-mini-instruct unsloth-Apriel-1.5""",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather in a place, "now" or later.',
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, e.g. Zürich"},
                "days": {"type": "integer", "default": 1},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {}},
    },
}


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    """One message."""
    return {"role": role, "content": content, **more}


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    """One tool call, as transformers documents it: arguments are an object."""
    function = {"name": name, "arguments": arguments}
    return {"id": f"call0000{number}", "type": "function", "function": function}


SYSTEM = say("system", "You are a pirate.\nAnswer briefly.")
ASK = say("user", "What's the weather in Zürich?")
ONE_CALL = say("assistant", "", tool_calls=[call(1, "get_weather", place="Zürich", days=2)])
TWO_CALLS = say(
    "assistant",
    "Let me look.",
    tool_calls=[call(1, "get_weather", place='"Here"', unit="C"), call(2, "get_time")],
)
SUNNY = say("tool", '{"sky": "sunny", "temp": 21.5}', tool_call_id="call00001", name="get_weather")
NOON = say("tool", "12:00", tool_call_id="call00002", name="get_time")
TOOLS = [WEATHER, CLOCK]
CASES: dict[str, dict[str, Any]] = {
    "user": {"messages": [say("user", "Hello")]},
    "system": {"messages": [SYSTEM, say("user", "Hello")]},
    "turns": {
        "messages": [SYSTEM, say("user", " Hi "), say("assistant", " Ahoy!\n"), say("user", "Bye")]
    },
    "closed": {
        "messages": [say("user", "Hi"), say("assistant", "Hello.")],
        "add_generation_prompt": False,
    },
    "characters": {
        "messages": [say("user", "<b>{{ 7 * 7 }}</b>\n\t\"é\" '今日' 👍🏽 {% raw %} &amp;")]
    },
    "tools": {"messages": [SYSTEM, ASK], "tools": TOOLS},
    "called": {"messages": [ASK, ONE_CALL, SUNNY], "tools": TOOLS},
    "called_twice": {
        "messages": [
            *(SYSTEM, ASK, TWO_CALLS, SUNNY, NOON),
            *(say("assistant", "Sunny at noon."), say("user", "Thanks")),
        ],
        "tools": TOOLS,
    },
    "reasoned": {
        "messages": [
            say("user", "2+2?"),
            say("assistant", "4", reasoning_content="Two and two\nare four."),
            say("user", "3+3?"),
        ]
    },
    "reasoned_in_tags": {
        "messages": [
            say("user", "2+2?"),
            say("assistant", "<think>\nTwo and two.\n</think>\n\n4"),
            say("user", "3+3?"),
        ]
    },
    "no_thinking": {"messages": [say("user", "Hello")], "extra": {"enable_thinking": False}},
}


class FixedClock(datetime):
    """A clock that stands still, for templates that tell the date."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        """Always the same moment."""
        return NOW


def expected(source: str, case: dict[str, Any]) -> dict[str, str]:
    """What transformers makes of a conversation: text, or the error that it raises."""
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [case["messages"]],
            tools=case.get("tools"),
            chat_template=source,
            add_generation_prompt=case.get("add_generation_prompt", True),
            **TOKENS,
            **case.get("extra", {}),
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": rendered[0]}


def main() -> None:
    """Write one file for the conversations and one for each template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("templates", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    chat_template_utils.datetime = FixedClock
    licence_of = {name: key for key, names in LICENCES.items() for name in names.split()}
    options.out.mkdir(parents=True, exist_ok=True)
    conversations = {"now": NOW.isoformat(), "tokens": TOKENS, "cases": CASES}
    write(options.out / "conversations.json", conversations)
    for path in sorted(options.templates.glob("*.jinja")):
        licence = licence_of.get(path.stem)
        if licence or options.all:
            source = path.read_text(encoding="utf-8")
            results = {name: expected(source, case) for name, case in CASES.items()}
            content = {
                "licence": licence,
                "transformers": transformers.__version__,
                "source": source,
                "expected": results,
            }
            write(options.out / f"{path.stem}.template.json", content)
            failed = sum("error" in result for result in results.values())
            print(f"{path.stem}: {len(results) - failed} texts, {failed} errors")


def write(path: Path, content: dict[str, Any]) -> None:
    """JSON, readable in a diff."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
