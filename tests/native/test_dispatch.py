"""Which target runs, and how many threads: decided by the processor, the variable, the affinity."""

import os
import subprocess
import sys

import pytest

from talu import _native


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("target", _native.targets())
def test_the_variable_forces_a_target(target: str) -> None:
    done = python("from talu import _native; print(_native.target())", TALU_CPU=target)
    assert done.stdout == target + "\n"


def test_without_the_variable_the_best_target_runs() -> None:
    done = python("from talu import _native; print(_native.target())", TALU_CPU="")
    assert done.stdout == _native.targets()[0] + "\n"


def test_generic_is_supported_everywhere() -> None:
    assert _native.targets()[-1] == "generic"


def test_an_unknown_target_is_an_error_at_first_use_that_names_the_supported_ones() -> None:
    program = "from talu import _native; print('imported', flush=True); _native.target()"
    done = python(program, TALU_CPU="sse9")
    assert done.stdout == "imported\n"
    expected = "TALU_CPU: the CPU target 'sse9' is unknown; supported here: "
    assert expected + ", ".join(_native.targets()) in done.stderr


def test_an_unsupported_target_is_told_from_an_unknown_one() -> None:
    known = {"avx512bf16", "avx512", "avx2"}
    for target in sorted(known - set(_native.targets())):
        done = python("from talu import _native; _native.formats()", TALU_CPU=target)
        assert f"the CPU target '{target}' is not supported by this processor" in done.stderr


def test_threads_follow_the_affinity() -> None:
    program = """
import os
from talu import _native
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(_native.available_threads())
"""
    assert python(program).stdout == "1\n"
    assert 1 <= _native.available_threads() <= len(os.sched_getaffinity(0))
