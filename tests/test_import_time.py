"""Importing talu loads next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "numpy", "tokenizers", "jinja2", "huggingface_hub", "click", "fastapi", "rich", "opentelemetry",
    "talu._native",
)  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(shown.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import talu", "from talu import Client; Client('x/y')", "import talu.hooks"]
)
def test_no_heavy_module_is_loaded_before_a_model_is_used(statement: str) -> None:
    assert loaded_by(statement) & set(HEAVY) == set()


def test_import_talu_alone_loads_none_of_its_own_modules() -> None:
    assert {name for name in loaded_by("import talu") if name.startswith("talu.")} == set()


def test_the_command_can_be_interrupted_before_it_loads_anything() -> None:
    loaded = loaded_by("import talu.__main__") - loaded_by("import talu, os, signal")
    assert loaded == {"talu.__main__"}


FIRST_ANSWER = """
import json, sys, talu
client = talu.Client(sys.argv[1])
client.raw_complete("Hello", max_tokens=1)
raw = sorted(sys.modules)
client.ask("Hello", max_tokens=1)
print(json.dumps([raw, sorted(sys.modules)]))
"""
OTHER_FEATURES = {
    "asyncio", "difflib", "html", "huggingface_hub", "numpy", "socket", "sqlite3", "ssl",
    "talu.backends.remote.model", "talu.engine.calibration", "talu.engine.kept_prefixes",
    "talu.engine.pooling", "talu.engine.vectors", "talu.models.bert", "talu.models.gemma",
    "talu.profile", "talu.router.discovery", "talu.router.policies", "talu.router.routing",
    "talu.sources.gguf", "talu.sources.hub", "talu.sources.quantised.mlx", "talu.storage",
    "talu.template.prompt_template",
}  # fmt: skip


def test_the_first_answer_of_a_packed_model_loads_nothing_of_other_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path))
    program = "import talu.weights.pack as p; p.CACHE_FROM_BYTES = 0" + FIRST_ANSWER
    for _ in range(2):  # the first process packs the weights
        command = [sys.executable, "-c", program, "talu/pocket"]
        shown = subprocess.run(command, capture_output=True, check=True, text=True)
    raw, whole = map(set, json.loads(shown.stdout))
    assert whole & OTHER_FEATURES == set()
    assert "jinja2" in whole
    assert "jinja2" not in raw


COUNT_DATACLASSES = """
import sys, talu
talu.Client("talu/pocket").raw_complete("Hello", max_tokens=1)
modules = [module for name, module in sys.modules.items() if name.startswith("talu.")]
kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
print(sum("__dataclass_params__" in vars(kind) for kind in kinds))
"""
MOST_DATACLASSES = 47  # a hundred take a fifth of the time until a first answer


def test_the_first_answer_makes_few_dataclasses() -> None:
    command = [sys.executable, "-c", COUNT_DATACLASSES]
    shown = subprocess.run(command, capture_output=True, check=True, text=True)
    assert 0 < int(shown.stdout) <= MOST_DATACLASSES
