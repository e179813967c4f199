"""Converts a model to another format: checks first, then writes, completely or not at all."""

from pathlib import Path

from talu.conversion.destination import Destination
from talu.conversion.original import opened
from talu.conversion.targets import target_named
from talu.descriptions import Conversion
from talu.engine.devices import device_for
from talu.types import LocalBackend
from talu.weights.progress import Progress

__all__ = ["convert_model"]


def convert_model(ref: str, to: object, output: Path, *, force: bool, offline: bool) -> Conversion:
    """Convert a model; see ``talu.router.conversion.convert``.

    Raises:
        ConvertError: the format is unknown or cannot hold the model, the weights are quantised
            already, the output exists, or it cannot be written.
        TaluError: the model cannot be found or opened, or ``TALU_CPU`` is not supported.
    """
    target = target_named(to)
    device_for(LocalBackend()).check()  # the native module encodes the weights
    destination = Destination(output, is_folder=target.is_folder, force=force)
    with opened(ref, offline=offline) as original:
        source = original.source
        destination.check_apart(Path(source.location), source.files)
        plan = target.plan(original)
        destination.check_space(plan.size)
        with (
            destination.writing() as path,
            Progress(f"converting to {target.name}", plan.size) as progress,
        ):
            plan.write(path, progress.add)
            original.tensors.check_unchanged()
    return Conversion(
        path=destination.path,
        format=target.name,
        bytes=plan.size,
        bits_per_weight=8 * plan.tensor_bytes / max(1, plan.parameters),
        notes=(*original.notes, *plan.notes),
    )
