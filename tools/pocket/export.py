"""Write a training state as an ordinary Hugging Face folder.

python export.py --run RUN_FOLDER --out CHECKPOINT_FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from network import CONFIG, Pocket
from safetensors.torch import save_file

GENERATION = {
    "do_sample": True,
    "temperature": 0.3,
    "top_p": 0.9,
    "eos_token_id": [2, 0],
    "pad_token_id": 0,
    "max_new_tokens": 256,
}


def write(model: Pocket, run: Path, out: Path) -> None:
    """Write weights in bfloat16, configuration and tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    for name, values in (("config.json", CONFIG), ("generation_config.json", GENERATION)):
        (out / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(run / name, out / name)


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
