"""Opens a GGUF model: one file, or all parts of a model that is split into several.

The first part holds the metadata of the model; every part holds tensors. Parts are named
``NAME-00001-of-00003.gguf``, and each says in its metadata which part it is.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

from talu.error_text import shown
from talu.exceptions import ModelError
from talu.gguf.encodings import encoding
from talu.gguf.header import Header, Metadata, TensorInfo, read_header
from talu.weights.checkpoint import Checkpoint
from talu.weights.files import FileVersion, OpenFile, versions_of
from talu.weights.tensors import FileRows, Tensor

__all__ = ["GgufModel", "Headers", "model_files", "open_gguf", "read_headers"]

PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MAX_PARTS = 1000  # each is an open file


class Headers(NamedTuple):
    """The headers of the files of a model, with the versions of the files."""

    parts: Mapping[Path, Header]
    versions: tuple[FileVersion, ...]

    @property
    def first(self) -> Header:
        """The header that holds the metadata of the model."""
        return next(iter(self.parts.values()))


class GgufModel(NamedTuple):
    """An open GGUF model.

    Attributes:
        headers: what was read of each part, and of which versions of the files.
        tensors: the tensors of all parts by the names that they have in the file, with shapes in C
            order. Closing them closes the files.
    """

    headers: Headers
    tensors: Checkpoint

    @property
    def metadata(self) -> Metadata:
        """Values by key; an array of numbers is a read-only NumPy array."""
        return self.headers.first.metadata

    @property
    def types(self) -> Mapping[str, int]:
        """Numbers of the types of these values in the file."""
        return self.headers.first.types


def model_files(path: Path) -> tuple[Path, ...]:
    """All files of the model that the file at ``path`` is a part of, the first part first.

    A file that does not have the name of a part is not read; ``open_gguf`` refuses it if it is one.

    Raises:
        ModelError: the file cannot be read, or a part is missing.
    """
    return (path,) if PART.fullmatch(path.name) is None else _parts(path, _header(path))


def read_headers(path: Path) -> Headers:
    """The headers of a model, in the order of its parts.

    Args:
        path: its file, or any of its parts.

    Raises:
        ModelError: a file is missing, damaged, or does not belong to the others.
    """
    given = _header(path)
    paths = _parts(path, given)
    versions = versions_of(paths)
    headers = {part: given if part == path else _header(part) for part in paths}
    names: set[str] = set()
    for number, (part, header) in enumerate(headers.items()):
        if len(paths) > 1:
            _check_part(part, header, number, len(paths))
        if twice := names & header.tensors.keys():
            raise ModelError(
                f"{part} has the tensor {shown(min(twice))}, which an earlier part has too"
            )
        names |= header.tensors.keys()
    _check_total(paths[0], headers[paths[0]].metadata, len(names))
    return Headers(headers, versions)


def open_gguf(path: Path, *, use_mmap: bool = True, known: Headers | None = None) -> GgufModel:
    """Open a model.

    Args:
        path: its file, or any of its parts.
        use_mmap: map the files; otherwise what is read of a tensor is in its own memory.
        known: the headers, if they have been read; read again if the files have changed since.

    Raises:
        ModelError: a file is missing, damaged, or does not belong to the others.
    """
    current = known is not None and known.versions == versions_of(known.parts)
    headers = known if known is not None and current else read_headers(path)
    tensors: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for part, header in headers.parts.items():
            file = stack.enter_context(closing(OpenFile(part, use_mmap=use_mmap)))
            tensors |= {name: _tensor(file, name, info) for name, info in header.tensors.items()}
        close = stack.pop_all().close
    checkpoint = Checkpoint(
        str(path),
        tensors,
        files=headers.versions,
        now=partial(versions_of, tuple(headers.parts)),
        close=close,
        described_in="its metadata",
    )
    return GgufModel(headers, checkpoint)


def _parts(path: Path, header: Header) -> tuple[Path, ...]:
    """The files of the model of which the file at ``path`` is a part."""
    count = _split_value(path, header.metadata, COUNT, default=1)
    if count <= 1:
        return (path,)
    if count > MAX_PARTS:
        raise ModelError(f"{path} is split into {count} parts; the maximum is {MAX_PARTS}")
    match = PART.fullmatch(path.name)
    if match is None or int(match[3]) != count or not 0 < int(match[2]) <= count:
        raise ModelError(
            f"{path} is one of {count} parts of a model, so its name must end with "
            f"-00001-of-{count:05}.gguf or the number of another part; give the files their "
            "original names"
        )
    names = [f"{match[1]}-{number:05}-of-{match[3]}.gguf" for number in range(1, count + 1)]
    paths = tuple(path.with_name(name) for name in names)
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        raise ModelError(
            f"{path.parent} lacks {len(missing)} of {count} parts of the model, such as "
            f"{missing[0]}; download all parts to one folder"
        )
    return paths


def _header(path: Path) -> Header:
    file = OpenFile(path, use_mmap=False)
    try:
        return read_header(file)
    finally:
        file.close()


def _tensor(file: OpenFile, name: str, info: TensorInfo) -> Tensor:
    kind = encoding(info.type)
    rows, columns = prod(info.shape[:-1]), info.shape[-1] if info.shape else 1
    parts = {
        part: FileRows(file, info.start, rows, columns // kind.columns * size)
        for part, size in kind.parts.items()
    }
    return Tensor(name=name, file=str(file.path), shape=info.shape, encoding=kind, parts=parts)


def _split_value(path: Path, metadata: Metadata, key: str, *, default: int | None = None) -> int:
    value = metadata.get(key, default)
    if type(value) is not int or value < 0:
        what = "is missing" if value is None else f"is {shown(value)}, not a number"
        raise ModelError(f"{path}: {key!r} {what}; download the part again")
    return value


def _check_part(path: Path, header: Header, number: int, count: int) -> None:
    found = tuple(_split_value(path, header.metadata, key) for key in (NUMBER, COUNT))
    if found != (number, count):
        raise ModelError(
            f"{path} says that it is part {found[0] + 1} of {found[1]}, expected part {number + 1} "
            f"of {count}; download the part again"
        )


def _check_total(path: Path, metadata: Metadata, count: int) -> None:
    total = _split_value(path, metadata, TENSORS, default=count)
    if total != count:
        raise ModelError(
            f"{path} belongs to a model of {total} tensors, but its parts have {count}; "
            "download all parts of one version"
        )
