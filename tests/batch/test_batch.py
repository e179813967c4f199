"""``talu batch``: every row gets its result, in order, once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.remote.replies import chat, failure
from tests.remote.server import Server

from talu import ModelSpec, OpenAICompatibleBackend, ScriptedModel
from talu.batch.results import Results
from talu.batch.rows import Row, read_rows
from talu.batch.run import Totals, run
from talu.cli.main import talu
from talu.exceptions import GenerationError, ValidationError
from talu.server.failures import Failure
from talu.server.models import Models
from talu.server.options import ServerOptions
from talu.server.service import Service

POCKET = "talu/pocket"
BODY = {"model": POCKET, "messages": [{"role": "user", "content": "2 + 2 ="}], "max_tokens": 12}


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> list[Any]:
    return [(line.get("custom_id", line.get("id")), _text(line)) for line in lines(path)]


def _text(line: dict[str, Any]) -> Any:
    if "response" in line:
        return line["response"]["body"]["choices"][0]["message"]["content"]
    return line.get("text", line.get("embedding", line["error"]))


def command(folder: Path, rows: list[Any], *options: str) -> tuple[Path, str]:
    """Answer rows with the command; the file of results, and what standard error shows."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    done = CliRunner().invoke(talu, ["batch", str(source), str(target), *options])
    assert done.exit_code == 0, done.output
    return target, done.stderr


@pytest.fixture
def batch(tmp_path: Path) -> Callable[..., Path]:
    """Answers rows with the command, and returns the file of results."""
    return lambda *arguments: command(tmp_path, *arguments)[0]


def answered(source: Path, target: Path, model: Any, **options: Any) -> Totals:
    """Run a batch with one model."""

    async def start() -> Totals:
        service = Service(Models([model], []), ServerOptions(max_requests=10_000))
        try:
            with Results(target) as results:
                return await run(read_rows(source), results, service, **options)
        finally:
            await service.close()

    return asyncio.run(start())


def test_a_batch_file_of_openai_gets_the_results_of_openai(batch: Callable[..., Path]) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    (line,) = lines(batch([row], "-m", POCKET))
    assert (line["custom_id"], line["error"]) == ("a", None)
    assert line["id"].startswith("batch_req_")
    body = line["response"]["body"]
    assert line["response"]["status_code"] == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"].startswith("2 + 2 = 4")
    assert body["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/completions", {"model": POCKET, "prompt": "2 +", "max_tokens": 3}),
        ("/v1/embeddings", {"model": POCKET, "input": ["a", "b"]}),
        ("/v1/responses", {"model": POCKET, "input": "2 + 2 =", "max_output_tokens": 9}),
    ],
)
def test_every_path_of_openais_batches_is_answered(
    batch: Callable[..., Path], url: str, body: dict[str, Any]
) -> None:
    row = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    (line,) = lines(batch([row], "-m", POCKET))
    assert line["response"]["status_code"] == 200
    assert line["response"]["body"]["object"] in ("text_completion", "list", "response")


def test_short_rows_get_short_results(batch: Callable[..., Path]) -> None:
    rows = [
        {"id": "a", "prompt": "2 + 2 =", "max_tokens": 12, "temperature": 0},
        {"messages": BODY["messages"], "max_tokens": 12, "temperature": 0},
        {"text": "one"},
        {"text": ["one", "two"]},
    ]
    asked, chatted, one, two = lines(batch(rows, "-m", POCKET))
    assert (asked["id"], chatted["id"], one["id"]) == ("a", 2, 3)
    assert asked["text"] == chatted["text"]
    assert (asked["finish_reason"], asked["error"]) == ("stop", None)
    assert one["embedding"] == two["embeddings"][0]


WRONG = {
    "nonsense": "the line is not JSON",
    "[1]": "the line is no object",
    '{"prompt": "a", "text": "b"}': "one of prompt, messages and text, got prompt and text",
    '{"id": true, "prompt": "a"}': "id must be a text",
    '{"prompt": "a", "temprature": 1}': "temprature is not supported",
    '{"prompt": "a", "temperature": -1}': "temperature must be",
    '{"prompt": "a", "stream": true}': "a row has no stream",
    '{"prompt": 5}': "messages[0].content",
    '{"custom_id": 5, "url": "/v1/embeddings", "body": {}}': "custom_id must be a text",
    '{"custom_id": "a", "url": "/v1/images", "body": {}}': "url must be one of",
    '{"custom_id": "a", "url": "/v1/embeddings", "body": []}': "body must be an object",
    '{"custom_id": "a", "url": "/v1/embeddings", "body": {}, "metod": 1}': "metod is not supported",
    '{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {}}': "must be POST",
    '{"custom_id": "a", "url": "/v1/embeddings", "body": {}}': "input is missing",
}


def test_a_row_that_is_wrong_has_its_error_as_its_result(batch: Callable[..., Path]) -> None:
    found = lines(batch([*WRONG, {"prompt": "a", "max_tokens": 2}], "-m", POCKET))
    assert len(found) == len(WRONG) + 1
    for line, message in zip(found, WRONG.values(), strict=False):
        assert message in line["error"]["message"]
        assert line["error"]["code"] in ("INVALID_ARGUMENT", "VALIDATION_FAILED")
    assert found[-1]["error"] is None


def test_a_row_that_names_no_model_of_the_batch_has_its_error_as_its_result(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    rows = [{"prompt": "a", "model": name, "max_tokens": 1} for name in ("other", 5, POCKET)]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    totals = answered(source, target, POCKET)
    assert (totals.done, totals.failed) == (1, 2)
    unknown, wrong, right = (line["error"] for line in lines(target))
    assert "there is no model 'other' here; there are: talu/pocket" in unknown["message"]
    assert wrong["message"].startswith("model: ")
    assert right is None


def test_a_batch_that_stops_begins_no_further_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    async def answer(row: Row, service: Service, model: str | None) -> dict[str, Any]:
        """The first row takes longest, the second stops the batch, the third is wrong."""
        begun.append(row.line)
        for _ in range({1: 50, 2: 1, 3: 10}[row.line]):
            await asyncio.sleep(0)
        raise Failure({1: 400, 2: 500, 3: 400}[row.line], "CODE", "why")

    monkeypatch.setattr("talu.batch.run.answer", answer)
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text('{"prompt": "a"}\n' * 20)
    with pytest.raises(GenerationError, match="stopped at row 2"):
        answered(source, target, POCKET, concurrency=3)
    assert begun == [1, 2, 3]
    assert [line["id"] for line in lines(target)] == [1]


def test_results_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    counts = [40, 1, 30, 2, 20, 3, 10, 4] * 5
    source.write_text("".join(json.dumps({"prompt": "a", "max_tokens": n}) + "\n" for n in counts))
    seen: list[int] = []
    totals = answered(
        source, target, POCKET, concurrency=3, progress=lambda totals: seen.append(totals.done)
    )
    assert [line["id"] for line in lines(target)] == list(range(1, len(counts) + 1))
    assert seen == list(range(1, len(counts) + 1))
    assert (totals.done, totals.failed, totals.skipped) == (len(counts), 0, 0)
    assert totals.completion_tokens > 0


def test_rows_that_are_done_are_not_answered_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("".join(f'{{"prompt": "{n}"}}\n' for n in range(6)))

    def model(*answers: str) -> ModelSpec:
        return ModelSpec("m", ScriptedModel(*answers))

    assert answered(source, target, model(*"012345"), concurrency=1).done == 6
    whole = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(whole[:4]) + whole[4][:-9])  # killed in the middle of a line
    totals = answered(source, target, model("again", "and again"), concurrency=1)
    assert (totals.skipped, totals.done) == (4, 2)
    assert [text for _, text in texts(target)] == [*"0123", "again", "and again"]
    assert answered(source, target, model()) == Totals(skipped=6)


def test_a_batch_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    source, whole, target = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    rows = [
        {"id": f"r{n}", "prompt": f"{n} + 1 =", "seed": n, "max_tokens": 30} for n in range(150)
    ]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    start = [sys.executable, "-m", "talu", "batch", str(source)]
    options = ["-m", POCKET, "--concurrency", "4"]
    subprocess.run([*start, str(whole), *options], check=True, capture_output=True)
    with subprocess.Popen([*start, str(target), *options], stderr=subprocess.DEVNULL) as killed:
        while not target.exists() or target.read_bytes().count(b"\n") < 10:
            assert killed.poll() is None
        os.kill(killed.pid, signal.SIGKILL)
    assert target.read_bytes().count(b"\n") < 150
    subprocess.run([*start, str(target), *options], check=True, capture_output=True)
    assert texts(target) == texts(whole)


def test_results_of_another_input_are_left_alone(batch: Callable[..., Path]) -> None:
    target = batch([{"id": "a", "prompt": "x", "max_tokens": 1}], "-m", POCKET)
    before = target.read_bytes()
    for rows in ([{"id": "b", "prompt": "x"}], []):
        with pytest.raises(AssertionError):  # the command fails
            batch(rows, "-m", POCKET)
    assert target.read_bytes() == before


def test_the_error_for_results_of_another_input_names_both_rows(tmp_path: Path) -> None:
    (tmp_path / "in").write_text('{"id": "b", "prompt": "x"}\n')
    (tmp_path / "out").write_text('{"id": "a", "text": ""}\n')
    with (
        Results(tmp_path / "out") as results,
        pytest.raises(ValidationError, match=r"'a'.*not 'b'"),
    ):
        results.skip_done(read_rows(tmp_path / "in"))


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with Results(tmp_path / "out"), pytest.raises(ValidationError, match="another process"):
        Results(tmp_path / "out")
    Results(tmp_path / "out").close()


def remote(server: Server) -> ModelSpec:
    options = OpenAICompatibleBackend(base_url=server.url, max_retries=0)
    return ModelSpec("m", options)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_failure_of_a_server_stops_the_batch_before_that_row(
    serve: Callable[..., Server], tmp_path: Path, status: int
) -> None:
    server = serve(chat("one"), failure(status), chat("two"), chat("three"))
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text('{"prompt": "1"}\n{"prompt": "2"}\n{"prompt": "3"}\n')
    with pytest.raises(GenerationError, match=r"stopped at row 2 \(line 2\)") as stopped:
        answered(source, target, remote(server), concurrency=1)
    assert stopped.value.code == "BATCH_STOPPED"
    assert [text for _, text in texts(target)] == ["one"]
    assert answered(source, target, remote(server), concurrency=1).done == 2
    assert [text for _, text in texts(target)] == ["one", "two", "three"]


def test_a_failure_of_a_server_is_a_result_if_the_batch_has_to_keep_going(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(failure(500), chat("two"))
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text('{"prompt": "1"}\n{"prompt": "2"}\n')
    totals = answered(source, target, remote(server), concurrency=1, keep_going=True)
    assert (totals.done, totals.failed) == (1, 1)
    first, second = lines(target)
    assert first["error"]["code"] == "SERVER_ERROR"
    assert second["text"] == "two"


def test_the_command_says_what_was_done(tmp_path: Path) -> None:
    _, shown = command(tmp_path, [{"prompt": "a", "max_tokens": 1}, "x"], "-m", POCKET)
    assert "1 row answered, 1 failed; " in shown


def test_a_line_of_gigabytes_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.batch.rows.MAX_LINE", 100)
    (tmp_path / "in").write_text('{"prompt": "a"}\n' + "x" * 200)
    rows = read_rows(tmp_path / "in")
    assert next(rows).id == 1
    with pytest.raises(ValidationError, match="line 2 is longer than 100 bytes"):
        next(rows)
