"""The text for a Prometheus scraper."""

from talu.hooks import Histogram, ModelMetrics, ToolMetrics
from talu.hooks.prometheus import exposition
from talu.types import FinishReason


def metrics(**changed) -> ModelMetrics:
    known = {
        "started": 3,
        "ended": dict.fromkeys(FinishReason, 0) | {FinishReason.STOP: 2},
        "prompt_tokens": 70,
        "cached_tokens": 50,
        "completion_tokens": 30,
        "time_to_first_token": Histogram((0.25, 1.0), (1, 2, 4), 9.5),
        "tokens_per_second": Histogram((10.0,), (0, 0), 0.0),
    }
    return ModelMetrics(**known | changed)


def test_the_whole_text_of_one_model() -> None:
    assert exposition({"m": metrics()}) == (
        "# HELP talu_generations_started_total Generations that started.\n"
        "# TYPE talu_generations_started_total counter\n"
        'talu_generations_started_total{model="m"} 3\n'
        "# HELP talu_generations_ended_total Generations, by how they ended.\n"
        "# TYPE talu_generations_ended_total counter\n"
        'talu_generations_ended_total{model="m",finish_reason="stop"} 2\n'
        'talu_generations_ended_total{model="m",finish_reason="length"} 0\n'
        'talu_generations_ended_total{model="m",finish_reason="tool_calls"} 0\n'
        'talu_generations_ended_total{model="m",finish_reason="content_filter"} 0\n'
        'talu_generations_ended_total{model="m",finish_reason="cancelled"} 0\n'
        'talu_generations_ended_total{model="m",finish_reason="error"} 0\n'
        "# HELP talu_prompt_tokens_total Tokens of prompts.\n"
        "# TYPE talu_prompt_tokens_total counter\n"
        'talu_prompt_tokens_total{model="m"} 70\n'
        "# HELP talu_cached_tokens_total Tokens of prompts that came from the prefix cache.\n"
        "# TYPE talu_cached_tokens_total counter\n"
        'talu_cached_tokens_total{model="m"} 50\n'
        "# HELP talu_completion_tokens_total Tokens sampled.\n"
        "# TYPE talu_completion_tokens_total counter\n"
        'talu_completion_tokens_total{model="m"} 30\n'
        "# HELP talu_time_to_first_token_seconds "
        "Seconds from the start of a generation to its first token.\n"
        "# TYPE talu_time_to_first_token_seconds histogram\n"
        'talu_time_to_first_token_seconds_bucket{model="m",le="0.25"} 1\n'
        'talu_time_to_first_token_seconds_bucket{model="m",le="1.0"} 3\n'
        'talu_time_to_first_token_seconds_bucket{model="m",le="+Inf"} 7\n'
        'talu_time_to_first_token_seconds_sum{model="m"} 9.5\n'
        'talu_time_to_first_token_seconds_count{model="m"} 7\n'
        "# HELP talu_tokens_per_second "
        "Tokens per second of a generation after its first token.\n"
        "# TYPE talu_tokens_per_second histogram\n"
        'talu_tokens_per_second_bucket{model="m",le="10.0"} 0\n'
        'talu_tokens_per_second_bucket{model="m",le="+Inf"} 0\n'
        'talu_tokens_per_second_sum{model="m"} 0.0\n'
        'talu_tokens_per_second_count{model="m"} 0\n'
    )


def test_the_samples_of_a_family_stay_together_with_several_models() -> None:
    lines = exposition({"a": metrics(), "b": metrics(started=5)}).splitlines()
    assert lines[2:4] == [
        'talu_generations_started_total{model="a"} 3',
        'talu_generations_started_total{model="b"} 5',
    ]
    assert len([line for line in lines if line.startswith("# TYPE")]) == 7


def test_a_name_cannot_break_out_of_its_label() -> None:
    lines = exposition({'a"}\\\nb': metrics()}).splitlines()
    assert lines[2] == r'talu_generations_started_total{model="a\"}\\\nb"} 3'


def test_without_models_there_are_families_but_no_samples() -> None:
    assert {line[0] for line in exposition({}).splitlines()} == {"#"}


def test_tool_calls_have_families_of_their_own_once_there_are_some() -> None:
    add = ToolMetrics(
        outcomes={"ok": 2, "TOOL_FAILED": 1}, duration=Histogram((0.5,), (2, 1), 3.25)
    )
    text = exposition({"m": metrics(tools={"add": add}), "n": metrics()})
    assert text.endswith(
        "# HELP talu_tool_calls_total Tool calls, by their outcome.\n"
        "# TYPE talu_tool_calls_total counter\n"
        'talu_tool_calls_total{model="m",tool="add",outcome="ok"} 2\n'
        'talu_tool_calls_total{model="m",tool="add",outcome="TOOL_FAILED"} 1\n'
        "# HELP talu_tool_duration_seconds Seconds of a tool call.\n"
        "# TYPE talu_tool_duration_seconds histogram\n"
        'talu_tool_duration_seconds_bucket{model="m",tool="add",le="0.5"} 2\n'
        'talu_tool_duration_seconds_bucket{model="m",tool="add",le="+Inf"} 3\n'
        'talu_tool_duration_seconds_sum{model="m",tool="add"} 3.25\n'
        'talu_tool_duration_seconds_count{model="m",tool="add"} 3\n'
    )
