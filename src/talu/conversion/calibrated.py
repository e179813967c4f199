"""Learns on the sample texts which errors of a model's weights matter, for its conversion."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from talu.conversion.original import Original
from talu.engine.calibration import Calibration, Calibrator
from talu.tokenizer.tokenizer import Tokenizer

__all__ = ["Factor", "calibrator", "unknown"]

Factor = Callable[[str], NDArray[np.float32] | None]  # of the inputs of a weight, if it is known


def calibrator(original: Original, encodings: Mapping[str, str], target: str) -> Calibrator:
    """Gives the factors of the inputs of the weights, which are asked for in network order.

    Args:
        original: the model.
        encodings: of the weights that are quantised, by their names.
        target: name of the format, for errors.

    Raises:
        TokenizerError: the tokenizer is missing or damaged, or reads nothing in the texts.
    """
    architecture = original.architecture
    tokenizer = Tokenizer(original.source.tokenizer(lower_case=architecture.lower_case))
    calibration = Calibration(architecture.graph, tokenizer, architecture.context_length)
    layout = {
        name: encodings.get(name, original.tensors[name].encoding.name).lower()
        for name in architecture.graph.weights
    }
    return Calibrator(calibration, original.tensors, layout, 0, target)


def unknown(weight: str) -> None:
    """The factor of inputs that are not known."""
