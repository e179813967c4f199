"""Finds a model in the local cache of the Hugging Face hub, or downloads it.

``huggingface_hub`` downloads to its usual cache, so there is no second copy. It is imported only
when something must be downloaded; finding a cached model imports only its module of constants and
opens no socket. ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and
``HF_TOKEN`` have their usual meaning; all but the token are read once in a process. The hub
client's progress bar is shown on stderr if that is a terminal.

Large files are downloaded by ``blobs.py``, which continues what was interrupted and verifies what
it has. The hub client does the rest.

Only the files that a model needs are downloaded, small ones first, so that a model that cannot be
used is refused before its weights are downloaded.
"""

import contextlib
import errno
import glob
import importlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from talu.error_text import shown, size_text
from talu.exceptions import IOError as TaluIOError
from talu.exceptions import ModelError, ModelNotFoundError, TaluError
from talu.sources import blobs
from talu.sources.blobs import RemoteFile
from talu.sources.hub_cache import (
    COMMIT,
    REVISION,
    cache_folder,
    constants,
    find_cached,
    home_of,
    hub_files,
)
from talu.sources.kinds import Found, HubFiles

__all__ = ["ACCESS_DENIED", "NETWORK_FAILED", "WRITE_FAILED", "fetch", "files_of", "update"]

ACCESS_DENIED = "MODEL_ACCESS_DENIED"
NETWORK_FAILED = "IO_NETWORK_FAILED"
WRITE_FAILED = "IO_WRITE_FAILED"
SHA256 = re.compile("[0-9a-f]{64}")
TIMEOUT_S = 10.0  # for the first response; the hub client retries later requests

logger = logging.getLogger("talu.weights")


def fetch(
    model_id: str,
    tag: str | None = None,
    *,
    offline: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Found:
    """The folder or file of a hub model in the hub's cache, downloaded first if necessary.

    A cached model is not checked for updates; ``talu get`` gets newer versions.

    Args:
        model_id: ``"organisation/name"``.
        tag: which of several models of the repository is meant: a quantisation or a file name.
        offline: only use the cache; no socket is opened.
        check: called with a folder that holds all small files before the weights are downloaded;
            an exception from it ends the download.

    Raises:
        ModelNotFoundError: there is no such model, access to it is refused, or it is not in the
            cache and ``offline`` is set.
        ModelError: the repository has no usable weights, or several models that the tag matches.
        IOError: the hub cannot be reached, or the cache cannot be written.
    """
    cache, forbidden = cache_folder(), offline or constants().HF_HUB_OFFLINE
    cached = find_cached(cache, model_id, tag)
    if cached is not None and (cached.complete or forbidden):
        return cached.found
    if forbidden:
        ref = model_id if tag is None else f"{model_id}:{tag}"
        raise ModelNotFoundError(
            f"the model {ref!r} is not complete in {cache}, and offline=True or "
            f"HF_HUB_OFFLINE forbids the network; get it once with: talu get {ref}"
        )
    try:
        return download(model_id, tag, check)
    except TaluIOError as error:
        if cached is None or error.code != NETWORK_FAILED:
            raise
        logger.warning("%s; the cached %s is used", error, cached.found.path)
        return cached.found


def files_of(place: str, names: Collection[str], tag: str | None = None) -> HubFiles:
    """The files of the first kind of which a repository holds the model.

    Raises:
        ModelError: it holds none; the error is that of the last kind of which it has weights.
    """
    error: ModelError | None = None
    for files in hub_files(tag):
        refusal = files.refusal(place, names)
        if refusal is None:
            return files
        if error is None or files.holds(names):
            error = refusal
    assert error is not None  # there are kinds for every tag
    raise error


def update(
    model_id: str, tag: str | None = None, *, check: Callable[[Path], object] | None = None
) -> Found:
    """Download the current version of a model, and verify what the cache has of it.

    A damaged file is downloaded again. The arguments and errors are those of ``fetch``.
    """
    if constants().HF_HUB_OFFLINE:
        raise TaluIOError(
            f"{model_id!r} cannot be downloaded: HF_HUB_OFFLINE forbids the network",
            code=NETWORK_FAILED,
        )
    return download(model_id, tag, check, verify=True)


def download(
    model_id: str,
    tag: str | None,
    check: Callable[[Path], object] | None,
    *,
    verify: bool = False,
) -> Found:
    """Download what is missing of a model: the small files, then the weights."""
    hub = importlib.import_module("huggingface_hub")
    importlib.import_module("huggingface_hub.errors")  # makes it available as hub.errors
    with translated(hub, model_id):
        info = hub.HfApi(library_name="talu").model_info(
            model_id, revision=REVISION, files_metadata=True, timeout=TIMEOUT_S
        )
        commit, remote = commit_of(info), listing(info)
        place = f"the repository {model_id} on {address(hub)}"
        files = files_of(place, remote, tag)
        if (unsupported := files.unsupported(place, info.gguf or {})) is not None:
            raise unsupported
        folder = small_files(hub, model_id, files.small, remote, commit)
        if check is not None and files.small:
            check(folder)
        weights, others = files.weights(place, remote, folder)
        small_files(hub, model_id, others, remote, commit)
        large = [remote[name] for name in sorted(weights) if is_large(hub, remote[name])]
        bars = progress_bar(shown=True)
        if verify:
            discard_damaged(folder, [remote[name] for name in sorted(weights)], bars)
        rest = weights - {file.name for file in large}
        needed = blobs.missing_bytes(large, folder.parents[1])
        needed += sum(remote[name].size for name in rest if not os.path.exists(folder / name))
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise no_space(hub, f"{size_text(needed)} are needed, {size_text(free)} are free")
        blobs.download(large, model_id, commit, folder.parents[1], bars)
        patterns = [*files.small, *map(glob.escape, weights)]
        folder = snapshot(hub, model_id, patterns, progress=bool(rest))
        path = files.find(folder, remote)
        absent = (
            folder.parents[1] / ".no_exist" / folder.name
        )  # where the hub client marks missing files
        for name in set(files.optional) - remote.keys():
            (absent / name).parent.mkdir(parents=True, exist_ok=True)
            (absent / name).touch()
        return Found(path, files.note(model_id, remote))


def small_files(
    hub: Any,
    model_id: str,
    patterns: Collection[str],
    remote: Mapping[str, RemoteFile],
    commit: str,
) -> Path:
    """Download the files that match the patterns, and return the folder of the version.

    A damaged file is downloaded once more.
    """
    wanted = [
        file for name, file in remote.items() if any(fnmatchcase(name, each) for each in patterns)
    ]
    folder = home_of(cache_folder(), model_id) / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    if not wanted:
        return folder
    for _ in range(2):
        folder = snapshot(hub, model_id, patterns, progress=False)
        damaged = discard_damaged(folder, wanted)
        if not damaged:
            return folder
    raise TaluIOError(f"{damaged}; it was removed; try again", code=NETWORK_FAILED)


def discard_damaged(folder: Path, files: Iterable[RemoteFile], bars: Any = None) -> str | None:
    """Remove damaged files from the cache; what is wrong with the first one, None if none is."""
    first = None
    for file in files:
        path = folder / file.name
        if not path.exists():
            continue
        bar = bars and bars(
            total=file.size, unit="B", unit_scale=True, desc=f"checking {path.name}"
        )
        problem = file.problem(path, bar)
        if bar:
            bar.close()
        if problem is not None:
            problem = f"{shown(file.name)} in the hub's cache is damaged: {problem}"
            logger.warning("%s; it is downloaded again", problem)
            blobs.discard(path, folder.parents[1])
            first = first or problem
    return first


def commit_of(info: Any) -> str:
    """The version of a repository, from the client's description of it."""
    if COMMIT.fullmatch(info.sha) is None:
        raise ValueError("no commit")
    return str(info.sha)


def listing(info: Any) -> dict[str, RemoteFile]:
    """The files of a repository by name, from the client's description of it.

    Names that are not paths inside of a folder are left out.
    """
    return {
        file.rfilename: RemoteFile(
            name=file.rfilename,
            size=file.size or 0,
            sha256=file.lfs.sha256 if file.lfs and SHA256.fullmatch(file.lfs.sha256) else None,
            blob_id=file.blob_id,
        )
        for file in info.siblings or ()
        if not {"", ".", ".."}.intersection(file.rfilename.split("/"))
    }


def is_large(hub: Any, file: RemoteFile) -> bool:
    """Whether the file has a SHA-256, and the hub serves it over HTTP."""
    return file.sha256 is not None and file.size <= hub.constants.MAX_HTTP_DOWNLOAD_SIZE


def snapshot(hub: Any, model_id: str, patterns: Iterable[str], *, progress: bool) -> Path:
    """Download the files that match the patterns and are not cached yet."""
    folder = hub.snapshot_download(
        model_id,
        revision=REVISION,
        allow_patterns=list(patterns),
        library_name="talu",
        tqdm_class=progress_bar(shown=progress),
    )
    return Path(folder)


def progress_bar(*, shown: bool) -> Any:
    """The hub client's class of progress bars, silent if stderr is not a terminal.

    By default, the client shows one of its bars everywhere.
    """
    base = importlib.import_module("huggingface_hub.utils.tqdm").tqdm

    def init(self: Any, *args: Any, **options: Any) -> None:
        options["disable"] = None if shown else True  # None: unless stderr is a terminal
        base.__init__(self, *args, **options)

    return type("ProgressBar", (base,), {"__init__": init})


@contextlib.contextmanager
def translated(hub: Any, model_id: str) -> Iterator[None]:
    """Convert the errors of the hub client into those of talu.

    Their texts are left out and they are not chained, because they can contain signed URLs or a
    malformed token.
    """
    errors = hub.errors
    where = f"{model_id!r} on {address(hub)}"
    try:
        yield
    except TaluError:
        raise
    except errors.GatedRepoError:
        raise ModelNotFoundError(
            f"access to {where} is restricted: request it at {address(hub)}/{model_id}, "
            "then set HF_TOKEN to a token of that account",
            code=ACCESS_DENIED,
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise ModelNotFoundError(
            f"there is no model {where}, or it is private; check the spelling, "
            "and set HF_TOKEN if it needs one"
        ) from None
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise failure(hub, where, error) from None
    except Exception as error:  # noqa: BLE001 - the client does not validate responses
        raise TaluIOError(
            f"the hub's response for {where} is invalid ({type(error).__name__}); check "
            "HF_ENDPOINT, or try again later",
            code=NETWORK_FAILED,
        ) from None


def failure(hub: Any, where: str, error: Exception) -> TaluError:
    """The talu error for any other failure of a request or download."""
    for cause in (error, error.__cause__):
        if isinstance(cause, hub.errors.HfHubHTTPError):
            status = cause.response.status_code
            if status in (401, 403):
                return ModelNotFoundError(
                    f"access to {where} was refused (HTTP {status}); check HF_TOKEN",
                    code=ACCESS_DENIED,
                )
            return TaluIOError(
                f"the hub cannot serve {where} now (HTTP {status}); try again later",
                code=NETWORK_FAILED,
            )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(hub, "the download could not be written, and will be continued")
    if isinstance(error, OSError) and error.errno is not None:
        return TaluIOError(
            f"cannot write to the hub's cache {hub.constants.HF_HUB_CACHE}: {error.strerror}; "
            "set HF_HOME to a writable folder",
            code=WRITE_FAILED,
        )
    return TaluIOError(
        f"cannot download {where} ({type(error).__name__}); check the network, HF_ENDPOINT and "
        "HF_TOKEN. A cached model opens without a network",
        code=NETWORK_FAILED,
    )


def address(hub: Any) -> str:
    """The hub's URL without its password."""
    return re.sub("//[^/]*@", "//", hub.constants.ENDPOINT)


def no_space(hub: Any, why: str) -> TaluIOError:
    """The error for a full disk."""
    return TaluIOError(
        f"the disk of {hub.constants.HF_HUB_CACHE} is full: {why}; "
        "make room, or set HF_HOME to a folder on another disk",
        code=WRITE_FAILED,
    )
