"""What a figure was measured on."""

import os
import platform
import subprocess
from pathlib import Path


def machine() -> str:
    """Processor, cores and load: what else runs decides more than the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{name}, {os.cpu_count()} cores, load {load}, {platform.platform()}"


def commit() -> str:
    """The state of the working tree."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
