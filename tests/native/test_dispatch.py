"""The processor and the environment decide the CPU target and the number of threads."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
def test_the_environment_variable_forces_a_target(target: str) -> None:
    done = python("from talu import _native; print(_native.target())", TALU_CPU=target)
    assert done.stdout == target + "\n"


def test_without_the_environment_variable_the_best_target_runs() -> None:
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


def test_unsupported_and_unknown_targets_have_different_errors() -> None:
    known = {"amx", "avx512bf16", "avx512", "avx2"}
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


@dataclass(frozen=True)
class Group:
    """Files of control groups as a machine has them, and the threads that they allow."""

    membership: str
    files: dict[str, str]
    threads: float = math.inf


V2 = "0::/user.slice/talu.service\n"
V1 = "12:memory:/docker/a1\n4:cpu,cpuacct:/docker/a1\n1:name=systemd:/docker/a1\n0::/system.slice\n"
QUOTAS = {
    "no control groups": Group("", {}),
    "version 2, no limit": Group(V2, {"user.slice/talu.service/cpu.max": "max 100000\n"}),
    "version 2, half a processor": Group(
        V2, {"user.slice/talu.service/cpu.max": "50000 100000\n"}, 1
    ),
    "version 2, one and a half": Group(
        V2, {"user.slice/talu.service/cpu.max": "150000 100000\n"}, 2
    ),
    "version 2, another period": Group(V2, {"user.slice/talu.service/cpu.max": "25000 25000\n"}, 1),
    "version 2, more than there are": Group(
        V2, {"user.slice/talu.service/cpu.max": "102400000 100000\n"}, 1024
    ),
    "version 2, a tighter group above": Group(
        V2,
        {
            "user.slice/talu.service/cpu.max": "max 100000\n",
            "user.slice/cpu.max": "100000 100000\n",
        },
        1,
    ),
    "version 2, a tighter group below": Group(
        V2,
        {
            "user.slice/talu.service/cpu.max": "80000 100000\n",
            "user.slice/cpu.max": "800000 100000\n",
        },
        1,
    ),
    "version 2, a container that sees its group at the root": Group(
        "0::/\n", {"cpu.max": "100000 100000\n"}, 1
    ),
    "version 2, a group that is not there": Group(V2, {"other.slice/cpu.max": "100000 100000\n"}),
    "version 1, no limit": Group(
        V1,
        {
            "cpu/docker/a1/cpu.cfs_quota_us": "-1\n",
            "cpu/docker/a1/cpu.cfs_period_us": "100000\n",
        },
    ),
    "version 1, one and a bit": Group(
        V1,
        {
            "cpu/docker/a1/cpu.cfs_quota_us": "110000\n",
            "cpu/docker/a1/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "version 1, a container that sees its group at the root": Group(
        V1, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1
    ),
    "version 1, the quota of another controller": Group(
        V1,
        {
            "memory/docker/a1/cpu.cfs_quota_us": "100000\n",
            "memory/docker/a1/cpu.cfs_period_us": "100000\n",
        },
    ),
    "a file that is damaged": Group(V2, {"user.slice/talu.service/cpu.max": "\n"}),
    "a period of nothing": Group(V2, {"user.slice/talu.service/cpu.max": "100000 0\n"}),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_threads_follow_the_quota_of_control_groups(name: str, tmp_path: Path) -> None:
    group = QUOTAS[name]
    files = {"proc/self/cgroup": group.membership}
    files |= {f"groups/{path}": content for path, content in group.files.items()}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    found = _native.available_threads(str(tmp_path / "proc"), str(tmp_path / "groups"))
    assert found == min(group.threads, len(os.sched_getaffinity(0)))
