"""Parses model references, opens the backends of models, and chooses between several models.

They are loaded on first use.
"""

from typing import TYPE_CHECKING

from talu.first_use import on_first_use

if TYPE_CHECKING:
    from talu.config import GenerationConfig
    from talu.router.discovery import (
        RemoteModelInfo,
        check_endpoint,
        get_model_ids,
        list_endpoint_models,
    )
    from talu.router.limits import Limits
    from talu.router.policies import (
        ByCapability,
        Cheapest,
        Fallback,
        Fastest,
        First,
        LeastBusy,
        Policy,
        RoundRobin,
        Sticky,
    )
    from talu.router.router import Router
    from talu.router.spec import (
        AnthropicBackend,
        BackendSpec,
        CompletionOptions,
        ModelInput,
        ModelSpec,
        ModelTarget,
        OpenAICompatibleBackend,
    )
    from talu.router.status import RouterStatus, TargetStatus
    from talu.sampling import SamplingParams
    from talu.types import Attempt, Capabilities, LocalBackend, StopFlag

__all__ = [
    "AnthropicBackend",
    "Attempt",
    "BackendSpec",
    "ByCapability",
    "Capabilities",
    "Cheapest",
    "CompletionOptions",
    "Fallback",
    "Fastest",
    "First",
    "GenerationConfig",
    "LeastBusy",
    "Limits",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "ModelTarget",
    "OpenAICompatibleBackend",
    "Policy",
    "RemoteModelInfo",
    "RoundRobin",
    "Router",
    "RouterStatus",
    "SamplingParams",
    "Sticky",
    "StopFlag",
    "TargetStatus",
    "check_endpoint",
    "get_model_ids",
    "list_endpoint_models",
]

HOMES = {
    "talu.config": ("GenerationConfig",),
    "talu.router.discovery": (
        "RemoteModelInfo",
        "check_endpoint",
        "get_model_ids",
        "list_endpoint_models",
    ),
    "talu.router.limits": ("Limits",),
    "talu.router.policies": (
        "ByCapability",
        "Cheapest",
        "Fallback",
        "Fastest",
        "First",
        "LeastBusy",
        "Policy",
        "RoundRobin",
        "Sticky",
    ),
    "talu.router.router": ("Router",),
    "talu.router.spec": (
        "AnthropicBackend",
        "BackendSpec",
        "CompletionOptions",
        "ModelInput",
        "ModelSpec",
        "ModelTarget",
        "OpenAICompatibleBackend",
    ),
    "talu.router.status": ("RouterStatus", "TargetStatus"),
    "talu.sampling": ("SamplingParams",),
    "talu.types": ("Attempt", "Capabilities", "LocalBackend", "StopFlag"),
}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, HOMES)


def __dir__() -> list[str]:
    return __all__
