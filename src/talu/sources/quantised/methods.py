"""Finds out how the weights of a folder are quantised, and makes logical tensors of them."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from talu.error_text import shown
from talu.exceptions import ModelError
from talu.first_use import loaded
from talu.sources.quantised.modules import Module, modules_of
from talu.sources.settings import Settings
from talu.weights.checkpoint import Checkpoint, listed
from talu.weights.tensors import Tensor

__all__ = ["Method", "logical_tensors", "read_method"]

KEYS = ("quantization", "quantization_config", "compression_config")
NOT_CONVERTED = ("modules_to_not_convert", "ignored_layers", "ignore")
SIGNS = ("qweight", "weight_packed")  # tensors of quantised modules only
ADVICE = (
    "talu opens the methods 'gptq', 'awq', 'fp8', 'fbgemm_fp8' and 'compressed-tensors', MLX "
    "folders, and GGUF files; choose one of those for the same model, or its original weights"
)


class Method(Protocol):
    """How the modules of a folder are quantised.

    Attributes:
        words: the last words of the names of all tensors that a quantised module consists of.
    """

    @property
    def words(self) -> Collection[str]:
        """See the attribute."""

    def matrix(self, module: Module) -> Tensor | None:
        """The matrix of a module; None if it is not quantised.

        Raises:
            ModelError: its tensors are incomplete or damaged, or contradict the settings.
        """


METHODS = {  # modules of this folder, and the class of each, which makes a ``Method`` of settings
    "awq": ("awq", "Awq"),
    "compressed-tensors": ("compressed", "Compressed"),
    "fbgemm_fp8": ("float8", "Float8"),
    "fp8": ("float8", "Float8"),
    "gptq": ("gptq", "Gptq"),
    "mlx": ("mlx", "Mlx"),
}


def read_method(settings: Settings) -> tuple[Method, Settings] | None:
    """The method that config.json names, with its section; None if it names none.

    Raises:
        ModelError: the method is not supported, or a setting of it is damaged or not supported.
    """
    settings.ignore(*KEYS)
    given = [key for key in KEYS if settings.raw(key, None) not in (None, {})]
    if not given:
        return None
    key = given[0]
    section = settings.section(key)
    method = "mlx" if key == "quantization" else "compressed-tensors"
    if key == "quantization_config":
        method = read_name(section)
    elif len(given) > 1:
        other = settings.section(given[1])
        if other.has("quant_method") and other.raw("quant_method", "") != method:
            raise settings.error(given[1], f"names another method than {shown(key)}")
    module, name = METHODS[method]
    make: Callable[[Settings], Method] = loaded(f"talu.sources.quantised.{module}", name)
    return make(section), section


def read_name(section: Settings) -> str:
    """The name of the method in ``quantization_config``; mlx-lm writes none.

    Raises:
        ModelError: talu does not have it.
    """
    if not section.has("quant_method"):
        if section.has("bits") and section.has("group_size"):
            return "mlx"
        raise section.error("quant_method", f"is missing: {ADVICE}")
    name = section.value("quant_method")
    if not isinstance(name, str) or name not in METHODS:
        raise section.error("quant_method", f"is {shown(name)}, which is not supported: {ADVICE}")
    return name


def logical_tensors(stored: Checkpoint, settings: Settings) -> Checkpoint:
    """The tensors of a network, in place of those in which quantised matrices are stored.

    Args:
        stored: the tensors of the files.
        settings: the content of config.json.

    Raises:
        ModelError: the tensors of a module are incomplete or damaged, or contradict config.json.
    """
    read = read_method(settings)
    tensors = {name: stored[name] for name in stored.names}
    modules = modules_of(stored.place, tensors)
    if read is None:
        refuse_unknown(stored.place, modules)
        return stored
    method, section = read
    not_converted = names_of(section)
    found: dict[str, Tensor] = {}
    for module in modules:
        matrix = method.matrix(module)
        taken: Collection[str] = () if matrix is None else method.words
        prefix = f"{module.name}." if module.name else ""
        found |= {
            f"{prefix}{word}": each for word, each in module.tensors.items() if word not in taken
        }
        if matrix is not None:
            if module.name in not_converted:
                raise module.error("is named as not quantised in config.json")
            found[f"{prefix}weight"] = matrix
    return stored.replaced(found, meaning=digest(settings))


def digest(settings: Settings) -> str:
    """Identifies the settings that say how the weights are quantised."""
    values = [settings.raw(key, None) for key in KEYS]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def names_of(section: Settings) -> Collection[str]:
    """The modules that are not quantised, as far as they are named in full."""
    for key in NOT_CONVERTED:
        if section.has(key):
            names = section.value(key)
            if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
                raise section.error(key, f"must be a list of names, got {shown(names)}")
            return set(names)
    return ()


def refuse_unknown(place: str, modules: Collection[Module]) -> None:
    """Refuse quantised weights of which config.json does not say how to read them.

    Raises:
        ModelError: there are some.
    """
    found = [module.name for module in modules if is_quantised(module.tensors)]
    if found:
        raise ModelError(
            f"{place}: the weights of {listed(found)} are quantised, but config.json has no "
            "quantization_config, which says how to read them; download the model again"
        )


def is_quantised(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of a module can only be those of a quantised one."""
    weight = tensors.get("weight")
    packed = weight is not None and weight.encoding.name in ("U32", "F8_E4M3")
    return packed or any(sign in tensors for sign in SIGNS)
