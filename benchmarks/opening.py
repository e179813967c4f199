"""How long a program waits for the first token: fresh processes, talu and its peers in turn.

    python benchmarks/opening.py [--threads 2] [--rounds 7] [--json] [MODEL ...]

Every process imports its library, opens the model, and generates one token after a short prompt.
The files are in the page cache, and talu's packed weights and the .pyc files exist, because the
first round is not counted. A chat also renders the model's template. llama.cpp takes part for GGUF
files. "Own" memory has been written by the process; the rest are pages of files, which all
processes with the same model share.
"""

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from command import Report, options, spread
from make_checkpoint import default_folder

MARK = """
import sys, time
def mark(name):
    print(name, time.monotonic(), time.process_time(), flush=True)
model, threads = sys.argv[1], int(sys.argv[2])
"""
TALU = """
import talu
client = talu.Client(talu.ModelSpec(model, talu.LocalBackend(num_threads=threads)))
mark("import")
"""
COMPLETE = "client.raw_complete('Hello', max_tokens=1)\n"
CHAT = "next(iter(client.stream('Hello', max_tokens=1)), None)\n"
LLAMA_CPP = """
import json, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = model
params.n_ctx, params.cpuparams.n_threads, params.warmup = 512, threads, False
params.cpuparams_batch.n_threads, params.n_parallel, params.verbosity = threads, 1, 0
mark("import")
server = xllamacpp.Server(params)
server.handle_completions({"prompt": "Hello", "n_predict": 1})
"""
DONE = """
mark("first")
rows = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup") if ":" in line)
own = int(rows["Private_Dirty"].split()[0])
print("memory", int(rows["Rss"].split()[0]) << 10, own << 10, flush=True)
"""
PROGRAMS = {
    "talu, completion": MARK + TALU + COMPLETE + DONE,
    "talu, chat": MARK + TALU + CHAT + DONE,
    "llama.cpp": MARK + LLAMA_CPP + DONE,
}


@dataclass
class Times:
    """What the processes of one program needed, in seconds and bytes; a figure for each round."""

    model: str
    program: str
    import_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    own_bytes: list[int] = field(default_factory=list)


def run(program: str, model: Path, threads: int, times: Times | None) -> str:
    """Run a program in a process of its own; returns why it failed, or nothing."""
    command = [sys.executable, "-c", PROGRAMS[program], str(model), str(threads)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or ["no message"])[-1][:200]
    found = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines() if line}
    if times is not None:
        times.import_s.append(float(found["import"][0]) - start)
        times.first_s.append(float(found["first"][0]) - start)
        times.processor_s.append(float(found["first"][1]))
        times.resident_bytes.append(int(found["memory"][0]))
        times.own_bytes.append(int(found["memory"][1]))
    return ""


def measure(model: Path, threads: int, rounds: int) -> list[Times]:
    """Run all programs that can open the model, in turn in every round."""
    names = [name for name in PROGRAMS if name != "llama.cpp" or runs_llama_cpp(model)]
    results = []
    for name in names:
        if why := run(name, model, threads, None):  # packs, reads the files, writes .pyc files
            print(f"{model.name}: {name} is left out: {why}", file=sys.stderr)
        else:
            results.append(Times(model.name, name))
    for _ in range(rounds):
        for times in results:
            run(times.program, model, threads, times)
    return results


def runs_llama_cpp(model: Path) -> bool:
    """Whether llama.cpp is installed and reads this file."""
    return model.suffix == ".gguf" and importlib.util.find_spec("xllamacpp") is not None


def lines(results: list[Times]) -> list[str]:
    """The table of one model."""
    found = ["", results[0].model]
    for times in results:
        resident, own = (
            statistics.median(each) / 1e6 for each in (times.resident_bytes, times.own_bytes)
        )
        found.append(
            f"  {times.program:17} first token {spread(times.first_s, 3)} s, "
            f"import {statistics.median(times.import_s):.3f} s, "
            f"processor {spread(times.processor_s, 3)} s, "
            f"resident {resident:.0f} MB, own {own:.0f} MB"
        )
    return found


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=7)
    parser.add_argument("models", nargs="*", type=Path, default=[default_folder()])
    arguments = parser.parse_args()
    title = "import, open and first token, from the start of the process: median (range)"
    report = Report(arguments, title)
    results = []
    for model in arguments.models:
        times = measure(model, arguments.threads, arguments.rounds)
        results += times
        for line in lines(times) if times else ():
            report.line(line)
    report.end(results)


if __name__ == "__main__":
    main()
