"""Messages in the format of OpenTelemetry's conventions."""

from talu.chat.observers import Generation
from talu.config import GenerationConfig
from talu.hooks.otel_messages import input_messages


def parts_of(message: dict) -> list[dict]:
    generation = Generation(
        operation="chat",
        model="m",
        chat=None,
        input_text="Hi",
        messages=(message,),
        config=GenerationConfig(),
        stream=False,
    )
    (written,) = input_messages(generation)
    assert written["role"] == message["role"]
    return written["parts"]


def test_a_tool_result_names_its_call() -> None:
    message = {"role": "tool", "content": "4", "tool_call_id": "c1"}
    assert parts_of(message) == [{"type": "tool_call_response", "response": "4", "id": "c1"}]


def test_an_earlier_answer_has_its_reasoning_text_and_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    message = {
        "role": "assistant",
        "content": "one",
        "reasoning_content": "Hm",
        "tool_calls": [call],
    }
    assert parts_of(message) == [
        {"type": "reasoning", "content": "Hm"},
        {"type": "text", "content": "one"},
        {"type": "tool_call", "id": "c1", "name": "f", "arguments": "{broken"},
    ]


def test_a_call_alone_has_no_empty_text() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "[]"}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert [part["type"] for part in parts_of(message)] == ["tool_call"]
