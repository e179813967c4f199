"""``talu doctor``: describes the machine and the installation, and says what is wrong or slow."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from talu.cli.answer import write_json
from talu.cli.terminal import counted, visible
from talu.client import Client
from talu.engine.machine import Folder, Machine, folder_at, machine, model_folders
from talu.error_text import reason, size_text
from talu.exceptions import TaluError
from talu.profile import Profile
from talu.sources.inventory import StoredModel, stored_models
from talu.sources.resolve import BUNDLED
from talu.urls import without_secrets

__all__ = ["command"]

GPU = "not used: this version of talu runs models on the processor only"
LITTLE_MEMORY = 2 << 30  # bytes: a model of 1 B parameters in 8 bits, and its cache
LITTLE_DISK = 1 << 30  # bytes that must stay free, or weights are not packed
SLOW_DISK = 300e6  # bytes in a second; an SSD reads more
MUCH_SWAP = 64 << 20  # bytes
VARIABLES = ("TALU_MODEL", "TALU_PROFILE", "TALU_CACHE", "TALU_CPU", "HF_HOME", "HF_HUB_CACHE",
             "HF_HUB_OFFLINE")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What ``talu doctor`` finds out.

    Attributes:
        versions: of talu, Python and the packages that talu uses; None if one is missing.
        folders: where files are kept, by name.
        models: those in the caches.
        variables: the environment variables that change what talu does.
        problems: what does not work.
        advice: what would make models faster.
    """

    versions: dict[str, str | None]
    machine: Machine
    gpu: str
    folders: dict[str, Folder]
    models: list[StoredModel]
    variables: dict[str, str]
    problems: list[str]
    advice: list[str]


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Describe this machine and installation, and say what is wrong or slow.

    The exit status is 1 if something does not work. Nothing is sent over a network.
    """
    report = examine()
    if as_json:
        write_json(asdict(report))
    else:
        lines = list(_lines(report))
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            click.echo(f"{name:{width}}  {visible(text)}".rstrip())
    if report.problems:
        found = counted(len(report.problems), "problem")
        raise click.ClickException(f"{found} found: {report.problems[0]}")


def examine() -> Report:
    """Look at everything."""
    versions, about = _versions(), machine()
    problems = [f"the package {name} is missing" for name, v in versions.items() if v is None]
    folders: dict[str, Folder] = {}
    try:
        places, profiles = model_folders(), Profile().path
        if profiles is not None:  # and not on a server
            places = {**places, "profiles": profiles.parent}
        folders = {name: folder_at(path) for name, path in places.items()}
    except (OSError, TaluError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        problems.append(f"the folders of talu are not known: {why}")
    models = stored_models()
    return Report(
        versions=versions,
        machine=about,
        gpu=GPU,
        folders=folders,
        models=models,
        variables={name: _shown(os.environ[name]) for name in VARIABLES if os.environ.get(name)},
        problems=[*problems, *_problems(about, folders), *_bundled_problem()],
        advice=[*_of_processor(about), *_of_memory(about), *_of_files(folders, models)],
    )


def _shown(value: str) -> str:
    """The value of a variable, without the password of a URL."""
    return without_secrets(value) if "://" in value else value


def _versions() -> dict[str, str | None]:
    """The versions of talu, Python, and the packages that talu needs without any extra."""
    found: dict[str, str | None] = {"talu": importlib.metadata.version("talu")}
    found["python"] = platform.python_version()
    for requirement in importlib.metadata.requires("talu") or ():
        if "extra ==" in requirement:
            continue
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        try:
            found[name[0]] = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            found[name[0]] = None
    return found


def _problems(about: Machine, folders: dict[str, Folder]) -> Iterator[str]:
    if about.target is None:
        known = ", ".join(about.targets)
        asked = os.environ.get("TALU_CPU", "")
        yield f"TALU_CPU={asked[:40]!r} is no target of this processor; it has {known}"
    for name, folder in folders.items():
        if not folder.writable:
            yield f"the folder of the {name} cannot be written: {folder.path}"


def _bundled_problem() -> Iterator[str]:
    """Why the bundled model does not answer, if it does not."""
    try:
        with Client(BUNDLED) as client:
            client.ask("2+2?", max_tokens=1)
    except TaluError as error:
        yield f"the bundled model does not answer: {error}"


def _of_processor(about: Machine) -> Iterator[str]:
    best = about.targets[0]
    if about.target is not None and about.target != best:
        yield f"TALU_CPU forces the target {about.target}; this processor has {best}, the fastest"
    elif best == "generic" and platform.machine() in ("x86_64", "AMD64"):
        yield "the processor lacks AVX2, which makes models several times slower"
    if about.allowed < about.processors:
        yield (
            f"the affinity of the process allows {about.allowed} of {about.processors} processors"
        )
    if about.threads < about.allowed:
        yield (
            f"the quota of the container allows {counted(about.threads, 'thread')} on "
            f"{counted(about.allowed, 'processor')}"
        )
    if about.load > about.processors / 2:
        yield (
            f"other programs take {about.load:.1f} of {about.processors} processors, which models "
            "would use"
        )


def _of_memory(about: Machine) -> Iterator[str]:
    if about.used_swap > MUCH_SWAP:
        yield (
            f"{size_text(about.used_swap)} of memory are swapped out: a model that is swapped is "
            "very slow, so close other programs or take a smaller model"
        )
    if about.free_memory < LITTLE_MEMORY:
        yield (
            f"only {size_text(about.free_memory)} of memory are free, which shortens the context "
            "of models"
        )


def _of_files(folders: dict[str, Folder], models: list[StoredModel]) -> Iterator[str]:
    for name, folder in folders.items():
        if folder.network is not None:
            yield (
                f"the folder of the {name} is on a network file system ({folder.network}): files "
                "open slowly"
            )
        if folder.read_rate is not None and folder.read_rate < SLOW_DISK:
            yield (
                f"the disk of the {name} reads only {size_text(folder.read_rate)} in a second: "
                "models open slowly"
            )
    packed = folders.get("packed weights")
    if packed is not None and packed.free < LITTLE_DISK:
        yield (
            f"only {size_text(packed.free)} of the disk are free: weights are packed at each open, "
            "because the packed ones cannot be kept"
        )
    for model in models:
        if model.status == "ready" and not model.packed_bytes:
            yield f"{model.ref} has no packed weights yet: its first open takes longer"
        elif model.status == "incomplete":
            yield f"the download of {model.ref} is not complete: talu get continues it"


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    """The report as names and texts."""
    about = report.machine
    yield "versions", ", ".join(f"{name} {v or '-'}" for name, v in report.versions.items())
    yield "processor", about.processor
    yield (
        "targets",
        ", ".join(f"{each} (used)" if each == about.target else each for each in about.targets),
    )
    yield (
        "threads",
        (
            f"{about.threads}, of {counted(about.processors, 'processor')}, "
            f"{about.allowed} of which this process may use"
        ),
    )
    yield (
        "memory",
        (
            f"{size_text(about.free_memory)} of {size_text(about.memory)} free, "
            f"{size_text(about.used_swap)} of {size_text(about.swap)} swap used"
        ),
    )
    yield "GPU", report.gpu
    for name, folder in report.folders.items():
        rate = folder.read_rate
        reads = "" if rate is None else f", reads {size_text(rate)} in a second"
        yield (
            name,
            f"{folder.path}: {size_text(folder.bytes)}, {size_text(folder.free)} free{reads}",
        )
    ready = [model.ref for model in report.models if model.status == "ready"]
    yield "models", ", ".join([BUNDLED, *ready])
    if report.variables:
        yield "environment", ", ".join(f"{n}={value}" for n, value in report.variables.items())
    for each in report.advice:
        yield "advice", each
    for each in report.problems:
        yield "problem", each
    if not (report.advice or report.problems):
        yield "all well", "nothing is wrong, and nothing known makes models slower"
