"""Write a training state as an ordinary Hugging Face folder.

python export.py --run RUN_FOLDER --out CHECKPOINT_FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from network import CONFIG, Pocket
from safetensors.torch import save

GENERATION = {
    "do_sample": True,
    "temperature": 0.3,
    "top_p": 0.9,
    "eos_token_id": [2, 0],
    "pad_token_id": 0,
    "max_new_tokens": 256,
}


def write(model: Pocket, run: Path, out: Path) -> None:
    """Write weights in bfloat16, configuration and tokenizer, each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    files = {
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "config.json": _json(CONFIG),
        "generation_config.json": _json(GENERATION),
        "tokenizer.json": (run / "tokenizer.json").read_bytes(),
        "tokenizer_config.json": (run / "tokenizer_config.json").read_bytes(),
    }
    for name, content in files.items():
        part = out / f"{name}.part"
        part.write_bytes(content)
        part.replace(out / name)


def _json(values: dict[str, object]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def main() -> None:
    """Write the last saved state of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = Pocket()
    model.load_state_dict(torch.load(options.run / "state.pt", weights_only=True)["model"])
    write(model, options.run, options.out)


if __name__ == "__main__":
    main()
