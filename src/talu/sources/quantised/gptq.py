"""Reads matrices in the layout of GPTQ: columns as rows, 32-bit words along them.

https://github.com/ModelCloud/GPTQModel
"""

from collections.abc import Mapping
from typing import Final

from talu.error_text import shown
from talu.sources.quantised.columns import (
    group_order,
    read_group_size,
    stream_of_columns,
    zeros_of_columns,
)
from talu.sources.quantised.groups import Groups
from talu.sources.quantised.modules import FLOATS, Module
from talu.sources.quantised.rows import Computed, transposed
from talu.sources.settings import Settings
from talu.weights.tensors import Tensor

__all__ = ["Gptq"]

BITS = (2, 3, 4, 8)
# What is added to a stored zero point, by the format of the file.
FORMATS = {"gptq": 1, "gptq_v2": 0}
MOST_RULES = 10_000  # of `dynamic`


class Gptq:
    """A folder that AutoGPTQ, GPTQModel or optimum wrote; see ``Method``.

    The tensors show bits, groups and order of each module; the settings are compared with them.
    """

    words: Final = ("qweight", "qzeros", "scales", "g_idx")

    def __init__(self, section: Settings) -> None:
        """Read the settings.

        Raises:
            ModelError: a setting is missing, out of range or not supported.
        """
        self._section = section
        key = "checkpoint_format" if section.has("checkpoint_format") else "format"
        self._more = FORMATS[section.word(key, list(FORMATS), default="gptq")]
        section.word("pack_dtype", ["int32"], default="int32")
        if section.has("is_marlin_format") and section.flag("is_marlin_format"):
            raise section.error("is_marlin_format", "is true: only the format of GPTQ is supported")
        self._known = {read_layer(section, None)}
        if section.has("dynamic"):
            self._known |= self._read_rules(section.value("dynamic"))

    def _read_rules(self, rules: object) -> set[tuple[int, int]]:
        """Bits and group sizes of the rules for single modules.

        Which modules a rule is for is a regular expression, and not needed: the tensors show it.
        """
        if not isinstance(rules, dict) or len(rules) > MOST_RULES:
            raise self._section.error("dynamic", f"must be an object of rules, got {shown(rules)}")
        section, (usual,) = self._section.section("dynamic"), self._known
        return {
            read_layer(section.section(rule), usual)
            for rule, value in rules.items()
            if isinstance(value, Mapping) and not rule.startswith("-:")
        }

    def matrix(self, module: Module) -> Tensor | None:
        """See ``Method``."""
        if not {"qweight", "qzeros", "g_idx"} & module.tensors.keys():
            return None
        scales = module.tensor("scales", FLOATS)
        zeros = module.tensor("qzeros", ["I32"])
        groups, rows = scales.shape
        bits, rest = divmod(zeros.shape[1] * 32, rows)
        if rest or bits not in BITS or zeros.shape[0] != groups:
            raise zeros.error(
                f"has shape {zeros.shape}, which does not match scales of shape {scales.shape}"
            )
        weight = module.tensor("qweight", ["I32"])
        columns, rest = divmod(weight.shape[0] * 32, bits)
        if rest or weight.shape[1] != rows:
            raise weight.error(
                f"has shape {weight.shape}, which does not match scales of shape {scales.shape} "
                f"and {bits} bits"
            )
        size = self._group_size(module, scales, bits, columns)
        return Groups(
            name=f"{module.name}.qweight",
            file=weight.file,
            shape=(rows, columns),
            bits=bits,
            size=size,
            kind="ZEROS",
            scale_type=scales.encoding.name,
            scales=transposed(scales),
            offsets=Computed(rows, groups, zeros_of_columns(zeros, bits, rows, self._more)),
            codes=Computed(rows, weight.shape[0] * 4, stream_of_columns(weight)),
            order=group_order(module, "g_idx", columns, groups, size),
        ).tensor()

    def _group_size(self, module: Module, scales: Tensor, bits: int, columns: int) -> int:
        """Columns of a group, which have to be those of the settings."""
        groups = scales.shape[0]
        if columns % groups:
            raise module.error(f"has {groups} groups for {columns} columns: they are not equal")
        size = columns // groups
        if not {(bits, size), *([(bits, -1)] if groups == 1 else [])} & self._known:
            raise module.error(
                f"has {bits} bits in groups of {size} columns; config.json has other numbers: "
                f"{', '.join(f'{b} bits in groups of {s}' for b, s in sorted(self._known)[:4])}"
            )
        return size


def read_layer(section: Settings, usual: tuple[int, int] | None) -> tuple[int, int]:
    """Bits and columns of a group, -1 for all columns.

    Raises:
        ModelError: a value is missing, or not supported.
    """
    bits = section.integer("bits", 1, 32, default=usual[0] if usual else None)
    if bits not in BITS:
        raise section.error("bits", f"is {bits}; supported are {', '.join(map(str, BITS))}")
    return bits, read_group_size(section, "group_size", default=usual[1] if usual else -1)
