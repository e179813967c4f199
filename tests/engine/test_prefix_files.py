"""Files of cache blocks: what is read is what was written, or nothing."""

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.threads import in_threads

from talu.engine.prefix_files import Content, PrefixFiles, file_bytes

BYTES = 96
TOKENS = list(range(64))


def content(number: int) -> Content:
    return np.full(BYTES, number, np.uint8)


def files_in(folder: Path, budget: int = 1 << 20, model: str = "m") -> PrefixFiles:
    return PrefixFiles(folder, [model], block_bytes=BYTES, budget=budget)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def stored(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def test_a_block_is_read_as_it_was_written(folder: Path) -> None:
    files = files_in(folder)
    first, second, *_ = files.names(TOKENS, 16, "")
    files.write(first, content(1))
    files.write(second, content(2))
    again = files_in(folder)
    for name, number in ((first, 1), (second, 2)):
        found = again.read(name)
        assert found is not None
        assert found.tolist() == [number] * BYTES


def test_the_name_of_a_block_depends_on_all_that_its_content_depends_on(folder: Path) -> None:
    files = files_in(folder)
    names = files.names(TOKENS, 16, "")
    assert len(set(names)) == 4
    assert files.names([*TOKENS[:32], 7, *TOKENS[33:]], 16, "")[:2] == names[:2]
    others = [
        files.names([7, *TOKENS[1:]], 16, ""),
        files.names(TOKENS, 16, "tenant"),
        files_in(folder, model="other").names(TOKENS, 16, ""),
    ]
    assert not {*names} & {name for other in others for name in other}
    assert files.names(TOKENS[:63], 16, "") == names[:3]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_another(path: Path) -> None:
    (other,) = {*path.parent.iterdir()} - {path}
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [truncate, extend, flip, empty, replace_by_another])
def test_a_file_that_is_not_what_its_name_says_is_removed_and_not_used(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    files = files_in(folder)
    first, second, *_ = files.names(TOKENS, 16, "")
    files.write(first, content(1))
    files.write(second, content(2))
    damage(folder / f"{second}.block")
    with caplog.at_level(logging.WARNING, "talu.engine"):
        assert files.read(second) is None
    assert "is damaged and is removed" in caplog.text
    assert stored(folder) == {first}


def test_the_files_used_longest_ago_are_removed_to_stay_within_the_budget(folder: Path) -> None:
    names = files_in(folder).names(list(range(160)), 16, "")
    files = files_in(folder, budget=4 * file_bytes(BYTES))
    for number, name in enumerate(names[:4]):
        files.write(name, content(number))
        os.utime(folder / f"{name}.block", (number + 1, number + 1))
    files.touch(names[:1])
    files.write(names[4], content(4))
    assert stored(folder) == {names[0], names[3], names[4]}  # a tenth more than needed is freed
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert total <= 4 * file_bytes(BYTES)


def test_the_beginning_of_a_sequence_is_removed_last(folder: Path) -> None:
    files = files_in(folder, budget=4 * file_bytes(BYTES))
    names = files.names(list(range(80)), 16, "")
    for name in names[:4]:
        files.write(name, content(1))
    files.touch(names[:4])
    files.write(names[4], content(4))
    assert stored(folder) == {*names[:2], names[4]}


def test_a_folder_that_was_deleted_is_made_again(folder: Path) -> None:
    files = files_in(folder)
    folder.rmdir()
    name = files.names(TOKENS, 16, "")[0]
    files.write(name, content(1))
    assert stored(folder) == {name}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nobody_else_can_read_the_files(folder: Path) -> None:
    files = files_in(folder)
    files.write(files.names(TOKENS, 16, "")[0], content(1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_a_folder_that_others_can_write_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(OSError, match="other users may write"):
        files_in(folder)


def test_a_full_disk_leaves_no_file_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_in(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(OSError, match="less than 1 GiB of the disk is free"):
        files.write(files.names(TOKENS, 16, "")[0], content(1))
    assert stored(folder) == set()


def test_what_a_killed_process_left_is_removed_an_hour_later(folder: Path) -> None:
    files = files_in(folder)
    old, new = folder / "1-0.part", folder / "2-0.part"
    for path, age in ((old, 4000), (new, 0)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    files.write(files.names(TOKENS, 16, "")[0], content(1))
    assert not old.exists()
    assert new.exists()


def test_several_writers_of_one_folder_never_read_what_is_wrong(folder: Path) -> None:
    names = files_in(folder).names(list(range(16 * 12)), 16, "")

    def wrong(seed: int) -> list[int]:
        files = files_in(folder, budget=6 * file_bytes(BYTES))
        others = []
        for number in np.random.default_rng(seed).integers(0, 12, 150).tolist():
            files.write(names[number], content(number))
            found = files.read(names[number])
            if found is not None and found.tolist() != [number] * BYTES:
                others.append(number)
        return others

    assert in_threads(wrong, range(3)) == [[], [], []]
