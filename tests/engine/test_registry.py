import gc
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from talu.client import Client
from talu.engine import registry
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.engine.registry import EngineLease, acquire
from talu.exceptions import GenerationError, ModelError, StateError
from talu.sampling import SamplingParams
from talu.types import FinishReason, LocalBackend

GREEDY = SamplingParams(max_tokens=4, temperature=0.0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[LoadedModel]:
    """Every model that the registry loads, as it loads it."""
    loaded: list[LoadedModel] = []

    def load(*args: Any, **options: Any) -> LoadedModel:
        loaded.append(load_model(*args, **options))
        return loaded[-1]

    monkeypatch.setattr(registry, "load_model", load)
    return loaded


@pytest.fixture
def lease(checkpoint: Path) -> Iterator[Callable[..., EngineLease]]:
    leases: list[EngineLease] = []

    def new(*options: Any) -> EngineLease:
        leases.append(acquire(str(checkpoint), *options))
        return leases[-1]

    yield new
    for each in leases:
        each.release()


def all_at_once(count: int, function: Callable[[], Any]) -> list[Any]:
    """The results, or the errors, of as many threads that start together."""
    start = threading.Barrier(count)

    def run(_: int) -> Any:
        start.wait(30)
        try:
            return function()
        except ModelError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_eight_threads_that_ask_at_once_share_one_opening(
    opened: list[LoadedModel], lease: Callable[..., EngineLease]
) -> None:
    leases = all_at_once(8, lease)
    assert len(opened) == 1
    assert len({id(each.engine) for each in leases}) == 1


def test_two_ways_to_name_a_folder_share_an_engine(
    checkpoint: Path, tmp_path: Path, lease: Callable[..., EngineLease]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkpoint)
    other = acquire(str(link))
    assert other.engine is lease().engine
    other.release()


def test_other_options_are_another_engine(lease: Callable[..., EngineLease]) -> None:
    assert lease().engine is not lease(LocalBackend(num_threads=1)).engine
    assert lease().engine is not lease(LocalBackend(use_mmap=False)).engine


def test_the_last_lease_closes(lease: Callable[..., EngineLease]) -> None:
    first, second = lease(), lease()
    engine = first.engine
    first.release()
    first.release()
    assert len(list(engine.submit([1, 2, 3], GREEDY))) == 4
    second.release()
    with pytest.raises(StateError):
        engine.submit([1], GREEDY)


def test_after_the_last_lease_a_model_opens_again(
    opened: list[LoadedModel], lease: Callable[..., EngineLease]
) -> None:
    lease().release()
    again = lease()
    assert len(opened) == 2
    assert len(list(again.engine.submit([1, 2, 3], GREEDY))) == 4


def test_the_last_lease_gives_the_weights_back(
    opened: list[LoadedModel], lease: Callable[..., EngineLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: list[weakref.ref[Any]] = []

    def watched(*args: Any, **options: Any) -> Any:
        weights = real(*args, **options)
        arrays.extend(weakref.ref(tensor.data) for tensor in weights.values())
        return weights

    real = sys.modules["talu.engine.cpu"].load_packed
    monkeypatch.setattr("talu.engine.cpu.load_packed", watched)
    held = lease()
    list(held.engine.submit([1, 2, 3], GREEDY))
    gc.collect()
    assert any(ref() is not None for ref in arrays)
    held.release()
    gc.collect()
    assert all(ref() is None for ref in arrays)
    assert not any(thread.name == "talu-engine" for thread in threading.enumerate())


def test_an_error_reaches_all_that_wait_and_is_not_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, lease: Callable[..., EngineLease]
) -> None:
    attempts: list[int] = []
    waiting = threading.Semaphore(0)

    class Watched(Future[Engine]):
        def result(self, timeout: float | None = None) -> Engine:
            waiting.release()
            return super().result(timeout)

    def fail(*_: Any, **__: Any) -> LoadedModel:
        attempts.append(1)
        for _ in range(7):
            assert waiting.acquire(timeout=30)
        raise ModelError("it is damaged")

    entry = registry._Entry
    with monkeypatch.context() as patch:
        patch.setattr(registry, "load_model", fail)
        patch.setattr(registry, "_Entry", lambda: entry(opened=Watched()))
        outcomes = all_at_once(8, lease)
    assert len(attempts) == 1
    assert [str(each) for each in outcomes] == ["it is damaged"] * 8
    assert len(list(lease().engine.submit([1, 2, 3], GREEDY))) == 4


def test_leases_that_come_and_go_in_many_threads_leave_nothing_open(
    opened: list[LoadedModel], lease: Callable[..., EngineLease]
) -> None:
    def use() -> int:
        count = 0
        for _ in range(5):
            held = lease()
            count += len(list(held.engine.submit([1, 2, 3], GREEDY)))
            held.release()
        return count

    assert all_at_once(6, use) == [20] * 6
    assert registry._entries == {}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "1_Pooling/config.json"])
def test_a_changed_folder_gets_a_new_engine_and_the_old_one_keeps_working(
    name: str, checkpoint: Path, tmp_path: Path, opened: list[LoadedModel]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    old = acquire(str(folder))
    copy = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(copy)
    new, same = acquire(str(folder)), acquire(str(folder))
    assert len(opened) == 2
    assert old.engine is not new.engine
    assert new.engine is same.engine
    for held in (old, new, same):
        assert len(list(held.engine.submit([1, 2, 3], GREEDY))) == 4
        held.release()
    assert registry._entries == {}


def test_a_change_of_an_unrelated_file_is_ignored(
    checkpoint: Path, tmp_path: Path, lease: Callable[..., EngineLease]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    (folder / "1").symlink_to(folder)  # a cycle
    held = acquire(str(folder))
    (folder / "README.md").write_text("about it")
    other = acquire(str(folder))
    assert other.engine is held.engine
    held.release()
    other.release()


def test_a_model_whose_engine_failed_is_opened_again(
    opened: list[LoadedModel], lease: Callable[..., EngineLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lease()

    def fail(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(held.engine._worker, "_step", fail)
    with pytest.raises(GenerationError):
        list(held.engine.submit([1, 2, 3], GREEDY))
    held.engine._worker._thread.join(30)
    new = lease()
    assert len(opened) == 2
    held.release()
    assert lease().engine is new.engine
    assert len(list(new.engine.submit([1, 2, 3], GREEDY))) == 4


@pytest.mark.parametrize("doing", ["opened", "closed"])
def test_a_call_that_interrupts_the_opening_or_closing_of_its_model_is_refused(
    doing: str, lease: Callable[..., EngineLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    real: Callable[..., Any] = load_model if doing == "opened" else Engine.close

    def interrupted(*args: Any) -> Any:
        with pytest.raises(StateError) as caught:  # as a signal handler would
            lease()
        refused.append(str(caught.value))
        return real(*args)

    if doing == "opened":
        monkeypatch.setattr(registry, "load_model", interrupted)
    else:
        monkeypatch.setattr(Engine, "close", interrupted)
    held = lease()
    assert len(list(held.engine.submit([1, 2, 3], GREEDY))) == 4
    held.release()
    assert [f"is being {doing}" in text for text in refused] == [True]


def test_models_of_dropped_clients_are_closed_before_another_model_is_opened(
    checkpoint: Path, tmp_path: Path, opened: list[LoadedModel]
) -> None:
    closed: list[bool] = []
    engines: list[weakref.ref[Engine]] = []
    gc.disable()
    try:
        for number in range(4):
            folder = tmp_path / str(number)
            shutil.copytree(checkpoint, folder)
            client = Client(folder)
            chat = client.chat(chat_template="{{ messages[0].content }}")
            chat.send("Hi", max_tokens=1)  # chat and answer refer to each other
            backend: Any = client.router.backend()
            engines.append(weakref.ref(backend._engine))
            closed = [engine() is None or engine()._worker._closed for engine in engines]
            del client, chat, backend
    finally:
        gc.enable()
        gc.collect()
    assert closed == [True, True, True, False]


def test_releasing_while_a_generation_runs_cancels_it(
    lease: Callable[..., EngineLease],
) -> None:
    held = lease()
    ticket = held.engine.submit([1, 2, 3], SamplingParams(max_tokens=250, temperature=0.0))
    next(ticket)
    held.release()
    list(ticket)
    assert ticket.result is not None
    assert ticket.result.finish_reason in (FinishReason.CANCELLED, FinishReason.LENGTH)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_model_opens_again_wherever_its_last_lease_was_released(
    interrupted: bool,
    opened: list[LoadedModel],
    lease: Callable[..., EngineLease],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = lease()
    engine = held.engine
    end = engine._worker._thread.join
    if interrupted:  # by Ctrl-C, while it waits for the engine's thread

        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(engine._worker._thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            held.release()
    else:  # in the engine's own thread, by the garbage collector
        step = engine._worker._step
        monkeypatch.setattr(engine._worker, "_step", lambda: (held.release(), step()))
        ticket = engine.submit([1, 2, 3], SamplingParams(max_tokens=250, temperature=0.0))
        list(ticket)
        assert ticket.result is not None
        assert ticket.result.finish_reason is FinishReason.CANCELLED
    end(30)
    opening = threading.Thread(target=lease, daemon=True)
    opening.start()
    opening.join(30)
    assert len(opened) == 2


def run_script(script: str, checkpoint: Path) -> str:
    # Python 3.12 and later warn of every fork with threads, which is what the script tests.
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *quiet, "-c", script, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


HEAD = """
import os, sys
from talu.sampling import SamplingParams
from talu.engine.registry import acquire
params = SamplingParams(max_tokens=200, temperature=0.0)
engine = acquire(sys.argv[1]).engine
"""


def test_the_interpreter_ends_with_a_generation_under_way(checkpoint: Path) -> None:
    script = (
        HEAD + "print(len(next(engine.submit([1, 2], params)).tokens)); engine.submit([3], params)"
    )
    assert run_script(script, checkpoint) == "1\n"


def test_the_interpreter_ends_in_silence_beside_a_daemon_thread_that_waits(
    checkpoint: Path,
) -> None:
    script = HEAD + (
        "import threading\n"
        "begun = threading.Event()\n"
        "def read():\n"
        "    for _ in engine.submit([1, 2], params):\n"
        "        begun.set()\n"
        "        threading.Event().wait()\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "print(begun.wait())"
    )
    assert run_script(script, checkpoint) == "True\n"


def test_a_forked_process_opens_the_model_for_itself(checkpoint: Path) -> None:
    script = HEAD + (
        "if os.fork() == 0:\n"
        "    other = acquire(sys.argv[1])\n"
        "    assert other.engine is not engine\n"
        "    other.release()\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), len(list(engine.submit([1], params))))"
    )
    assert run_script(script, checkpoint) == "0 200\n"


def test_a_forked_process_that_ends_normally_ends_in_silence(checkpoint: Path) -> None:
    script = HEAD + (
        "list(engine.submit([1], params))\n"
        "engine.submit_embedding([[1, 2]], ['mean']).wait()\n"
        "if os.fork() == 0:\n"
        "    sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), len(list(engine.submit([1], params))))"
    )
    assert run_script(script, checkpoint) == "3 200\n"


def test_processes_that_are_forked_during_a_generation_end_without_output(checkpoint: Path) -> None:
    script = HEAD + (
        "for number, piece in enumerate(engine.submit([1], params)):\n"
        "    if number < 8 and os.fork() == 0:\n"
        "        sys.exit(3)\n"
        "print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(8)], number + 1)"
    )
    assert run_script(script, checkpoint) == f"{[3] * 8} 200\n"
