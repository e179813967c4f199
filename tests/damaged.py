"""Damages the weights of a copied checkpoint."""

import json
from pathlib import Path


def with_infinity(path: Path, name: str) -> None:
    """Make the first number of a bf16 tensor in a safetensors file infinite."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    at = 8 + size + json.loads(data[8 : 8 + size])[name]["data_offsets"][0]
    data[at : at + 2] = b"\x80\x7f"
    path.write_bytes(data)
