"""Lists the formats that a model can be converted to."""

from collections.abc import Mapping

from talu.conversion.gguf_target import GGUF_TARGETS
from talu.conversion.mlx_target import MLX_TARGETS
from talu.conversion.plan import Target
from talu.error_text import kind_of, nearest, shown
from talu.exceptions import ConvertError, ValidationError

__all__ = ["TARGETS", "target_named"]

ALL: tuple[Target, ...] = (*GGUF_TARGETS, *MLX_TARGETS)
TARGETS: Mapping[str, Target] = {target.name: target for target in ALL}


def target_named(name: object) -> Target:
    """The format of a name, in lower or upper case.

    Raises:
        ConvertError: there is none.
        ValidationError: it is not a text.
    """
    if not isinstance(name, str):
        raise ValidationError(
            f"a format must be a text, got {kind_of(name)}", details={"param": "to"}
        )
    found = TARGETS.get(name.lower())
    if found is None:
        raise ConvertError(
            f"the format {shown(name)} is unknown{nearest(name.lower(), TARGETS)} (known: "
            f"{', '.join(TARGETS)})",
            code="CONVERT_UNSUPPORTED_FORMAT",
            details={"param": "to", "known": list(TARGETS)},
        )
    return found
