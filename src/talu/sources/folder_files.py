"""Lists the files of a model folder other than config.json and the weights."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from talu.error_text import reason
from talu.exceptions import ModelError
from talu.sources.folder_on_hub import MODULES, OPTIONAL, STEPS

__all__ = ["is_other_file", "other_files"]

TEXTS = (  # for people: the model card and the licence
    *("LICENCE*", "LICENSE*", "MODEL_CARD.md", "NOTICE*", "README.md", "USE_POLICY.md"),
)
OLD_TOKENIZERS = ("merges.txt", "tokenizer.model", "vocab.json", "vocab.txt")
TEMPLATES = "additional_chat_templates/*.jinja"
PATTERNS = (*OPTIONAL, *MODULES, *STEPS, *TEXTS, *OLD_TOKENIZERS, TEMPLATES)
MAX_BYTES = 2**28  # of a file; the largest known tokenizer.json has 40 MB
MAX_FILES = 256


def other_files(folder: Path) -> Mapping[str, Path]:
    """The files by their names in the folder, sorted; files of unknown names are left out.

    Raises:
        ModelError: a file is a link to another place, or far larger than any known one, or there
            are far too many.
    """
    try:
        found = sorted(
            path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()
        )
        places = allowed_places(folder)
        files = {path.relative_to(folder).as_posix(): path for path in found}
        for path in files.values():
            real = path.resolve(strict=True)
            if not any(real.is_relative_to(place) for place in places):
                raise ModelError(
                    f"{path} is a link to a file outside of the model's folder, which is not "
                    "copied; put the file itself there"
                )
            if real.stat().st_size > MAX_BYTES:
                raise ModelError(f"{path} has more than {MAX_BYTES:,} bytes; it is not copied")
    except OSError as error:
        raise ModelError(f"the files in {folder} cannot be read: {reason(error)}") from error
    if len(files) > MAX_FILES:
        raise ModelError(f"{folder} has {len(files)} files beside its weights; it is not copied")
    return files


def is_other_file(name: str) -> bool:
    """Whether ``other_files`` would list a file of this name."""
    return any(fnmatchcase(name, pattern) for pattern in PATTERNS)


def allowed_places(folder: Path) -> list[Path]:
    """The folder, and where the hub's cache keeps the files that a snapshot links to."""
    real = folder.resolve(strict=True)
    snapshots = real.parent
    return [real, snapshots.parent / "blobs"] if snapshots.name == "snapshots" else [real]
