"""Importing talu loads next to nothing."""

import subprocess
import sys

import pytest

HEAVY = (
    "numpy", "tokenizers", "jinja2", "huggingface_hub", "click", "rich", "opentelemetry",
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
