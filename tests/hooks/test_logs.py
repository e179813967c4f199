"""The logging hook writes one line at the start and one at the end."""

import logging
import time

import pytest

from talu.chat.observers import Generation, Hook
from talu.exceptions import GenerationError, ValidationError
from talu.hooks import LoggingHook, OpenTelemetryHook
from talu.types import Done, FinishReason, Timings, ToolCallEvent, Usage

FAST = Done(FinishReason.LENGTH, Usage(7, 3, 5), Timings(tokens_per_second=60.04), "scripted")
LOGGER = "talu.generations"


@pytest.fixture(autouse=True)
def everything(caplog) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


class SlowToOpen(Hook):
    """Delays the hooks after it."""

    def for_generation(self, generation: Generation) -> Hook:
        while time.perf_counter() < generation.began_at + 0.05:
            pass
        return self


def test_the_duration_and_the_first_token_count_from_the_same_start(faces, caplog) -> None:
    client = faces.client(["one", FAST], hooks=[SlowToOpen(), LoggingHook()])
    faces.run(client.chat().send("hello"))
    end = caplog.records[-1].talu
    assert 50 <= end["first_token_ms"] <= end["duration_ms"]


def test_start_and_end_are_one_line_each(faces, caplog) -> None:
    client = faces.client(["one", FAST], hooks=[LoggingHook()])
    faces.run(client.chat(session_id="s").send("a secret"))
    start, end = caplog.records
    assert (start.name, start.levelname, end.levelname) == (LOGGER, "INFO", "INFO")
    number = start.talu["generation"]
    assert start.getMessage() == (
        f"event=start generation={number} model=scripted operation=chat stream=false session_id=s"
    )
    measured = f"duration_ms={end.talu['duration_ms']} first_token_ms={end.talu['first_token_ms']}"
    assert end.getMessage() == (
        f"event=end generation={number} model=scripted finish_reason=length {measured} "
        "prompt_tokens=7 cached_tokens=5 completion_tokens=3 tokens_per_second=60.0"
    )
    assert 0 < end.talu["first_token_ms"] <= end.talu["duration_ms"]


def test_a_failure_is_a_warning_with_its_code_and_without_its_message(faces, caplog) -> None:
    client = faces.client([GenerationError("a secret")], hooks=[LoggingHook(level=logging.DEBUG)])
    with pytest.raises(GenerationError):
        faces.run(client.ask("a secret"))
    start, end = caplog.records
    assert (start.levelname, end.levelname) == ("DEBUG", "WARNING")
    assert (end.talu["finish_reason"], end.talu["error"]) == ("error", "GENERATION_FAILED")
    assert "secret" not in caplog.text


def test_a_cancelled_stream_is_not_a_failure(faces, caplog) -> None:
    stream = faces.run(faces.client("one two", hooks=[LoggingHook()]).chat()("Hi"))
    faces.read_some(stream, 1)
    assert caplog.records[0].talu["stream"] is True
    assert (caplog.records[1].levelname, caplog.records[1].talu["finish_reason"]) == (
        "INFO",
        "cancelled",
    )


def test_content_is_logged_on_request(faces, caplog) -> None:
    client = faces.client("one", [GenerationError("three")], hooks=[LoggingHook(content=True)])
    faces.run(client.ask("two"))
    with pytest.raises(GenerationError):
        faces.run(client.ask("Hi"))
    known = [record.talu for record in caplog.records]
    assert (known[0]["input"], known[1]["output"]) == ("two", "one")
    assert known[3]["error_message"] == "three"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain", "plain"),
        (" ", '" "'),
        ("two words", '"two words"'),
        ('"a"=\\', r'"\"a\"=\\"'),
        ("a\nb\r\x1b[31m\u2028\u202e", r'"a\nb\r\u001b[31m\u2028\u202e"'),
        ("Привет, 世界", '"Привет, 世界"'),
    ],
)
def test_logged_text_stays_on_one_line_and_cannot_control_a_terminal(
    faces, caplog, said, shown
) -> None:
    faces.run(faces.client("one", hooks=[LoggingHook(content=True)]).raw_complete(said))
    assert caplog.records[0].getMessage().endswith(f" input={shown}")


def test_a_given_logger_is_used(faces, caplog) -> None:
    hook = LoggingHook(logging.getLogger("mine"), level=logging.ERROR)
    faces.run(faces.client("one", hooks=[hook]).ask("Hi"))
    assert {(record.name, record.levelname) for record in caplog.records} == {("mine", "ERROR")}


@pytest.mark.parametrize("level", ["INFO", True, None, 1.5])
def test_a_level_is_a_number(level) -> None:
    with pytest.raises(ValidationError, match=r"such as logging\.INFO"):
        LoggingHook(level=level)


@pytest.mark.parametrize("wrong", [logging, logging.Logger, 5])
def test_a_value_that_is_not_a_logger_is_refused(wrong) -> None:
    with pytest.raises(ValidationError, match="logger must be a Logger") as caught:
        LoggingHook(wrong)
    assert caught.value.details["param"] == "logger"


def test_a_name_in_place_of_a_logger_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"logger must be a Logger.*got 'mine'"):
        LoggingHook("mine")


@pytest.mark.parametrize("hook", [LoggingHook, OpenTelemetryHook])
def test_content_must_be_a_boolean(hook) -> None:
    with pytest.raises(ValidationError, match="content must be True or False, got 'false'"):
        hook(content="false")


def add(a: int) -> int:
    """Add one."""
    return a + 1


def test_a_tool_call_is_one_line_without_its_content(faces, caplog) -> None:
    caplog.set_level(logging.INFO)
    script = [ToolCallEvent("c1", "add", '{"a": 1}')]
    client = faces.client(script, "2.", hooks=[LoggingHook()])
    faces.run(client.ask("Hi", tools=[add], max_rounds=2))
    (record,) = [each for each in caplog.records if each.talu["event"] == "tool"]
    known = {key: record.talu[key] for key in ("tool", "call_id", "model")}
    assert known == {"tool": "add", "call_id": "c1", "model": "scripted"}
    assert not {"arguments", "output", "error"} & record.talu.keys()
