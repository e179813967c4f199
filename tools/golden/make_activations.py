"""Records what transformers computes from golden checkpoints with other activation functions.

Needs torch and transformers (neither is a dependency of talu)::

    python tools/golden/make_activations.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

GOLDEN = Path(__file__).parents[2] / "tests" / "models" / "golden"
PROMPT = [5, 9, 3, 7, 11, 2, 8]
CASES = [
    (name, activation)
    for name in ("llama2", "bert")
    for activation in ("gelu_fast", "gelu_python", "quick_gelu", "relu")
]


def computed(folder: Path) -> np.ndarray:
    """The logits of a decoder, or the hidden states of an encoder."""
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        if json.loads((folder / "config.json").read_text())["model_type"] == "bert":
            model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
            return model(ids).last_hidden_state[0].numpy()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model(ids).logits[0].numpy()


def main() -> None:
    """Write one file with an array for each case."""
    recorded = {"prompt": np.array(PROMPT)}
    for name, activation in CASES:
        with tempfile.TemporaryDirectory() as path:
            folder = Path(shutil.copytree(GOLDEN / name, Path(path) / name))
            config = json.loads((folder / "config.json").read_text()) | {"hidden_act": activation}
            (folder / "config.json").write_text(json.dumps(config))
            recorded[f"{name} {activation}"] = computed(folder)
    np.savez_compressed(GOLDEN / "activations.npz", **recorded)


if __name__ == "__main__":
    main()
