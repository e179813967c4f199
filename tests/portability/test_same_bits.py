"""Every machine computes the bits that are recorded here, whatever code its processor is given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__ as NUMPY_VARIANTS

from talu import _native

PROGRAM = Path(__file__).parent / "values.py"
RECORDED = Path(__file__).parent / "bits.json"
BEYOND_AVX2 = [name for name in NUMPY_VARIANTS if "512" in name or name == "X86_V4"]
# What the environment makes NumPy, the C library and talu believe that the processor can do.
MACHINES: dict[str, dict[str, str]] = {
    "this one": {},
    "NumPy's baseline": {"NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_VARIANTS)},
    "NumPy up to AVX2": {"NPY_DISABLE_CPU_FEATURES": " ".join(BEYOND_AVX2)},
    "a C library without FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"},
    **{f"target {name}": {"TALU_CPU": name} for name in _native.targets()},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_computes_the_recorded_bits(machine: str) -> None:
    """After a deliberate change of arithmetic: python tests/portability/values.py > bits.json."""
    environment = MACHINES[machine]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), json.loads(RECORDED.read_text())
    assert found.keys() == expected.keys()
    target = environment.get("TALU_CPU") or os.environ.get("TALU_CPU") or _native.targets()[0]
    different = {name for name in found if found[name] != expected[name]}
    if target in {
        "amx",
        "avx512bf16",
    }:  # rounds what bf16 weights are multiplied with, as the guide says
        different = {name for name in different if not name.startswith("bf16 ")}
    assert not different
