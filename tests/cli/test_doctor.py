"""``talu doctor``: what it finds out, and what it calls wrong or slow."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from talu import _native
from talu.cli import doctor
from talu.engine.machine import Folder, Machine, folder_at, machine

Talu = Callable[..., Any]
GOOD = Machine(
    processor="A fast one",
    processors=8,
    allowed=8,
    threads=8,
    targets=("avx2", "generic"),
    target="avx2",
    memory=64 << 30,
    free_memory=32 << 30,
    swap=0,
    used_swap=0,
    load=0.1,
)
FOLDER = Folder(path="/tmp/x", bytes=0, free=100 << 30, writable=True, network=None, read_rate=None)
MEMINFO = "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 100 kB\nSwapFree: 30 kB\n"


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[..., None]:
    """Make the command see another machine."""

    def install(folder: Folder = FOLDER, **changes: Any) -> None:
        monkeypatch.setattr(doctor, "machine", lambda: replace(GOOD, **changes))
        monkeypatch.setattr(doctor, "folder_at", lambda path: folder)
        monkeypatch.setattr(doctor, "stored_models", list)

    return install


def test_a_good_machine_has_nothing_wrong(talu: Talu, pretend: Callable[..., None]) -> None:
    pretend()
    outcome = talu("doctor")
    assert (outcome.status, outcome.err) == (0, "")
    assert "avx2 (used), generic" in outcome.out
    assert "this version of talu runs models on the processor only" in outcome.out
    assert "nothing is wrong" in outcome.out


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"target": "generic"}, "TALU_CPU forces the target generic; this processor has avx2"),
        ({"target": "generic", "targets": ("generic",)}, "lacks AVX2"),
        ({"allowed": 4, "threads": 4}, "affinity of the process allows 4 of 8 processors"),
        ({"threads": 1}, "quota of the container allows 1 thread on 8 processors"),
        ({"load": 6.0}, "other programs take 6.0 of 8 processors"),
        ({"used_swap": 1 << 30}, "are swapped out"),
        ({"free_memory": 1 << 30}, "only 1.07 GB of memory are free"),
        ({"folder": replace(FOLDER, network="nfs4")}, "network file system (nfs4)"),
        ({"folder": replace(FOLDER, read_rate=50e6)}, "reads only 50.0 MB in a second"),
        ({"folder": replace(FOLDER, free=1 << 20)}, "weights are packed at each open"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_models_slower_is_advice_and_no_failure(
    talu: Talu, pretend: Callable[..., None], changes: dict[str, Any], advice: str
) -> None:
    pretend(**changes)
    outcome = talu("doctor")
    assert outcome.status == 0
    assert advice in next(line for line in outcome.out.splitlines() if line.startswith("advice"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"target": None}, "is no target of this processor; it has avx2, generic"),
        ({"folder": replace(FOLDER, writable=False)}, "cannot be written: /tmp/x"),
    ],
)
def test_what_does_not_work_is_a_failure(
    talu: Talu, pretend: Callable[..., None], changes: dict[str, Any], problem: str
) -> None:
    pretend(**changes)
    outcome = talu("doctor")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert problem in outcome.err
    assert problem in outcome.out
    assert "nothing is wrong" not in outcome.out


def test_a_package_that_is_missing_is_a_failure(
    talu: Talu, pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend()
    needed = ["numpy>=1", "not-there>=1", "also-not; extra == 'plot'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needed)
    outcome = talu("doctor", "--json")
    assert outcome.status == 1
    assert "the package not-there is missing" in outcome.err
    versions = json.loads(outcome.out)["versions"]
    assert versions["numpy"]
    assert "also-not" not in versions


def test_a_bundled_model_that_does_not_answer_is_a_failure(
    process: Callable[..., Any], home: Path
) -> None:
    done = process("doctor", env=os.environ | {"TALU_CPU": "mmx"})
    assert done.returncode == 1
    assert "problem         TALU_CPU='mmx' is no target of this processor" in done.stdout
    assert "problem         the bundled model does not answer: " in done.stdout
    assert "environment     TALU_CPU=mmx" in done.stdout


def test_this_machine_is_described_and_leaves_no_files(talu: Talu, home: Path) -> None:
    outcome = talu("doctor", "--json")
    report = json.loads(outcome.out)
    assert report["machine"]["targets"] == _native.targets()
    assert report["machine"]["threads"] == _native.available_threads()
    assert report["versions"]["talu"]
    assert {"hub cache", "packed weights", "profiles"} <= report["folders"].keys()
    assert not (home / ".talu").exists()


def test_memory_and_swap_are_those_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "cpuinfo").write_text("model name : Fast\n")
    found = machine(tmp_path, tmp_path)
    assert (found.processor, found.memory, found.free_memory) == ("Fast", 1_024_000, 614_400)
    assert (found.swap, found.used_swap) == (102_400, 71_680)


def test_a_folder_is_measured_without_counting_a_file_twice(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 1000)
    (folder / "inner" / "b").hardlink_to(folder / "a")
    (folder / "c").symlink_to(folder / "a")
    found = folder_at(folder)
    assert (found.bytes, found.read_rate) == (1000, None)
    assert found.writable
    assert folder_at(tmp_path / "not" / "there").bytes == 0


def test_a_network_file_system_is_recognised(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
        f"2 1 0:50 / {tmp_path.resolve()} rw - nfs4 server:/x rw\n"
    )
    assert folder_at(tmp_path, mounts).network == "nfs4"
    assert folder_at(tmp_path.parent / "elsewhere", mounts).network is None


def test_a_profile_on_a_server_has_no_folder_and_its_password_is_not_shown(
    talu, home, monkeypatch
) -> None:
    monkeypatch.setenv("TALU_PROFILE", "postgresql://ada:s3cret@127.0.0.1:1/chats")
    done = talu("doctor", "--json")
    assert "s3cret" not in done.out + done.err
    report = json.loads(done.out)
    assert report["variables"]["TALU_PROFILE"] == "postgresql://***@127.0.0.1:1/chats"
    assert "profiles" not in report["folders"]
    assert not any("folders" in problem for problem in report["problems"])
