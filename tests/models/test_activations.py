"""Compares the activation functions of networks with transformers.

``tools/golden/make_activations.py`` records the expectations.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
with np.load(GOLDEN / "activations.npz") as file:
    RECORDED = dict(file)
TOLERANCE = {"llama2": 1e-4, "bert": 1e-5}


@pytest.mark.parametrize("case", [name for name in RECORDED if name != "prompt"])
def test_a_network_with_this_activation_gives_the_numbers_of_the_reference(
    run: Any, tmp_path: Path, case: str
) -> None:
    name, activation = case.split()
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    config = json.loads((folder / "config.json").read_text()) | {"hidden_act": activation}
    (folder / "config.json").write_text(json.dumps(config))
    found = run(folder)(RECORDED["prompt"].tolist())
    np.testing.assert_allclose(found, RECORDED[case], rtol=0, atol=TOLERANCE[name])
